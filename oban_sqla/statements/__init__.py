"""One SQLAlchemy Core statement for each transition of a job. Nothing here does I/O."""
