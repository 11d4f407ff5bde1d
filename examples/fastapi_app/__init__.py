"""A small shop on FastAPI, whose mails, packing and nightly closing are background jobs."""
