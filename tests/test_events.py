"""Telemetry through SQLAlchemy's event system."""

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import Oban
from oban_sqla.events import NotifierRestored, emit
from tests.listening import hear


def test_a_listener_hears_one_instance_or_all_of_them(engine: AsyncEngine) -> None:
    one, other = Oban(engine, name="one"), Oban(engine, name="other")
    with hear(one, "notifier_restored") as own, hear(Oban, "notifier_restored") as every:
        emit(one, "notifier_restored", NotifierRestored())
        emit(other, "notifier_restored", NotifierRestored())
    emit(one, "notifier_restored", NotifierRestored())
    assert len(own.events) == 1
    assert len(every.events) == 2


def test_an_error_of_a_listener_does_not_reach_the_emitter(
    engine: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    oban = Oban(engine)

    def broken(oban: Oban, restored: NotifierRestored) -> None:
        raise SystemExit("no")

    event.listen(oban, "notifier_restored", broken)
    with hear(oban, "notifier_restored") as heard:
        emit(oban, "notifier_restored", NotifierRestored())
    assert len(heard.events) == 1
    assert "a listener of 'notifier_restored' raised" in caplog.text
    caplog.clear()


def test_a_listener_may_remove_itself(engine: AsyncEngine) -> None:
    oban = Oban(engine)
    calls = []

    def once(oban: Oban, restored: NotifierRestored) -> None:
        calls.append(restored)
        event.remove(oban, "notifier_restored", once)

    event.listen(oban, "notifier_restored", once)
    emit(oban, "notifier_restored", NotifierRestored())
    emit(oban, "notifier_restored", NotifierRestored())
    assert len(calls) == 1


def test_an_unknown_event_is_refused() -> None:
    with pytest.raises(Exception, match="job_stopped"):
        event.listen(Oban, "job_stopped", lambda oban, data: None)
