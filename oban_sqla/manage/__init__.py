"""Manage stored jobs: cancel, retry, delete, update."""
