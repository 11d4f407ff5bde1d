"""Check that each file has one finished job, and the counts that a direct parse finds."""

import ast
import asyncio
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from examples.stdlib_index.models import Run
from examples.stdlib_index.parsing import parsers
from examples.stdlib_index.results import Result
from oban_sqla import JobState

Counts = tuple[int, int]
"""The numbers of classes and functions."""


async def check(run: Run, results: Sequence[Result]) -> list[str]:
    """The mistakes in a run; empty if there are none."""
    by_path = {path: list(its) for path, its in groupby(results, lambda each: each.file.path)}
    loop = asyncio.get_running_loop()
    parsed = await asyncio.gather(
        *(loop.run_in_executor(parsers, direct_parse, run.root, path) for path in by_path)
    )
    wrong = []
    if len(by_path) != run.size:
        wrong.append(f"{len(by_path)} files are recorded, instead of {run.size}")
    for (path, its), counts in zip(by_path.items(), parsed, strict=True):
        wrong += (f"{path}: {complaint}" for complaint in _compare(its, counts))
    return wrong


def direct_parse(root: str, path: str) -> Counts | None:
    """Count the definitions in a file, without the worker's code; `None` if it does not parse."""
    try:
        nodes = [type(node) for node in ast.walk(ast.parse(Path(root, path).read_bytes()))]
    except SyntaxError:
        return None
    functions = nodes.count(ast.FunctionDef) + nodes.count(ast.AsyncFunctionDef)
    return nodes.count(ast.ClassDef), functions


def _compare(results: Sequence[Result], parsed: Counts | None) -> Iterator[str]:
    jobs = [result.job for result in results if result.job is not None]
    if len(jobs) != 1:
        yield f"{len(jobs)} jobs instead of one"
    for job in jobs:
        if parsed is not None and job.state is not JobState.COMPLETED:
            yield f"it parses, but its job is {job.state}"
        if parsed is None and job.state is not JobState.DISCARDED:
            yield f"it does not parse, but its job is {job.state}"
        if parsed is None and len(job.errors) != job.max_attempts:
            yield f"{len(job.errors)} errors of {job.max_attempts} attempts"
    for counted, expected, what in zip(
        (results[0].classes, results[0].functions),
        parsed or (0, 0),
        ("classes", "functions"),
        strict=True,
    ):
        if counted != expected:
            yield f"{counted} {what}, where a direct parse finds {expected}"
