"""Sphinx: the pages are Markdown. `generate.py` writes the reference from the code.

`tox -e docs` builds them into build/docs, with warnings as errors, without a network.
"""

from oban_sqla import __version__

project = "oban_sqla"
author = "the authors of oban_sqla"
version = release = __version__

extensions = ["myst_parser"]
html_theme = "furo"
html_title = f"oban_sqla {release}"
html_copy_source = False

myst_heading_anchors = 3
# GitHub shows the same files: fences there have the names of languages.
suppress_warnings = ["myst.header"]
