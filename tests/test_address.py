"""Addresses to listen at."""

import pytest

from oban_sqla.address import parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":9100", ("", 9100)),
        ("9100", ("", 9100)),
        (" 127.0.0.1:0 ", ("127.0.0.1", 0)),
        ("node.shop.test:65535", ("node.shop.test", 65535)),
        ("[::1]:9100", ("::1", 9100)),
    ],
)
def test_valid_addresses_are_parsed(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "has no port"),
        ("localhost", "has no port"),
        (":", "has no port"),
        (":65536", "has no port"),
        (":-1", "has no port"),
        (":\uff19", "has no port"),
        ("::1:9100", "IPv6"),
    ],
)
def test_invalid_addresses_are_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_address(text)
