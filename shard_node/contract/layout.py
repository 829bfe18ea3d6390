"""Every byte layout that Python and the shard engine share, written down once.

The engine's ``layout.h`` is generated from here (``python -m shard_node.contract.header``), and a test fails
when the committed header differs. All integers are little-endian, nothing is padded.

A **bundle** is a batch of transactions as one block of bytes: a head, columns of fixed width, then texts. The
router packs it once, and it goes unchanged to every shard that takes part, into the shards' logs and into the
ledger. ``n`` is the number of transactions, ``m`` the number of legs.

| column | bytes | plain | |
|---|---|---|---|
| ids | 16 n | yes | transaction ids |
| related ids | 16 n | | the hold of a capture or void, the purchase of a refund, else zeros |
| bounds | 8 n | | i64: a hold's life in ms, a purchase's amount for a refund, else 0 |
| amounts | 8 m, plain 8 n | yes | i64, minor units, above 0; 0 for a VOID |
| versions | 8 m, plain 8 n | yes | only with VERSIONS. i64: the version that the account must have, or -1 |
| deciding slots | 2 n | yes | u16: the scope of the id |
| details lengths | 2 n | yes | u16 |
| kinds | 1 n | yes | ``Kind`` |
| leg counts | 1 n | | u8, 1 to MAX_LEGS |
| effects | 1 m | | ``Effect`` |
| owners | 1 m | | u8: 0 for the deciding shard, else the number of the participant |
| account lengths | 1 m | yes | u8, 1 to 64 |
| currencies | 3 m, plain 3 n, or 3 | yes | A-Z; 3 bytes in all with ONE_CURRENCY |
| accounts | sum of the lengths | yes | |
| details | sum of the lengths | yes | ``pack_details`` or nothing; the engine does not read them |
| principal | head.principal_bytes | yes | who makes the call |

A **plain** bundle has transactions of two legs only, a DEBIT and a CREDIT of one amount and currency, and
leaves out the columns that then say nothing. Its legs are in two blocks: all payers, then all payees, so m =
2 n; its versions are those of the payers. The payer is owned by the deciding shard, the payee by participant
1 when the bundle is prepared, by the deciding shard when it is posted.

The **fingerprint** of a transaction says whether two payloads under one id are the same. It covers kind,
legs, conditions and details, not where the accounts are, nor who calls.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import IntEnum, IntFlag
from typing import Final

LAYOUT_VERSION: Final = 1
_MASK: Final = (1 << 64) - 1

ID_BYTES: Final = 16
ATTEMPT_BYTES: Final = 16
# A transaction id and the slot that is its scope: what an outcome is remembered under.
DECISION_BYTES: Final = 18
# A settlement: the attempt, and the number of the participant that has finished it.
SETTLEMENT_BYTES: Final = 17
FINGERPRINT_BYTES: Final = 8
# In a column of versions: any version will do.
NO_VERSION: Final = -1
# The slot of system accounts, which belong to their shard and never move.
SYSTEM_SLOT: Final = 65535
# Attempts in one call.
MAX_ATTEMPTS: Final = 1024
# A transaction id of the future, by more than this, is malformed: the shard would count all ids before it as
# expired once it is forgotten. Above what routers allow, whose clocks differ from the shard's.
MAX_ID_AHEAD_MS: Final = 600_000
# The state of an account that is not there, in answers.
NO_ACCOUNT: Final = 255
# The owner of the legs in a frame, or of those to check: all of them, whoever owns them.
ALL_OWNERS: Final = 255


class BundleFlag(IntFlag):
    """What a bundle's head says about its columns."""

    PLAIN = 1
    ONE_CURRENCY = 2
    VERSIONS = 4


class AccountState(IntEnum):
    """Whether an account may be used."""

    OPEN = 0
    FROZEN = 1
    CLOSED = 2


class FrameKind(IntEnum):
    """What a frame of the ledger records: the command that made it."""

    POST = 1
    DECIDE = 2
    FINISH = 3
    OPEN = 4
    STATE = 5
    EXPIRE = 6


class RecordKind(IntEnum):
    """What a record of a moved slot is."""

    ACCOUNT = 1
    OUTCOME = 2
    PURCHASE = 3
    HOLD = 4
    REFUND = 5


BUNDLE_HEAD: Final = struct.Struct("<BBHHIIH")

# An account in an answer; limits are 0 for none, `reserved` is what prepared debits hold back. All zeros but
# for the state, which is NO_ACCOUNT, where there is none.
ACCOUNT_RECORD: Final = struct.Struct("<qqqqqqqHB3s")
# An outcome in an answer; then, of a purchase, a byte and the payer, a byte and the payee (two zero bytes for
# all else). Code 0: nothing remembered. The time is in ms.
OUTCOME_RECORD: Final = struct.Struct("<BB6sq3s8s")

# A frame is one entry of the stream `ledger`. Its field "h" is this head. Each part has its number behind the
# names of its fields ("b0", "c0", "x0"):
#   POST, DECIDE, FINISH
#       b: the bundle
#       c: the codes, one for all or one a transaction; COMMITTED: carried out
#       f: the fingerprints, 8 bytes a transaction, zeros where the code is not COMMITTED: in Python one of
#          them would take longer than the rest of a transaction
#       x: the owner number of the legs (a byte, POST: ALL_OWNERS), then balances (available and held, after),
#          versions (after) and, unless the bundle is plain, held deltas: i64 each, of those legs of the owner
#          whose transaction was carried out, in the bundle's order of legs
#   OPEN
#       o: what `tallystick.open` was given
#       c: COMMITTED for those accounts that were made
#   STATE, EXPIRE
#       r: rows, each an ENTRY_HEAD, then account, counterparty and details. An EXPIRE has id, fingerprint,
#          leg count and details of its hold, and leg 1; a STATE is of no transaction, and these say nothing
FRAME_HEAD: Final = struct.Struct("<BBH")
ENTRY_HEAD: Final = struct.Struct("<16s8sqqqq3sBBBBBH")

# Lists of names: their number n, n lengths (u8), the names. Between the number and the lengths come, of
# `set_state`, n changes (u8, ``Kind``); of `open`, n minimum balances, n maximum balances, n maximum
# transfers (i64, minor units, 0 for no maximum), n slots (u16) and n currencies (3 bytes each).
LIST_HEAD: Final = struct.Struct("<H")

# What `slot.export` answers and `slot.import` takes: this head, then so many records, each a byte with its
# RecordKind, its struct, and its texts: of an account its name; of a purchase payer and payee; of a hold its
# account, its details, and the attempt that pins it, if one does. Whoever carries a chunk from shard to shard
# does not read it.
CHUNK_HEAD: Final = struct.Struct("<BHI")
MOVED_ACCOUNT: Final = struct.Struct("<qqqqqqqHB3sB")
MOVED_OUTCOME: Final = struct.Struct("<16sQq6sHHBBB")
MOVED_PURCHASE: Final = struct.Struct("<16sHBBB")
MOVED_HOLD: Final = struct.Struct("<16sQqqHHBB")
MOVED_REFUND: Final = struct.Struct("<16sHq")

# The fields of each, as the engine's structs name them. Amounts and balances are minor units.
STRUCTS: Final[Mapping[str, tuple[struct.Struct, str]]] = {
    "bundle_head": (
        BUNDLE_HEAD,
        "version flags transactions legs account_bytes detail_bytes principal_bytes",
    ),
    "account_record": (
        ACCOUNT_RECORD,
        "available held version minimum maximum_balance maximum_transfer reserved slot state currency",
    ),
    "outcome_record": (OUTCOME_RECORD, "code leg decided_ms amount currency fingerprint"),
    "frame_head": (FRAME_HEAD, "version kind parts"),
    "entry_head": (
        ENTRY_HEAD,
        (
            "id fingerprint delta held_delta balance version currency kind leg leg_count account_length "
            "counterparty_length details_length"
        ),
    ),
    "list_head": (LIST_HEAD, "count"),
    "chunk_head": (CHUNK_HEAD, "version slot records"),
    "moved_account": (
        MOVED_ACCOUNT,
        (
            "available held coming version minimum maximum_balance maximum_transfer slot state currency "
            "name_length"
        ),
    ),
    # generation: 0 for the younger one, 1 for the older one
    "moved_outcome": (MOVED_OUTCOME, "id fingerprint amount tick slot currency code leg generation"),
    "moved_purchase": (MOVED_PURCHASE, "id slot generation payer_length payee_length"),
    "moved_hold": (MOVED_HOLD, "id fingerprint amount expires_ms slot details_length account_length pinned"),
    "moved_refund": (MOVED_REFUND, "id slot sum"),
}

# Odd constants of the fingerprint and of digests; any would do, but they never change.
_K1: Final = 0xA0761D6478BD642F
_K2: Final = 0xE7037ED1A0B428DB


def mix(a: int, b: int) -> int:
    """Both halves of the product of two 64-bit numbers, xor-ed. As ``mix`` in ``hash.h``."""
    product = a * b
    return (product & _MASK) ^ (product >> 64)


def fold(data: bytes, seed: int = 0) -> int:
    """64 bits of some bytes. Not against adversaries. As ``fold`` in ``hash.h``.

    Words of eight bytes, the last one filled up with zeros; the length goes in first.
    """
    h = mix((seed ^ len(data)) ^ _K1, _K2)
    for at in range(0, len(data), 8):
        word = int.from_bytes(data[at : at + 8], "little")
        # The sum keeps a product of zero from wiping out what came before.
        h = (mix(h ^ word ^ _K1, _K2) + h) & _MASK
    return mix(h ^ _K2, _K1)
