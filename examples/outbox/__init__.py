"""An example: a partner hears of every change of an order, though it fails half of the time."""
