"""The engine and the model of it are asked the same, call by call, and answer the same.

At the end of each example the shard is brought back, from its log, by applying what it decided, and from a
snapshot: it must be what it was, byte for byte.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from shard_node.contract.accounts import pack_names
from shard_node.contract.commands import (
    Abandon,
    Answer,
    Command,
    Decide,
    Decided,
    Finish,
    Post,
    Prepare,
    Prepared,
    Settle,
)
from shard_node.contract.journals import Effect
from shard_node.contract.layout import ACCOUNT_RECORD, ALL_OWNERS, OUTCOME_RECORD
from shard_node.contract.outcomes import Outcome
from shard_node.contract.transactions import Bundle, Transaction, bundle_of
from shard_node.contract.transfers import Kind
from tests.engine import drawn
from tests.engine.conftest import NOW_MS
from tests.engine.frames import entries
from tests.engine.server import EngineServer
from tests.engine.shard import UNLIMITED, EngineShard
from tests.engine_model import EngineModel
from tests.engine_model.state import Kept, legs_of, rows_of

# A fixed sample; more, for a search that may take its time.
_EXAMPLES = int(os.environ.get("TALLYSTICK_ENGINE_EXAMPLES", "40"))
_STEPS = 40
_VERDICTS = st.sampled_from((0, 0, 0, Outcome.SKIPPED, Outcome.INSUFFICIENT_FUNDS, Outcome.ACCOUNT_NOT_FOUND))
_ENDS = st.sampled_from((Outcome.COMMITTED, Outcome.COMMITTED, Outcome.SETTLED, Outcome.ABANDONED))


def _comparable(answer: Answer) -> tuple[Any, ...]:
    """What an answer says; a column that is empty throughout may be left out."""
    columns = [[*map(bytes, column)] for column in (answer.codes, answer.legs, answer.balances)]
    filled = [column if any(column) else [] for column in columns]
    others = [sorted(one) for one in answer.others] if any(answer.others) else []
    return *filled, others, [*answer.unfinished]


class EngineAgainstModel(RuleBasedStateMachine):
    """One shard of each."""

    server: EngineServer

    def __init__(self) -> None:
        super().__init__()
        self.server.redis.flushall()
        self.server.set_clock(NOW_MS)
        self.shard = EngineShard(self.server)
        self.shard.bind(window_ms=drawn.WINDOW_MS)
        self.model = EngineModel(now_ms=NOW_MS, window_ms=drawn.WINDOW_MS, backlog_limit=UNLIMITED)
        self.known: list[Transaction] = []
        for terms in drawn.ACCOUNTS:
            self.model.open(
                terms.account,
                terms.currency,
                terms.slot,
                terms.minimum_minor,
                terms.maximum_balance_minor,
                terms.maximum_transfer_minor,
            )
        self.shard.open(*drawn.ACCOUNTS)

    def both(self, command: Command) -> None:
        """Asks both, and compares."""
        expected, answer = self.model.call(command), self.shard.call(command)
        assert _comparable(answer) == _comparable(expected)

    def batch(self, data: st.DataObject, *, across: bool) -> bytes:
        """A bundle, some of whose transactions were in others before."""
        usable = [one for one in self.known if not across or {0} < {leg.owner for leg in one.legs}]
        transactions = data.draw(drawn.batch(usable, self.model.holds, across=across))
        self.known = [*self.known, *transactions][-30:]
        return bundle_of(transactions)

    @rule(data=st.data(), with_balances=st.booleans())
    def post(self, data: st.DataObject, *, with_balances: bool) -> None:
        """Transactions on one shard."""
        self.both(Post(self.batch(data, across=False), with_balances))

    @rule(data=st.data(), count=st.integers(1, 3))
    def prepare(self, data: st.DataObject, count: int) -> None:
        """Step 1."""
        asked = []
        for _ in range(count):
            bundle = self.batch(data, across=True)
            owners = {leg.owner for row in Bundle.unpack(bundle).transactions for leg in row.legs} - {0}
            if owners:
                owner = data.draw(st.sampled_from(sorted(owners)))
                decider = data.draw(st.sampled_from(drawn.DECIDERS))
                asked.append(Prepared(data.draw(drawn.attempts), decider, owner, bundle))
        if asked:
            self.both(Prepare(asked))

    @rule(data=st.data(), count=st.integers(1, 3), settled=drawn.settlements, with_balances=st.booleans())
    def decide(
        self, data: st.DataObject, count: int, settled: list[tuple[bytes, int]], *, with_balances: bool
    ) -> None:
        """Step 2, and what settles with it."""
        asked = []
        for _ in range(count):
            bundle = self.batch(data, across=True)
            rows = Bundle.unpack(bundle).transactions
            verdicts = bytes(data.draw(_VERDICTS) for _ in rows) if data.draw(st.booleans()) else b""
            legs = bytes(data.draw(st.integers(0, len(row.legs) - 1)) for row in rows) if verdicts else b""
            asked.append(Decided(data.draw(drawn.attempts), ("shard-1", "shard-2"), verdicts, legs, bundle))
        self.both(Decide(asked, settled, with_balances))

    @rule(data=st.data(), count=st.integers(1, 3), with_balances=st.booleans())
    def finish(self, data: st.DataObject, count: int, *, with_balances: bool) -> None:
        """Step 3. No transaction is committed twice here, as none is by a deciding shard."""
        kept, held = sorted(self.model.attempts), set(self.model.holds)
        ends: dict[bytes, bytes] = {}
        for _ in range(count):
            some = st.sampled_from(kept) if kept else drawn.attempts
            name = data.draw(st.one_of(some, drawn.attempts))
            attempt = self.model.attempts.get(name)
            ends[name] = self._ends(data, attempt, held) if attempt else bytes((data.draw(_ENDS),))
        self.both(Finish([*ends], [*ends.values()], with_balances))

    def _ends(self, data: st.DataObject, attempt: Kept, held: set[bytes]) -> bytes:
        """Codes for an attempt's transactions. ``held`` are names of holds, which no other may have."""
        codes = [data.draw(_ENDS) for _ in attempt.codes]
        for i, row in enumerate(rows_of(attempt.bundle)):
            legs = [row.transaction.legs[number] for number in legs_of(row, attempt.owner)]
            made = {
                self.model.condition(row, leg)
                for leg in legs
                if leg.effect is Effect.HOLD and self.model.account(leg.account)
            }
            if codes[i] == Outcome.COMMITTED and made & held:
                codes[i] = Outcome.ELSEWHERE
            held |= made
        return bytes(codes)

    @rule(data=st.data())
    def finish_twice(self, data: st.DataObject) -> None:
        """Two ends of one attempt in one call: the second one finds it ended."""
        name = data.draw(drawn.attempts)
        dropped = bytes((Outcome.ABANDONED,))
        self.both(Finish([name, name], [dropped, dropped]))

    @rule(settled=drawn.settlements)
    def settle(self, settled: list[tuple[bytes, int]]) -> None:
        """Step 4 by itself."""
        self.both(Settle(settled))

    @rule(names=st.lists(drawn.attempts, min_size=1, max_size=3))
    def abandon(self, names: list[bytes]) -> None:
        """Recovery."""
        self.both(Abandon(names))

    @rule(data=st.data(), across=st.booleans())
    def check(self, data: st.DataObject, *, across: bool) -> None:
        """Changes nothing, which the invariants see."""
        bundle = self.batch(data, across=across)
        owner = 0 if across else None
        codes = self.shard.fenced("check", ALL_OWNERS if owner is None else owner, bundle)
        assert codes == self.model.check(bundle, owner)

    @rule(change=st.sampled_from((Kind.FREEZE, Kind.UNFREEZE, Kind.UNFREEZE, Kind.CLOSE)), data=st.data())
    def set_state(self, change: Kind, data: st.DataObject) -> None:
        """Freezes, unfreezes, closes."""
        name = data.draw(st.sampled_from(drawn.NAMES))
        expected, _ = self.model.set_state(name, change)
        assert self.shard.set_state((name, change)) == [expected]

    @rule(limit=st.integers(1, 3))
    def expire(self, limit: int) -> None:
        """Ends holds."""
        assert self.shard.fenced("expire", limit) == self.model.expire(limit)

    @rule()
    def rotate(self) -> None:
        """Forgets."""
        assert self.shard.fenced("rotate", 1, 0) == self.model.rotate(1)

    @rule(ms=st.sampled_from((1, 50, 60_000, drawn.WINDOW_MS // 2)))
    def time_passes(self, ms: int) -> None:
        """The clock goes on."""
        self.model.now_ms += ms
        self.server.set_clock(self.model.now_ms)

    @invariant()
    def accounts_are_the_same(self) -> None:
        """Each account has the same, and the alarms were the same."""
        packed = self.shard.fenced("accounts", pack_names(drawn.NAMES))
        records = [packed[at : at + ACCOUNT_RECORD.size] for at in range(0, len(packed), ACCOUNT_RECORD.size)]
        for name, record in zip(drawn.NAMES, records, strict=True):
            assert record == self.model.account_record(name), name
        info = self.shard.info()
        assert (info["alarms"], info["expired_finishes"]) == (self.model.alarms, self.model.expired_finishes)

    def teardown(self) -> None:
        """What is remembered and the ledger are the same, and the log brings all of it back."""
        decisions = sorted({one.decision for one in self.known})
        for decision in decisions:
            packed = self.shard.fenced("outcomes", decision)
            code, leg, _, amount, currency, fingerprint = OUTCOME_RECORD.unpack_from(packed)
            expected = self.model.outcome(decision)
            if expected is None:
                assert code == 0
                continue
            answer = code, leg, amount, currency.decode(), fingerprint
            assert answer == (
                expected.code,
                expected.leg,
                expected.amount_minor,
                expected.currency,
                expected.fingerprint,
            )
            texts = b"".join(bytes((len(name),)) + name.encode() for name in (*expected.names, "", "")[:2])
            assert packed[OUTCOME_RECORD.size :] == texts
        written = sorted(entry for entry in self.model.ledger if entry.kind is not Kind.OPEN)
        assert sorted(entries(self.shard.frames())) == written
        assert self.shard.info()["backlog_entries"] == self.model.backlog
        before = self.shard.digest()
        for source in ("LOADAOF", "RELOAD"):
            self.server.redis.execute_command("DEBUG", source)
            assert self.shard.digest() == before


def test_engine_answers_as_the_model_does(module_server: EngineServer) -> None:
    """Whatever is asked in whatever order, answers, accounts, outcomes and ledger are those of the model."""

    class Bound(EngineAgainstModel):
        server = module_server

    run_state_machine_as_test(
        Bound,
        settings=settings(
            max_examples=_EXAMPLES,
            stateful_step_count=_STEPS,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
