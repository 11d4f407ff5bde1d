"""Bookmarks on Flask, with synchronous sessions: background jobs find out the titles of pages."""
