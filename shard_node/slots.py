"""Which slot an account id belongs to: the hash function of Redis Cluster.

Source: the Redis Cluster specification, "Key distribution model" and "Hash tags". So
``redis-cli cluster keyslot ID`` agrees, and ids that share a hash tag share a slot.
"""

from binascii import crc_hqx

SLOT_COUNT = 16384


def slot(account_id: str) -> int:
    """The slot, 0 to 16383, of an ASCII account id.

    When the id holds a ``{`` with a ``}`` behind it and something between the two, only what is
    between the first such pair is hashed.
    """
    start = account_id.find("{")
    if start >= 0:
        end = account_id.find("}", start + 1)
        if end > start + 1:
            account_id = account_id[start + 1 : end]
    return crc_hqx(account_id.encode(), 0) % SLOT_COUNT
