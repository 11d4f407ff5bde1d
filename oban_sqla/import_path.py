"""Import paths: an object of a module, written `module:attribute`."""

import importlib
import re
from functools import reduce
from typing import Any

_FORM = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def is_one(value: object) -> bool:
    """Whether a value has the form `module:attribute`; nothing is imported."""
    return isinstance(value, str) and _FORM.fullmatch(value) is not None


def load(path: str) -> Any:
    """Import the module and return the attribute; `ImportError` or `AttributeError`."""
    module, _, attribute = path.partition(":")
    return reduce(getattr, attribute.split("."), importlib.import_module(module))
