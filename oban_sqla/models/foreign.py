"""What another Oban has made differently, so that it can't be used as it is."""

ERRORS_AS_ARRAY = (
    "the table oban_jobs is one of Oban for Elixir, whose column errors is jsonb[] instead of"
    " jsonb; oban_sqla can't write it, and nothing was changed. Install the tables in a schema of"
    " their own (prefix), or, if no node of Elixir uses the table any more, convert it as the docs"
    " say in 'Next to Oban'"
)
