"""The engine's table and hash functions, called from Python and compared with plain ones."""

from __future__ import annotations

import ctypes
import random
import subprocess
from pathlib import Path

import pytest

from shard_node.contract.layout import fold
from shard_node.engine.loading import SOURCES

NO_RECORD = 2**32 - 1


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """table.c, with the shim that takes the place of Redis."""
    built = tmp_path_factory.mktemp("table") / "table.so"
    sources = [str(SOURCES / "table.c"), str(Path(__file__).parent / "table_shim.c")]
    checks = ["-fsanitize=undefined", "-fno-sanitize-recover=all"]
    subprocess.run(
        ["gcc", "-std=c11", "-O1", "-shared", "-fPIC", *checks, f"-I{SOURCES}", *sources, "-o", built],
        check=True,
    )
    library = ctypes.CDLL(str(built))
    library.shim_fold.restype = ctypes.c_uint64
    library.shim_fold.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64]
    library.shim_scoped_hash.restype = ctypes.c_uint64
    library.shim_scoped_hash.argtypes = [ctypes.c_uint64, ctypes.c_char_p, ctypes.c_uint16]
    library.shim_new.restype = ctypes.c_void_p
    library.table_reserve.restype = ctypes.c_bool
    library.shim_find.restype = library.shim_count.restype = ctypes.c_uint32
    return library


class Table:
    """Keys in a table of the engine."""

    def __init__(self, library: ctypes.CDLL, chunk_bits: int, segments: int) -> None:
        self._library = library
        self._table = ctypes.c_void_p(library.shim_new(chunk_bits, segments))

    def reserve(self, hashes: list[int]) -> bool:
        """Room for records of these hashes."""
        column = (ctypes.c_uint64 * len(hashes))(*hashes)
        done: bool = self._library.table_reserve(self._table, column, ctypes.c_uint32(len(hashes)))
        return done

    def add(self, hash_: int, key: int) -> None:
        """A record, after reserve."""
        self._library.shim_add(self._table, ctypes.c_uint64(hash_), ctypes.c_uint64(key))

    def find(self, hash_: int, key: int) -> int:
        """Its number, or NO_RECORD."""
        number: int = self._library.shim_find(self._table, ctypes.c_uint64(hash_), ctypes.c_uint64(key))
        return number

    def remove(self, hash_: int, number: int) -> None:
        """Takes a record away."""
        self._library.table_remove(self._table, ctypes.c_uint64(hash_), ctypes.c_uint32(number))

    def __len__(self) -> int:
        """How many a walk comes upon."""
        count: int = self._library.shim_count(self._table)
        return count


def test_hashes_are_those_of_the_contract(library: ctypes.CDLL) -> None:
    """`fold` in C and in Python give the same for every length: fingerprints and digests depend on it."""
    chance = random.Random(1)
    for size in [*range(70), 1_000]:
        for seed in (0, 1, 2**64 - 1):
            data = chance.randbytes(size)
            assert library.shim_fold(data, size, seed) == fold(data, seed)


@pytest.mark.parametrize("segments", [1, 4])
@pytest.mark.parametrize("hash_bits", [3, 64])
def test_table_holds_what_a_dictionary_holds(library: ctypes.CDLL, segments: int, hash_bits: int) -> None:
    """Added, found, removed by the thousand, with hashes that collide and with hashes that do not."""
    table = Table(library, 3, segments)
    kept: dict[int, int] = {}
    chance = random.Random(hash_bits)
    for key in range(4_000):
        if kept and chance.random() < 0.45:
            gone = chance.choice([*kept])
            table.remove(kept[gone], table.find(kept.pop(gone), gone))
        hash_ = chance.getrandbits(hash_bits)
        assert table.reserve([hash_])
        table.add(hash_, key)
        kept[key] = hash_
        if key % 200 == 0:
            assert len(table) == len(kept)
            assert all(table.find(its, one) != NO_RECORD for one, its in kept.items())
            assert table.find(hash_, key + 1) == NO_RECORD


def test_room_is_had_for_all_or_for_none(library: ctypes.CDLL) -> None:
    """Wherever memory fails while a batch reserves, what is there stays, and later the batch fits."""
    granted = ctypes.c_long.in_dll(library, "granted")
    chance = random.Random(3)
    table = Table(library, 2, 4)
    kept: dict[int, int] = {}
    for batch in range(60):
        hashes = [chance.getrandbits(64) for _ in range(chance.randrange(1, 40))]
        for granted.value in range(100):
            if table.reserve(hashes):
                break
            assert len(table) == len(kept)
        granted.value = 0
        for place, hash_ in enumerate(hashes):
            # Never fails, though there is no memory any more.
            table.add(hash_, batch * 100 + place)
            kept[batch * 100 + place] = hash_
        granted.value = -1
    assert all(table.find(its, one) != NO_RECORD for one, its in kept.items())


def test_clients_cannot_choose_ids_of_one_hash(library: ctypes.CDLL) -> None:
    """An id that differs by what its slot differs by has another hash: one batch could slow a shard down."""
    hashes = {
        library.shim_scoped_hash(7, bytes(8) + (number ^ 0xABCD).to_bytes(2, "little") + bytes(6), number)
        for number in range(0, 16384, 64)
    }
    assert len(hashes) == 256
