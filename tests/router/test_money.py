"""Amounts: decimal text and minor units are the same number, and nothing else passes for an amount."""

# ruff: noqa: RUF001 -- characters that only look right are what some of these tests are about

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shard_node.cluster.currencies import package_exponent
from shard_node.limits import MAX_MINOR
from shard_node.money import to_minor, to_text

DIGITS = st.integers(0, 4)


@given(minor=st.integers(0, MAX_MINOR), digits=DIGITS)
def test_text_and_back(minor: int, digits: int) -> None:
    """What is written is read as the same number of minor units, and is the number decimal says."""
    text = to_text(minor, digits)
    assert to_minor(text, digits) == minor
    assert Decimal(text) == Decimal(minor).scaleb(-digits)


@given(minor=st.integers(-(2**70), 2**70), digits=DIGITS)
def test_text_of_any_sum(minor: int, digits: int) -> None:
    """Sums over many accounts pass 2^53 and go below zero; they are written exactly all the same."""
    text = to_text(minor, digits)
    assert Decimal(text) == Decimal(minor).scaleb(-digits)
    assert len(text.partition(".")[2]) == digits


@given(
    whole=st.from_regex(r"[0-9]{1,22}", fullmatch=True, alphabet=st.characters(codec="ascii")),
    fraction=st.none() | st.from_regex(r"[0-9]{1,5}", fullmatch=True, alphabet=st.characters(codec="ascii")),
    digits=DIGITS,
)
def test_every_plain_number_is_read_as_decimal_reads_it(
    whole: str, fraction: str | None, digits: int
) -> None:
    """A plain number is taken exactly when it has few enough decimals and is within the limit."""
    text = whole if fraction is None else f"{whole}.{fraction}"
    exact = Decimal(text).scaleb(digits)
    if len(fraction or "") <= digits and exact <= MAX_MINOR:
        assert to_minor(text, digits) == exact
    else:
        with pytest.raises(ValueError, match=r"decimals|above the largest amount"):
            to_minor(text, digits)


@given(text=st.text(), digits=DIGITS)
def test_any_text_is_a_plain_number_or_refused(text: str, digits: int) -> None:
    """No text is read as an amount that decimal would read otherwise."""
    try:
        minor = to_minor(text, digits)
    except ValueError:
        return
    assert set(text) <= set("0123456789.")
    assert Decimal(text).scaleb(digits) == minor


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", ".", "..", "1.", ".5", "1..0", "1.2.3"),
        *("-1", "+1", "--1", "1e3", "1E3", "0x10", "1_000", "1,000", "1,5", "1'000"),
        *(" 1", "1 ", "1\n", "\t1", "1. 5", "1\x00"),
        *("NaN", "Infinity", "inf", "-inf", "one", "€1", "1€"),
        *("١", "１", "१", "²", "1.٢", "Ⅷ", "一", "½"),
    ],
)
def test_not_an_amount(text: str) -> None:
    """Signs, exponents, spaces, grouping, other scripts' digits and words are refused."""
    with pytest.raises(ValueError, match="must be digits with at most one point"):
        to_minor(text, 2)


@pytest.mark.parametrize(
    ("text", "digits", "minor"),
    [
        ("0", 2, 0),
        ("0.00", 2, 0),
        ("00012.5", 2, 1250),
        ("12.5", 2, 1250),
        ("12.50", 2, 1250),
        ("7", 0, 7),
        ("0.001", 3, 1),
        ("0.0001", 4, 1),
        ("9007199254740991", 0, MAX_MINOR),
        ("90071992547409.91", 2, MAX_MINOR),
        ("9007199254740.991", 3, MAX_MINOR),
        ("0" * 31 + "1", 2, 100),
        ("0" * 5000, 0, 0),
        ("0" * 5000 + "9007199254740991", 0, MAX_MINOR),
    ],
)
def test_amount(text: str, digits: int, minor: int) -> None:
    """Leading zeros and missing decimals do not matter; the largest amount is 2^53 - 1 minor units."""
    assert to_minor(text, digits) == minor


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("9007199254740992", 0),
        ("90071992547409.92", 2),
        ("9007199254740.992", 3),
        ("1" + "0" * 30, 2),
        ("9" * 5000, 2),
        ("0" * 5000 + "9007199254740992", 0),
    ],
)
def test_too_large(text: str, digits: int) -> None:
    """From 2^53 minor units on nothing is taken, be it too long for int() or not; the limit is named."""
    with pytest.raises(ValueError, match=f"above the largest amount, {to_text(MAX_MINOR, digits)}"):
        to_minor(text, digits)


@pytest.mark.parametrize(("text", "digits"), [("1.0", 0), ("1.001", 2), ("1.000", 2), ("1.0001", 3)])
def test_too_many_decimals(text: str, digits: int) -> None:
    """More decimals than the currency has are refused, zeros too: nothing is rounded."""
    with pytest.raises(ValueError, match=f"the currency has {digits}"):
        to_minor(text, digits)


@pytest.mark.parametrize(
    ("currency", "digits"), [("JPY", 0), ("EUR", 2), ("BHD", 3), ("CLF", 4), ("ISK", 0), ("TND", 3)]
)
def test_decimals_of_iso_4217(currency: str, digits: int) -> None:
    """Decimals are those of ISO 4217."""
    assert package_exponent(currency) == digits


@pytest.mark.parametrize("currency", ["XAU", "XAG", "XXX", "XTS", "XDR", "ZZZ", "DEM", "eur", ""])
def test_no_decimals(currency: str) -> None:
    """Metals, test codes, codes of the past and no codes at all have no minor units."""
    assert package_exponent(currency) is None
