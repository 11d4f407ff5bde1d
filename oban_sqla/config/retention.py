"""`Retention`: how long finished jobs are kept."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from .values import is_number
from .worker_names import names_of

DAY = 86400.0

RETAINED = ("completed", "cancelled", "discarded")
"""The finished states, the same as `models.state.FINISHED`."""

RetentionConfig = float | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Retention:
    """How many seconds finished jobs are kept, by state; `None` for ever."""

    states: Mapping[str, float | None]
    workers: Mapping[str, Mapping[str, float | None]]
    """The seconds for the jobs of single workers, by the name of the worker and by state."""

    @classmethod
    def parse(cls, given: RetentionConfig, complain: Callable[[str], None]) -> "Retention":
        """Parse seconds for all states, or a mapping of states, with a key `workers`.

        `workers` maps workers (their names, classes or functions) to seconds or states. Seconds of
        a worker apply to all states that are not kept for ever, or to all states if there are none.
        """
        states: Any = given
        workers: Any = {}
        if isinstance(given, Mapping):
            states = {key: given[key] for key in given if key != "workers"}
            workers = given.get("workers", {})
        states = _retained("retention", states, dict.fromkeys(RETAINED, DAY), complain)
        if not isinstance(workers, Mapping):
            complain(f"retention of workers must map their names to seconds, not {workers!r}")
            workers = {}
        named = {}
        for worker, own in workers.items():
            for name in names_of(worker):
                if isinstance(name, str) and name:
                    where = f"retention of worker {name!r}"
                    # A state that is kept for ever keeps its jobs, unless a worker names the state.
                    endless = {state for state in RETAINED if states.get(state, 0) is None}
                    named[name] = _retained(where, own, states, complain, endless)
                else:
                    complain(f"retention of workers must name a worker, not {worker!r}")
        return cls(states, named)


def _retained(
    where: str,
    given: Any,
    default: Mapping[str, float | None],
    complain: Callable[[str], None],
    endless: Collection[str] = (),
) -> dict[str, float | None]:
    all_states = [state for state in RETAINED if state not in endless] or RETAINED
    chosen = given if isinstance(given, Mapping) else dict.fromkeys(all_states, given)
    for state, seconds in chosen.items():
        if state not in RETAINED:
            complain(f"{where} has no state {state!r}; there are {', '.join(RETAINED)}")
        elif seconds is not None and not (is_number(seconds) and seconds >= 0):
            complain(f"{where} must be seconds, 0 or more, or None for ever, not {seconds!r}")
    return {**default, **chosen}
