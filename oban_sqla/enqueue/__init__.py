"""Enqueue jobs: through a session's unit of work, or at once through another connection."""
