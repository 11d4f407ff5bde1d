"""The icons of the pages."""

from collections.abc import Mapping

ICONS: Mapping[str, str] = {
    "alert": "M12 3 2 20h20ZM12 10v4m0 3v.1",
    "arrow-left": "M19 12H5m6-6-6 6 6 6",
    "arrow-right": "M5 12h14m-6-6 6 6-6 6",
    "available": "M12 3a9 9 0 1 0 .1 0Z",
    "cancelled": "M12 3a9 9 0 1 0 .1 0ZM6 6l12 12",
    "check": "M5 13l4 4L19 7",
    "completed": "M12 3a9 9 0 1 0 .1 0ZM8 12l3 3 5-6",
    "cron": "M4 6h16v14H4ZM4 10h16M8 3v4m8-4v4m-4 6v3l2 1",
    "discarded": "M8 3h8l5 5v8l-5 5H8l-5-5V8ZM9 9l6 6m0-6-6 6",
    "edit": "M4 20h4L19 9l-4-4L4 16Z",
    "errors": "M12 3 2 20h20ZM12 10v4m0 3v.1",
    "executing": "M12 3a9 9 0 1 0 .1 0ZM10 8l6 4-6 4Z",
    "info": "M12 3a9 9 0 1 0 .1 0ZM12 11v5m0-8v.1",
    "jobs": "M4 5h16M4 12h16M4 19h10",
    "leader": "M4 18h16M4 15 3 7l5 4 4-7 4 7 5-4-1 8Z",
    "overview": "M4 20V10m6 10V4m6 16v-7m4 7H2",
    "pause": "M8 5v14m8-14v14",
    "play": "M7 5l12 7-12 7Z",
    "queues": "M4 6h10M4 12h16M4 18h7m9-14v4m-2-2h4",
    "retry": "M20 5v5h-5M19.5 10A8 8 0 1 0 20 14",
    "retryable": "M20 5v5h-5M19.5 10A8 8 0 1 0 20 14",
    "scale": "M4 18 9 9l4 5 3-5 4 9Z",
    "scheduled": "M12 3a9 9 0 1 0 .1 0ZM12 7v5l3 2",
    "search": "M10.5 4a6.5 6.5 0 1 0 .1 0ZM15.5 15.5 21 21",
    "suspended": "M12 3a9 9 0 1 0 .1 0ZM10 9v6m4-6v6",
    "theme": "M12 3a9 9 0 1 0 .1 0ZM12 3v18",
    "trash": "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13M10 11v5m4-5v5",
    "workflows": "M3 4h6v5H3Zm12 11h6v5h-6ZM15 4h6v5h-6ZM9 6.5h6M18 9v6",
}
"""SVG paths by name, in a square of 24. The icon of a state has the name of the state."""
