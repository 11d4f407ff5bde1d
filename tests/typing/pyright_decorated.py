"""Checked by pyright: a class with the decorator. mypy ignores what a class decorator returns."""

from typing import assert_type

from oban_sqla import Job, worker


@worker(queue="mailers", max_attempts=5)
class Welcome:
    def __init__(self) -> None:
        self.sent = 0

    async def process(self, job: Job) -> None: ...


assert_type(Welcome().sent, int)
assert_type(Welcome.new({"to": "ann"}, priority=3), Job)
Welcome.new({}, prioriti=3)  # pyright: ignore[reportCallIssue]


async def enqueue() -> None:
    assert_type(await Welcome.enqueue({"to": "ann"}), Job)
