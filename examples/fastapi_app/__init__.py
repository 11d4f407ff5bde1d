"""A small shop on FastAPI. Background jobs send mails, pack orders and close each day."""
