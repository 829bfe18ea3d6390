"""Every byte layout that Python and the shard engine share, written down once.

The engine's ``layout.h`` is generated from here (``python -m shard_node.contract.layout``), and a test fails when
the committed header differs. All integers are little-endian, nothing is padded.

A **bundle** is a batch of transactions as one block of bytes: a head, columns of fixed width, then texts. The router
packs it once, and it goes unchanged to every shard that takes part, into the shards' logs and into the ledger.
``n`` is the number of transactions, ``m`` the number of legs.

| column | bytes | plain | |
|---|---|---|---|
| ids | 16 n | yes | transaction ids |
| related ids | 16 n | | the hold of a capture or void, the purchase of a refund, else zeros |
| bounds | 8 n | | i64: a hold's life in ms, a purchase's amount for a refund, else 0 |
| amounts | 8 m, plain 8 n | yes | i64, minor units, above 0; 0 for a VOID |
| versions | 8 m, plain 8 n | yes | i64: the version that the leg's account (plain: the payer) must have, or -1; only with VERSIONS |
| deciding slots | 2 n | yes | u16: the scope of the id |
| details lengths | 2 n | yes | u16 |
| kinds | 1 n | yes | ``Kind`` |
| leg counts | 1 n | | u8, 1 to MAX_LEGS |
| effects | 1 m | | ``Effect`` |
| owners | 1 m | | u8: 0 for the deciding shard, else the number of the participant |
| account lengths | 1 m | yes | u8, 1 to 64 |
| currencies | 3 m, plain 3 n, or 3 | yes | A-Z; 3 bytes in all with ONE_CURRENCY |
| accounts | sum of the lengths | yes | |
| details | sum of the lengths | yes | free texts, which the engine does not read |
| principal | head.principal_bytes | yes | who makes the call |

A **plain** bundle has transactions of two legs only, a DEBIT and a CREDIT of one amount and currency, and leaves out
the columns that then say nothing. Its legs are in two blocks: all payers, then all payees, so m = 2 n. The payer is
owned by the deciding shard, the payee by participant 1 when the bundle is prepared, by the deciding shard when it is
posted.

The **fingerprint** of a transaction says whether two payloads under one id are the same. It covers kind, legs,
conditions and details, not where the accounts are, nor who calls.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import Final

LAYOUT_VERSION: Final = 1
_MASK: Final = (1 << 64) - 1

# version, flags, transactions n, legs m, bytes of accounts, bytes of details, bytes of the principal
BUNDLE_HEAD: Final = struct.Struct("<BBHHIIH")
# An account in an answer: available, held, version, minimum, maximum balance, maximum transfer, reserved by
# prepared debits (all i64, minor units but for the version), slot, state, currency. State NO_ACCOUNT: not there.
ACCOUNT_RECORD: Final = struct.Struct("<qqqqqqqHB3s")
NO_ACCOUNT: Final = 255
# An outcome in an answer: code, leg, decided at ms (6 bytes), amount, currency, fingerprint; then, of a purchase,
# a byte and the payer, a byte and the payee (two zero bytes for all else). Code 0: nothing remembered.
OUTCOME_RECORD: Final = struct.Struct("<BB6sq3s8s")

ID_BYTES: Final = 16
ATTEMPT_BYTES: Final = 16
# A settlement: the attempt, and the number of the participant that has finished it.
SETTLEMENT_BYTES: Final = 17
FINGERPRINT_BYTES: Final = 8
# In a column of versions: any version will do.
NO_VERSION: Final = -1
# The slot of system accounts, which belong to their shard and never move.
SYSTEM_SLOT: Final = 65535
# Attempts in one call.
MAX_ATTEMPTS: Final = 1024


class BundleFlag(IntFlag):
    """What a bundle's head says about its columns."""

    PLAIN = 1
    ONE_CURRENCY = 2
    VERSIONS = 4


class FrameKind(IntEnum):
    """What a frame of the ledger records: the command that made it."""

    POST = 1
    DECIDE = 2
    FINISH = 3
    OPEN = 4
    STATE = 5
    EXPIRE = 6


# A frame is one entry of the stream `ledger`. Its field "h" is this: layout version, FrameKind, parts p. Each part
# has its number behind the names of its fields ("b0", "c0", "x0"):
#   POST, DECIDE, FINISH  b: the bundle, c: the codes (one for all or one a transaction; COMMITTED: carried out),
#                         x: the owner number of the legs (a byte, POST: ALL_OWNERS), then balances (available and
#                         held, after), versions (after) and, unless the bundle is plain, held deltas: i64 each, of
#                         those legs of the owner whose transaction was carried out, in the bundle's order of legs
#   OPEN                  o: what `tallystick.open` was given, c: COMMITTED for those accounts that were made
#   STATE, EXPIRE         r: rows, each an ENTRY_HEAD, then account, counterparty and details
FRAME_HEAD: Final = struct.Struct("<BBH")
ALL_OWNERS: Final = 255
# transaction id, fingerprint, delta, held delta, balance, version (i64), currency, kind, leg, leg count, bytes of
# the account, of the counterparty (u8), of the details (u16)
ENTRY_HEAD: Final = struct.Struct("<16s8sqqqq3sBBBBBH")

# Lists of names: their number n (u16), n lengths (u8), the names. Before the lengths come, of `set_state`, n changes
# (u8, ``Kind``); of `open`, n minimum balances, maximum balances, maximum transfers (i64, 0 for no maximum), slots
# (u16) and currencies (3 bytes each).
LIST_HEAD: Final = struct.Struct("<H")

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
