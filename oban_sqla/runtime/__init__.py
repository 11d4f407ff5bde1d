"""The services that run in a node. The supervisor starts and stops them."""
