"""Workflows: graphs of jobs, as objects of a session."""
