"""A thread with an event loop of its own."""

import signal

from oban_sqla.runtime.loop_thread import LoopThread


async def nothing() -> None: ...


async def test_signals_are_left_to_the_main_thread() -> None:
    """A signal to the process interrupts a worker that blocks the main thread."""

    async def blocked() -> set[int]:
        return signal.pthread_sigmask(signal.SIG_BLOCK, [])

    thread = LoopThread("test", close=nothing)
    try:
        assert {signal.SIGTERM, signal.SIGINT} <= await thread.run(blocked())
    finally:
        await thread.end()
