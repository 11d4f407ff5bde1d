"""Another process, which is told what to do by lines, and says when it is ready and what it did."""

import asyncio
import sys


class Child:
    """A module of `benchmarks/children`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        self._commands = process.stdin
        self._answers = process.stdout

    @classmethod
    async def start(cls, module: str, *arguments: str) -> "Child":
        """Start `python -m benchmarks.children.MODULE ARGUMENTS`, and wait until it is ready."""
        child = cls(
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                f"{__package__}.children.{module}",
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        )
        await child._answers.readline()
        return child

    async def tell(self, line: str) -> None:
        self._commands.write(f"{line}\n".encode())
        await self._commands.drain()

    async def end(self) -> str:
        """Tell it that this is all, and return what it says at the end."""
        self._commands.close()
        said = (await self._answers.read()).decode()
        status = await self._process.wait()
        assert status == 0, f"a child process ended with {status}"
        return said.strip()


async def told() -> str:
    """In the child: the next line, or nothing at the end."""
    return (await asyncio.to_thread(sys.stdin.readline)).strip()


def ready() -> None:
    """In the child: say so."""
    print(flush=True)
