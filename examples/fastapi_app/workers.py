"""The workers that change rows of the shop, and complete their jobs in the same transaction."""

from datetime import datetime, timedelta

from sqlalchemy import cast, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import Date

from examples.fastapi_app.mails import Summary
from examples.fastapi_app.models import Day, Order, Product
from examples.fastapi_app.settings import settings
from oban_sqla import Cancel, Job, Worker


class PackOrder(Worker, name="packing", queue="orders"):
    """Takes an order from the stock, exactly once, even if the job runs twice."""

    async def process(self, job: Job, session: AsyncSession) -> Cancel | None:
        order = await session.get_one(Order, job.args["order_id"])
        # FOR NO KEY UPDATE, so that new orders of the product need not wait.
        lock = {"key_share": True}
        product = await session.get_one(Product, order.product_id, with_for_update=lock)
        if product.stock < order.quantity:
            order.status = "refused"
            return Cancel(f"only {product.stock} of {product.name} left")
        product.stock -= order.quantity
        order.status = "packed"
        return None


class CloseDay(Worker, name="closing", queue="orders", cron="0 0 * * *"):
    """Sums up the day at midnight, and enqueues a mail to the owner in the same transaction."""

    async def process(self, job: Job, session: AsyncSession) -> None:
        day = datetime.fromisoformat(job.meta["cron_at"]).date() - timedelta(days=1)
        placed_on = cast(func.timezone("UTC", Order.placed_at), Date)
        query = select(func.count(), func.coalesce(func.sum(Order.total), 0))
        orders, total = (await session.execute(query.where(placed_on == day))).one()
        session.add(Day(day=day, orders=orders, total=total))
        summary = {"to": settings.owner, "day": f"{day}", "orders": orders, "total": f"{total:.2f}"}
        await Summary.enqueue(summary, conn=session)
