"""Logs, metrics and traces: all modules here only listen to events."""
