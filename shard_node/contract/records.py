"""Packed values as they lie in Redis, read here and written by the library.

| key | field | value |
|---|---|---|
| accounts | account id | available q, held q, version q, floor q, state B, currency 3s |
| limits | account id | maximum balance q, maximum transfer q; 0 for none |
| done:current, done:previous | id 16, payer slot H | outcome B, ticks 6, fingerprint 8, amount q, code 3s |
| | the same, of a purchase | ... and kind B, length of payer B, payer, payee |
| | the same, of a journal | ... and number B of the leg that was refused |
| | id 16, fingerprint 8, leg H | slot H: this leg of a journal was applied here |
| attempts | attempt id 16, and that with a letter | what is prepared of a bundle, see ``transfers.lua`` |
| ended:current, ended:previous | attempt id 16 | (a set) |
| commits | ticks 6, and that with a letter | what is unsettled of a bundle, see ``transfers.lua`` |
| prepared | id 16, fingerprint 8, leg H | time 6, body of the leg of a journal |
| unsettled | id 16, fingerprint 8 | time 6, body of the journal |
| holds | id 16, slot H | expires q, amount q, key of its journal 24, body of its leg |
| holds:due | the same, by the time it expires | |
| coming | account id, with a maximum balance | the sum of its prepared credits, as text |
| refunds | purchase's id 16, customer's slot H | the sum refunded, as text |

An account's state is an ``AccountState``, plus 4 when it has an entry in ``limits``. Integers are
little-endian; times are milliseconds since 1970 by the shard's clock, ticks are 16 microseconds.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import msgpack

from shard_node.contract.bundles import DECISION_BYTES, each, split_bodies, split_decisions, split_short
from shard_node.contract.journals import Journal, LegBody
from shard_node.contract.outcomes import PAYEE, Outcome, without_side
from shard_node.contract.transfers import BODY_HEAD, Kind, Terms, unpack_body

_ACCOUNT = struct.Struct("<qqqqB3s")
_LIMITS = struct.Struct("<qq")
_LIMITED = 4
_OUTCOME_TAIL = struct.Struct("<8sq3s")
_TIME_BYTES = 6
# What precedes the codes of an attempt: time, sum of its small credits, number of its big ones.
_ATTEMPT_HEAD_BYTES = 18
_TICK_MICROS = 16
_TERMS_AT = 1 + _TIME_BYTES
# Where a body has its kind.
_KIND_AT = 15
_JOURNAL_KINDS = frozenset((Kind.REFUND, Kind.CAPTURE, Kind.JOURNAL, Kind.HOLD, Kind.VOID))


class AccountState(IntEnum):
    """Whether an account takes part in transfers."""

    OPEN = 0
    FROZEN = 1
    CLOSED = 2


@dataclass(frozen=True, slots=True)
class Account:
    """One account's record; balances in minor units of ``currency``, a maximum of 0 for none."""

    available_minor: int
    held_minor: int
    version: int
    floor_minor: int
    state: AccountState
    currency: str
    maximum_balance_minor: int = 0
    maximum_transfer_minor: int = 0

    @classmethod
    def unpack(cls, record: bytes) -> Account:
        """The account that a packed record holds, its limits too if they stand at the end."""
        available, held, version, floor, state, currency = _ACCOUNT.unpack_from(record)
        limits = _LIMITS.unpack_from(record, _ACCOUNT.size) if len(record) > _ACCOUNT.size else (0, 0)
        state = AccountState(state % _LIMITED)
        return cls(available, held, version, floor, state, currency.decode(), *limits)

    def pack(self) -> bytes:
        """The record as the shard keeps it; limits are kept elsewhere."""
        return _ACCOUNT.pack(
            self.available_minor,
            self.held_minor,
            self.version,
            self.floor_minor,
            self.state + (_LIMITED if self.maximum_balance_minor or self.maximum_transfer_minor else 0),
            self.currency.encode(),
        )


@dataclass(frozen=True, slots=True)
class RememberedOutcome:
    """What the deciding shard remembers of a transfer or journal.

    ``terms`` are those of :func:`shard_node.contract.transfers.terms_key`. ``payer`` and ``payee`` are those
    of a purchase, None for all else. ``leg`` is the one that a refusal concerns; of a transfer the payer is
    0, the payee 1.
    """

    outcome: Outcome
    decided_at_ms: int
    amount_minor: int
    currency: str
    terms: bytes
    payer: str | None = None
    payee: str | None = None
    leg: int = 0

    @classmethod
    def unpack(cls, record: bytes) -> RememberedOutcome:
        """The outcome that a packed record holds."""
        _, amount, currency = _OUTCOME_TAIL.unpack_from(record, _TERMS_AT)
        more = record[_TERMS_AT + _OUTCOME_TAIL.size :]
        # A purchase has its kind and accounts here, a journal one byte.
        purchase = len(more) > 1
        payee_at = 2 + more[1] if purchase else 0
        return cls(
            Outcome(without_side(record[0])),
            _ticks_to_ms(record[1:_TERMS_AT]),
            amount,
            currency.decode(),
            record[_TERMS_AT:] if purchase else record[_TERMS_AT : _TERMS_AT + _OUTCOME_TAIL.size],
            more[2:payee_at].decode() if purchase else None,
            more[payee_at:].decode() if purchase else None,
            more[0] if len(more) == 1 else int(record[0] & PAYEE != 0),
        )


def _ticks_to_ms(ticks: bytes) -> int:
    # Up, for the millisecond was rounded down to a tick.
    return -(-int.from_bytes(ticks, "little") * _TICK_MICROS // 1000)


@dataclass(frozen=True, slots=True)
class PendingAttempt:
    """An entry of ``attempts``: the prepared legs of a bundle. ``codes`` has a byte a row."""

    attempt_id: bytes
    since_ms: int
    codes: bytes
    decisions: bytes
    terms: bytes
    bodies: bytes

    @classmethod
    def unpack(
        cls, attempt_id: bytes, head: bytes, decisions: bytes, terms: bytes, bodies: bytes
    ) -> PendingAttempt:
        """The entry under ``attempt_id``, from its fields."""
        codes = each(head[_ATTEMPT_HEAD_BYTES:], len(decisions) // DECISION_BYTES)
        return cls(attempt_id, PendingTransfer.time_ms(head), codes, decisions, terms, bodies)

    @property
    def name(self) -> bytes:
        """What names it in its table."""
        return self.attempt_id

    @property
    def size(self) -> int:
        """How many rows it has."""
        return len(self.codes)

    def transfers(self) -> Iterator[PendingTransfer]:
        """The transfers whose legs wait."""
        return _pending(self, self.attempt_id, Outcome.PREPARED)


@dataclass(frozen=True, slots=True)
class PendingCommit:
    """An entry of ``commits``: what a bundle's payers' shard committed. ``codes`` has a byte a row.

    ``peer`` is the id of the payees' shard.
    """

    name: bytes
    attempt_id: bytes
    peer: str
    codes: bytes
    decisions: bytes
    terms: bytes
    bodies: bytes
    # When it was committed. Its name is a time too, but may run ahead of the clock.
    since_ms: int = 0

    @classmethod
    def unpack(cls, name: bytes, head: bytes, decisions: bytes, terms: bytes, bodies: bytes) -> PendingCommit:
        """The entry under ``name``, from its fields."""
        attempt_id, peer, codes, since_ms = msgpack.unpackb(head, raw=True)
        codes = each(codes, len(decisions) // DECISION_BYTES)
        return cls(name, attempt_id, peer.decode(), codes, decisions, terms, bodies, since_ms)

    @property
    def size(self) -> int:
        """How many rows it has."""
        return len(self.codes)

    def transfers(self) -> Iterator[PendingTransfer]:
        """The transfers that were committed."""
        return _pending(self, self.attempt_id, Outcome.COMMITTED)


def _pending(
    entry: PendingAttempt | PendingCommit, attempt_id: bytes, wanted: int
) -> Iterator[PendingTransfer]:
    rows = zip(
        entry.codes,
        split_decisions(entry.decisions),
        split_short(entry.terms),
        split_bodies(entry.bodies),
        strict=True,
    )
    for code, decision, terms, body in rows:
        if code == wanted:
            # The attempt is part of its name: several may wait for one transfer, of which one is committed.
            yield PendingTransfer(decision[:16] + terms[:8] + attempt_id, entry.since_ms, body)


@dataclass(frozen=True, slots=True)
class PendingTransfer:
    """What is prepared or unsettled: a transfer in one attempt, a journal, or one leg of a journal.

    ``key`` is what names the transfer or journal, with the attempt's id or the leg's number behind it.
    """

    key: bytes
    since_ms: int
    body: bytes

    @classmethod
    def unpack(cls, key: bytes, value: bytes) -> PendingTransfer:
        """The entry under ``key``."""
        return cls(key, cls.time_ms(value), value[_TIME_BYTES:])

    @staticmethod
    def time_ms(value: bytes) -> int:
        """When the entry of that value was made."""
        return int.from_bytes(value[:_TIME_BYTES], "little")

    @property
    def transfer_key(self) -> bytes:
        """The 24 bytes that name the transfer or journal."""
        return self.key[:24]

    @property
    def commit_key(self) -> bytes:
        """The key that it has as unsettled, if it is committed: a transfer's own, of a leg its journal's."""
        return self.transfer_key if self.of_journal else self.key

    @property
    def amount_minor(self) -> int:
        """The amount that waits; of a journal's leg negative where it takes."""
        amount: int = BODY_HEAD.unpack_from(self.body)[0]
        return amount

    @property
    def currency(self) -> str:
        """The currency of that amount."""
        code: bytes = BODY_HEAD.unpack_from(self.body)[1]
        return code.decode()

    @property
    def accounts(self) -> tuple[str, str]:
        """Who pays and who is paid; "" for a journal's many others."""
        if not self.of_journal:
            terms = self.terms
            return terms.payer, terms.payee
        if len(self.key) > len(self.transfer_key):
            leg = LegBody.unpack(self.body)
            pair = (leg.counterparty, leg.account)
            return pair if leg.amount_minor > 0 else pair[::-1]
        legs = Journal.unpack(self.body).legs
        return legs[0].account, legs[1].account if len(legs) == 2 else ""

    @property
    def of_journal(self) -> bool:
        """Whether it is a journal, or in ``prepared`` one leg of a journal, rather than a transfer."""
        return self.body[_KIND_AT] in _JOURNAL_KINDS

    @property
    def terms(self) -> Terms:
        """A transfer's terms."""
        return unpack_body(self.body)
