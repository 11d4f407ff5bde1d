"""Orders over HTTP. This module does not mention jobs, but the partner gets every change."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, cast

from fastapi import Body, Depends, FastAPI, HTTPException
from sqlalchemy import CursorResult, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from examples.outbox.models import Order, Status
from examples.outbox.workers import Tell
from oban_sqla import Job, Oban

engine = create_async_engine(os.environ["DATABASE_URL"])
Session = async_sessionmaker(engine, expire_on_commit=False)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with Oban(engine, queues={"webhooks": 10}):
        yield
    await engine.dispose()


async def transaction() -> AsyncIterator[AsyncSession]:
    async with Session.begin() as session:
        yield session


# With this scope, the transaction is committed before the response is sent.
Transaction = Annotated[AsyncSession, Depends(transaction, scope="function")]

app = FastAPI(title="Orders", lifespan=lifespan)


@app.post("/orders", status_code=201)
async def place(session: Transaction, quantity: Annotated[int, Body(embed=True)] = 1) -> int:
    session.add(order := Order(quantity=quantity))
    try:
        await session.flush()
    except IntegrityError:
        raise HTTPException(422, "the quantity is from 1 to 100") from None
    return order.id


@app.put("/orders/{id}", status_code=204)
async def change(
    session: Transaction, id: int, status: Annotated[Status, Body(embed=True)]
) -> None:
    (await _get(session, id)).status = status


@app.delete("/orders/{id}", status_code=204)
async def delete(session: Transaction, id: int) -> None:
    await session.delete(await _get(session, id))


@app.post("/shipments")
async def ship(session: Transaction) -> int:
    """Ship all paid orders with one statement, and return their number."""
    paid = update(Order).where(Order.status == "paid").values(status="shipped")
    shipped = cast(CursorResult[Any], await session.execute(paid))
    return shipped.rowcount


@app.get("/outbox")
async def outbox(session: Transaction) -> dict[str, int]:
    """The number of deliveries in each state."""
    query = select(Job.state, func.count()).where(Job.for_worker(Tell)).group_by(Job.state)
    return {state: count for state, count in await session.execute(query)}


async def _get(session: AsyncSession, id: int) -> Order:
    order = await session.get(Order, id)
    if order is None:
        raise HTTPException(404, f"there is no order {id}")
    return order
