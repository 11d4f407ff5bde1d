"""`python -m oban_sqla.cli`: the command line, if the script `oban-sqla` is not on the path."""

from . import main

main()
