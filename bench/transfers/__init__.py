"""Which transfers a measurement sends: accounts, amounts, and the bytes of the calls."""

from bench.transfers.wire import ID_WIDTH, Call, Wire
from bench.transfers.workload import (
    AMOUNTS,
    CURRENCY,
    MINIMUM_BALANCE,
    Payments,
    Workload,
    make_accounts,
    slot_owners,
)

__all__ = [
    "AMOUNTS",
    "CURRENCY",
    "ID_WIDTH",
    "MINIMUM_BALANCE",
    "Call",
    "Payments",
    "Wire",
    "Workload",
    "make_accounts",
    "slot_owners",
]
