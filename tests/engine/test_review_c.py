"""What sequences of commands once did to a shard that they must not: each of these lost money, or made copies differ."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shard_node.cluster.slots import slot
from shard_node.contract.commands import Abandon, Decide, Decided, Finish, Prepare, Prepared
from shard_node.contract.outcomes import Outcome
from shard_node.contract.transactions import bundle_of
from shard_node.contract.transfers import Kind
from tests.engine.busy import ALICE, BOB, OTHER, WORLD, attempt_id, posted, transfer, uuid7
from tests.engine.conftest import NOW_MS
from tests.engine.shard import EngineShard

ATTEMPT = attempt_id(NOW_MS, 1)
ABANDONED, COMMITTED, DROPPED = (
    bytes((code,)) for code in (Outcome.ABANDONED, Outcome.COMMITTED, Outcome.DROPPED)
)


@pytest.fixture
def funded(shard: EngineShard) -> EngineShard:
    """Two accounts, one with money."""
    shard.open_plain(ALICE, BOB)
    deposit = transfer(uuid7(NOW_MS, 1), WORLD, ALICE, 1_000, kind=Kind.DEPOSIT)
    assert posted(shard, replace(deposit, deciding_slot=slot(ALICE))) == [Outcome.COMMITTED]
    return shard


@pytest.mark.parametrize("abandoned_first", [True, False])
def test_abandoned_attempt_is_not_decided_where_it_was_prepared_too(
    funded: EngineShard, abandoned_first: bool
) -> None:
    """R7: that its legs were dropped here does not make a late decide commit, whose legs nobody would apply."""
    bundle = bundle_of([transfer(uuid7(NOW_MS, 2), ALICE, BOB, 5, payee_owner=1)])
    funded.call(Prepare([Prepared(ATTEMPT, OTHER, 1, bundle)]))
    abandon, drop = Abandon([ATTEMPT]), Finish([ATTEMPT], [ABANDONED])
    for command in (abandon, drop) if abandoned_first else (drop, abandon):
        assert funded.call(command).codes in ([ABANDONED], [DROPPED])
    assert funded.call(Decide([Decided(ATTEMPT, [OTHER], b"", b"", bundle)])).codes == [ABANDONED]
    assert funded.account(ALICE).available_minor == 1_000
