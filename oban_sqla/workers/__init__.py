"""Declare workers: classes, functions and models that process jobs."""
