"""Put the context of a trace into a job's meta, so that the node that runs it can continue it."""

from collections.abc import Collection, Mapping

from ..models import Job
from ..models.instrumentation import values_of


class _Injected(str):
    """A value that `inject` put into a meta. It is replaced if the job is enqueued again."""

    __slots__ = ()


def inject(job: Job, carrier: Mapping[str, str], keys: Collection[str], own: str) -> None:
    """Put the context `carrier` into a new job, unless its caller already set the key `own`.

    keys: all keys of contexts. Values that an earlier enqueue injected are removed.
    """
    # Bypasses the instrumentation: a new job has no history, and these values need no check.
    meta = values_of(job).get("meta")
    if not isinstance(meta, Mapping):
        return
    kept = {
        key: value
        for key, value in meta.items()
        if key not in keys or not isinstance(value, _Injected)
    }
    if own not in kept:
        injected = {key: _Injected(value) for key, value in carrier.items() if key not in kept}
        values_of(job)["meta"] = {**kept, **injected}
