"""`Partition`: the values by which a queue counts its jobs, in Oban's words."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .values import is_name

FIELDS = ("args", "meta", "worker")
EXAMPLE = '{"fields": ["args"], "keys": ["account_id"]}'


@dataclass(frozen=True, slots=True)
class Partition:
    """Jobs with the same values count together."""

    fields: tuple[str, ...]
    """The compared fields, of args, meta and worker."""
    keys: tuple[str, ...] = ()
    """The compared keys of args and meta, with dots for nested ones."""

    @classmethod
    def of(cls, given: object) -> "Partition | None":
        """Read Oban's `{"fields": ["args"], "keys": ["account_id"]}`; `None` if it is empty.

        `TypeError` or `ValueError`, naming the field and the value, for anything else.
        """
        if given is None or given == {} or given == []:
            return None
        if not isinstance(given, Mapping):
            raise TypeError(f"partition must be a mapping, like {EXAMPLE}, not {given!r}")
        if unknown := sorted(map(str, given.keys() - {"fields", "keys"})):
            raise ValueError(f"partition has no {unknown[0]!r}; it is like {EXAMPLE}")
        fields, keys = (_names(word, given.get(word, ())) for word in ("fields", "keys"))
        wrong = [field for field in fields if field not in FIELDS]
        if wrong or not fields:
            shown = repr(wrong[0]) if wrong else "none"
            raise ValueError(f"fields of partition must be of {', '.join(FIELDS)}, not {shown}")
        if fields == ("worker",) and keys:
            raise ValueError(f"keys of partition are keys of args or meta: name that field, {keys}")
        if fields != ("worker",) and not keys:
            raise ValueError(f"partition must name the keys of {fields[0]}, like {EXAMPLE}")
        return cls(fields, keys)

    @property
    def words(self) -> dict[str, list[str]]:
        """Oban's form."""
        keys = {"keys": [*self.keys]} if self.keys else {}
        return {"fields": [*self.fields], **keys}

    @property
    def label(self) -> str:
        """The key that counts the jobs, in words: `account_id`, or `worker, meta.region`."""
        return ", ".join(
            name
            for field in self.fields
            for name in (
                ["worker"]
                if field == "worker"
                else [key if field == "args" else f"meta.{key}" for key in self.keys]
            )
        )


def _names(word: str, given: Any) -> tuple[str, ...]:
    if isinstance(given, str | Mapping) or not isinstance(given, Iterable):
        raise TypeError(f"{word} of partition must be a list of names, not {given!r}")
    names = list(given)
    for name in names:
        if not is_name(name) or not all(name.split(".")):
            raise ValueError(f"{word} of partition must be names, not {name!r}")
    return tuple(dict.fromkeys(names))
