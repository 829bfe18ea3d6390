"""Transaction and account ids: what passes, what does not, and that the refusal says why."""

# ruff: noqa: RUF001 -- characters that only look right are what some of these tests are about

from __future__ import annotations

import string
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.requests import fields
from router.requests.fields import MAX_CLOCK_AHEAD_MS, BadField
from shard_node.cluster.slots import slot
from tests.router.samples import ID as V4
from tests.router.samples import NOW_MS, asked, attempt, reader, transactions, uuid7

NIL = "00000000-0000-0000-0000-000000000000"


@pytest.mark.parametrize(
    "text",
    [
        V4,
        V4.upper(),
        "5F0c2A34-9d1B-4c7e-8a2f-6b3d9e014c57",
        "304799d4-e582-11f1-8001-000000000001",
        uuid7(NOW_MS),
        uuid7(0),
        uuid7(NOW_MS + MAX_CLOCK_AHEAD_MS),
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
    ],
)
def test_transaction_id(text: str) -> None:
    """Any UUID in its 36 characters passes, in either case; what is kept are its 16 bytes."""
    raw = UUID(text).bytes
    assert reader().transaction_id(text) == raw
    assert transactions().transfer(asked(transaction_id=text)).transaction.transaction_id == raw


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is missing"),
        (NIL, "is the nil UUID"),
        (f"{{{V4}}}", f"must be written as {V4}"),
        (V4.replace("-", ""), f"must be written as {V4}"),
        (f"urn:uuid:{V4}", f"must be written as {V4}"),
        # Misplaced dashes: 36 characters and the right digits.
        ("5f0c2a3-49d1b-4c7e-8a2f-6b3d9e014c57", f"must be written as {V4}"),
        ("5f0c2a34-9d1b-4c7e-8a2f6-b3d9e014c57", f"must be written as {V4}"),
        ("-f0c2a34-9d1b-4c7e-8a2f-6b3d9e014c57", "must be a UUID"),
        (V4[:-1], "must be a UUID"),
        (V4 + "0", "must be a UUID"),
        (V4 + "\n", "must be a UUID"),
        (" " + V4, "must be a UUID"),
        (V4[:-1] + " ", ""),
        (V4[:-2] + "  ", ""),
        # What int() and bytes.fromhex() would let through.
        ("5f0c2a34-9d1b-4c7e-8a2f-6b3d9e_14c57", ""),
        ("+f0c2a34-9d1b-4c7e-8a2f-6b3d9e014c57", ""),
        ("٥f0c2a34-9d1b-4c7e-8a2f-6b3d9e014c57", ""),
        ("５f0c2a34-9d1b-4c7e-8a2f-6b3d9e014c57", ""),
        ("gf0c2a34-9d1b-4c7e-8a2f-6b3d9e014c57", "must be a UUID"),
        ("5f0c2a34_9d1b_4c7e_8a2f_6b3d9e014c57", "must be a UUID"),
        ("5f0c2a34\u20119d1b-4c7e-8a2f-6b3d9e014c57", "must be a UUID"),
        ("7", "must be a UUID"),
        (uuid7(NOW_MS + MAX_CLOCK_AHEAD_MS + 1), "60 s in the future"),
        (uuid7(2**48 - 1), "60 s in the future"),
    ],
)
def test_not_a_transaction_id(text: str, why: str) -> None:
    """Every other spelling is refused, alike in single calls and batches, and told what it should be."""
    with pytest.raises(BadField) as single:
        reader().transaction_id(text)
    found = transactions().transfers([asked(transaction_id=text)])
    assert (found.batch, found.bad) == ([], {0: single.value})
    assert single.value.field == "transaction_id"
    assert why in single.value.message


def test_other_versions_have_no_time() -> None:
    """Only a UUIDv7 is measured against the clock: the first bytes of a UUIDv4 are no time."""
    assert reader(0).transaction_id("ffffffff-9d1b-4c7e-8a2f-6b3d9e014c57")


@given(text=st.text() | st.from_regex(r"[0-9a-f-]{36}") | st.uuids().map(str))
def test_any_text_as_a_transaction_id(text: str) -> None:
    """Whatever the text, it is the UUID that it spells, or refused in a BadField."""
    read = attempt(lambda: reader().transaction_id(text))
    if isinstance(read, BadField):
        assert read.field == "transaction_id"
    else:
        assert str(UUID(bytes=read)) == text.lower()


@pytest.mark.parametrize(
    "account_id",
    ["a", "x" * 64, string.ascii_letters, string.digits, "a._:@{}-", "a@b", "{alice}:usd", "{}", "-", "{@x}"],
)
def test_account_id(account_id: str) -> None:
    """1 to 64 letters, digits and . _ : @ { } - make an id, on either side; "@" may not come first."""
    for leg, sides in enumerate(((account_id, "other"), ("other", account_id))):
        found = transactions().transfer(asked(from_account=sides[0], to_account=sides[1]))
        assert (found.transaction.legs[leg].account, found.slots[leg]) == (account_id, slot(account_id))


@pytest.mark.parametrize("field", ["from_account", "to_account"])
@pytest.mark.parametrize(
    "account_id",
    [
        *("", "x" * 65, "x" * 10_000),
        *("a b", " a", "a ", "a\n", "a\t", "a\x00", "a/b", "a\\b", "a#b", "a*", "a+b", "a,b", "a=b", "a'b"),
        *("(a)", "[a]", "<a>", "a;b", "a?b", "a!b", "a%b", "a&b", "a|b", "a~b", "a^b", "a$", 'a"b', "a`b"),
        *("é", "аlice", "a１", "a١", "名前", "😀", "a\u200b"),
    ],
)
def test_not_an_account_id(field: str, account_id: str) -> None:
    """Any other length or character is refused by the field's name, with the rule."""
    with pytest.raises(BadField) as refused:
        transactions().transfer(asked(**{field: account_id}))
    assert refused.value.field == field
    assert "1-64 characters of letters, digits and . _ : @ { } -" in refused.value.message
    # A huge id comes back shortened: it travels in a gRPC header.
    assert len(refused.value.message) < 200


@pytest.mark.parametrize("field", ["from_account", "to_account"])
@pytest.mark.parametrize("account_id", ["@world:EUR", "@", "@fees", "@" * 64])
def test_system_account(field: str, account_id: str) -> None:
    """An id that begins with "@" is the system's: no caller may move its money."""
    with pytest.raises(BadField, match="belongs to the system") as refused:
        transactions().transfer(asked(**{field: account_id}))
    assert refused.value.field == field


def test_self_transfer() -> None:
    """An account cannot pay itself; one with the same hash tag, or in other case, is another account."""
    with pytest.raises(BadField, match="is the same account") as refused:
        transactions().transfer(asked(from_account="alice", to_account="alice"))
    assert refused.value.field == "to_account"
    neighbours = transactions().transfer(asked(from_account="{alice}:a", to_account="{alice}:b"))
    assert neighbours.slots == (slot("alice"),) * 2
    others = transactions().transfer(asked(from_account="alice", to_account="Alice"))
    assert [leg.account for leg in others.transaction.legs] == ["alice", "Alice"]


@given(account_id=st.text() | st.from_regex(r"[A-Za-z0-9._:@{}\-]{1,70}", fullmatch=True))
def test_any_text_as_an_account_id(account_id: str) -> None:
    """Whatever the text, it is an id by the rule or refused in a BadField that names its field."""
    allowed = set(string.ascii_letters + string.digits + "._:@{}-")
    fits = 1 <= len(account_id) <= 64 and set(account_id) <= allowed and account_id[0] != "@"
    read = attempt(lambda: reader().account_slot(account_id, "account_id"))
    if isinstance(read, BadField):
        assert not fits
        assert read.field == "account_id"
    else:
        assert fits
        assert read == slot(account_id)


def test_remembered_slots_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of slots never passes its limit, and forgetting changes no answer."""
    monkeypatch.setattr(fields, "MAX_REMEMBERED_SLOTS", 3)
    one = reader()
    for number in range(10):
        account_id = f"account-{number}"
        assert one.account_slot(account_id, "account_id") == slot(account_id)
        assert len(one.slots) <= 3
    assert one.account_slot("account-0", "account_id") == slot("account-0")


def test_refused_ids_are_not_remembered() -> None:
    """A refused id stays refused: asking twice does not make it valid."""
    one = reader()
    for _ in range(2):
        with pytest.raises(BadField):
            one.account_slot("@world:EUR", "account_id")
    assert len(one.slots) == 0
