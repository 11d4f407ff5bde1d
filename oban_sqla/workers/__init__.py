"""Declaring work: classes, functions and models that process jobs."""
