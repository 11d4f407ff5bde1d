"""Every transition of a job as one SQLAlchemy Core statement. Nothing here does I/O."""
