"""The shop, over HTTP."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import psycopg
import pytest

from tests.examples.conftest import Process, Spawn, client_of
from tests.examples.provider import PATIENCE, Provider

pytestmark = pytest.mark.examples

TEAPOT, CUP, SAMOVAR = 1, 2, 3
WEB = ("examples.fastapi_app", "--port", "0")
WORKER = (
    *("oban_sqla.cli", "start", "--import", "examples.fastapi_app.workers"),
    *("--queues", "mailers:10,orders:5"),
)

TELL_OF_CRON = """
LISTEN cron_begins;
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN NOTIFY cron_begins; RETURN NULL; END';
CREATE TRIGGER tell AFTER INSERT ON oban_sqla_cron EXECUTE FUNCTION tell()
"""

Open = Callable[..., httpx.Client]


@pytest.fixture
def open_shop(spawn: Spawn, database_dsn: str, provider: Provider) -> Iterator[Open]:
    """Start the app on an empty database, and return a client of it."""
    with ExitStack() as stack:

        def open_shop(**environment: str) -> httpx.Client:
            process = spawn(*WEB, "--dsn", database_dsn, MAIL_URL=provider.url, **environment)
            return stack.enter_context(client_of(process))

        yield open_shop


@pytest.fixture
def start_worker(spawn: Spawn, database_dsn: str, provider: Provider) -> Callable[[], Process]:
    def start_worker() -> Process:
        process = spawn(
            *WORKER, "--dsn", database_dsn, MAIL_URL=provider.url, OBAN_HEARTBEAT_EXPIRY="5"
        )
        process.says("runs mailers, orders")
        return process

    return start_worker


def test_an_order_shows_the_progress_of_its_jobs(open_shop: Open, provider: Provider) -> None:
    shop = open_shop()
    placed = shop.post("/orders", json={"email": "ann@x.test", "product_id": CUP, "quantity": 4})
    assert placed.status_code == 201
    assert placed.json()["total"] == "18.00"
    order = f"/orders/{placed.json()['id']}"

    provider.call().answer(503)
    again = provider.call()
    assert again.json == {
        "to": "ann@x.test",
        "subject": f"Your order {placed.json()['id']}",
        "text": "Thank you for your order of 18.00.",
    }
    jobs = shop.get(order).json()["jobs"]
    assert "receipt: executing, attempt 2" in jobs
    assert "receipt: executing, attempt 2" in shop.get("/").text

    again.answer()
    shown = shop.get(order, params={"wait": 30}).json()
    packing, receipt, reminder = shown["jobs"]
    assert (packing, receipt) == ("packing: completed", "receipt: completed, attempt 2")
    assert reminder.startswith("reminder: scheduled for ")
    assert shown["status"] == "packed"

    paid = shop.post(f"{order}/payment").json()
    assert paid["paid"]
    assert paid["jobs"][2] == "reminder: cancelled"


def test_a_refused_order_leaves_no_row_and_no_job(open_shop: Open, database_dsn: str) -> None:
    shop = open_shop()
    assert shop.post("/orders", json={"email": "ann@x.test", "product_id": 99}).status_code == 404
    assert shop.post("/orders", json={"email": "nobody", "product_id": CUP}).status_code == 422
    assert shop.get("/orders/1").status_code == 404
    with psycopg.connect(database_dsn) as connection:
        assert connection.execute("SELECT count(*) FROM oban_jobs").fetchone() == (0,)


def test_the_dashboard_asks_for_the_password(open_shop: Open) -> None:
    shop = open_shop(OPERATOR_PASSWORD="open sesame")
    shop.post("/orders", json={"email": "ann@x.test", "product_id": CUP})
    for auth in (None, ("ann", "guess"), ("ann", "open sesame\u00e9")):
        assert shop.get("/oban/jobs", auth=auth).status_code == 401
    assert shop.get("/oban/jobs", headers={"Authorization": "Basic ?"}).status_code == 401
    page = shop.get("/oban/jobs", auth=("ann", "open sesame"))
    assert page.status_code == 200
    assert "receipt" in page.text


def test_the_dashboard_without_a_password_is_for_this_machine(open_shop: Open) -> None:
    shop = open_shop()
    assert shop.get("/oban/").status_code == 200
    assert shop.get("/oban/", headers={"Host": "shop.test"}).status_code == 403


def test_an_unpaid_order_is_reminded_of(open_shop: Open, provider: Provider) -> None:
    shop = open_shop(REMIND_AFTER="0.5")
    shop.post("/orders", json={"email": "ann@x.test", "product_id": SAMOVAR})
    mails = [provider.call(), provider.call()]
    for mail in mails:
        mail.answer()
    assert [mail.json["subject"] for mail in mails] == [
        "Your order 1",
        "Your order 1 is not paid yet",
    ]


def test_the_worker_as_a_process_of_its_own_is_killed_and_started_again(
    open_shop: Open,
    start_worker: Callable[[], Process],
    provider: Provider,
    database_dsn: str,
) -> None:
    shop = open_shop(RUN_JOBS="false")
    with (
        psycopg.connect(database_dsn, autocommit=True) as listening,
        psycopg.connect(database_dsn) as connection,
    ):
        listening.execute(TELL_OF_CRON)
        worker = start_worker()
        # The worker waits for the last samovar, and a second order for its turn.
        connection.execute("SELECT FROM products WHERE id = %s FOR NO KEY UPDATE", [SAMOVAR])
        for email in ("ann@x.test", "bob@x.test"):
            shop.post("/orders", json={"email": email, "product_id": SAMOVAR})
        for _ in range(2):
            provider.call()  # not answered: the receipts are on their way
        assert "receipt: executing" in shop.get("/orders/1").json()["jobs"]
        assert list(listening.notifies(timeout=PATIENCE, stop_after=1)), "cron has not begun"
        worker.kill()
        # In the meantime a day has passed.
        connection.execute("UPDATE orders SET placed_at = placed_at - interval '1 day'")
        connection.execute("UPDATE oban_sqla_cron SET ticked_at = ticked_at - interval '1 day'")

    start_worker()
    subjects = set()
    for _ in range(3):
        mail = provider.call()
        mail.answer()
        subjects.add(mail.json["subject"])
    (day,) = shop.get("/days").json()
    assert subjects == {"Your order 1", "Your order 2", f"Closed: {day['day']}"}
    assert (day["orders"], day["total"]) == (2, "498.00")
    orders = [shop.get(f"/orders/{id}", params={"wait": 30}).json() for id in (1, 2)]
    assert {order["status"] for order in orders} == {"packed", "refused"}
    assert "receipt: completed, attempt 2" in orders[0]["jobs"]


def test_one_command_starts_the_example(spawn: Spawn) -> None:
    process = spawn(*WEB)
    process.says("PostgreSQL is up")
    with client_of(process) as shop:
        order = shop.post("/orders", json={"email": "ann@x.test", "product_id": TEAPOT}).json()
        shown = shop.get(f"/orders/{order['id']}", params={"wait": 30}).json()
        assert shown["jobs"][:2] == ["packing: completed", "receipt: completed"]
        assert "teapot<td>19.90<td>99" in shop.get("/").text
    process.says("mail to ann@x.test: Your order 1")
    assert process.stop() == 0
