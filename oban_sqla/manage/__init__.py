"""Managing jobs that are in the table: cancel, retry, delete, update."""
