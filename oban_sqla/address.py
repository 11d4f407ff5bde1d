"""Parse an address to listen at: `:9100`, `127.0.0.1:9100`, `[::1]:9100`."""

from typing import NamedTuple


class Address(NamedTuple):
    """An address to listen at."""

    host: str
    """Empty for all interfaces."""
    port: int


def parse_address(text: str) -> Address:
    """Parse an address; `ValueError` if it has another form."""
    host, _, port = text.strip().rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{text!r} has no port: write :9100, or 127.0.0.1:9100")
    if ":" in host and not bracketed:
        raise ValueError(f"{text!r} is not an address: write an IPv6 address as [::1]:9100")
    return Address(host[1:-1] if bracketed else host, int(port))
