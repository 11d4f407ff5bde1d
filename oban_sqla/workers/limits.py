"""Check the limits and rates of declared workers."""

import inspect
from collections.abc import Iterable

from ..limiting import Limit, Rate
from .declaration import Declaration


def refuse_other_terms(worker: Declaration, others: Iterable[Declaration]) -> None:
    """`ValueError` if another worker declares a limit or rate of this name with other terms."""
    for option in ("limit", "rate"):
        own: Limit | Rate | None = getattr(worker, option)
        if own is None or own.name is None:
            continue
        for other in others:
            known: Limit | Rate | None = getattr(other, option)
            # The same origin means that a module was reloaded.
            same = known is None or known.name != own.name or other.origin == worker.origin
            if known is not None and not same and known.terms != own.terms:
                raise ValueError(
                    f"{worker.origin} has {own!r}, and {other.origin} has {known!r}: one {option}"
                    f" of the name {own.name!r} can't have two definitions; share one object"
                )


def check_arguments(worker: Declaration, signature: inspect.Signature) -> None:
    """`ValueError` if a limit or a rate counts by an argument that the job function lacks."""
    taken = signature.parameters
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in taken.values()):
        return
    for option in ("limit", "rate"):
        own: Limit | Rate | None = getattr(worker, option)
        if own is None or not isinstance(own.by, str):
            continue
        name, *_ = own.by.split(".")
        if name not in taken:
            names = ", ".join(taken) or "none"
            raise ValueError(
                f"{option} of {worker.origin} counts by {own.by!r}, which is not one of its"
                f" arguments; there are {names}"
            )
