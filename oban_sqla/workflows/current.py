"""`current_workflow()`: the workflow of the running step."""

from sqlalchemy.orm import make_transient_to_detached

from ..errors import ObanError
from ..models.instrumentation import values_of
from ..models.job import Job
from ..workers.current_job import current_job
from .workflow import Workflow


def current_workflow() -> Workflow:
    """The workflow of the running step, to which it may add steps::

        flow = current_workflow()
        flow.add("more", more.new(), deps="extract")
        session.add(flow)  # or: await oban.enqueue(flow)

    New steps may wait for each other, and for stored steps by name. The `on_failure` of the
    workflow does not apply to new steps. Add the workflow to a session to read its other
    attributes. `ObanError` outside of a step.
    """
    job: Job | None = current_job()
    id = job.meta.get("workflow_id") if job is not None and isinstance(job.meta, dict) else None
    if not isinstance(id, str):
        raise ObanError("no step of a workflow is processed here")
    assert job is not None
    workflow = Workflow(job.meta.get("workflow_name"))
    workflow.id = id
    workflow.parent_id = job.meta.get("sup_workflow_id")
    # These attributes are unknown here. A session loads them when they are read.
    for name in ("meta", "unique_key"):
        values_of(workflow).pop(name)
    make_transient_to_detached(workflow)
    return workflow
