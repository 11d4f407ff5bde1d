"""The worker: a plain function, which runs in a thread, with a synchronous session."""

import html
import re

import httpx
from sqlalchemy.orm import Session

from examples.flask_app.models import Bookmark
from oban_sqla import Cancel, Job, Worker


class FetchTitle(Worker, name="fetch title", queue="pages", max_attempts=5):
    """Reads a page, and stores its title in the transaction that completes the job."""

    def process(self, job: Job, session: Session) -> Cancel | None:
        # No transaction is open during the request: it begins with the first use of the session.
        response = httpx.get(job.args["url"], timeout=30, follow_redirects=True)
        response.raise_for_status()
        found = re.search(r"<title[^>]*>(.*?)</title>", response.text, re.DOTALL | re.IGNORECASE)
        bookmark = session.get(Bookmark, job.args["bookmark_id"])
        if bookmark is None:
            return Cancel("the bookmark was deleted meanwhile")
        bookmark.title = html.unescape(found[1]).strip() if found else job.args["url"]
        return None

    def backoff(self, job: Job) -> float:
        return 4.0 ** (job.attempt - 1)  # 1 s, 4 s, 16 s, 64 s
