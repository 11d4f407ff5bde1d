"""Dashboards on a table of the test."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import Oban
from oban_sqla.web import dashboard
from tests.web.site import Site

Open = Callable[..., Site]


@pytest.fixture
def oban(engine: AsyncEngine) -> Oban:
    """An instance that runs no queues."""
    return Oban(engine)


@pytest.fixture
async def open_site(oban: Oban) -> AsyncIterator[Open]:
    """Open a dashboard: `open_site(authorize=...)`. Without options, it has all rights."""
    async with AsyncExitStack() as stack:

        def open_site(**options: Any) -> Site:
            site = Site(dashboard(options.pop("oban", oban), **options))
            stack.push_async_callback(site.client.aclose)
            return site

        yield open_site


@pytest.fixture
def site(open_site: Open) -> Site:
    return open_site()
