"""Chains: the jobs of a worker with the same key run strictly one after the other."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from . import validation
from .notation import KEY, MODEL

OnDiscard = Literal["go_on", "hold", "cancel"]

ENTRY, POLICY = "chain_id", "chain"
"""The keys in the meta of a job: one for its chain, one for `on_discard`."""

LONGEST = 200
"""The most characters of a stored key. Of a longer key, only the digest is stored."""


@dataclass(frozen=True, slots=True)
class Chain:
    """Which jobs run one after the other, in the order in which they were committed.

    by: the name of an argument, or several names; jobs with equal values are in the same chain.
        Without a name, all jobs of the worker are in one chain.
    on_discard: what happens to the chain when one of its jobs is discarded. The next job runs
        (`go_on`), waits until the discarded one is retried or deleted (`hold`), or is cancelled
        with all others that wait (`cancel`).
    """

    by: str | Iterable[str] = ()
    on_discard: OnDiscard = "go_on"

    def __post_init__(self) -> None:
        by = (self.by,) if isinstance(self.by, str) else tuple(self.by)
        if not all(isinstance(name, str) and name for name in by):
            raise TypeError(f"chain: by must be names of arguments, not {validation.show(self.by)}")
        object.__setattr__(self, "by", by)
        if self.on_discard not in get_args(OnDiscard):
            choices = ", ".join(map(repr, get_args(OnDiscard)))
            raise ValueError(
                f"chain: on_discard must be one of {choices}, not"
                f" {validation.show(self.on_discard)}"
            )

    def entry(self, worker: str, args: Mapping[str, Any]) -> dict[str, str]:
        """The entries for the meta of a job with these arguments.

        `ValueError` for arguments without one of the names, and for an instance without a key.
        """
        values = []
        for name in self.by:
            if name not in args:
                raise ValueError(
                    f"{worker}: chain={name!r} needs that argument, and the job has none"
                )
            values.append(args[name])
            if isinstance(args[name], Mapping) and MODEL in args[name] and not args[name][KEY]:
                raise ValueError(f"{worker}: chain={name!r}: flush the instance first")
        key = f"{worker}:{json.dumps(values, sort_keys=True)}"
        if len(key) > LONGEST:
            key = f"{worker}:{hashlib.sha256(key.encode()).hexdigest()}"
        return {ENTRY: key, POLICY: self.on_discard}


def chain_option(value: object) -> Chain | None:
    """Check the option `chain`: a `Chain`, names of arguments, or `True` for all jobs."""
    if value is None or value is False:
        return None
    if isinstance(value, Chain):
        return value
    if value is True:
        return Chain()
    if isinstance(value, Iterable):  # a string, too
        return Chain(value)
    raise TypeError(
        f"chain must be a Chain, the name of an argument, several, or True, not"
        f" {validation.show(value)}"
    )
