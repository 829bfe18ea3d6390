"""The texts of a transaction, read back."""

from __future__ import annotations

from shard_node.contract import Details


def unpack_details(packed: bytes) -> Details:
    """What `pack_details` packed."""
    external_end = 2 + packed[0]
    initiated_end = external_end + packed[1]
    return Details(packed[2:external_end], packed[external_end:initiated_end], packed[initiated_end:])
