"""The page of errors, in groups."""

from oban_sqla import Oban
from oban_sqla.monitor.browse import summary
from tests.conftest import Add
from tests.factories import JobFactory
from tests.web.site import Reader, Site

TRACE = """Traceback (most recent call last):
  File "/srv/shop/{file}.py", line 7, in send
    client.post(body)
  File "/srv/venv/lib/python3.12/site-packages/http/api.py", line 12, in post
    raise TimeoutError
TimeoutError: gave up on user {user} after 30 s
"""


def error(file: str, user: int) -> list[dict[str, object]]:
    return [
        {"attempt": 1, "at": "2026-01-01T00:00:00Z", "error": TRACE.format(file=file, user=user)}
    ]


async def test_a_page_without_errors_says_so(site: Site) -> None:
    assert "No job fails" in (await site.read("errors")).text


async def test_errors_are_grouped_by_exception_and_frame(site: Site, add: Add, oban: Oban) -> None:
    mails = await add(
        JobFactory(discarded=True, worker="app.Mail", errors=error("mail", 1)),
        JobFactory(retryable=True, worker="app.Mail", errors=error("mail", 22)),
    )
    await add(
        JobFactory(discarded=True, worker="app.Bill", errors=error("bill", 1)),
        JobFactory(discarded=True, errors=[]),
        JobFactory(completed=True, errors=error("mail", 3)),
    )
    page = await site.read("errors")
    assert page.text.index("shop/mail.py, in send") < page.text.index("shop/bill.py, in send")
    assert "2 jobs retryable 1 discarded 1" in page.text
    assert "(no error is kept)" in page.text
    # The first form belongs to the largest group.
    asked = await site.send(page, ("action", "retry"), 200)
    question = Reader(asked.text)
    assert "Retry 2 jobs?" in question.text
    answer = await site.send(question, ("action", "retry"))
    assert answer.headers["Location"] == "/errors?done=retry&n=2"
    assert [(await oban.get_one_job(id)).state for id in mails] == ["available"] * 2


def test_the_exception_of_a_cut_text_is_found() -> None:
    assert summary(TRACE[40:].format(file="a", user=1)).startswith("TimeoutError: gave up")
    assert summary("boom\nmore") == "boom"
    assert summary("") == ""
