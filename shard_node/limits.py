"""Limits that hold everywhere, each with its reason."""

# A double, which is what clients in many languages have, holds every integer up to this one exactly.
# No amount or balance, in minor units, may pass it in either direction.
MAX_MINOR = 2**53 - 1

# Stands for "not known" in columns of balances: outside the range of balances, yet an exact double.
NO_BALANCE = 2**53

# Transfers or accounts in one call. Bounds how long one call holds a shard (about 40 ms) and the
# size of its messages (about 2 MiB).
MAX_BATCH = 8192

# The most bytes a reference may have; it is copied into every ledger entry of its transfer.
MAX_REFERENCE_BYTES = 256

# The most bytes of any other free text, such as an order_id. Lengths are packed in one byte.
MAX_TEXT_BYTES = 128

# Legs of one journal. Bounds what one transaction may hold up, and an unsettled entry to some 15 KiB.
MAX_LEGS = 100

# The longest life of a hold: 31 days. What is reserved for longer is a payment.
MAX_HOLD_SECONDS = 31 * 24 * 3600

# The most characters an account id may have. Lengths are packed in one byte.
MAX_ACCOUNT_ID_CHARS = 64

# gRPC messages: the largest batch has 8192 * (36 + 2 * 64 + 17 + 3 + 256 + 20) bytes, under 4 MiB.
MAX_MESSAGE_BYTES = 16 * 2**20

# The shortest time for which outcomes are remembered. A shorter one could end before recovery had its turn
# (some ten seconds), and one clock that is a minute ahead, which routers accept, would make everybody else's
# UUIDv7 expired.
MIN_WINDOW_SECONDS = 120
