"""The arguments of a call get the names that `inspect` would give them."""

import inspect
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from oban_sqla.workers.binding import Binding


def plain(a: int, b: int = 2, *, c: int = 3, d: int) -> Any:
    return locals()


def no_arguments() -> Any:
    return locals()


def with_session(session: Any, a: int, b: int = 2) -> Any:
    return {name: value for name, value in locals().items() if name != "session"}


def fails(*args: Any, **kwargs: Any) -> Any:
    raise AssertionError("this call needs no inspect")


CALLS = list(
    product(
        [(), (1,), (1, 2), (1, 2, 3)],
        [{}, {"d": 4}, {"a": 5, "d": 4}, {"b": 6, "d": 4}, {"c": 7, "d": 4}, {"d": 4, "e": 8}],
    )
)


@pytest.mark.parametrize("function", [plain, no_arguments])
def test_a_call_is_bound_or_refused_as_inspect_does(function: Callable[..., Any]) -> None:
    binding = Binding(function, session=False)
    for args, kwargs in CALLS:
        try:
            expected = inspect.signature(function).bind(*args, **kwargs).arguments
        except TypeError:
            with pytest.raises(TypeError):
                binding.arguments("w", args, kwargs)
        else:
            arguments = binding.arguments("w", args, kwargs)
            assert arguments == dict(expected)
            assert binding.call("w", arguments, None) == function(*args, **kwargs)


def test_a_plain_call_does_not_use_inspect(monkeypatch: pytest.MonkeyPatch) -> None:
    binding = Binding(plain, session=False)
    for owner, name in ((inspect.Signature, "bind"), (inspect, "BoundArguments")):
        monkeypatch.setattr(owner, name, fails)
    arguments = binding.arguments("w", (1,), {"b": 5, "d": 4})
    assert arguments == {"a": 1, "b": 5, "d": 4}
    assert binding.call("w", arguments, None) == {"a": 1, "b": 5, "c": 3, "d": 4}


def test_the_session_is_no_argument() -> None:
    binding = Binding(with_session, session=True)
    assert binding.arguments("w", (1,), {}) == {"a": 1}
    assert binding.call("w", {"a": 1}, object()) == {"a": 1, "b": 2}
    with pytest.raises(TypeError, match=r"w\(a: int, b: int = 2\) -> Any takes no argument 'sess"):
        binding.call("w", {"a": 1, "session": 5}, object())
