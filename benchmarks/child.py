"""`Child`: another process. It takes orders as lines, and prints when it is ready and a result."""

import asyncio
import sys


class Child:
    """A process that runs a module of `benchmarks/children`."""

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
        """Close the input of the process, and return its last line."""
        self._commands.close()
        said = (await self._answers.read()).decode()
        status = await self._process.wait()
        assert status == 0, f"a child process ended with {status}"
        return said.strip()


async def told() -> str:
    """In the child: read the next line; it is empty at the end."""
    return (await asyncio.to_thread(sys.stdin.readline)).strip()


def ready() -> None:
    """In the child: report that it is ready."""
    print(flush=True)
