"""Amounts as text and as integers in minor units. ``digits`` is a currency's exponent."""

from __future__ import annotations

from shard_node.limits import MAX_MINOR


def to_text(minor: int, digits: int) -> str:
    """Minor units as decimal text: ``to_text(-1250, 2)`` is ``-12.50``."""
    if digits == 0:
        return str(minor)
    sign, minor = ("-", -minor) if minor < 0 else ("", minor)
    whole = str(minor).rjust(digits + 1, "0")
    return f"{sign}{whole[:-digits]}.{whole[-digits:]}"


def to_minor(text: str, digits: int) -> int:
    """Decimal text as minor units. Raises ValueError that says what is wrong with the text."""
    whole, point, fraction = text.partition(".")
    # isdigit alone lets other scripts' digits and superscripts through.
    if not (whole.isdigit() and whole.isascii()) or (
        point and not (fraction.isdigit() and fraction.isascii())
    ):
        raise ValueError(
            'must be digits with at most one point, such as "12.50": no sign, exponent or spaces'
        )
    if len(fraction) > digits:
        raise ValueError(f"has {len(fraction)} decimals, the currency has {digits}")
    if len(whole) > 20:
        # int() refuses some thousand digits, zeros in front among them.
        whole = whole.lstrip("0")[:20]
    minor = int(whole + fraction.ljust(digits, "0") or "0")
    if minor > MAX_MINOR:
        raise ValueError(f"is above the largest amount, {to_text(MAX_MINOR, digits)}")
    return minor
