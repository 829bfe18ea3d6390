"""The log is applied, not decided anew: an engine of other rules, or with another past, comes to the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from shard_node.contract import (
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
)
from tests.engine.busy import ALICE, BOB, OTHER, WORLD, attempt_id, hold, posted, transfer, uuid7
from tests.engine.conftest import NOW_MS, StartServer
from tests.engine.server import EngineServer
from tests.engine.shard import EngineShard

_COMMITTED = bytes((Outcome.COMMITTED,))
_DEPOSIT = transfer(uuid7(NOW_MS, 1), WORLD, ALICE, 1_000)
_TRY = attempt_id(NOW_MS, 1)


def _entries(log: bytes) -> Iterator[tuple[bytes, list[bytes]]]:
    """The entries of an append-only file, as they are and as their arguments."""
    at = 0
    while at < len(log):
        begin, arguments = at, []
        end = log.index(b"\r\n", at)
        count, at = int(log[at + 1 : end]), end + 2
        for _ in range(count):
            end = log.index(b"\r\n", at)
            size = int(log[at + 1 : end])
            arguments.append(log[end + 2 : end + 2 + size])
            at = end + 4 + size
        yield log[begin:at], arguments


def _forget(server: EngineServer, transaction: Transaction) -> None:
    """Takes what carried a transaction out of the log of a server that is down."""
    [path] = Path(server.folder).glob("appendonlydir/*.incr.aof")
    kept = [
        entry
        for entry, arguments in _entries(path.read_bytes())
        if not any(transaction.transaction_id in argument for argument in arguments)
    ]
    path.write_bytes(b"".join(kept))


def _begun(start_server: StartServer) -> EngineShard:
    """A shard with two accounts, one of which has money, for a while."""
    server = start_server(manual_clock=True)
    server.set_clock(NOW_MS)
    shard = EngineShard(server)
    shard.bind()
    shard.open_plain(ALICE, BOB)
    assert posted(shard, _DEPOSIT) == [Outcome.COMMITTED]
    return shard


def _without_deposit(shard: EngineShard) -> None:
    """Starts the shard again as if the deposit had never been."""
    shard.server.kill()
    _forget(shard.server, _DEPOSIT)
    shard.server.start()


def test_post_is_applied_as_it_was_decided(start_server: StartServer) -> None:
    """What committed commits, and what was refused stays refused, whatever the balances are now."""
    shard = _begun(start_server)
    rows = [transfer(uuid7(NOW_MS, 2), ALICE, BOB, 400), transfer(uuid7(NOW_MS, 3), ALICE, BOB, 900)]
    assert posted(shard, *rows) == [Outcome.COMMITTED, Outcome.INSUFFICIENT_FUNDS]
    _without_deposit(shard)
    assert [shard.account(name).available_minor for name in (ALICE, BOB)] == [-400, 400]
    assert posted(shard, *rows) == [Outcome.COMMITTED, Outcome.INSUFFICIENT_FUNDS]


def test_decide_is_applied_as_it_was_decided(start_server: StartServer) -> None:
    """The commit is kept with the codes that were answered."""
    shard = _begun(start_server)
    rows = [transfer(uuid7(NOW_MS, number), ALICE, "dora", 600, payee_owner=1) for number in (2, 3)]
    decide = Decide([Decided(_TRY, [OTHER], b"", b"", bundle_of(rows))], with_balances=False)
    answer = shard.call(decide)
    assert answer.codes == [bytes((Outcome.COMMITTED, Outcome.INSUFFICIENT_FUNDS))]
    _without_deposit(shard)
    assert shard.account(ALICE).available_minor == -600
    assert shard.call(decide).codes == answer.codes


def test_prepare_and_finish_are_applied_as_they_were_decided(start_server: StartServer) -> None:
    """Debits are held back and leave, though there is no money for them."""
    shard = _begun(start_server)
    first, second = (transfer(uuid7(NOW_MS, number), ALICE, "dora", 600) for number in (2, 3))
    rows = [replace(row, legs=(replace(row.legs[0], owner=1), row.legs[1])) for row in (first, second)]
    prepare = Prepare([Prepared(_TRY, OTHER, 1, bundle_of(rows))])
    answer = shard.call(prepare)
    assert answer.codes == [bytes((Outcome.PREPARED, Outcome.INSUFFICIENT_FUNDS))]
    _without_deposit(shard)
    assert shard.account(ALICE).reserved_minor == 600
    assert shard.call(prepare).codes == answer.codes
    shard.call(Finish([_TRY], [bytes((Outcome.COMMITTED, Outcome.INSUFFICIENT_FUNDS))]))
    _without_deposit(shard)
    assert (shard.account(ALICE).available_minor, shard.account(ALICE).held_minor) == (-600, 0)


def test_what_an_older_engine_took_is_applied_and_finished(start_server: StartServer) -> None:
    """A rule for what is asked anew does not hold for what is in the log, nor for what is kept."""
    shard = _begun(start_server)
    row = Transaction(
        uuid7(NOW_MS, 2),
        Kind.JOURNAL,
        0,
        (Leg(ALICE, Effect.DEBIT, 600, "EUR", owner=1), Leg("dora", Effect.CREDIT, 600, "EUR")),
    )
    uneven = replace(row, legs=(replace(row.legs[0], amount_minor=700), row.legs[1]))
    shard.call(Prepare([Prepared(_TRY, OTHER, 1, bundle_of([row]))]))
    shard.server.kill()
    [path] = Path(shard.server.folder).glob("appendonlydir/*.incr.aof")
    path.write_bytes(path.read_bytes().replace(bundle_of([row]), bundle_of([uneven])))
    shard.server.start()
    assert shard.account(ALICE).reserved_minor == 700
    assert shard.call(Finish([_TRY], [_COMMITTED])).codes == [bytes((Outcome.FINISHED,))]
    assert shard.account(ALICE).available_minor == 300


def test_expired_id_stays_expired(start_server: StartServer) -> None:
    """The horizon is raised by what was answered, not by the time at which the log is applied."""
    shard = _begun(start_server)
    shard.bind(window_ms=1_000)
    late = transfer(uuid7(NOW_MS - 5_000, 2), WORLD, BOB, 1)
    assert posted(shard, late) == [Outcome.TRANSACTION_ID_EXPIRED]
    shard.server.restart(killed=True)
    shard.bind(window_ms=10**9)
    assert posted(shard, late) == [Outcome.TRANSACTION_ID_EXPIRED]


def test_hold_of_a_forgotten_deposit_is_made(start_server: StartServer) -> None:
    """A hold is made with its details and ends by its time."""
    shard = _begun(start_server)
    assert shard.call(Post(bundle_of([hold(uuid7(NOW_MS, 2), ALICE, 300, 1_000)]))).codes == (_COMMITTED,)
    _without_deposit(shard)
    assert (shard.account(ALICE).available_minor, shard.account(ALICE).held_minor) == (-300, 300)
    shard.server.set_clock(NOW_MS + 1_000)
    assert shard.fenced("expire", 10) == 1
    assert (shard.account(ALICE).available_minor, shard.account(ALICE).held_minor) == (0, 0)
