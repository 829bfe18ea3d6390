"""Which slot an account id belongs to: the hash function of Redis Cluster.

Source: the Redis Cluster specification, "Key distribution model" and "Hash tags". So
``redis-cli cluster keyslot ID`` agrees, and ids that share a hash tag share a slot.
"""

from binascii import crc_hqx

SLOT_COUNT = 16384


def hash_tag(account_id: str) -> str:
    """What stands between the first ``{`` and the first ``}`` behind it; empty when there is none."""
    start = account_id.find("{")
    end = account_id.find("}", start + 1)
    return account_id[start + 1 : end] if start >= 0 and end >= 0 else ""


def slot(account_id: str) -> int:
    """The slot, 0 to 16383, of an ASCII account id: of its hash tag alone, where it has one."""
    return crc_hqx((hash_tag(account_id) or account_id).encode(), 0) % SLOT_COUNT
