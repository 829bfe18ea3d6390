"""A plain Python model of one shard: what the engine must do, said as simply as possible.

The engine is compared with it call by call, and the exhaustive searches walk over it. It keeps every value
unpacked, in dictionaries, and does one transaction after the other. Its parts build each on the one before:
state, legs, memory, protocol, shard.

Two choices that the protocol leaves open: of several earlier attempts in the way of a transaction, the one
with the lowest id is named; an attempt in the way is named once a bundle.
"""

from tests.model.faults import Faults
from tests.model.legs import ADDING, TAKING
from tests.model.shard import EngineModel, InDoubt
from tests.model.state import (
    Account,
    Entry,
    Frozen,
    Hold,
    LedgerFullError,
    MalformedError,
    legs_of,
    rows_of,
)

__all__ = [
    "ADDING",
    "TAKING",
    "Account",
    "EngineModel",
    "Entry",
    "Faults",
    "Frozen",
    "Hold",
    "InDoubt",
    "LedgerFullError",
    "MalformedError",
    "legs_of",
    "rows_of",
]
