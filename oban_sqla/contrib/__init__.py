"""Listeners of the events, and nothing else."""
