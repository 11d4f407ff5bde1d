"""`Step`: what a workflow knows of one of its jobs."""

from sqlalchemy import BigInteger, Double, Index, Text, UniqueConstraint, false
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from ..models import Base


class Step(Base):
    """A job of a workflow: how many steps it waits for, and which steps wait for it."""

    __tablename__ = "oban_sqla_workflow_steps"

    job_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    workflow_id: Mapped[str] = mapped_column(Text)
    path: Mapped[list[str]] = mapped_column(ARRAY(Text))
    """The ids of the workflows around it, from the outermost one to its own."""
    name: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(Text, server_default="step")
    """`step`, `last`, or the event of which it is the callback."""
    waits: Mapped[int] = mapped_column(server_default=sql("0"))
    dependents: Mapped[list[int]] = mapped_column(ARRAY(BigInteger), server_default="{}")
    """The jobs of the steps that wait for it."""
    on_cancelled: Mapped[str] = mapped_column(Text, server_default="cancel")
    """What becomes of it when a step that it waits for is cancelled: `cancel`, `run` or `hold`."""
    on_discarded: Mapped[str] = mapped_column(Text, server_default="cancel")
    on_deleted: Mapped[str] = mapped_column(Text, server_default="cancel")
    delay: Mapped[float | None] = mapped_column(Double)
    """Seconds from the end of the last step that it waits for until it is due."""
    tried: Mapped[bool] = mapped_column(server_default=false())
    """Whether an attempt of it has ended."""
    ended: Mapped[str | None] = mapped_column(Text)
    """Its outcome, as the workflow has counted it."""
    cause: Mapped[int | None] = mapped_column(BigInteger)
    """The job whose outcome cancelled it."""

    __table_args__ = (
        UniqueConstraint("workflow_id", "name", name="oban_sqla_workflow_steps_name_key"),
        Index("oban_sqla_workflow_steps_open_index", job_id, postgresql_where=sql("ended IS NULL")),
    )
