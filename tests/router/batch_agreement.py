"""The comparison of the two ways to read a batch: by columns, and message by message."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from router.requests import batch_reader
from router.requests.parts import Batch, Part
from router.requests.transaction_reader import TransactionReader
from router.requests.transactions import Transactions
from shard_node.cluster.slots import SLOT_COUNT
from tests.router.batch_samples import BatchRequest, Request
from tests.router.samples import reader

PRINCIPAL = "spiffe://payments"
# Who owns each slot: one shard, two, and so many that numbers of their pairs take more than 16 bits.
OWNERS = [array("i", [slot % shards for slot in range(SLOT_COUNT)]) for shards in (1, 2, 300)]


def agree(requests: Sequence[Request], *splits: Sequence[int]) -> bool:
    """Whether the hot loop takes the batch; it must then have read what the careful one reads.

    ``splits`` are rows that are split and compared, beside all of them, all backwards, and every third.
    """
    return agree_on(BatchRequest(transfers=requests).SerializeToString(), *splits)


def agree_on(request: bytes, *splits: Sequence[int], module: Any = batch_reader) -> bool:
    """Whether the hot loop of ``module`` takes a serialized batch, in whatever form.

    The batch must then be a message, and be read alike by both.
    """
    fields = reader()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LEAST_BYTES", 0)
        columns = module.BatchReader(fields.exponents).read(request, fields.latest_id())
    if columns is None:
        return False
    message = BatchRequest.FromString(request)
    assert columns.with_balances == message.return_balances
    careful = TransactionReader(fields).transfers(message.transfers)
    assert not careful.bad
    assert not careful.to_check
    count = len(message.transfers)
    assert len(columns) == len(careful.batch) == count
    texts = [row.tobytes().decode() for row in columns.id_texts]
    assert texts == [transfer.transaction_id for transfer in message.transfers]
    thirds = [range(first, count, 3) for first in range(min(3, count))]
    for owner in OWNERS:
        for rows in (range(count), range(count - 1, -1, -1), *thirds, *splits):
            expected = by_shards(
                Transactions(careful.batch, with_balances=message.return_balances),
                rows,
                owner,
                # Columns have the balances of all payers first.
                lambda place: place // 2 + place % 2 * count,
            )
            assert by_shards(columns, rows, owner) == expected
    return True


def by_shards(
    batch: Batch, rows: Sequence[int], owner: Sequence[int], place: Callable[[int], int] = int
) -> dict[tuple[int, tuple[int, ...]], tuple[list[int], bytes, list[list[int]]]]:
    """The rows, the bundle and the places of balances of each part; no two parts are of the same shards.

    ``place`` is applied to each place.
    """
    parts: list[Part] = batch.split(rows, owner, PRINCIPAL)
    found = {
        (part.decider, part.participants): (
            list(part.rows),
            part.bundle,
            [[place(int(one)) for one in legs] for legs in part.legs],
        )
        for part in parts
    }
    assert len(found) == len(parts)
    return found
