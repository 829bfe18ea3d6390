"""A command that cannot have all its memory changes nothing, whichever of its requests it is that fails."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import pytest
from redis.exceptions import OutOfMemoryError

from shard_node.cluster.slots import slot
from shard_node.contract import (
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
    Transaction,
    bundle_of,
)
from tests.engine.busy import (
    ALICE,
    BOB,
    LONG,
    OTHER,
    WORLD,
    attempt_id,
    capture,
    hold,
    refund,
    transfer,
    uuid7,
)
from tests.engine.conftest import NOW_MS
from tests.engine.server import EngineServer
from tests.engine.shard import EngineShard

# More than any command asks for.
_MOST_REQUESTS: Final = 100
_COMMITTED: Final = bytes((Outcome.COMMITTED,))
_TRY, _OLD_TRY = attempt_id(NOW_MS, 1), attempt_id(NOW_MS, 2)


@pytest.fixture(scope="module")
def module_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineServer]:
    """A server whose memory can be made to fail, for the fixture `shard`."""
    server = EngineServer(tmp_path_factory.mktemp("engine"), manual_clock=True, sanitized=True)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _refusals(shard: EngineShard, *commands: Command | tuple[Any, ...]) -> int:
    """How often the last command is refused: its first request for memory fails, then its second one, ..."""
    *before, last = commands
    for refused in range(_MOST_REQUESTS):
        shard.server.redis.flushall()
        shard.bind()
        shard.open(*(AccountTerms(name, slot(name), "EUR", -5) for name in (ALICE, BOB, LONG)))
        for command in (*_BEGUN, *before):
            _carry_out(shard, command)
        digest, frames = shard.digest(), shard.frames()
        shard.raw("tallystick.fail", refused + 1)
        try:
            _carry_out(shard, last)
        except OutOfMemoryError:
            assert (shard.digest(), shard.frames()) == (digest, frames)
        else:
            return refused
        finally:
            shard.raw("tallystick.fail", 0)
    raise AssertionError("the command asks for memory without end")


def _carry_out(shard: EngineShard, command: Command | tuple[Any, ...]) -> None:
    if isinstance(command, tuple):
        shard.fenced(*command)
    else:
        shard.call(command)


def _posted(*transactions: Transaction) -> Post:
    return Post(bundle_of(transactions))


_BEGUN: Final = (
    _posted(
        transfer(uuid7(NOW_MS, 1), WORLD, ALICE, 1_000_000, kind=Kind.DEPOSIT),
        transfer(uuid7(NOW_MS, 2), WORLD, LONG, 1_000_000, kind=Kind.DEPOSIT),
    ),
    _posted(
        hold(uuid7(NOW_MS, 3), ALICE, 500), transfer(uuid7(NOW_MS, 4), ALICE, LONG, 900, kind=Kind.PURCHASE)
    ),
)
# A hold, a capture, a refund, a purchase, and system accounts that begin.
_ALL_KINDS: Final = (
    hold(uuid7(NOW_MS, 10), ALICE, 20),
    capture(uuid7(NOW_MS, 11), uuid7(NOW_MS, 3), ALICE, WORLD, 100),
    refund(uuid7(NOW_MS, 12), uuid7(NOW_MS, 4), LONG, ALICE, 90, 900),
    transfer(uuid7(NOW_MS, 13), ALICE, "@world:USD", 5, kind=Kind.PURCHASE),
    transfer(uuid7(NOW_MS, 14), BOB, ALICE, 10**9),
)


def _for(owner: int) -> bytes:
    """All kinds, as legs of one owner; with legs of another one, as every transaction across shards has."""
    other = 0 if owner else 1
    there = Leg("elsewhere", Effect.CREDIT, 1, "EUR", other), Leg("further", Effect.DEBIT, 1, "EUR", other)
    rows = (
        replace(row, legs=(*(replace(leg, owner=owner) for leg in row.legs), *there)) for row in _ALL_KINDS
    )
    return bundle_of(tuple(rows))


def test_post_is_all_or_nothing(shard: EngineShard) -> None:
    """Outcomes, purchases, holds with their details, refunds, system accounts."""
    assert _refusals(shard, _posted(*_ALL_KINDS)) > 5


def test_prepare_is_all_or_nothing(shard: EngineShard) -> None:
    """None of several attempts in one call is kept unless all can be."""
    prepared = [Prepared(name, OTHER, 1, _for(1)) for name in (_TRY, _OLD_TRY)]
    assert _refusals(shard, Prepare(prepared)) > 5


def test_decide_is_all_or_nothing(shard: EngineShard) -> None:
    """Settlements that ride along do not count either."""
    earlier = bundle_of((transfer(uuid7(NOW_MS, 20), ALICE, "dora", 5, payee_owner=1),))
    first = Decide([Decided(_OLD_TRY, [OTHER], b"", b"", earlier)])
    decide = Decide([Decided(_TRY, [OTHER], b"", b"", _for(0))], [(_OLD_TRY, 1)])
    assert _refusals(shard, first, decide) > 5


def test_finish_is_all_or_nothing(shard: EngineShard) -> None:
    """What was prepared stays prepared."""
    prepare = Prepare([Prepared(_TRY, OTHER, 1, _for(1))])
    assert _refusals(shard, prepare, Finish([_TRY, _OLD_TRY], [_COMMITTED, b"\0"])) > 2


def test_abandon_is_all_or_nothing(shard: EngineShard) -> None:
    """No attempt is marked unless all are."""
    assert _refusals(shard, Abandon([_TRY, _OLD_TRY])) > 1


def test_rotate_is_all_or_nothing(shard: EngineShard) -> None:
    """Nothing is forgotten unless what is carried over has its place."""
    decide = Decide([Decided(_TRY, [OTHER], b"", b"", _for(0))])
    assert _refusals(shard, decide, ("rotate", 0, 0), ("rotate", 0, 0)) > 5
