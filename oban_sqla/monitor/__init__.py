"""The monitor: what the nodes and the queues do, and which jobs there are."""
