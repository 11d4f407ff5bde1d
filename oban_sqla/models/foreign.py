"""The message for tables of another Oban that oban_sqla can't use."""

ERRORS_AS_ARRAY = (
    "the table oban_jobs was made by Oban for Elixir: its column errors is jsonb[] instead of"
    " jsonb, which oban_sqla can't write. Nothing was changed. Install the tables in a schema of"
    " their own (prefix), or, if no Elixir node uses the table any more, convert it as the docs"
    " say in 'Next to Oban'"
)
