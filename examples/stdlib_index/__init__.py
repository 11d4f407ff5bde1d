"""Index the standard library of the running interpreter, with a background job for each file."""
