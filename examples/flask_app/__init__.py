"""Bookmarks on Flask, with synchronous sessions. Background jobs read the titles of pages."""
