"""Other programs may write any number into the limits of a job: it delays no other job."""

from copy import deepcopy
from typing import Any

import pytest

from oban_sqla import Limit, Oban, Rate, job
from tests.conftest import Add, StartOban
from tests.listening import hear

NEVER: dict[str, Any] = {"poll_interval": 3600.0, "fallback_interval": 3600.0}
BEYOND_FLOATS = 10**400


@job(name="numbers.limited", queue="numbers", limit=Limit(2, by="key"))
async def limited(key: int) -> None: ...


@job(name="numbers.rated", queue="numbers", rate=Rate(1000, per=1, burst=5))
async def rated() -> None: ...


def changed(kind: str, field: str, value: int) -> Any:
    """A job with another number in its limit or rate, and with a key of its own."""
    made = rated.new() if kind == "rate" else limited.new(0)
    meta = deepcopy(made.meta)
    odd = f"{kind} {field} {value}"
    meta["oban_sqla_limits"][kind] |= {field: value, "id": odd}
    meta["partition_key"] = odd
    made.meta = meta
    return made


VALUES = (0, -1, 2**31 - 1, 2**31, BEYOND_FLOATS, -BEYOND_FLOATS)


@pytest.mark.parametrize(
    ("kind", "field"),
    [("limit", "allowed"), *[("rate", name) for name in ("allowed", "burst", "period", "weight")]],
)
async def test_invalid_numbers_in_meta_stop_no_other_job(
    start: StartOban, add: Add, kind: str, field: str
) -> None:
    await add(*(changed(kind, field, value) for value in VALUES))
    others = await add(limited.new(1), limited.new(2), rated.new())
    with hear(Oban, "job_stop") as stops:
        await start(queues={"numbers": 10}, **NEVER)
        while not {*others} <= {stop.job.id for stop in stops.events}:
            await stops.wait(len(stops.events) + 1)
