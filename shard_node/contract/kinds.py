"""What transactions and their legs are for."""

from enum import IntEnum
from typing import Final

# A transaction that is related to no other.
NO_ID: Final = bytes(16)


class Kind(IntEnum):
    """What a transaction, or any other entry of the ledger, is for. EntryKind has the same numbers.

    The first four are transfers: two legs without conditions, the hot path. REFUND to VOID have conditions,
    or other legs. The rest are entries that no transaction makes.
    """

    TRANSFER = 1
    DEPOSIT = 2
    WITHDRAWAL = 3
    PURCHASE = 4
    REFUND = 5
    CAPTURE = 6
    JOURNAL = 7
    HOLD = 8
    VOID = 9
    EXPIRY = 10
    FREEZE = 11
    UNFREEZE = 12
    CLOSE = 13
    OPEN = 14


class Effect(IntEnum):
    """What a leg does to its account."""

    # Adds to available.
    CREDIT = 1
    # Takes from available.
    DEBIT = 2
    # A credit that counts against a purchase: `related_id` on the leg's slot, up to `bound`.
    REFUND = 3
    # Takes from the hold `related_id`; what the hold has left goes back to available.
    CAPTURE = 4
    # Moves available to held, for `bound` milliseconds. The transaction id names the hold.
    HOLD = 5
    # Moves what the hold `related_id` has back to available.
    VOID = 6
