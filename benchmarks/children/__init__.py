"""Modules that run in processes of their own, started by `child.Child`."""
