"""Which transfers a measurement sends: accounts, amounts, and the bytes of the calls."""

from bench.transfers.wire import BLANK_ANSWER, ID_WIDTH, ITEM_HEADER_BYTES, Call, Supply, Wire
from bench.transfers.workload import (
    AMOUNTS,
    CURRENCY,
    MINIMUM_BALANCE,
    Accounts,
    Payments,
    Workload,
    make_accounts,
    slot_owners,
)

__all__ = [
    "AMOUNTS",
    "BLANK_ANSWER",
    "CURRENCY",
    "ID_WIDTH",
    "ITEM_HEADER_BYTES",
    "MINIMUM_BALANCE",
    "Accounts",
    "Call",
    "Payments",
    "Supply",
    "Wire",
    "Workload",
    "make_accounts",
    "slot_owners",
]
