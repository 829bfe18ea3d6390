"""Opening, freezing, closing, reading and listing accounts."""

from __future__ import annotations

import struct
from dataclasses import replace
from itertools import product

import pytest
from redis.exceptions import ResponseError

from shard_node.cluster.slots import slot
from shard_node.contract import (
    ENTRY_HEAD,
    FRAME_HEAD,
    SYSTEM_SLOT,
    AccountState,
    AccountTerms,
    Effect,
    FrameKind,
    Kind,
    Leg,
    Outcome,
    Prepare,
    Prepared,
    Transaction,
    bundle_of,
    pack_changes,
    pack_names,
    pack_terms,
)
from shard_node.limits import MAX_BATCH, MAX_MINOR
from tests.engine.busy import ALICE, BOB, LONG, WORLD, attempt_id, posted, transfer, uuid7
from tests.engine.conftest import NOW_MS
from tests.engine.shard import EngineShard

TERMS = AccountTerms(ALICE, slot(ALICE), "EUR", -100, 5_000, 2_000)


def test_opened_account_has_the_terms_it_was_opened_with(shard: EngineShard) -> None:
    """A fresh account is empty, open, and has its limits; one that was never opened is not there."""
    assert shard.open(TERMS) == [Outcome.COMMITTED]
    account, missing = shard.accounts(ALICE, "nobody")
    assert account is not None
    assert (account.available_minor, account.held_minor, account.version) == (0, 0, 0)
    assert (account.minimum_minor, account.maximum_balance_minor, account.maximum_transfer_minor) == (
        -100,
        5_000,
        2_000,
    )
    assert (account.slot, account.state, account.currency) == (slot(ALICE), AccountState.OPEN, "EUR")
    assert missing is None


@pytest.mark.parametrize("length", [1, 21, 22, 64])
@pytest.mark.parametrize("limit", [0, 1_000])
def test_names_of_every_length_are_kept(shard: EngineShard, length: int, limit: int) -> None:
    """Short names lie in the record, long ones and limits beside it: it makes no difference to anybody."""
    name = "n" * length
    terms = AccountTerms(name, slot(name), "EUR", maximum_balance_minor=limit)
    assert shard.open(terms) == [Outcome.COMMITTED]
    assert shard.open(terms) == [Outcome.COMMITTED]
    assert shard.account(name).maximum_balance_minor == limit
    assert shard.names([slot(name)]) == [name]


def test_same_terms_again_are_no_error_and_other_terms_are(shard: EngineShard) -> None:
    """An account is opened once, also within one call; whoever names other terms is refused."""
    assert shard.open(TERMS, TERMS) == [Outcome.COMMITTED, Outcome.COMMITTED]
    others = [
        replace(TERMS, currency="USD"),
        replace(TERMS, minimum_minor=0),
        replace(TERMS, maximum_balance_minor=0),
        replace(TERMS, maximum_transfer_minor=1),
    ]
    assert shard.open(*others) == [Outcome.ACCOUNT_EXISTS] * 4
    assert shard.info()["accounts"] == 1
    assert shard.info()["backlog_entries"] == 1


def test_frame_of_opening_says_which_accounts_were_made(shard: EngineShard) -> None:
    """The ledger has the list as it came, and a code for each that was made; nothing made, no frame."""
    shard.open(TERMS, AccountTerms(LONG, slot(LONG), "EUR"))
    both = pack_terms([TERMS, AccountTerms(BOB, slot(BOB), "EUR")])
    shard.fenced("open", both)
    shard.fenced("open", both)
    frames = [fields for _, fields in shard.frames()]
    assert len(frames) == 2
    assert FRAME_HEAD.unpack(frames[1][b"h"]) == (1, FrameKind.OPEN, 1)
    assert frames[1][b"o0"] == both
    assert frames[1][b"c0"] == bytes((0, Outcome.COMMITTED))
    assert frames[0][b"c0"] == bytes((Outcome.COMMITTED,))


@pytest.mark.parametrize(
    "terms",
    [
        replace(TERMS, minimum_minor=1),
        replace(TERMS, minimum_minor=-MAX_MINOR - 1),
        replace(TERMS, maximum_balance_minor=-1),
        replace(TERMS, maximum_balance_minor=MAX_MINOR + 1),
        replace(TERMS, maximum_transfer_minor=MAX_MINOR + 1),
        replace(TERMS, slot=16384),
        replace(TERMS, slot=SYSTEM_SLOT),
        replace(TERMS, currency="eur"),
        replace(TERMS, account=""),
        replace(TERMS, account="x" * 65),
        replace(TERMS, account=WORLD),
    ],
)
def test_malformed_terms_are_refused_before_anything_is_opened(
    shard: EngineShard, terms: AccountTerms
) -> None:
    """One bad account refuses the call: the good one before it is not opened."""
    before = shard.digest()
    with pytest.raises(ResponseError, match="malformed accounts"):
        shard.open(replace(TERMS, account="good"), terms)
    assert shard.digest() == before


def test_account_is_opened_by_a_name_that_an_archive_can_store(shard: EngineShard) -> None:
    """UTF-8 as Python reads it, and without NUL, which PostgreSQL does not take."""
    leads = b"\0\1A\x7f\x80\xbf\xc0\xc1\xc2\xdf\xe0\xe1\xec\xed\xee\xef\xf0\xf1\xf3\xf4\xf5\xf7\xf8\xff"
    seconds = (b"", b"\0", b"A", b"\x7f", *(bytes((byte,)) for byte in b"\x80\x8f\x90\x9f\xa0\xbf\xc0\xff"))
    rests = b"", b"\x80", b"\xbf\xbf", b"\xbf\xbfz"
    names = {bytes((lead,)) + second + rest for lead, second, rest in product(leads, seconds, rests)}
    for name in sorted(names):
        listed = pack_terms([replace(TERMS, account="x" * len(name))])[: -len(name)] + name
        if _is_text(name):
            assert shard.fenced("open", listed)[0] == bytes((Outcome.COMMITTED,))
        else:
            with pytest.raises(ResponseError, match="malformed accounts: a name that is no text"):
                shard.fenced("open", listed)
    assert shard.info()["accounts"] == sum(map(_is_text, names)) > 50


def _is_text(name: bytes) -> bool:
    try:
        return "\0" not in name.decode()
    except UnicodeDecodeError:
        return False


def test_system_account_that_there_is_not_does_not_begin(shard: EngineShard) -> None:
    """Neither with a change of its state; another name is of nobody's account."""
    for name in ("@", "@fees:EUR", "@world:eur", "@world:EURO"):
        with pytest.raises(ResponseError, match="malformed changes: a system account"):
            shard.set_state(("nobody", Kind.FREEZE), (name, Kind.FREEZE))
    assert shard.set_state(("nobody", Kind.FREEZE)) == [Outcome.ACCOUNT_NOT_FOUND]


def test_lists_whose_lengths_lie_are_refused(shard: EngineShard) -> None:
    """Every list that was cut, or has bytes behind its names, or too many names, is malformed."""
    whole = pack_terms([TERMS])
    for list_of in [whole[:cut] for cut in range(len(whole))] + [whole + b"x"]:
        with pytest.raises(ResponseError, match="malformed accounts"):
            shard.fenced("open", list_of)
    with pytest.raises(ResponseError, match="malformed names"):
        shard.fenced("accounts", pack_names(["x"] * (MAX_BATCH + 1)))
    with pytest.raises(ResponseError, match="malformed changes"):
        shard.fenced("set_state", 0, pack_changes([(ALICE, Kind.TRANSFER)]))


def test_frozen_account_can_be_used_again_when_it_is_unfrozen(shard: EngineShard) -> None:
    """FREEZE and UNFREEZE change state and version, and again change nothing."""
    shard.open_plain(ALICE)
    assert shard.set_state((ALICE, Kind.FREEZE), (ALICE, Kind.FREEZE), ("nobody", Kind.FREEZE)) == [
        Outcome.COMMITTED,
        Outcome.COMMITTED,
        Outcome.ACCOUNT_NOT_FOUND,
    ]
    assert (shard.account(ALICE).state, shard.account(ALICE).version) == (AccountState.FROZEN, 1)
    refused = posted(shard, transfer(uuid7(NOW_MS, 1), WORLD, ALICE, 5))
    assert refused == [Outcome.ACCOUNT_FROZEN]
    shard.set_state((ALICE, Kind.UNFREEZE))
    assert (shard.account(ALICE).state, shard.account(ALICE).version) == (AccountState.OPEN, 2)


def test_only_an_empty_account_with_nothing_on_its_way_is_closed(shard: EngineShard) -> None:
    """CLOSE waits for the balance to be zero and for prepared credits; a closed account stays closed."""
    shard.open_plain(ALICE, BOB, LONG)
    posted(shard, transfer(uuid7(NOW_MS, 1), WORLD, ALICE, 5))
    incoming = bundle_of([transfer(uuid7(NOW_MS, 2), "dora", BOB, 5, payee_owner=1)])
    shard.call(Prepare([Prepared(attempt_id(NOW_MS, 1), "test/shard-1", 1, incoming)]))
    assert shard.set_state(
        (ALICE, Kind.CLOSE), (BOB, Kind.CLOSE), (LONG, Kind.CLOSE), (LONG, Kind.CLOSE), (LONG, Kind.UNFREEZE)
    ) == [
        Outcome.ACCOUNT_NOT_EMPTY,
        Outcome.ACCOUNT_IN_USE,
        Outcome.COMMITTED,
        Outcome.COMMITTED,
        Outcome.ACCOUNT_CLOSED,
    ]
    assert shard.account(LONG).state == AccountState.CLOSED


def test_dry_run_says_what_would_be_and_changes_nothing(shard: EngineShard) -> None:
    """With `dry` a change that could be made is VALID, and no frame, no version, no log entry follows."""
    shard.open_plain(ALICE)
    before = shard.digest()
    changes = ((ALICE, Kind.CLOSE), ("nobody", Kind.FREEZE))
    assert shard.set_state(*changes, dry=True) == [Outcome.VALID, Outcome.ACCOUNT_NOT_FOUND]
    assert shard.digest() == before


def test_frame_of_a_change_has_the_state_after(shard: EngineShard) -> None:
    """Each change of state is an entry of the ledger: account, kind, balance and version after."""
    shard.open_plain(ALICE, BOB)
    posted(shard, transfer(uuid7(NOW_MS, 1), WORLD, ALICE, 5))
    shard.set_state((ALICE, Kind.FREEZE), (BOB, Kind.CLOSE), (BOB, Kind.CLOSE))
    fields = shard.frames()[-1][1]
    assert FRAME_HEAD.unpack(fields[b"h"]) == (1, FrameKind.STATE, 1)
    rows = _rows(fields[b"r0"])
    assert rows == [(ALICE, Kind.FREEZE, 5, 2), (BOB, Kind.CLOSE, 0, 1)]


def _rows(packed: bytes) -> list[tuple[str, int, int, int]]:
    """Account, kind, balance and version of each row."""
    rows, at = [], 0
    while at < len(packed):
        head = ENTRY_HEAD.unpack_from(packed, at)
        at += ENTRY_HEAD.size
        name = packed[at : at + head[10]].decode()
        at += head[10] + head[11] + head[12]
        rows.append((name, head[7], head[4], head[5]))
    return rows


def test_what_prepared_debits_hold_back_is_reserved(shard: EngineShard) -> None:
    """`reserved` is the part of held that only prepared debits hold; a name asked for twice has it twice."""
    shard.open_plain(ALICE, BOB)
    posted(shard, transfer(uuid7(NOW_MS, 1), WORLD, ALICE, 1_000))
    journal = Transaction(
        uuid7(NOW_MS, 2),
        Kind.JOURNAL,
        slot("dora"),
        (
            Leg("dora", Effect.DEBIT, 100, "EUR"),
            Leg(ALICE, Effect.DEBIT, 60, "EUR", owner=1),
            Leg(BOB, Effect.CREDIT, 160, "EUR", owner=1),
        ),
    )
    shard.call(Prepare([Prepared(attempt_id(NOW_MS, 1), "test/shard-1", 1, bundle_of([journal]))]))
    first, bob, again = shard.accounts(ALICE, BOB, ALICE)
    assert first is not None
    assert bob is not None
    assert (first.available_minor, first.held_minor, first.reserved_minor) == (940, 60, 60)
    assert bob.reserved_minor == 0
    assert again == first


def test_names_are_listed_slot_by_slot_over_many_calls(shard: EngineShard) -> None:
    """All accounts of the slots asked for are listed once, however many calls that takes, and no others."""
    inside = [f"{{a}}:{number}" for number in range(10_000)]
    outside = [f"{{b}}:{number}" for number in range(10)]
    for first in range(0, len(inside), MAX_BATCH):
        shard.open_plain(*inside[first : first + MAX_BATCH])
    shard.open_plain(*outside)
    slots = [slot("{a}"), slot("empty"), SYSTEM_SLOT]
    found = shard.names(slots)
    assert sorted(found) == sorted(inside)
    cursor, pages = shard.fenced("names", b"", struct.pack("<3H", *slots))
    assert cursor
    assert len(pages) == 1
    assert shard.names([slot("{b}")]) == outside[::-1]


def test_listing_begins_a_slot_again_when_its_cursor_is_gone(shard: EngineShard) -> None:
    """A cursor that names no account of the slot lists the slot from its beginning: nothing is left out."""
    shard.open_plain(ALICE)
    for cursor in (b"nobody", b"x" * 100, b"\0"):
        _, pages = shard.fenced("names", cursor, struct.pack("<H", slot(ALICE)))
        assert pages == [bytes((len(ALICE),)) + ALICE.encode()]
    for slots in (b"", b"\1", struct.pack("<H", 16384)):
        with pytest.raises(ResponseError, match="malformed slots"):
            shard.fenced("names", b"", slots)


def test_account_is_shown_to_people_in_words(shard: EngineShard) -> None:
    """`tallystick.account` names each value; for an account that is not there it answers nothing."""
    shard.open(TERMS)
    shown = shard.raw("tallystick.account", ALICE)
    assert shown[b"state"] == b"open"
    assert shown[b"minimum_balance_minor"] == -100
    assert shown[b"currency"] == b"EUR"
    assert shard.raw("tallystick.account", "nobody") is None
    assert shard.raw("tallystick.account", "x" * 100) is None
