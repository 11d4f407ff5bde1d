"""`Step`: a job of a workflow, as a row of its own."""

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
    """The ids of the workflows around the step, from the outermost one to its own."""
    name: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(Text, server_default="step")
    """`step`, `last`, or the event of a batch that calls this step."""
    waits: Mapped[int] = mapped_column(server_default=sql("0"))
    """The number of steps that a suspended step waits for. It has no meaning for other steps."""
    dependents: Mapped[list[int]] = mapped_column(ARRAY(BigInteger), server_default="{}")
    """The jobs of the steps that wait for this step."""
    on_cancelled: Mapped[str] = mapped_column(Text, server_default="cancel")
    """The rule when a dep is cancelled: `cancel`, `run` or `hold` this step."""
    on_discarded: Mapped[str] = mapped_column(Text, server_default="cancel")
    on_deleted: Mapped[str] = mapped_column(Text, server_default="cancel")
    delay: Mapped[float | None] = mapped_column(Double)
    """Seconds from the end of the last dep until this step is due."""
    tried: Mapped[bool] = mapped_column(server_default=false())
    """Whether an attempt of the job has ended."""
    ended: Mapped[str | None] = mapped_column(Text)
    """The outcome of the job, once the workflow has counted it."""
    cause: Mapped[int | None] = mapped_column(BigInteger)
    """The job whose outcome cancelled this step."""

    __table_args__ = (
        UniqueConstraint("workflow_id", "name", name="oban_sqla_workflow_steps_name_key"),
        Index("oban_sqla_workflow_steps_open_index", job_id, postgresql_where=sql("ended IS NULL")),
    )
