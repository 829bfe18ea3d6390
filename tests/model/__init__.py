"""A plain Python model of one shard: what the function library must do, said as simply as possible.

The library is tested against it call by call, and the exhaustive searches walk over it. It keeps
every value unpacked, in dictionaries, and does one row after the other. Like the library it is in
parts, each of which builds on the one before: accounts, outcomes, transfers, journals.
"""

from tests.model.accounts import Entry, LedgerFullError
from tests.model.faults import Faults
from tests.model.journals import Hold, ShardModel
from tests.model.outcomes import Decided

__all__ = ["Decided", "Entry", "Faults", "Hold", "LedgerFullError", "ShardModel"]
