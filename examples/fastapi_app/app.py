"""The shop over HTTP: place and pay orders, and see the progress of their jobs."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.templating import Jinja2Templates
from sqlalchemy import func, select

from examples.fastapi_app import progress
from examples.fastapi_app.database import RequestSession, Session, engine
from examples.fastapi_app.mails import Receipt, Reminder
from examples.fastapi_app.models import Day, Order, Product
from examples.fastapi_app.operators import operator
from examples.fastapi_app.schemas import ClosedDay, NewOrder, OrderProgress
from examples.fastapi_app.settings import settings
from examples.fastapi_app.workers import PackOrder
from oban_sqla import Job, JobState, Oban
from oban_sqla.web import dashboard

QUEUES = {"mailers": 10, "orders": 5}

oban = Oban(Session, queues=QUEUES if settings.run_jobs else None)
templates = Jinja2Templates(Path(__file__).parent / "templates")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Start the `Oban`. Without queues it runs no jobs, but can still wait for jobs."""
    async with oban:
        yield
    await engine.dispose()


app = FastAPI(title="A small shop", lifespan=lifespan)
app.mount("/oban", dashboard(oban, authorize=operator if settings.operator_password else None))


@app.post("/orders", status_code=201)
async def place(new: NewOrder, session: RequestSession) -> OrderProgress:
    """Place an order. The order and its jobs are committed together, before the response."""
    async with session.begin():
        product = await session.get(Product, new.product_id)
        if product is None:
            raise HTTPException(404, f"there is no product {new.product_id}")
        order = Order(**new.model_dump(), total=product.price * new.quantity)
        session.add(order)
        await session.flush()  # now the order has its id
        mail = {"order_id": order.id, "to": order.email, "total": f"{order.total:.2f}"}
        jobs = [
            await PackOrder.enqueue({"order_id": order.id}, conn=session),
            await Receipt.enqueue(mail, conn=session),
            await Reminder.enqueue(mail, conn=session, schedule_in=settings.remind_after),
        ]
    return OrderProgress.of(order, jobs)


@app.post("/orders/{id}/payment")
async def pay(id: int, session: RequestSession) -> OrderProgress:
    """Pay an order, and cancel its reminder in the same transaction."""
    async with session.begin():
        order = await session.get(Order, id, with_for_update=True)
        if order is None:
            raise HTTPException(404, f"there is no order {id}")
        order.paid_at = func.now()
        reminders = select(Job).where(Job.for_worker(Reminder), Job.args_contain({"order_id": id}))
        await oban.cancel_jobs(reminders, conn=session)
    return await show(id, session)


@app.get("/orders/{id}")
async def show(
    id: int,
    session: RequestSession,
    wait: Annotated[float, Query(ge=0, le=60)] = 0,
) -> OrderProgress:
    """Show an order and its jobs. With `wait`, first wait this many seconds for its due jobs."""
    found = await progress.load(session, Order.id == id)
    if not found:
        raise HTTPException(404, f"there is no order {id}")
    if wait:
        due = [job.id for _, jobs in found for job in jobs if job.state is not JobState.SCHEDULED]
        await session.rollback()  # end the transaction before the wait
        with suppress(TimeoutError):
            await oban.wait_many(due, timeout=wait)
        found = await progress.load(session, Order.id == id)
    return OrderProgress.of(*found[0])


@app.get("/days")
async def days(session: RequestSession) -> Sequence[ClosedDay]:
    found = await session.scalars(select(Day).order_by(Day.day.desc()))
    return [ClosedDay.model_validate(day) for day in found]


@app.get("/", include_in_schema=False)
async def overview(request: Request, session: RequestSession) -> Response:
    """Show the products, and the orders with their progress."""
    products = (await session.scalars(select(Product).order_by(Product.id))).all()
    last = select(Order.id).order_by(Order.id.desc()).limit(50)
    orders = await progress.load(session, Order.id.in_(last))
    context = {"products": products, "orders": orders, "describe": progress.describe}
    return templates.TemplateResponse(request, "overview.html", context)
