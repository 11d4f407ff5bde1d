"""Bookmarks over HTTP. A view adds a job to its session, like any row."""

from typing import Any

from flask import Flask, abort, redirect, render_template, request, url_for
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from werkzeug.wrappers import Response

from examples.flask_app.database import Session
from examples.flask_app.models import Bookmark
from examples.flask_app.workers import FetchTitle
from oban_sqla import Job

app = Flask(__name__)


@app.teardown_appcontext
def end_of_request(error: BaseException | None) -> None:
    """Roll back uncommitted changes, including jobs."""
    Session.remove()


@app.post("/bookmarks")
def add() -> Response:
    url = request.form.get("url", "")
    if not url.startswith(("http://", "https://")):
        abort(400, "url must start with http:// or https://")
    bookmark = Bookmark(url=url)
    Session.add(bookmark)
    try:
        Session.flush()  # now the bookmark has its id
    except IntegrityError:
        abort(409, "it is there already")
    Session.add(FetchTitle.new({"bookmark_id": bookmark.id, "url": url}))
    Session.commit()
    return redirect(url_for("show", id=bookmark.id), 303)


@app.get("/bookmarks/<int:id>")
def show(id: int) -> dict[str, Any]:
    bookmark = Session.get(Bookmark, id) or abort(404)
    its = Job.for_worker(FetchTitle), Job.args_contain({"bookmark_id": id})
    jobs = Session.scalars(select(Job).where(*its).order_by(Job.id))
    return {
        "url": bookmark.url,
        "title": bookmark.title,
        "jobs": [{"id": job.id, "state": job.state, "attempt": job.attempt} for job in jobs],
    }


@app.delete("/bookmarks/<int:id>")
def delete(id: int) -> tuple[str, int]:
    Session.delete(Session.get(Bookmark, id) or abort(404))
    Session.commit()
    return "", 204


@app.get("/")
def overview() -> str:
    bookmarks = Session.scalars(select(Bookmark).order_by(Bookmark.id.desc()).limit(50))
    return render_template("overview.html", bookmarks=bookmarks)
