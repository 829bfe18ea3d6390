"""Calls drawn at random, by who knows what the shard's model holds: so most of them get somewhere.

A step is the name of a method of ``Comparison`` and its arguments. Any ``random.Random`` will do, also one of
Hypothesis, which makes a failing run small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Final, TypeVar

from shard_node.cluster.slots import slot
from shard_node.contract import (
    NO_ID,
    NO_VERSION,
    SYSTEM_SLOT,
    Abandon,
    AccountTerms,
    Bundle,
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
)
from shard_node.limits import MAX_MINOR
from tests.engine.balance import balanced
from tests.model import EngineModel
from tests.model.state import legs_of, rows_of

Step = tuple[str, tuple[Any, ...]]
T = TypeVar("T")

WINDOW_MS: Final = 20_000
# Names that fit into an account's record, that just do, that do not, the longest, the shortest.
PLAIN: Final = ("alice", "bob", "b" * 21)
LIMITED: Final = (
    AccountTerms("carol", slot("carol"), "EUR", -50, 60, 0),
    AccountTerms("dora-with-a-long-name.", slot("dora-with-a-long-name."), "EUR", 0, 0, 15),
    AccountTerms("e" * 64, slot("e" * 64), "EUR", -MAX_MINOR + 1, MAX_MINOR, 0),
)
TERMS: Final = (
    *(AccountTerms(name, slot(name), "EUR") for name in PLAIN),
    AccountTerms("{alice}:usd", slot("alice"), "USD"),
    *LIMITED,
)
SYSTEM: Final = ("@world:EUR", "@world:USD", "@world:GBP")
# These are no accounts.
_NO_SYSTEM: Final = ("@", "@fees:EUR", "@world:eur", "@world:EURO", "@world-EUR")
CLOSING: Final = AccountTerms("z", slot("z"), "EUR")
NAMES: Final = (*(terms.account for terms in TERMS), CLOSING.account, *SYSTEM, "nobody")
_EDGES: Final = (MAX_MINOR, MAX_MINOR - 1, MAX_MINOR // 2, MAX_MINOR // 2 + 1, MAX_MINOR - 100)
_VERDICTS: Final = (0, 0, 0, 0, Outcome.ACCOUNT_FROZEN, Outcome.ACCOUNT_NOT_FOUND, Outcome.SKIPPED)
_STATES: Final = (Kind.FREEZE, Kind.UNFREEZE, Kind.UNFREEZE, Kind.CLOSE)
# Of finish: a code that is no COMMITTED drops.
_ENDS: Final = (Outcome.COMMITTED, Outcome.COMMITTED, Outcome.COMMITTED, Outcome.ABORTED, Outcome.SETTLED)
MAX_PARTICIPANTS: Final = 3
_REMEMBERED: Final = 25


@dataclass(slots=True)
class Drawer:
    """Draws step after step."""

    random: Random
    model: EngineModel
    # What was drawn before: drawn again at times.
    transactions: list[Transaction] = field(default_factory=list)
    attempts: list[bytes] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    serial: int = 0

    def step(self) -> Step:
        """The next one."""
        weighted: Sequence[tuple[int, Callable[[], Step]]] = (
            (20, self._post),
            (20, self._prepare),
            (16, self._decide),
            (18, self._finish),
            (5, self._settle),
            (5, self._abandon),
            (8, self._again),
            (4, self._open),
            (4, self._set_state),
            (4, self._check),
            (10, self._wait),
            (6, self._expire),
            (5, self._rotate),
            (2, self._archived),
            (2, self._bind),
        )
        at = self.random.randint(0, sum(weight for weight, _ in weighted) - 1)
        for weight, draw in weighted:
            at -= weight
            if at < 0:
                return draw()
        raise AssertionError

    # ------------------------------------------------------------------ small choices

    def _one(self, values: Sequence[T]) -> T:
        return values[self.random.randint(0, len(values) - 1)]

    def _rarely(self, one_of: int = 10) -> bool:
        return self.random.randint(1, one_of) == one_of

    def _some(self, draw: Callable[[], T], most: int) -> list[T]:
        return [draw() for _ in range(self.random.randint(1, most))]

    def _amount(self) -> int:
        return self._one(_EDGES) if self._rarely() else self.random.randint(1, 30)

    def _currency(self) -> str:
        return "USD" if self._rarely(12) else "EUR"

    def _account(self, *others: str) -> str:
        if self._rarely(250):
            return self._one(_NO_SYSTEM)
        while True:
            names = NAMES if self._rarely(4) else ("alice", "bob", "carol", "@world:EUR")
            if (name := self._one(names)) not in others:
                return name

    # ------------------------------------------------------------------ ids

    def _new_id(self) -> bytes:
        self.serial += 1
        if self._rarely(5):
            return self.serial.to_bytes(6) + b"\x40" + bytes(9)
        # Some have expired, or are from the future.
        age_ms = self.random.randint(-5, 3 * WINDOW_MS) if self._rarely(5) else self.random.randint(0, 100)
        if self._rarely(80):
            # At times later than the shard allows.
            age_ms = -self.random.randint(600_000, 600_001)
        return (self.model.now_ms - age_ms).to_bytes(6) + b"\x70" + bytes(5) + self.serial.to_bytes(4)

    def _attempt_id(self) -> bytes:
        if self.attempts and self._rarely():
            return self._one(self.attempts)
        self.serial += 1
        # At times later than the shard allows.
        ahead_ms = self.random.randint(-2 * WINDOW_MS, 60_002) if self._rarely(5) else 0
        made = (self.model.now_ms + ahead_ms).to_bytes(6) + self.serial.to_bytes(10)
        self.attempts = [*self.attempts[-_REMEMBERED:], made]
        return made

    def _ended_id(self) -> bytes:
        """The id of an attempt to be ended: mostly one that is kept."""
        known = [*self.model.attempts, *self.model.commits]
        if not known or self._rarely(5):
            known = self.attempts
        return self._one(known) if known and not self._rarely() else self._attempt_id()

    # ------------------------------------------------------------------ transactions

    def _transaction(self) -> Transaction:
        """A new one, or one of before: the same, or another payload under its id."""
        if self.transactions and self._rarely(4):
            known = self._one(self.transactions)
            if not self._rarely(5):
                return known
            made = replace(
                self._made(), transaction_id=known.transaction_id, deciding_slot=known.deciding_slot
            )
        else:
            made = self._made()
        self.transactions = [*self.transactions[-_REMEMBERED:], made]
        return made

    def _made(self) -> Transaction:
        draw = self._one(
            (self._transfer, self._hold, self._ending, self._ending, self._refund, self._journal)
        )
        kind, legs, related, bound = draw()
        first = legs[0].account
        scope = SYSTEM_SLOT if first.startswith("@") and self._rarely(3) else slot(first)
        details = b"d" * self.random.randint(0, 3)
        return Transaction(self._new_id(), kind, scope, tuple(legs), details, related, bound)

    def _transfer(self) -> tuple[Kind, list[Leg], bytes, int]:
        amount, currency, payer = self._amount(), self._currency(), self._account()
        kind = self._one((Kind.TRANSFER, Kind.DEPOSIT, Kind.PURCHASE))
        payee = self._account(payer)
        debit = Leg(payer, Effect.DEBIT, amount, currency)
        return kind, [debit, Leg(payee, Effect.CREDIT, amount, currency)], NO_ID, 0

    def _hold(self) -> tuple[Kind, list[Leg], bytes, int]:
        leg = Leg(self._account(), Effect.HOLD, self._amount(), self._currency())
        return Kind.HOLD, [leg], NO_ID, self.random.randint(1, WINDOW_MS // 2)

    def _ending(self) -> tuple[Kind, list[Leg], bytes, int]:
        """A capture or void, mostly of a hold that is there."""
        account, amount, related = self._account(), self._amount(), self._new_id()
        if self.model.holds and not self._rarely():
            hold = self._one(list(self.model.holds.values()))
            related = hold.transaction_id
            account = account if self._rarely() else hold.account
            amount = amount if self._rarely(3) else hold.amount_minor
        currency = self._currency()
        if self._rarely(3):
            return Kind.VOID, [Leg(account, Effect.VOID, 0, currency)], related, 0
        credit = Leg(self._account(account), Effect.CREDIT, amount, currency)
        return Kind.CAPTURE, [Leg(account, Effect.CAPTURE, amount, currency), credit], related, 0

    def _refund(self) -> tuple[Kind, list[Leg], bytes, int]:
        customer, amount, currency = self._account(), self._amount(), self._currency()
        debit = Leg(self._account(customer), Effect.DEBIT, amount, currency)
        purchase = bytes(15) + bytes((self.random.randint(1, 2),))
        return Kind.REFUND, [debit, Leg(customer, Effect.REFUND, amount, currency)], purchase, 40

    def _journal(self) -> tuple[Kind, list[Leg], bytes, int]:
        names: list[str] = []
        for _ in range(self.random.randint(1, 5)):
            names.append(self._account(*names))
        if self._rarely(40):
            names.append(names[0])
        currency = self._currency()
        kind = Kind.PURCHASE if len(names) > 1 and self._rarely(3) else Kind.JOURNAL
        effects = [Effect.DEBIT, *(self._one((Effect.CREDIT, Effect.DEBIT)) for _ in names[1:])]
        legs = [
            Leg(name, effect, self._amount(), currency) for name, effect in zip(names, effects, strict=True)
        ]
        return kind, legs if self._rarely(40) else balanced(legs), NO_ID, 0

    def _owned(self, transaction: Transaction, owners: Sequence[int], needed: Sequence[int]) -> Transaction:
        """Its legs shared out among owners; each ``needed`` gets at least one. Versions only of owner 0."""
        legs = [replace(leg, owner=self._one(owners)) for leg in transaction.legs]
        if len(legs) < len(needed):
            amount, (first,) = self._amount(), legs
            legs += [
                Leg("elsewhere", Effect.CREDIT, amount, first.currency, needed[1]),
                Leg(self._account(first.account), Effect.DEBIT, amount, first.currency, needed[1]),
            ]
        if not {leg.owner for leg in legs}.issuperset(needed):
            legs[: len(needed)] = [
                replace(leg, owner=owner) for leg, owner in zip(legs, needed, strict=False)
            ]
        if self._rarely(8):
            n = self.random.randint(0, len(legs) - 1)
            account = self.model.account(legs[n].account)
            version = account.version if account and not self._rarely(3) else self.random.randint(0, 9)
            legs[n] = replace(legs[n], expected_version=version)
        legs = [replace(leg, expected_version=NO_VERSION) if leg.owner else leg for leg in legs]
        return replace(transaction, legs=tuple(legs))

    def _rows(self) -> list[Transaction]:
        """Of one bundle, at times more than are worked on at once, or only transfers."""
        if self._rarely(30):
            # Hypothesis draws a run of them as one number.
            one = self._plain()
            return [replace(one, transaction_id=self._new_id()) for _ in range(self.random.randint(31, 70))]
        rows = self._some(self._plain if self._rarely(3) else self._transaction, 4)
        return [*rows, rows[0]] if self._rarely(12) else rows

    def _plain(self) -> Transaction:
        while True:
            kind, legs, _, _ = self._transfer()
            made = Transaction(self._new_id(), kind, slot(legs[0].account), tuple(legs))
            if made.is_plain:
                self.transactions = [*self.transactions[-_REMEMBERED:], made]
                return made

    def _bundle(self, owners: Sequence[int], needed: Sequence[int], *, transfers: tuple[int, int]) -> bytes:
        """A packed bundle; transfers have these owners mostly, so that bundles of them are plain."""
        rows = []
        for row in self._rows():
            if row.is_plain and not self._rarely():
                payer, payee = row.legs
                legs = replace(payer, owner=transfers[0]), replace(payee, owner=transfers[1])
                rows.append(replace(row, legs=legs))
            else:
                rows.append(self._owned(row, owners, needed))
        return bundle_of(rows, "teller" if self._rarely(3) else "")

    # ------------------------------------------------------------------ the protocol

    def _command(self, command: Command) -> Step:
        self.commands = [*self.commands[-_REMEMBERED:], command]
        return "call", (command,)

    def _again(self) -> Step:
        """A message that comes once more."""
        if not self.commands:
            return self._wait()
        command = self._one(self.commands)
        return "call", (self._finish_once(command) if isinstance(command, Finish) else command,)

    def _post(self) -> Step:
        bundle = self._bundle((0,), (0,), transfers=(0, 0))
        return self._command(Post(bundle, not self._rarely(4)))

    def _prepared(self) -> Prepared:
        owner = 1 if not self._rarely(3) else self.random.randint(1, MAX_PARTICIPANTS)
        bundle = self._bundle((owner, owner, owner, 0, 1, 2), (owner,), transfers=(0, owner))
        return Prepared(self._attempt_id(), self._one(("test/shard-1", "d")), owner, bundle)

    def _prepare(self) -> Step:
        attempts = self._some(self._prepared, 2)
        if self._rarely(6):
            # Two tries of the same transactions in one call.
            attempts.append(replace(attempts[0], attempt_id=self._attempt_id()))
        return self._command(Prepare(attempts))

    def _decided(self) -> Decided:
        count = self.random.randint(1, MAX_PARTICIPANTS)
        bundle = self._bundle((0, 0, *range(1, count + 1)), (0, 1), transfers=(0, 1))
        rows = Bundle.unpack(bundle).transactions
        verdicts = legs = b""
        if self._rarely(3):
            verdicts = bytes(self._one(_VERDICTS) for _ in rows)
            legs = bytes(self.random.randint(0, len(row.legs) - 1) for row in rows)
            legs = legs if any(legs) else b""
        names = [f"test/shard-{number}" for number in range(count)]
        return Decided(self._attempt_id(), names, verdicts, legs, bundle)

    def _decide(self) -> Step:
        settled = self._settled() if self._rarely(4) else []
        return self._command(Decide(self._some(self._decided, 2), settled, not self._rarely(4)))

    def _finish(self) -> Step:
        ids = self._some(self._ended_id, 2)
        codes = []
        for n, one in enumerate(ids):
            kept = self.model.attempts.get(one)
            count = len(rows_of(kept.bundle)) if kept and not self._rarely(30) else self.random.randint(1, 3)
            each = bytes(self._one(_ENDS) for _ in range(count))
            # Where one attempt ends twice, the engine checks both against what was kept before the call.
            codes.append(each if self._rarely(2) and one not in ids[:n] else each[:1])
        finish = Finish(ids, codes, not self._rarely(4))
        self._command(finish)
        return "call", (self._finish_once(finish),)

    def _finish_once(self, finish: Finish) -> Finish:
        """The same, but for a second hold of one name: no deciding shard commits one id twice."""
        seen = set(self.model.holds)
        codes = list(finish.codes)
        for n, one in enumerate(finish.attempt_ids):
            kept = self.model.attempts.get(one)
            if kept is None or len(codes[n]) not in {1, len(kept.codes)}:
                continue
            rows = rows_of(kept.bundle)
            each = bytearray(codes[n] * len(rows) if len(codes[n]) == 1 else codes[n])
            for i, row in enumerate(rows):
                made = {
                    self.model.condition(row, leg)
                    for leg in (row.transaction.legs[number] for number in legs_of(row, kept.owner))
                    if leg.effect is Effect.HOLD and kept.codes[i] == Outcome.PREPARED
                }
                if made & seen and each[i] == Outcome.COMMITTED:
                    each[i] = Outcome.ABORTED
                elif each[i] == Outcome.COMMITTED:
                    seen |= made
            codes[n] = bytes(each) if bytes(each) != codes[n] * len(rows) else codes[n]
        return replace(finish, codes=codes)

    def _settled(self) -> list[tuple[bytes, int]]:
        return self._some(lambda: (self._ended_id(), self.random.randint(0, MAX_PARTICIPANTS + 1)), 3)

    def _settle(self) -> Step:
        return self._command(Settle(self._settled()))

    def _abandon(self) -> Step:
        return self._command(Abandon(self._some(self._ended_id, 2)))

    # ------------------------------------------------------------------ all else

    def _open(self) -> Step:
        terms = self._some(lambda: self._one((*TERMS, CLOSING)), 3)
        if self._rarely(4):
            terms = [replace(one, minimum_minor=one.minimum_minor - 1) for one in terms]
        return "open", tuple(terms)

    def _set_state(self) -> Step:
        names = NAMES if not self._rarely(20) else _NO_SYSTEM
        changes = self._some(lambda: (self._one(names), self._one(_STATES)), 2)
        return "set_state", (changes, self._rarely(4))

    def _check(self) -> Step:
        owner = self._one((None, 0, 1))
        return "check", (self._bundle((0, 1), (owner or 0,), transfers=(0, 1)), owner)

    def _wait(self) -> Step:
        ends = [hold.expires_ms - self.model.now_ms for hold in self.model.holds.values()]
        if (left := [ms for ms in ends if ms > 0]) and self._rarely(3):
            # Until one of the holds just ends, or is about to.
            return "wait", (self._one(left) - self.random.randint(0, 1),)
        return "wait", (self.random.randint(0, 8 if self._rarely(2) else WINDOW_MS // 3),)

    def _expire(self) -> Step:
        return "expire", (self.random.randint(1, 3),)

    def _rotate(self) -> Step:
        rotated_ms = self._one((None, self.model.rotated_ms, self.model.rotated_ms, 0))
        return "rotate", (self.random.randint(0, WINDOW_MS // 2), self._rarely(3), rotated_ms)

    def _archived(self) -> Step:
        return "archived", (self.random.randint(0, 9),)

    def _bind(self) -> Step:
        limit = self.random.randint(0, 400) if self._rarely(2) else MAX_MINOR
        return "bind", (self._one((WINDOW_MS, WINDOW_MS, 2 * WINDOW_MS, MAX_MINOR)), limit)
