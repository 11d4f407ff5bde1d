"""An outbox: a partner gets every change of an order, although its server often fails."""
