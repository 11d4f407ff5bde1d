"""The JSON of requests and responses."""

from datetime import date
from decimal import Decimal
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from examples.fastapi_app.models import Order
from examples.fastapi_app.progress import describe
from oban_sqla import Job


class NewOrder(BaseModel):
    email: Annotated[str, Field(pattern=r"^\S+@\S+$")]
    product_id: int
    quantity: Annotated[int, Field(gt=0)] = 1


class OrderProgress(BaseModel):
    id: int
    status: str
    paid: bool
    total: Decimal
    jobs: list[str]

    @classmethod
    def of(cls, order: Order, jobs: list[Job]) -> Self:
        return cls(
            id=order.id,
            status=order.status,
            paid=order.paid_at is not None,
            total=order.total,
            jobs=[describe(job) for job in jobs],
        )


class ClosedDay(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    day: date
    orders: int
    total: Decimal
