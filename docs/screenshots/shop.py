"""A shop, whose jobs are on the pictures of the dashboard."""

import asyncio
import json
import os
import random
from math import pi, sin

from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from oban_sqla import Cancel, Job, Limit, Oban, Rate, Record, Worker, Workflow, job

DSN = os.environ["OBAN_DSN"]
engine = create_async_engine(make_url(DSN).set(drivername="postgresql+psycopg"))
Session = async_sessionmaker(engine, expire_on_commit=False)


class Base(DeclarativeBase):
    pass


class Invoice(Worker, Base, queue="billing", tags=["invoice"]):
    __tablename__ = "invoices"
    id: Mapped[int] = mapped_column(primary_key=True)
    cents: Mapped[int]
    paid: Mapped[bool] = mapped_column(default=False)

    async def process(self, job: Job, session: AsyncSession) -> Record | Cancel:
        await asyncio.sleep(random.uniform(0.05, 0.4))
        if self.cents % 41 == 0:
            raise PaymentError(f"card of invoice {self.id} declined: insufficient_funds")
        if self.cents % 97 == 0:
            return Cancel("the order was returned")
        self.paid = True
        return Record({"charged": self.cents})


class PaymentError(Exception):
    pass


class TemporaryMailError(Exception):
    pass


class SendMail(Worker, queue="mailers", max_attempts=8, rate=Rate(240, per=60, name="ses")):
    async def process(self, job: Job) -> None:
        await asyncio.sleep(random.uniform(0.3, 0.9))
        if random.random() < 0.03:
            try:
                deliver(job.args["to"])
            except ValueError as error:
                raise TemporaryMailError(f"451 4.7.1 greylisted: {job.args['to']}") from error


def deliver(to: str) -> None:
    json.loads("{" + to)


class Resize(Worker, queue="media", tags=["image"]):
    async def process(self, job: Job) -> Record:
        await asyncio.sleep(random.uniform(0.1, 0.6))
        if random.random() < 0.004:
            raise OSError(f"cannot identify image file {job.args['path']!r}")
        return Record({"bytes": random.randrange(9_000, 90_000)})


class Sync(Worker, queue="imports", limit=Limit(2, by="account")):
    async def process(self, job: Job) -> None:
        await asyncio.sleep(random.uniform(1, 3))
        if random.random() < 0.02:
            raise TimeoutError(f"account {job.args['account']} did not answer within 30 s")


@job(queue="imports")
async def step(part: str) -> None:
    await asyncio.sleep(random.uniform(4, 8))


@job(queue="reports", cron={"expr": "*/2 * * * *", "timezone": "Europe/Berlin"})
async def sales_report() -> None:
    await asyncio.sleep(4)


@job(queue="reports", cron={"expr": "0 6 * * MON-FRI", "timezone": "America/New_York"})
async def morning_report() -> None: ...


@job(queue="media", cron="@hourly")
async def sweep_thumbnails() -> None: ...


def product_import(name: str) -> Workflow:
    """A workflow with a few layers of steps."""
    flow = Workflow(f"import {name}")
    flow.add("fetch", step.new("fetch"))
    flow.add("validate", step.new("validate"), deps="fetch")
    parts = [flow.add(f"load-{n}", step.new(f"load-{n}"), deps="validate") for n in range(1, 6)]
    flow.add("images", step.new("images"), deps="validate")
    flow.add("prices", step.new("prices"), deps=parts)
    flow.add("stock", step.new("stock"), deps=parts)
    flow.add("reindex", step.new("reindex"), deps=["prices", "stock"])
    flow.add("publish", step.new("publish"), deps=["reindex", "images"])
    flow.add_last("cleanup", step.new("cleanup"))
    return flow


async def trade(oban: Oban) -> None:
    """Enqueue jobs for ever, in waves of eight minutes."""
    second, names = 0, ["acme", "globex", "hooli", "initech", "umbrella"]
    while True:
        wave = 0.55 + 0.45 * sin(2 * pi * second / 480)
        async with Session.begin() as session:
            session.add_all(some_mails(round(9 * wave * random.random())))
            pictures = (random.randrange(10**6) for _ in range(round(30 * wave * random.random())))
            session.add_all(Resize.new({"path": f"p/{n}.jpg", "width": 640}) for n in pictures)
            if second % 2 == 0:
                session.add(invoice := Invoice(cents=random.randrange(300, 90_000)))
                session.add(invoice.new())
            if second % 5 == 0:
                account = random.choice(names)
                session.add_all(Sync.new({"account": account}) for _ in range(random.randrange(6)))
            if second % 45 == 0:
                session.add(product_import(random.choice(names)))
            if second % 30 == 0:
                later = random.randrange(600, 9000)
                session.add(SendMail.new(mail("review"), schedule_in=later, tags=["email"]))
        second += 1
        await asyncio.sleep(1)


def some_mails(count: int) -> list[Job]:
    return [
        SendMail.new(mail(random.choice(["welcome", "receipt", "shipped"])), tags=["email"])
        for _ in range(count)
    ]


def mail(template: str) -> dict[str, object]:
    to = f"user{random.randrange(9000)}@example.com"
    return {"to": to, "template": template, "locale": {"lang": "en", "tz": "Europe/Berlin"}}
