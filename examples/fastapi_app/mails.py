"""The mails of the shop: for each kind there is a worker, which sends one mail."""

import logging

import httpx

from examples.fastapi_app.settings import settings
from oban_sqla import Job, Worker

logger = logging.getLogger("shop")


class Mail(Worker, queue="mailers", max_attempts=8):
    """Sends one mail. A mail can't be rolled back, so each mail is a job of its own.

    It may be sent again after a crash, so it has a key by which the provider can tell.
    """

    subject: str
    text: str

    async def process(self, job: Job) -> None:
        mail = {
            "to": job.args["to"],
            "subject": self.subject.format(**job.args),
            "text": self.text.format(**job.args),
        }
        if settings.mail_url is None:
            logger.info("mail to %(to)s: %(subject)s", mail)
            return
        async with httpx.AsyncClient(timeout=30) as client:
            key = {"Idempotency-Key": f"{job.worker}-{job.id}"}
            response = await client.post(settings.mail_url, json=mail, headers=key)
            response.raise_for_status()

    def backoff(self, job: Job) -> float:
        return 4.0 ** (job.attempt - 1)  # 1 s, 4 s, 16 s, ..., more than an hour


class Receipt(Mail, name="receipt"):
    subject = "Your order {order_id}"
    text = "Thank you for your order of {total}."


class Reminder(Mail, name="reminder"):
    subject = "Your order {order_id} is not paid yet"
    text = "Please pay {total}."


class Summary(Mail, name="summary"):
    subject = "Closed: {day}"
    text = "{orders} orders, {total}"
