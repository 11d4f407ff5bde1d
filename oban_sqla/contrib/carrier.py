"""Put the context of a trace into a job's meta, where the worker's side finds it."""

from collections.abc import Collection, Mapping

from ..models import Job


class _Injected(str):
    """A value that we put into a meta: a job that is enqueued anew gets another one."""

    __slots__ = ()


def inject(job: Job, carrier: Mapping[str, str], keys: Collection[str], own: str) -> None:
    """Put a context into a new job, unless the caller gave it one, under the key `own`.

    keys: all keys that a context may have; what an earlier enqueue put there goes.
    """
    # Past the instrumentation: a new job has no history, and these values need no check.
    meta = vars(job).get("meta")
    if not isinstance(meta, Mapping):
        return
    kept = {
        key: value
        for key, value in meta.items()
        if key not in keys or not isinstance(value, _Injected)
    }
    if own not in kept:
        injected = {key: _Injected(value) for key, value in carrier.items() if key not in kept}
        vars(job)["meta"] = {**kept, **injected}
