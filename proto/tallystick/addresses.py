"""Where routers are: HOST:PORT, where HOST is a name, an IPv4 address or an IPv6 address in brackets."""

import re
from collections.abc import Iterable
from ipaddress import IPv6Address

from tallystick import limits
from tallystick.errors import InvalidArgument

_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._\-]*[A-Za-z0-9_.])?")
_MAX_NAME_CHARS = 253
_MAX_PORT = 65_535


def router_addresses(given: Iterable[str | Iterable[str]]) -> list[str]:
    """The addresses, given one by one or as lists.

    Raises:
        InvalidArgument: there is none, or one is not HOST:PORT.
    """
    found: list[str] = []
    for entry in given:
        found.extend([entry] if isinstance(entry, str) else limits.several(entry, "addresses"))
    if not found:
        raise InvalidArgument("a client needs the address of at least one router", field="addresses")
    for address in found:
        if not _is_address(limits.instance(address, str, "addresses")):
            raise InvalidArgument(
                f"a router's address is HOST:PORT, such as router-1:7000 or [::1]:7000, not {address!r:.80}",
                field="addresses",
            )
    return found


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    if not (port.isdecimal() and port.isascii() and len(port) <= 5 and 1 <= int(port) <= _MAX_PORT):
        return False
    if not host.startswith("["):
        return len(host) <= _MAX_NAME_CHARS and bool(_NAME.fullmatch(host))
    try:
        IPv6Address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return host.endswith("]")
