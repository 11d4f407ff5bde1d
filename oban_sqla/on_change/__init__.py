"""Enqueue on change: when a session changes rows of a model, workers that react get jobs.

The options are `OnChangeOptions` of `workers/options.py`.
"""

from ..workers import features
from ..workers.declaration import Declaration
from ..workers.worker import declaration_of
from . import enqueue_changes
from .reaction import reaction


def _react(cls: type, declaration: Declaration, *, is_model: bool) -> None:
    found = reaction(cls, declaration, is_model=is_model)
    if found is not None:
        declaration_of(cls)
        enqueue_changes.react(found)


features.listen(_react)
