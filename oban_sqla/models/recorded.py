"""Recorded values: the JSON that a worker returned as `Record(value)`, in the meta of its job."""

from typing import Any

RECORDED_AS = "json"
"""`meta["recorded"]` of a value that we recorded as JSON. Oban Pro stores `true` there."""


def recorded_value(meta: Any, who: object) -> Any:
    """The recorded value in a job's meta; `None` if there is none.

    `ValueError` that names `who` for a value that Oban Pro or oban-py recorded, as an Erlang term.
    """
    # Other programs may have written any JSON into meta.
    how = meta.get("recorded") if isinstance(meta, dict) else None
    if not how:
        return None
    if how != RECORDED_AS:
        raise ValueError(
            f"{who} was recorded by another Oban, as an Erlang term; decode job.meta['return']"
            " yourself"
        )
    return meta.get("return")
