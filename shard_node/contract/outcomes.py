"""What a shard answers about one transaction.

Numbers below 32 are those of the public enum ``tallystick.v1.Outcome``; numbers from 32 on are
steps of the protocol and never leave the cluster. 33 is not used. The engine has the same numbers,
generated from these.
"""

from enum import IntEnum
from typing import Final


class Outcome(IntEnum):
    """One answer about one transaction or account."""

    COMMITTED = 1
    INSUFFICIENT_FUNDS = 2
    CURRENCY_MISMATCH = 3
    ACCOUNT_FROZEN = 4
    ACCOUNT_CLOSED = 5
    BALANCE_LIMIT = 6
    ACCOUNT_NOT_FOUND = 7
    TRANSACTION_ID_REUSED = 8
    TRANSACTION_ID_EXPIRED = 9
    ABORTED = 10
    ACCOUNT_EXISTS = 11
    INVALID_ARGUMENT = 12
    OUTCOME_UNKNOWN = 13
    RESOURCE_EXHAUSTED = 14
    TRANSACTION_NOT_FOUND = 15
    REFUND_EXCEEDS_PURCHASE = 16
    PURCHASE_NOT_FOUND = 17
    HOLD_NOT_ACTIVE = 18
    CAPTURE_EXCEEDS_HOLD = 19
    TRANSFER_LIMIT = 20
    ACCOUNT_NOT_EMPTY = 21
    ACCOUNT_IN_USE = 22
    VALID = 23
    VERSION_MISMATCH = 24

    # The legs of a participant are kept.
    PREPARED = 32
    # What a participant kept is applied, or dropped.
    FINISHED = 34
    DROPPED = 35
    # Committed, and finished everywhere: legs that are still prepared are ghosts.
    SETTLED = 36
    # R5: committed, but the leg is neither prepared nor applied. An alarm.
    MISSING_LEG = 37
    # The map of the cluster changed under the call; nothing was written.
    STALE_EPOCH = 38
    # Committed by another attempt at the same transaction, which is not finished yet.
    ELSEWHERE = 39
    # The attempt has ended on this shard before: a message that comes much too late.
    ENDED = 40
    # No verdict: what an earlier attempt keeps prepared stands in the way. Nothing was recorded.
    BUSY = 41
    # The attempt was given up, on its deciding shard's word: it will never commit anything.
    ABANDONED = 42
    # As a verdict: decide the others of the attempt, and leave this transaction alone.
    SKIPPED = 43
    # The attempt began so long ago that what is known of it may be forgotten: nothing was done.
    ATTEMPT_EXPIRED = 44


# What a participant may refuse a transaction for, and so what may be recorded as its verdict.
PARTICIPANT_REFUSALS: Final = frozenset(
    (
        Outcome.INSUFFICIENT_FUNDS,
        Outcome.CURRENCY_MISMATCH,
        Outcome.ACCOUNT_FROZEN,
        Outcome.ACCOUNT_CLOSED,
        Outcome.BALANCE_LIMIT,
        Outcome.ACCOUNT_NOT_FOUND,
        Outcome.TRANSACTION_ID_EXPIRED,
        Outcome.REFUND_EXCEEDS_PURCHASE,
        Outcome.HOLD_NOT_ACTIVE,
        Outcome.CAPTURE_EXCEEDS_HOLD,
        Outcome.TRANSFER_LIMIT,
    )
)
