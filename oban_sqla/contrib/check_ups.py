"""Check-ups: the leader runs the doctor every 5 minutes, if an event has listeners."""

import time

from ..events import DoctorStop, emit, listened
from ..migrations import LATEST
from ..oban import Oban
from ..runtime.service import Service

INTERVAL = 300.0
"""Seconds between two check-ups."""
# Seconds until a node that is not the leader checks again whether it leads.
IDLE_INTERVAL = 15.0


class CheckUps(Service):
    """Emits the number of problems that the doctor finds, by check."""

    name = "check-ups"

    def __init__(self, oban: Oban) -> None:
        super().__init__(lambda name, data: emit(oban, name, data))
        self._oban = oban

    async def run_once(self) -> float:
        """Run the doctor, if this node is the leader and `doctor_stop` has listeners."""
        if not self._oban.is_leader or not listened(self._oban, "doctor_stop"):
            return IDLE_INTERVAL
        started = time.monotonic()
        problems: dict[str, int] = {}
        for finding in await self._oban.examine(latest=LATEST):
            found = finding.level == "problem"
            problems[finding.check] = problems.get(finding.check, 0) + found
        self._emit("doctor_stop", DoctorStop(problems, time.monotonic() - started))
        return INTERVAL
