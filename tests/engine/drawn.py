"""Transactions and attempts for Hypothesis to draw: few names and amounts, so that they meet each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from hypothesis import strategies as st

from shard_node.contract import NO_ID, NO_VERSION, SYSTEM_SLOT, AccountTerms, Effect, Kind, Leg, Transaction
from shard_node.limits import MAX_MINOR
from tests.engine.balance import balanced
from tests.engine.busy import attempt_id, uuid7
from tests.engine.conftest import NOW_MS
from tests.model import Hold

WINDOW_MS: Final = 1_000_000
# Plain ones, one with each limit, one with a name that does not fit into its record; two accounts a slot.
ACCOUNTS: Final = (
    AccountTerms("a", 0, "EUR"),
    AccountTerms("b", 0, "EUR"),
    AccountTerms("c" * 40, 1, "EUR"),
    AccountTerms("d", 1, "EUR", minimum_minor=-50),
    AccountTerms("e", 2, "EUR", maximum_balance_minor=300),
    AccountTerms("f", 2, "EUR", maximum_transfer_minor=60),
    AccountTerms("g", 3, "USD"),
)
CURRENCIES: Final = {terms.account: terms.currency for terms in ACCOUNTS}
SYSTEM: Final = ("@world:EUR", "@world:USD", "@world:GBP")
NAMES: Final = (*CURRENCIES, *SYSTEM, "nobody")
DECIDERS: Final = ("shard-1", "shard-2")
# The last ones have expired, at the latest after half a window.
IDS: Final = (
    *(uuid7(NOW_MS, number) for number in range(12)),
    *(bytes((number,)) * 6 + b"\x40" + bytes((number,)) * 9 for number in range(1, 5)),
    uuid7(NOW_MS - WINDOW_MS // 2, 0),
    uuid7(NOW_MS - 2 * WINDOW_MS, 0),
)
ATTEMPTS: Final = tuple(attempt_id(NOW_MS + 100 * number, number) for number in range(10))

_AMOUNTS = st.sampled_from((1, 10, 40, 61, 120, 250, MAX_MINOR - 200, MAX_MINOR))
_DETAILS = st.sampled_from((b"", b"rent", b"x" * 300))
_SLOTS = st.sampled_from((0, 1, SYSTEM_SLOT))
_PLAIN_KINDS = st.sampled_from((Kind.TRANSFER, Kind.DEPOSIT, Kind.PURCHASE))
_KINDS = st.sampled_from((Kind.JOURNAL, Kind.PURCHASE, Kind.REFUND, Kind.CAPTURE, Kind.HOLD))
_CONDITIONS = st.sampled_from((None, Effect.HOLD, Effect.CAPTURE, Effect.VOID, Effect.REFUND))
_VERSIONS = st.sampled_from((NO_VERSION, NO_VERSION, NO_VERSION, 0, 1, 2))

ids = st.sampled_from(IDS)
attempts = st.sampled_from(ATTEMPTS)
settlements = st.lists(st.tuples(attempts, st.integers(0, 3)), max_size=3)


def _currency(account: str) -> str:
    return account[-3:] if account.startswith("@") else CURRENCIES.get(account, "EUR")


@st.composite
def _leg(draw: st.DrawFn, account: str, effect: Effect, amount_minor: int, owner: int) -> Leg:
    version = draw(_VERSIONS) if owner == 0 else NO_VERSION
    return Leg(account, effect, amount_minor, _currency(account), owner, version)


@st.composite
def plain(draw: st.DrawFn, *, across: bool) -> Transaction:
    """A debit and a credit of one amount."""
    payer, payee = draw(st.lists(st.sampled_from(NAMES), min_size=2, max_size=2, unique=True))
    debit = draw(_leg(payer, Effect.DEBIT, draw(_AMOUNTS), 0))
    credit = Leg(payee, Effect.CREDIT, debit.amount_minor, debit.currency, int(across))
    return Transaction(draw(ids), draw(_PLAIN_KINDS), draw(_SLOTS), (debit, credit), draw(_DETAILS))


@st.composite
def general(draw: st.DrawFn, holds: Mapping[bytes, Hold], *, across: bool) -> Transaction:
    """Some legs that sum to zero, one of which may have a condition.

    ``holds`` are there to be captured and voided.
    ``across``: at least one leg is the deciding shard's, and one a participant's.
    """
    names = st.lists(st.sampled_from(NAMES), min_size=1 + across, max_size=4, unique=True)
    accounts = draw(names)
    condition, identity = draw(_CONDITIONS), draw(ids)
    related, bound = NO_ID, 0
    if condition is Effect.HOLD:
        bound = draw(st.sampled_from((0, 60_000, 2 * WINDOW_MS)))
    elif condition is Effect.REFUND:
        related, bound = draw(ids), draw(st.sampled_from((10, 100, 1_000)))
    elif condition:
        related = draw(ids)
        there = sorted(holds)
        if bool(there) and draw(st.booleans()):
            name = draw(st.sampled_from(there))
            related, held = name[:16], holds[name].account
            accounts = [held, *[account for account in accounts if account != held][-3:]]
            accounts += ["nobody"][: len(accounts) == 1]
    effects = [draw(st.sampled_from((Effect.DEBIT, Effect.CREDIT))) for _ in accounts]
    if condition:
        effects[0] = condition
    owners = [0] * len(accounts)
    if across:
        others = [draw(st.integers(0, 2)) for _ in accounts[2:]]
        owners = draw(st.permutations([0, draw(st.integers(1, 2)), *others]))
    legs = [
        draw(_leg(account, effect, 0 if effect is Effect.VOID else draw(_AMOUNTS), owner))
        for account, effect, owner in zip(accounts, effects, owners, strict=True)
    ]
    order = draw(st.permutations(balanced(legs)))
    kind = draw(_KINDS) if len(legs) > 1 else Kind.HOLD
    return Transaction(identity, kind, draw(_SLOTS), tuple(order), draw(_DETAILS), related, bound)


@st.composite
def batch(
    draw: st.DrawFn, known: Sequence[Transaction], holds: Mapping[bytes, Hold], *, across: bool
) -> list[Transaction]:
    """Some transactions: all plain or any, some of them as they were drawn before."""
    one = plain(across=across) if draw(st.booleans()) else general(holds, across=across)
    # More than a block of rows at times.
    size = draw(st.sampled_from((1, 2, 5, 40)))
    again = st.sampled_from(known) if known else one
    return [draw(again if draw(st.booleans()) else one) for _ in range(size)]
