"""The ways in: through a session's unit of work, or through a connection at once."""
