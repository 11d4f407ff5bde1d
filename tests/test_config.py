"""The settings of an instance: one error lists all mistakes."""

from typing import Any

import pytest

from oban_sqla import job
from oban_sqla.config import Config
from oban_sqla.config.oban_settings import LONGEST_PREFIX
from oban_sqla.config.queues import Queue
from oban_sqla.statements.announce import SCHEDULE


def test_the_retention_of_a_worker_applies_to_its_aliases() -> None:
    renamed = job(name="config.new", aliases=["config.old"])(lambda: None)
    workers = Config.check(retention={"workers": {renamed: 5}}).retention.workers
    assert set(workers) == {"config.new", "config.old"}


@pytest.mark.parametrize(
    ("states", "own", "kept"),
    [
        ({"discarded": None}, 60, (60, 60, None)),
        ({"discarded": None}, {"completed": 60}, (60, 86400, None)),
        ({"discarded": None}, {"discarded": 60}, (86400, 86400, 60)),
        ({"discarded": None, "cancelled": 5}, 60, (60, 60, None)),
        ({"completed": 5}, 60, (60, 60, 60)),
        ({"completed": 5}, None, (None, None, None)),
        (dict.fromkeys(("completed", "cancelled", "discarded")), 60, (60, 60, 60)),
    ],
)
def test_the_seconds_of_a_worker_do_not_apply_to_a_state_that_is_kept_for_ever(
    states: dict[str, Any], own: Any, kept: tuple[float | None, ...]
) -> None:
    retention = Config.check(retention={**states, "workers": {"app.Mail": own}}).retention
    mail = retention.workers["app.Mail"]
    assert (mail["completed"], mail["cancelled"], mail["discarded"]) == kept


def test_a_queue_is_a_limit_or_options() -> None:
    config = Config.check(queues={"default": 10, "slow": {"limit": 1, "paused": True}})
    assert config.queues == (Queue("default", 10), Queue("slow", 1, paused=True))


def test_nodes_of_one_host_have_different_names() -> None:
    assert Config.check().node != Config.check(node="web-1").node
    assert Config.check(node="web-1").node == "web-1"


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(ValueError, match="the limit of queue 'default'") as raised:
        Config.check(
            queues={"default": 0, "": 1, "slow": {"limits": 3}},
            name=" ",
            prefix="x" * 50,
            poll_interval=0,
            notify="push",
        )
    message = str(raised.value)
    for complaint in (
        "a queue's name must be",
        "queue 'slow' has no option 'limits'",
        "queue 'slow' needs a limit",
        "name must be a string",
        "prefix must be the name of a schema",
        "poll_interval must be seconds",
        "notify must be 'listen' or 'poll', not 'push'",
    ):
        assert complaint in message


@pytest.mark.parametrize(
    "wrong",
    [
        {"queues": ["default"]},
        {"queues": {"default": True}},
        {"queues": {"default": 1.5}},
        {"queues": {"default": {"limit": 1, "paused": 1}}},
        {"queues": {"q" * 128: 1}},
        {"name": None},
        {"node": ""},
        {"prefix": "a\x00b"},
        {"prefix": "\ud800"},
        {"shutdown_grace_period": -1},
        {"shutdown_grace_period": float("nan")},
        {"heartbeat_expiry": 4.9},
        {"rescue_after": 0},
        {"leadership": 1},
        {"timezone": "Mars/Base"},
        {"retention": -1},
        {"retention": {"executing": 1}},
        {"retention": {"workers": 5}},
        {"retention": {"workers": {"a": "b"}}},
        {"retention": {"workers": {object: 5}}},
        {"fallback_interval": float("inf")},
        {"stage_batch": 0},
        {"listen_dsn": " "},
        {"listen_dsn": "postgresql://direct", "notify": "poll"},
    ],
)
def test_each_setting_is_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)).rstrip("s").split("_")[0]):
        Config.check(**wrong)


def test_the_longest_prefix_leaves_room_for_every_channel() -> None:
    assert len(f"{'x' * LONGEST_PREFIX}.{SCHEDULE}") == 63
