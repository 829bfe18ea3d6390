"""What the shard engine answers to those who look into a shard, as values.

Outcomes that it remembers, attempts and commits that are in doubt, and how the shard itself is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from shard_node.contract.layout import OUTCOME_RECORD
from shard_node.contract.outcomes import Outcome
from shard_node.contract.transactions import Bundle, Transaction


@dataclass(frozen=True, slots=True)
class RememberedOutcome:
    """What the deciding shard remembers of a transaction.

    ``leg`` is the one that a refusal concerns. ``amount_minor`` and ``currency`` are those of the first leg,
    ``fingerprint`` is that of the payload. ``payer`` and ``payee`` are those of a committed purchase, None
    for all else.
    """

    outcome: Outcome
    leg: int
    decided_at_ms: int
    amount_minor: int
    currency: str
    fingerprint: bytes
    payer: str | None = None
    payee: str | None = None


def unpack_outcomes(packed: bytes) -> list[RememberedOutcome | None]:
    """What ``tallystick.outcomes`` answered, in the order asked for; None for what is not remembered."""
    found: list[RememberedOutcome | None] = []
    at = 0
    while at < len(packed):
        code, leg, decided_ms, amount, currency, fingerprint = OUTCOME_RECORD.unpack_from(packed, at)
        payer, at = _text(packed, at + OUTCOME_RECORD.size)
        payee, at = _text(packed, at)
        found.append(
            RememberedOutcome(
                Outcome(code),
                leg,
                int.from_bytes(decided_ms, "little"),
                amount,
                currency.decode(),
                fingerprint,
                payer or None,
                payee or None,
            )
            if code
            else None
        )
    return found


@dataclass(frozen=True, slots=True)
class PreparedAttempt:
    """An attempt that this shard keeps prepared, as a participant.

    ``serial`` is its place among all that is in doubt here: what came later has a higher one. ``decider`` is
    the id of its deciding shard, ``owner`` this shard's number in ``bundle``. ``codes`` are a byte a
    transaction: PREPARED, a refusal, or 0 where this shard owns no leg.
    """

    serial: int
    attempt_id: bytes
    since_ms: int
    decider: str
    owner: int
    codes: bytes
    bundle: bytes

    @property
    def prepared_rows(self) -> list[int]:
        """Places in the bundle of the transactions that the shard keeps prepared."""
        return [row for row, code in enumerate(self.codes) if code == Outcome.PREPARED]

    def legs(self, rows: Sequence[int]) -> Iterator[tuple[int, Transaction, int]]:
        """This shard's legs of the transactions at these places: place, transaction, number of the leg."""
        if not rows:
            return
        transactions = Bundle.unpack(self.bundle).transactions
        for row in rows:
            for number, leg in enumerate(transactions[row].legs):
                if leg.owner == self.owner:
                    yield row, transactions[row], number


@dataclass(frozen=True, slots=True)
class UnsettledCommit:
    """What an attempt committed, with this shard as the deciding one, and has not been finished everywhere.

    ``participants`` are ids of shards, those of the owners 1, 2, ... of ``bundle``, each with whether it has
    finished. ``codes`` are a byte a transaction, as decided.
    """

    serial: int
    attempt_id: bytes
    since_ms: int
    participants: tuple[tuple[str, bool], ...]
    codes: bytes
    bundle: bytes

    @property
    def committed_rows(self) -> list[int]:
        """Places in the bundle of the transactions that the attempt committed."""
        return [row for row, code in enumerate(self.codes) if code == Outcome.COMMITTED]


Doubt = PreparedAttempt | UnsettledCommit


def read_doubts(rows: Sequence[Sequence[Any]]) -> list[Doubt]:
    """What ``tallystick.in_doubt`` answered: oldest first, by rising serial numbers."""
    return [_read_doubt(*row) for row in rows]


def _read_doubt(serial: int, kind: bytes, attempt_id: bytes, since_ms: int, *rest: Any) -> Doubt:
    if kind == b"attempt":
        decider, owner, codes, bundle = rest
        return PreparedAttempt(serial, attempt_id, since_ms, decider.decode(), owner, codes, bundle)
    participants, codes, bundle = rest
    named = tuple((name.decode(), bool(finished)) for name, finished in participants)
    return UnsettledCommit(serial, attempt_id, since_ms, named, codes, bundle)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardStatus:
    """How a shard is at one moment. The fields are named as ``tallystick.info`` names them.

    ``shard`` is "cluster/shard", ``now_ms`` the shard's own time, which its ledger goes by. ``calls`` rises
    with every call that may have changed something. ``backlog_entries`` are ledger entries that wait to be
    archived. ``horizon_ms`` and ``attempt_horizon_ms`` are times before which ids and attempts that are not
    known count as expired. ``alarms`` must stay 0.
    """

    shard: str
    epoch: int
    window_ms: int
    accounts: int
    holds: int
    refunded_purchases: int
    outcomes_younger: int
    outcomes_older: int
    ended_attempts: int
    prepared_attempts: int
    unsettled_commits: int
    # The age of the oldest attempt or commit that is in doubt.
    oldest_in_doubt_ms: int
    memory_bytes: int
    backlog_entries: int
    backlog_limit: int
    # Ids in the ledger's stream, "0-0" for none: of the last frame made, and of the last one archived.
    last_frame: str
    archived_frame: str
    # The last batch of the archive that the shard was told of: 0 and empty before the first.
    archived_number: int
    archived_head: bytes
    horizon_ms: int
    attempt_horizon_ms: int
    rotated_ms: int
    calls: int
    alarms: int
    # Finishes of attempts so old that it is not known any more whether they were applied.
    expired_finishes: int
    now_ms: int
    # Other than 0, the machine's clock jumped ahead by so much (below 0: was set back), and is not followed.
    clock_lag_ms: int

    @classmethod
    def read(cls, reply: Mapping[bytes, Any] | Sequence[Any]) -> ShardStatus:
        """From names and values: a map in RESP3, a list of both in turns in RESP2.

        What a newer engine says beyond the fields here is left out.
        """
        pairs = reply.items() if isinstance(reply, Mapping) else zip(reply[::2], reply[1::2], strict=True)
        found = {name.decode(): value for name, value in pairs}
        known: dict[str, Any] = {one.name: found[one.name] for one in fields(cls)}
        for name in ("shard", "last_frame", "archived_frame"):
            known[name] = known[name].decode()
        return cls(**known)

    @property
    def fence(self) -> str:
        """What calls to the shard must carry."""
        return f"{self.shard}/{self.epoch}"

    @property
    def expired_before_ms(self) -> int:
        """The time before which a UUIDv7 that is not remembered counts as expired."""
        return max(self.horizon_ms, self.now_ms - self.window_ms)


def _text(packed: bytes, at: int) -> tuple[str, int]:
    """A byte with its length, then the text; and where it ends."""
    end = at + 1 + packed[at]
    return packed[at + 1 : end].decode(), end
