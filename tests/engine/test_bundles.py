"""Bundles are checked before anything is changed, and their fingerprints are those of the contract."""

from __future__ import annotations

import secrets
import struct
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.exceptions import ResponseError

from router.requests.fields import MAX_CLOCK_AHEAD_MS
from shard_node.contract import (
    BUNDLE_HEAD,
    SYSTEM_SLOT,
    Abandon,
    BundleFlag,
    Decide,
    Decided,
    Effect,
    Finish,
    Kind,
    Leg,
    Outcome,
    Post,
    Prepare,
    Prepared,
    Transaction,
    bundle_of,
    new_attempt_id,
)
from shard_node.contract.layout import MAX_ID_AHEAD_MS, OUTCOME_RECORD
from shard_node.limits import MAX_BATCH, MAX_LEGS, MAX_MINOR
from tests.engine import drawn
from tests.engine.busy import ALICE, BOB, OTHER, WORLD, attempt_id, hold, transfer, uuid7
from tests.engine.conftest import NOW_MS
from tests.engine.shard import EngineShard

_ID = uuid7(NOW_MS, 1)
_PLAIN = transfer(_ID, WORLD, ALICE, 100)
_GENERAL = Transaction(
    _ID,
    Kind.JOURNAL,
    7,
    (
        Leg(WORLD, Effect.DEBIT, 100, "EUR"),
        Leg(ALICE, Effect.CREDIT, 60, "EUR"),
        Leg(BOB, Effect.CREDIT, 40, "EUR"),
    ),
)
_ACROSS = transfer(_ID, WORLD, ALICE, 100, payee_owner=1)
_NOT_OWN = replace(
    _GENERAL, legs=(Leg(ALICE, Effect.CREDIT, 1, "EUR", 1), Leg(BOB, Effect.DEBIT, 1, "EUR", 1))
)
_TRY = attempt_id(NOW_MS, 1)


def _with_legs(*legs: Leg) -> bytes:
    return bundle_of([replace(_GENERAL, legs=legs)])


def _general(leg: Leg) -> bytes:
    return _with_legs(_GENERAL.legs[0], leg, Leg(BOB, Effect.CREDIT, 1, "EUR"))


def _head(version: int = 1, flags: int = 0, rows: int = 1, legs: int = 3) -> bytes:
    return BUNDLE_HEAD.pack(version, flags, rows, legs, 18, 0, 0) + bundle_of([_GENERAL])[BUNDLE_HEAD.size :]


_MALFORMED = {
    "shorter than its head": bundle_of([_PLAIN])[: BUNDLE_HEAD.size - 1],
    "another layout": _head(version=2),
    "unknown flags": _head(flags=8),
    "too many transactions, or none": _head(rows=0),
    "too many legs, or too few": _head(flags=BundleFlag.PLAIN),
    "its size": bundle_of([_PLAIN]) + b"x",
    "a slot": bundle_of([replace(_PLAIN, deciding_slot=16384)]),
    "an unknown kind": bundle_of([replace(_PLAIN, kind=Kind.FREEZE)]),
    "an account id": _general(Leg("", Effect.CREDIT, 1, "EUR")),
    "an account id that is too long": _general(Leg("x" * 65, Effect.CREDIT, 1, "EUR")),
    "a currency": _general(Leg(ALICE, Effect.CREDIT, 1, "eur")),
    "an amount": _general(Leg(ALICE, Effect.CREDIT, 0, "EUR")),
    "an amount out of range": _general(Leg(ALICE, Effect.CREDIT, MAX_MINOR + 1, "EUR")),
    "an amount out": _general(Leg(ALICE, Effect.VOID, 1, "EUR")),
    "a version out of range": _general(Leg(ALICE, Effect.CREDIT, 1, "EUR", 0, -2)),
    "a version of another": _general(Leg(ALICE, Effect.CREDIT, 1, "EUR", 1, 5)),
    "an owner": _general(Leg(ALICE, Effect.CREDIT, 1, "EUR", 255)),
    "a bound": bundle_of([replace(_GENERAL, bound=-1)]),
    "an account in two legs": _general(Leg(WORLD, Effect.CREDIT, 1, "EUR")),
    "an account in two legs of a transaction": bundle_of([transfer(_ID, ALICE, ALICE, 1)]),
    "a number of legs": _with_legs(*(Leg(f"n{i}", Effect.CREDIT, 1, "EUR") for i in range(MAX_LEGS + 1))),
    "a purchase": bundle_of([replace(_GENERAL, kind=Kind.PURCHASE, legs=_GENERAL.legs[:1])]),
    "more than one hold": _with_legs(
        Leg(ALICE, Effect.HOLD, 1, "EUR"), Leg(BOB, Effect.HOLD, 1, "EUR"), Leg(WORLD, Effect.DEBIT, 1, "EUR")
    ),
    "a transaction id of the future": bundle_of(
        [_PLAIN, replace(_PLAIN, transaction_id=uuid7(NOW_MS + MAX_ID_AHEAD_MS + 1, 1))]
    ),
    "a transaction id of the fut": bundle_of(
        [replace(_GENERAL, transaction_id=uuid7(NOW_MS + MAX_ID_AHEAD_MS + 1, 1))]
    ),
    "a system account": _general(Leg("@fees:EUR", Effect.CREDIT, 99, "EUR")),
    "a system account that": bundle_of([transfer(_ID, ALICE, "@world:eur", 1)]),
    "a system account that there": bundle_of([transfer(_ID, "@", ALICE, 1, payee_owner=1)]),
    "a transaction whose legs do not sum": _general(Leg(ALICE, Effect.CREDIT, 100, "EUR")),
    "a transaction whose legs do not sum to": _with_legs(
        Leg(ALICE, Effect.CREDIT, 5, "USD"),
        Leg(BOB, Effect.DEBIT, 5, "EUR"),
    ),
    "a transaction whose legs do not sum to z": bundle_of(
        [_GENERAL, replace(_GENERAL, legs=(Leg(ALICE, Effect.DEBIT, MAX_MINOR, "EUR"),))]
    ),
    "a transaction whose legs do not sum to ze": _with_legs(
        Leg(ALICE, Effect.CAPTURE, 5, "EUR"), Leg(BOB, Effect.CREDIT, 6, "EUR")
    ),
    "a transaction whose legs do not sum to zer": _with_legs(
        Leg(ALICE, Effect.REFUND, 5, "EUR"), Leg(BOB, Effect.DEBIT, 4, "EUR")
    ),
    "a transaction whose legs do not sum to zero": _with_legs(
        Leg(ALICE, Effect.HOLD, 5, "EUR"), Leg(BOB, Effect.CREDIT, 5, "EUR")
    ),
}


@pytest.mark.parametrize("what", _MALFORMED)
def test_malformed_bundle_is_refused_and_changes_nothing(shard: EngineShard, what: str) -> None:
    """Whoever sends it: post, prepare, decide and check say what is wrong."""
    shard.open_plain(ALICE, BOB)
    before, bundle = shard.digest(), _MALFORMED[what]
    good = bundle_of([_PLAIN])
    for command in (
        Post(bundle),
        Prepare([Prepared(_TRY, OTHER, 1, bundle)]),
        Decide(
            [
                Decided(attempt_id(NOW_MS, 2), [OTHER], b"", b"", good),
                Decided(_TRY, [OTHER], b"", b"", bundle),
            ]
        ),
    ):
        with pytest.raises(ResponseError, match=f"malformed bundle: {what}"):
            shard.call(command)
    with pytest.raises(ResponseError, match=f"malformed bundle: {what}"):
        shard.fenced("check", 255, bundle)
    assert shard.digest() == before


def test_longest_of_everything_is_taken(shard: EngineShard) -> None:
    """A bundle at its limits is none of the malformed ones."""
    names = [f"{i:064d}" for i in range(MAX_LEGS - 1)]
    legs = (
        Leg(WORLD, Effect.DEBIT, MAX_LEGS - 1, "EUR"),
        *(Leg(name, Effect.CREDIT, 1, "EUR") for name in names),
    )
    shard.open_plain(*names)
    row = Transaction(_ID, Kind.JOURNAL, SYSTEM_SLOT, legs, b"d" * 0xFFFF)
    rows = [row, *(transfer(uuid7(NOW_MS, 10 + i), names[0], names[1], 1) for i in range(MAX_BATCH - 1))]
    codes = shard.call(Post(bundle_of(rows))).codes[0]
    assert codes[:2] == bytes((Outcome.COMMITTED, Outcome.COMMITTED))
    assert set(codes[2:]) == {Outcome.INSUFFICIENT_FUNDS}


def test_id_that_a_router_takes_is_not_of_the_future(shard: EngineShard) -> None:
    """A shard's clock may be minutes behind a router's; an id that is no UUIDv7 has no time."""
    assert MAX_ID_AHEAD_MS >= MAX_CLOCK_AHEAD_MS + 5 * 60_000
    ids = uuid7(NOW_MS + MAX_ID_AHEAD_MS, 1), b"\xff" * 6 + b"\x40" + bytes(9)
    rows = [replace(_PLAIN, transaction_id=one) for one in ids]
    shard.open_plain(ALICE)
    assert shard.call(Post(bundle_of(rows))).codes == (bytes((Outcome.COMMITTED,)),)


@given(data=st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_bundle_harms_nobody(shard: EngineShard, data: st.DataObject) -> None:
    """A bundle that was cut or changed is refused, or is another bundle; the shard goes on."""
    packed = bytearray(bundle_of(data.draw(drawn.batch([], {}, across=True))))
    if data.draw(st.booleans()):
        del packed[data.draw(st.integers(0, len(packed) - 1)) :]
    else:
        packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        shard.call(Post(bytes(packed)))
    except ResponseError as error:
        assert "malformed" in str(error)  # noqa: PT017
    assert shard.server.redis.ping()


@given(data=st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_fingerprint_is_that_of_the_contract(shard: EngineShard, data: st.DataObject) -> None:
    """Python and the engine make the same 8 bytes of a transaction, whatever it is made of."""
    row = data.draw(st.one_of(drawn.plain(across=False), drawn.general({}, across=False)))
    # Of random bytes, so that it is neither of the past nor one of another example.
    row = replace(row, transaction_id=secrets.token_bytes(6) + b"@" + secrets.token_bytes(9))
    row = replace(row, details=data.draw(st.binary()))
    shard.call(Post(bundle_of([row])))
    fingerprint = OUTCOME_RECORD.unpack_from(shard.fenced("outcomes", row.decision))[-1]
    assert fingerprint == row.fingerprint


@pytest.mark.parametrize(
    ("command", "what"),
    [
        (Prepare([Prepared(_TRY[:15], OTHER, 1, bundle_of([_PLAIN]))]), "attempt: an id"),
        (Prepare([Prepared(_TRY, "", 1, bundle_of([_PLAIN]))]), "decider"),
        (Prepare([Prepared(_TRY, OTHER, 0, bundle_of([_PLAIN]))]), "owner: it is no"),
        (Prepare([Prepared(_TRY, OTHER, 2, bundle_of([_PLAIN]))]), "owner: it has no leg"),
        (Prepare([Prepared(_TRY, OTHER, 1, bundle_of([_GENERAL]))]), "owner: it has no leg"),
        (Decide([Decided(_TRY, [], b"", b"", bundle_of([_PLAIN]))]), "participants"),
        (Decide([Decided(_TRY, [OTHER], b"\1", b"", bundle_of([_PLAIN]))]), "verdicts: one is no refusal"),
        (Decide([Decided(_TRY, [OTHER], b"\0\0", b"", bundle_of([_PLAIN]))]), "verdicts: not as many"),
        (Decide([Decided(_TRY, [OTHER], b"\2", b"\2", bundle_of([_PLAIN]))]), "legs: a transaction"),
        (Decide([Decided(_TRY, [OTHER], b"\2", b"\0\0", bundle_of([_PLAIN]))]), "legs: not as many"),
        (
            Decide([Decided(_TRY, [OTHER], b"", b"", _general(Leg(ALICE, Effect.CREDIT, 99, "EUR", 2)))]),
            "bundle: an owner that is no participant",
        ),
        (
            Decide([Decided(_TRY, [OTHER], b"", b"", bundle_of([_ACROSS, _NOT_OWN]))]),
            "bundle: a transaction without a leg",
        ),
        (
            Decide([Decided(_TRY, [OTHER], b"", b"", bundle_of([_GENERAL]))]),
            "bundle: a transaction without a part",
        ),
        (Decide([Decided(_TRY, [OTHER], b"", b"", bundle_of([_PLAIN]))], [(_TRY[:3], 1)]), "settlements"),
        (Finish([_TRY[:15]], [b"\1"]), "attempt: an id"),
        (Finish([_TRY], [b""]), "codes: too many, or none"),
        (Abandon([_TRY + b"x"]), "attempt: an id"),
        (Prepare([Prepared(attempt_id(NOW_MS + 60_001, 1), OTHER, 1, bundle_of([_PLAIN]))]), "future"),
        (Decide([Decided(attempt_id(NOW_MS + 60_001, 1), [OTHER], b"", b"", bundle_of([_PLAIN]))]), "future"),
        (Abandon([attempt_id(NOW_MS + 60_001, 1)]), "future"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_malformed_arguments_are_refused(
    shard: EngineShard, command: Prepare | Decide | Finish | Abandon, what: str
) -> None:
    """Ids, owners, participants, verdicts, legs, settlements, codes, and attempts of the future."""
    before = shard.digest()
    with pytest.raises(ResponseError, match=f"malformed {what}" if ":" in what else what):
        shard.call(command)
    assert shard.digest() == before


def test_too_many_transactions_in_one_call_are_refused(shard: EngineShard) -> None:
    """The limit is that of all its bundles together."""
    half = bundle_of(
        [transfer(uuid7(NOW_MS, i), WORLD, ALICE, 1, payee_owner=1) for i in range(MAX_BATCH // 2 + 1)]
    )
    names = [attempt_id(NOW_MS, number) for number in range(2)]
    with pytest.raises(ResponseError, match="too many transactions in one call"):
        shard.call(Prepare([Prepared(name, OTHER, 1, half) for name in names]))


def test_codes_of_another_number_do_not_end_an_attempt(shard: EngineShard) -> None:
    """An attempt is ended by a code for all or by one a transaction; else it stays as it was."""
    shard.open_plain(ALICE, BOB)
    rows = [transfer(uuid7(NOW_MS, i), WORLD, ALICE, 5, payee_owner=1) for i in range(3)]
    shard.call(Prepare([Prepared(_TRY, OTHER, 1, bundle_of(rows))]))
    before = shard.digest()
    with pytest.raises(ResponseError, match="malformed codes: not as many"):
        shard.call(Finish([_TRY], [b"\1\1"]))
    assert shard.digest() == before
    assert shard.call(Finish([_TRY], [b"\1"])).codes == [bytes((Outcome.FINISHED,))]


def test_system_account_that_was_only_refused_is_not_there(shard: EngineShard) -> None:
    """A system account begins with what happens to it, not with being named."""
    shard.open_plain(ALICE)
    refused = transfer(_ID, ALICE, WORLD, 5)
    assert shard.call(Post(bundle_of([refused]))).codes == (bytes((Outcome.INSUFFICIENT_FUNDS,)),)
    assert shard.accounts(WORLD) == [None]
    assert shard.call(Post(bundle_of([replace(_PLAIN, transaction_id=uuid7(NOW_MS, 2))]))).codes == (b"\1",)
    assert shard.account(WORLD).available_minor == -100


def test_pinned_hold_is_busy_for_its_own_attempt_without_naming_it(shard: EngineShard) -> None:
    """Of two captures of a hold in one attempt the second has no verdict; no other attempt is in its way."""
    shard.open_plain(ALICE, BOB)
    held = uuid7(NOW_MS, 5)
    assert shard.call(Post(bundle_of([_PLAIN, hold(held, ALICE, 50)]))).codes == (b"\1",)
    rows = [
        Transaction(
            uuid7(NOW_MS, 6 + i),
            Kind.CAPTURE,
            7,
            (Leg(ALICE, Effect.CAPTURE, 5, "EUR", 1), Leg("dora", Effect.CREDIT, 5, "EUR")),
            related_id=held,
        )
        for i in range(2)
    ]
    answer = shard.call(Prepare([Prepared(new_attempt_id(NOW_MS), OTHER, 1, bundle_of(rows))]))
    assert answer.codes == [struct.pack("BB", Outcome.PREPARED, Outcome.BUSY)]
    assert answer.others == [[]]
