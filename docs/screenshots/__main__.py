"""Take the pictures of the dashboard: `python docs/screenshots --minutes 60`.

A shop runs on two nodes for some minutes, and then Chromium takes pictures of its dashboard. It
needs `pip install -e ".[examples]" playwright`, and Debian's package `chromium`.
"""

import argparse
import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import uvicorn
from playwright.async_api import async_playwright
from sqlalchemy import create_engine, make_url

from oban_sqla.embedded import embedded_postgres
from oban_sqla.migrations import upgrade

HERE = Path(__file__).parent
IMAGES = HERE.parent / "images"
NODES = {
    "web-1": "mailers:4,billing:5,media:6",
    "worker-1": "mailers:4,billing:5,media:6,imports:4,reports:2",
}


@contextmanager
def nodes(dsn: str) -> Iterator[None]:
    """Two nodes, each a process of its own."""
    # Tracebacks on the pictures name this directory, and not that of the repository.
    directory = Path(gettempdir()) / "shop"
    directory.mkdir(exist_ok=True)
    shutil.copy(HERE / "shop.py", directory)
    command = [sys.executable, "-m", "oban_sqla.cli", "start", "--import", "shop", "--name", "shop"]
    command += ["--session", "shop:Session", "--log-level", "error"]
    environment = {**os.environ, "OBAN_DSN": dsn}
    running = [
        subprocess.Popen(
            [*command, "--node", node, "--queues", queues], cwd=directory, env=environment
        )
        for node, queues in NODES.items()
    ]
    try:
        yield
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()


async def run(minutes: float, port: int, wanted: list[str]) -> None:
    import shop

    from oban_sqla import Oban
    from oban_sqla.web import dashboard

    oban = Oban(shop.engine, name="shop")
    async with shop.engine.begin() as connection:
        await connection.run_sync(shop.Base.metadata.create_all)
    options: dict[str, Any] = {"lifespan": "off", "log_level": "warning"}
    server = uvicorn.Server(uvicorn.Config(dashboard(oban), port=port, **options))
    serving = asyncio.create_task(server.serve())
    with nodes(os.environ["OBAN_DSN"]):
        trading = asyncio.create_task(shop.trade(oban))
        await asyncio.sleep(60 * minutes)
        await take(f"http://localhost:{port}", wanted)
        trading.cancel()
    server.should_exit = True
    await serving


async def take(address: str, wanted: list[str]) -> None:
    """Take a picture of the overview, of a failed job, and of an executing workflow."""
    async with async_playwright() as driver:
        flags = ["--no-sandbox"] if os.getuid() == 0 else []
        browser = await driver.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        for name in wanted:
            scheme = "dark" if name.endswith("_dark") else "light"
            size = {"width": 1180, "height": 780}
            page = await browser.new_page(viewport=size, color_scheme=scheme)
            await page.goto(f"{address}/{await path_of(page, address, name)}")
            await page.locator("#findings details, #findings .good, h1.job").first.wait_for()
            if name == "workflow":
                half_done = re.compile("^(load-.|prices|stock|reindex): executing")
                await page.get_by_role("link", name=half_done).first.wait_for(timeout=120_000)
            await page.screenshot(path=IMAGES / f"dashboard_{name}.png")
        await browser.close()


async def path_of(page: Any, address: str, name: str) -> str:
    """The address of the page that a picture shows."""
    lists = {"job": "jobs?state=retryable&queue=mailers", "workflow": "workflows?state=executing"}
    kind = name.removesuffix("_dark")
    if kind not in lists:
        return "" if kind == "overview" else kind
    await page.goto(f"{address}/{lists[kind]}")
    links = page.locator("tbody td a")
    await links.first.wait_for(timeout=120_000)  # a job fails now and then
    return str(await links.first.get_attribute("href")).lstrip("/")


def main() -> None:
    parser = argparse.ArgumentParser("python docs/screenshots", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--port", type=int, default=4100)
    wanted = ["overview", "overview_dark", "job", "workflow"]
    parser.add_argument("pictures", nargs="*", default=wanted)
    given = parser.parse_args()
    with embedded_postgres() as dsn:
        engine = create_engine(make_url(dsn).set(drivername="postgresql+psycopg"))
        with engine.begin() as connection:
            upgrade(connection)
        engine.dispose()
        os.environ["OBAN_DSN"] = dsn
        asyncio.run(run(given.minutes, given.port, given.pictures))


if __name__ == "__main__":
    main()
