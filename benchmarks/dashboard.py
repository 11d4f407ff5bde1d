"""`python -m benchmarks.dashboard`: the time of each page of the dashboard, with a million jobs.

Each page is requested ten times over ASGI, without a network. Printed are the shortest, the median
and the longest time, and the size of the page. No request uses the cached reads of another one.
"""

import argparse
import asyncio
import sys
import time
from statistics import median

from httpx import ASGITransport, AsyncClient
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from oban_sqla import Oban
from oban_sqla.embedded import embedded_postgres
from oban_sqla.migrations import upgrade
from oban_sqla.web import dashboard

TIMES = 10
TARGET_MS, TARGET_BYTES = 200, 100_000

FILL = """
INSERT INTO oban_jobs (state, queue, worker, args, tags, attempt, errors, attempted_by,
    inserted_at, scheduled_at, attempted_at, completed_at, discarded_at)
SELECT state::oban_job_state, (ARRAY['mailers', 'media', 'billing', 'reports'])[1 + n % 4],
    (ARRAY['shop.SendMail', 'shop.Resize', 'shop.Charge', 'shop.Report'])[1 + n % 4],
    jsonb_build_object('user', jsonb_build_object('id', n % 5000), 'path', md5(n::text)),
    CASE WHEN n % 50 = 0 THEN ARRAY['vip'] ELSE ARRAY[]::text[] END,
    CASE WHEN state = 'available' THEN 0 ELSE 1 END,
    CASE WHEN state IN ('discarded', 'retryable') THEN jsonb_build_array(jsonb_build_object(
        'attempt', 1, 'at', '2026-01-01T00:00:00Z',
        'error', E'Traceback (most recent call last):\\n'
        '  File "/srv/shop/mail.py", line 7, in send\\n    deliver(body)\\n'
        'TimeoutError: gave up on user ' || n)) ELSE '[]' END,
    ARRAY['node-1', 'x'], at, at, at + interval '0.4 s',
    CASE WHEN state = 'completed' THEN at + interval '1 s' END,
    CASE WHEN state = 'discarded' THEN at + interval '1 s' END
FROM (SELECT n, timezone('UTC', now()) - (:rows - n) * interval '1 day' / :rows AS at,
    CASE WHEN n % 100 = 0 THEN 'discarded' WHEN n % 333 = 0 THEN 'retryable'
         WHEN n > :rows * 0.9 AND n % 2 = 0 THEN 'available' ELSE 'completed' END AS state
    FROM generate_series(1, CAST(:rows AS int)) AS n) AS job
"""

FILL_WORKFLOWS = """
INSERT INTO oban_workflows (id, name, state, total, completed, open, inserted_at, completed_at)
SELECT 'w' || n, 'import ' || n % 100, state, 10, CASE state WHEN 'completed' THEN 10 ELSE 3 END,
    CASE state WHEN 'completed' THEN 0 ELSE 7 END, at,
    CASE state WHEN 'completed' THEN at + interval '1 min' END
FROM (SELECT n, timezone('UTC', now()) - (:rows - n) * interval '1 day' / :rows AS at,
    CASE WHEN n > :rows * 0.99 THEN 'executing' ELSE 'completed' END AS state
    FROM generate_series(1, CAST(:rows AS int)) AS n) AS workflow
"""
SHARE = 10
"""There is a workflow for each ten jobs."""

PAGES = {
    "overview, an hour": "",
    "overview, a day": "?window=day",
    "jobs": "jobs",
    "jobs, completed": "jobs?state=completed",
    "jobs, discarded": "jobs?state=discarded",
    "jobs, a page further back": "jobs?before={half}",
    "search: worker": "jobs?q=worker:SendMail",
    "search: an argument": "jobs?q=args.user.id:4711",
    "search: a worker that is not there": "jobs?q=worker:Nobody",
    "search: text in errors": "jobs?state=discarded&q=error:nothing",
    "search: tag in a queue": "jobs?queue=mailers&q=tag:vip",
    "a job": "jobs/{half}",
    "queues": "queues",
    "errors": "errors",
    "workflows": "workflows",
    "workflows, a name": "workflows?q=import+7",
    "cron": "cron",
}


async def measure(dsn: str, rows: int) -> bool:
    """Print a line for each page. Returns whether all pages met their targets."""
    engine = create_async_engine(dsn)
    good = True
    async with AsyncClient(
        transport=ASGITransport(dashboard(Oban(engine)), client=("127.0.0.1", 1)),
        base_url="http://localhost",
    ) as warm:
        await warm.get("/")
    print(f"{'page':36} {'shortest':>8} {'median ms':>10} {'longest':>8} {'kB':>6}")
    for name, path in PAGES.items():
        times, size = [], 0
        for _ in range(TIMES):
            # A new dashboard has no cached reads.
            transport = ASGITransport(dashboard(Oban(engine)), client=("127.0.0.1", 1))
            async with AsyncClient(transport=transport, base_url="http://localhost") as client:
                started = time.perf_counter()
                page = await client.get(f"/{path.format(half=rows // 2)}")
                times.append(1000 * (time.perf_counter() - started))
                size = len(page.content)
                assert page.status_code == 200, page.text
        shown = f"{min(times):8.1f} {median(times):10.1f} {max(times):8.1f}"
        print(f"{name:36} {shown} {size / 1000:6.1f}")
        good = good and median(times) < TARGET_MS and size < TARGET_BYTES
    await engine.dispose()
    return good


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.dashboard", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    given = parser.parse_args()
    with embedded_postgres() as dsn:
        url = make_url(dsn).set(drivername="postgresql+psycopg")
        engine = create_engine(url)
        with engine.begin() as connection:
            upgrade(connection)
            connection.execute(text(FILL), {"rows": given.rows})
            connection.execute(text(FILL_WORKFLOWS), {"rows": given.rows // SHARE})
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE oban_jobs, oban_workflows"))
        engine.dispose()
        good = asyncio.run(measure(url.render_as_string(hide_password=False), given.rows))
    sys.exit(0 if good else "a page is slower or larger than its target")


if __name__ == "__main__":
    main()
