"""The parts of the schema: the objects that each version creates, by kind and name."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

PARTS: Mapping[int, tuple[str, ...]] = MappingProxyType(
    {
        1: (
            *("table oban_jobs", "table oban_leaders", "table oban_producers"),
            "index oban_jobs_state_queue_priority_scheduled_at_id_index",
            "index oban_jobs_staging_index",
            "index oban_jobs_completed_at_index",
            "index oban_jobs_cancelled_at_index",
            "index oban_jobs_discarded_at_index",
            "function oban_count_estimate",
        ),
        2: ("table oban_sqla_cron", "table oban_sqla_controls"),
        3: ("index oban_sqla_jobs_self_index",),
        4: (
            "constraint oban_sqla_unique",
            "function oban_sqla_give_up_claim",
            "trigger oban_sqla_give_up_claim",
        ),
        7: (
            *("table oban_workflows", "table oban_sqla_workflow_steps"),
            *("index oban_sqla_jobs_workflow_index", "index oban_sqla_jobs_chain_index"),
            *("index oban_sqla_workflows_unique_index", "index oban_sqla_workflows_parent_index"),
            "index oban_sqla_workflow_steps_open_index",
            "constraint oban_sqla_workflow_steps_name_key",
            *("function oban_sqla_join_chain", "trigger oban_sqla_join_chain"),
        ),
        8: (
            *("table oban_sqla_rates", "table oban_sqla_starts"),
            *("index oban_sqla_jobs_partition_index", "index oban_sqla_starts_at_index"),
        ),
    }
)
"""The parts that each version creates."""


def missing_parts(found: Iterable[str], version: int) -> dict[int, list[str]]:
    """The parts of versions up to `version` that are not in `found`, by version."""
    there = set(found)
    missing = {
        made: [part for part in parts if part not in there]
        for made, parts in PARTS.items()
        if made <= version
    }
    return {made: parts for made, parts in missing.items() if parts}
