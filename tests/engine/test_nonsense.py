"""Arguments cut at every byte, each byte changed, and everything as large as it may be, and larger by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from redis.exceptions import ResponseError

from shard_node.cluster.slots import slot
from shard_node.contract import (
    MAX_ATTEMPTS,
    Abandon,
    AccountTerms,
    Command,
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
    Settle,
    Transaction,
    bundle_of,
    pack_names,
    pack_terms,
)
from shard_node.limits import MAX_ACCOUNT_ID_CHARS, MAX_BATCH, MAX_LEGS, MAX_MINOR
from tests.engine.busy import ALICE, BOB, WORLD, attempt_id, fill, hold, transfer, uuid7
from tests.engine.conftest import NOW_MS
from tests.engine.shard import EngineShard
from tests.engine.test_hostile_input import commands

COMMITTED = bytes((Outcome.COMMITTED,))
NAMES = [name for name, _ in commands()]


def asked(shard: EngineShard, name: str, arguments: Sequence[bytes | int], before: int) -> int:
    """The shard's digest after the command; one that is refused changes nothing."""
    try:
        shard.raw(name, shard.fence, *arguments)
    except ResponseError as error:
        if not str(error).startswith(("malformed", "wrong number", "slot")):
            raise
        assert shard.digest() == before
    return shard.digest()


def cut(whole: bytes) -> Iterator[bytes]:
    """All beginnings; too many of a long one are left out."""
    step = max(1, len(whole) // 400)
    for size in (*range(0, len(whole), step), len(whole) - 1):
        yield whole[:size]
    yield whole + b"\0"


def changed(whole: bytes) -> Iterator[bytes]:
    """Each byte with other values."""
    for at in range(0, len(whole), max(1, len(whole) // 250)):
        for value in {0, 255, whole[at] ^ 1, whole[at] ^ 128} - {whole[at]}:
            yield whole[:at] + bytes((value,)) + whole[at + 1 :]


@pytest.mark.parametrize("number", range(len(NAMES)), ids=NAMES)
def test_command_that_is_cut_or_changed_anywhere_is_refused_or_valid(shard: EngineShard, number: int) -> None:
    """Refused, it changes nothing; and the shard goes on."""
    fill(shard, NOW_MS)
    name, arguments = commands()[number]
    digest = shard.digest()
    for place, argument in enumerate(arguments):
        whole = argument if isinstance(argument, bytes) else b"%d" % argument
        for damaged in (*cut(whole), *changed(whole)):
            digest = asked(shard, name, [*arguments[:place], damaged, *arguments[place + 1 :]], digest)
    for count in range(len(arguments)):
        digest = asked(shard, name, arguments[:count], digest)
    asked(shard, name, [*arguments, b""], digest)
    assert shard.account(ALICE).currency == "EUR"


def test_largest_batch_is_carried_out_and_one_more_is_malformed(shard: EngineShard) -> None:
    """8192 transactions a call, in one bundle and in several."""
    shard.open_plain(ALICE, BOB)
    rows = [
        replace(transfer(uuid7(NOW_MS, n), WORLD, ALICE, 1, kind=Kind.DEPOSIT), deciding_slot=1)
        for n in range(MAX_BATCH + 1)
    ]
    assert shard.call(Post(bundle_of(rows[:MAX_BATCH]))).codes == (COMMITTED,)
    assert shard.account(ALICE).available_minor == MAX_BATCH
    _refused(shard, Post(bundle_of(rows)), "too many transactions")
    halves = [
        bundle_of([replace(row, legs=_across(row)) for row in some]) for some in (rows[:4096], rows[4096:])
    ]
    attempts = [Decided(attempt_id(NOW_MS, n), ["p"], b"", b"", half) for n, half in enumerate(halves)]
    _refused(shard, Decide(attempts), "too many transactions")
    prepared = [Prepared(attempt_id(NOW_MS, n), "d", 1, half) for n, half in enumerate(halves)]
    _refused(shard, Prepare(prepared), "too many transactions")


def _across(row: Transaction) -> tuple[Leg, ...]:
    return row.legs[0], replace(row.legs[1], owner=1)


def _refused(shard: EngineShard, command: Command, why: str) -> None:
    before = shard.digest()
    with pytest.raises(ResponseError, match=why):
        shard.call(command)
    assert shard.digest() == before


def test_finish_of_more_than_a_batch_is_malformed(shard: EngineShard) -> None:
    """Attempts that were kept by several calls are ended by several, too."""
    shard.open_plain(ALICE)
    half = MAX_BATCH // 2 + 1
    ids = [attempt_id(NOW_MS, n) for n in range(2)]
    for n, name in enumerate(ids):
        rows = [transfer(uuid7(NOW_MS, n * half + i), "dora", ALICE, 1, payee_owner=1) for i in range(half)]
        answer = shard.call(Prepare([Prepared(name, "d", 1, bundle_of(rows))]))
        assert answer.codes == [bytes((Outcome.PREPARED,))]
    _refused(shard, Finish(ids, [COMMITTED] * 2), "too many transactions")
    for name in ids:
        assert shard.call(Finish([name], [COMMITTED])).codes == [bytes((Outcome.FINISHED,))]
    assert shard.account(ALICE).available_minor == 2 * half


def test_journal_of_a_hundred_legs_is_carried_out_and_one_more_is_malformed(shard: EngineShard) -> None:
    """The leg that a refusal concerns may be the last of them."""
    names = [f"account-{n}" for n in range(MAX_LEGS)]
    shard.open_plain(*names[:-1])
    legs = [Leg(WORLD, Effect.DEBIT, MAX_LEGS - 1, "EUR")]
    legs += [Leg(name, Effect.CREDIT, 1, "EUR") for name in names]
    journal = Transaction(uuid7(NOW_MS, 1), Kind.JOURNAL, 7, tuple(legs[:-1]))
    answer = shard.call(Post(bundle_of([journal] * 3)))
    assert (answer.codes, answer.legs) == ((COMMITTED,), (b"",))
    assert {record.available_minor for record in shard.accounts(*names[:-1]) if record} == {1}
    missing = replace(journal, transaction_id=uuid7(NOW_MS, 2), legs=(*legs[:-2], legs[-1]))
    answer = shard.call(Post(bundle_of([missing])))
    assert (answer.codes, answer.legs) == (
        (bytes((Outcome.ACCOUNT_NOT_FOUND,)),),
        (bytes((MAX_LEGS - 1,)),),
    )
    _refused(shard, Post(bundle_of([replace(journal, legs=tuple(legs))])), "legs out of range")


def test_names_of_all_lengths_are_accounts_and_longer_ones_are_malformed(shard: EngineShard) -> None:
    """Within an account's record and outside it; in bundles and in lists."""
    names = ["n" * size for size in range(1, MAX_ACCOUNT_ID_CHARS + 1)]
    shard.open_plain(*names)
    rows = [
        replace(transfer(uuid7(NOW_MS, n), WORLD, name, 1 + n), deciding_slot=7)
        for n, name in enumerate(names)
    ]
    assert shard.call(Post(bundle_of(rows))).codes == (COMMITTED,)
    amounts = [record.available_minor for record in shard.accounts(*names) if record]
    assert amounts == [1 + n for n in range(len(names))]
    before = shard.digest()
    shard.raw("DEBUG", "RELOAD")
    assert shard.digest() == before
    longer = "n" * (MAX_ACCOUNT_ID_CHARS + 1)
    _refused(shard, Post(bundle_of([transfer(uuid7(NOW_MS, 99), WORLD, longer, 1)])), "too long")
    for name, arguments in (
        ("open", [pack_terms([AccountTerms(longer, 7, "EUR")])]),
        ("accounts", [pack_names([longer])]),
        ("accounts", [pack_names([""])]),
        ("accounts", [pack_names([])]),
        ("accounts", [pack_names(["n"] * (MAX_BATCH + 1))]),
    ):
        with pytest.raises(ResponseError, match="malformed"):
            shard.fenced(name, *arguments)
    assert len(shard.accounts(*["n"] * MAX_BATCH)) == MAX_BATCH


def test_most_attempts_of_a_call_are_taken_and_one_more_is_malformed(shard: EngineShard) -> None:
    """1024 of them, one of which keeps something; the largest number of participants is 254."""
    shard.open_plain(ALICE)
    ids = [attempt_id(NOW_MS, n) for n in range(MAX_ATTEMPTS + 1)]
    bundles = [bundle_of([transfer(uuid7(NOW_MS, n), ALICE, BOB, 1, payee_owner=1)]) for n in range(len(ids))]
    decided = [Decided(one, ["p"], b"", b"", bundle) for one, bundle in zip(ids, bundles, strict=True)]
    prepared = [Prepared(one, "d", 1, bundle) for one, bundle in zip(ids, bundles, strict=True)]
    pairs: list[tuple[Command, Command]] = [
        (Prepare(prepared[:-1]), Prepare(prepared)),
        (Decide(decided[:-1]), Decide(decided)),
        (Finish(ids[:-1], [COMMITTED] * MAX_ATTEMPTS), Finish(ids, [COMMITTED] * len(ids))),
        (Abandon(ids[:-1]), Abandon(ids)),
    ]
    for most, more in pairs:
        assert len(shard.call(most).codes) == MAX_ATTEMPTS
        _refused(shard, more, "attempts: too many")
    shard.call(Settle([(one, 1) for one in ids] * 20))
    many = [f"p{n}" for n in range(255)]
    asked_of = Decided(attempt_id(NOW_MS, 5_000), many[:254], b"", b"", bundles[0])
    assert len(shard.call(Decide([asked_of])).codes) == 1
    _refused(shard, Decide([replace(asked_of, participants=many)]), "participants: too many")


def test_largest_details_of_a_hold_reach_the_entry_of_its_expiry(shard: EngineShard) -> None:
    """64 KiB less one; and a snapshot brings them back."""
    shard.open_plain(ALICE)
    details = bytes(range(256)) * 256
    rows = [
        replace(transfer(uuid7(NOW_MS, 1), WORLD, ALICE, 9), deciding_slot=slot(ALICE)),
        replace(hold(uuid7(NOW_MS, 2), ALICE, 5, 1_000), details=details[:-1]),
    ]
    assert shard.call(Post(bundle_of(rows))).codes == (COMMITTED,)
    shard.raw("DEBUG", "RELOAD")
    shard.server.set_clock(NOW_MS + 1_000)
    assert shard.fenced("expire", 1) == 1
    assert shard.frames()[-1][1][b"r0"].endswith(details[:-1])


def test_what_is_held_never_passes_the_largest_amount(shard: EngineShard) -> None:
    """Although there is more to take: what was held is given to the account anew."""
    shard.open_plain(ALICE, BOB)

    def prepared(number: int, amount: int) -> bytes:
        legs = (Leg("dora", Effect.CREDIT, amount, "EUR"), Leg(WORLD, Effect.DEBIT, amount, "EUR", owner=1))
        bundle = bundle_of([Transaction(uuid7(NOW_MS, number), Kind.JOURNAL, 7, legs)])
        return shard.call(Prepare([Prepared(attempt_id(NOW_MS, number), "d", 1, bundle)])).codes[0]

    def given(number: int, account: str, amount: int) -> bytes:
        shard.open(AccountTerms(f"lender-{number}", 7, "EUR", -MAX_MINOR))
        legs = (
            Leg(f"lender-{number}", Effect.DEBIT, amount, "EUR"),
            Leg(account, Effect.CREDIT, amount, "EUR"),
        )
        bundle = bundle_of([Transaction(uuid7(NOW_MS, number), Kind.JOURNAL, 7, legs)])
        return shard.call(Post(bundle)).codes[0]

    assert prepared(1, MAX_MINOR) == bytes((Outcome.PREPARED,))
    # What is held counts as the account's: its balance is at the limit then.
    assert given(2, WORLD, MAX_MINOR) == COMMITTED
    assert given(3, WORLD, 1) == bytes((Outcome.BALANCE_LIMIT,))
    assert prepared(4, 1) == bytes((Outcome.BALANCE_LIMIT,))
    assert shard.call(Finish([attempt_id(NOW_MS, 1)], [COMMITTED])).codes == [bytes((Outcome.FINISHED,))]
    assert shard.account(WORLD).available_minor == 0
    assert prepared(5, 1) == bytes((Outcome.PREPARED,))


def test_codes_of_attempts_that_are_not_kept_may_be_as_many_as_a_batch(shard: EngineShard) -> None:
    """Each of many attempts may have that many; one more is malformed."""
    codes = bytes((Outcome.ABORTED, Outcome.ELSEWHERE)) * (MAX_BATCH // 2)
    ids = [attempt_id(NOW_MS, number) for number in range(200)]
    dropped = bytes((Outcome.DROPPED,))
    assert shard.call(Finish(ids, [codes] * len(ids))).codes == [dropped] * len(ids)
    missing = shard.call(Finish(ids, [codes[1:] + COMMITTED] * len(ids)))
    assert missing.codes == [bytes((Outcome.MISSING_LEG,))] * len(ids)
    assert shard.info()["alarms"] == len(ids)
    _refused(shard, Finish(ids[:1], [codes + COMMITTED]), "codes: too many")
