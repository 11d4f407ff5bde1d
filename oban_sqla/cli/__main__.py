"""`python -m oban_sqla.cli`, where the script `oban-sqla` is not on the path."""

from . import main

main()
