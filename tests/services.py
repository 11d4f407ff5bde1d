"""The services of a running node, for tests that call one pass or look at one service."""

from oban_sqla import Oban
from oban_sqla.runtime.supervisor import Supervisor


def services(oban: Oban) -> Supervisor:
    """The services of an instance that has queues: `await services(oban).orders.run_once()`."""
    supervisor = oban._supervisor
    assert supervisor is not None, "the instance has no queues, or does not run"
    return supervisor
