"""A shard that gives no answer is told from one that refuses, and no failure is taken for an answer."""

from __future__ import annotations

from shard_node.client import NoReply, Shard, ask, ask_all, connect
from shard_node.contract import Abandon, Answer, Finish, Outcome, Post, Settle, bundle_of
from tests.engine.busy import ALICE, BOB, attempt_id, transfer, uuid7
from tests.engine.conftest import NOW_MS
from tests.engine.server import HOST
from tests.engine.shard import EngineShard

PAYMENT = Post(bundle_of([transfer(uuid7(NOW_MS, 1), ALICE, BOB, 5)]))


def client_of(address: str, fence: str = "test/shard-0/1") -> Shard:
    """A client of the shard at that address; to be closed."""
    return Shard("shard-0", fence, connect(address))


async def test_each_failure_has_its_reason(shard: EngineShard) -> None:
    """Stale and full mean that nothing was done; all else that nobody knows."""
    address = f"{HOST}:{shard.server.port}"
    async with client_of(address) as client:
        assert await ask(client, Settle([])) == Answer()
        # No correct caller sends it: whatever became of it is not known.
        assert await ask(client, Post(b"nonsense")) is NoReply.LOST
        shard.bind(backlog_limit=0)
        assert await ask(client, PAYMENT) is NoReply.FULL
    async with client_of(address, "test/shard-0/2") as stale:
        assert await ask(stale, PAYMENT) is NoReply.STALE
    async with client_of("127.0.0.1:1") as nobody:
        assert await ask(nobody, PAYMENT) is NoReply.LOST


async def test_answers_come_by_the_index_of_their_shard(shard: EngineShard) -> None:
    """Those of shards that answer are there although another one does not."""
    shard.open_plain(ALICE, BOB)
    address = f"{HOST}:{shard.server.port}"
    async with client_of(address) as first, client_of("127.0.0.1:1") as away, client_of(address) as third:
        unknown = attempt_id(NOW_MS, 7)
        answers = await ask_all(
            [first, away, third],
            {2: Abandon([unknown]), 1: PAYMENT, 0: Finish([unknown], [bytes((Outcome.ABANDONED,))])},
        )
    assert list(answers) == [2, 1, 0]
    abandoned, finished = answers[2], answers[0]
    assert isinstance(abandoned, Answer)
    assert isinstance(finished, Answer)
    assert abandoned.codes == [bytes((Outcome.ABANDONED,))]
    assert finished.codes == [bytes((Outcome.DROPPED,))]
    assert answers[1] is NoReply.LOST
    assert await ask_all([], {}) == {}
