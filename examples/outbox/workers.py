"""The outbox: one worker, which names the changes to which it reacts."""

import os

import httpx

from examples.outbox.models import Order
from oban_sqla import Job, Worker


class Tell(
    Worker,
    name="tell",
    queue="webhooks",
    on=Order,
    on_insert=True,
    on_update=("status", "quantity"),
    on_delete=True,
):
    """Sends a change of an order to the partner."""

    async def process(self, job: Job) -> None:
        change = job.args["change"]
        if change == "delete":
            news = {"id": job.args["key"]["id"], "status": "deleted"}
        else:
            order: Order = job.args["row"]
            news = {"id": order.id, "status": order.status, "quantity": order.quantity}
        # After a crash, a change may be sent twice. The partner recognizes it by the key.
        key = {"Idempotency-Key": f"tell-{job.id}"}
        async with httpx.AsyncClient(timeout=30) as client:
            answer = await client.post(os.environ["WEBHOOK"], json=news, headers=key)
            answer.raise_for_status()

    def backoff(self, job: Job) -> float:
        return min(0.2 * 2.0**job.attempt, 3600)  # 0.4 s, 0.8 s, 1.6 s, ..., an hour
