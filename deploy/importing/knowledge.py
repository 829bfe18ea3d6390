"""What is known of a payments file's instructions, by transaction id and content: never by a row's place.

A database beside the result file while an import runs, and after one that was killed; each import begins by
adding the result file to it, and ends by writing a new result file from it. Invariants:

- An instruction is on disk before it is sent (`intend`). So whatever an import was killed at, the next one
  knows of everything that may have moved.
- Certain knowledge is never replaced by less certain: an outcome that is final stays.
- One import at a time has it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import IntEnum
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from deploy.errors import DeployError
from deploy.importing.payments_file import Instruction
from deploy.importing.results_file import DATABASE_SUFFIX, Result, read_results
from tallystick import Outcome

# What pays for a funding: the system's account, as the ledger names it, without its shard.
WORLD_PREFIX: Final = "@world:"
# What is said of an outcome that no answer told.
FOUND: Final = "found in the ledger, or remembered: an earlier import sent it"
_LOAD_ROWS: Final = 10_000
# SQLite takes no more than 999 parameters of a statement everywhere.
_KEYS_AT_ONCE: Final = 900
# In the locking mode that is set before, the lock stays after the commit.
_SCHEMA: Final = """
BEGIN EXCLUSIVE;
CREATE TABLE IF NOT EXISTS known (
    key BLOB NOT NULL,
    fingerprint BLOB NOT NULL,
    transaction_id TEXT NOT NULL,
    from_account TEXT NOT NULL,
    to_account TEXT NOT NULL,
    amount TEXT NOT NULL,
    currency TEXT NOT NULL,
    reference TEXT NOT NULL,
    outcome TEXT NOT NULL,
    message TEXT NOT NULL,
    sent_at TEXT NOT NULL,
    standing INTEGER NOT NULL,
    PRIMARY KEY (key, fingerprint)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS of_cluster (cluster_id TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS fundings ON known (to_account) WHERE from_account LIKE '@world:%';
COMMIT;
"""
# What is certain, 2, stays.
_ADD: Final = """
INSERT INTO known VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (key, fingerprint) DO UPDATE
SET outcome = excluded.outcome, message = excluded.message, sent_at = excluded.sent_at,
    standing = excluded.standing
WHERE known.standing < 2
"""
_LEARN: Final = """
UPDATE known SET outcome = ?, message = ?, standing = ? WHERE key = ? AND fingerprint = ? AND standing < 2
"""


def now_text() -> str:
    """The present moment, as result files have it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Standing(IntEnum):
    """How much is known of an instruction that was sent."""

    # An earlier import sent it, and nothing final is known: it may have moved money, long ago.
    DOUBT = 0
    # This import sent it, or has proof that no earlier one moved it: it may be sent (again).
    SENT = 1
    CERTAIN = 2


_STANDINGS: Final = tuple(Standing)


class Record(NamedTuple):
    """What is known of one instruction."""

    result: Result
    standing: Standing

    @property
    def instruction(self) -> Instruction:
        """Which."""
        return self.result.instruction


class Knowledge:
    """The records of one result file. As a context manager it keeps others out, and its database open."""

    def __init__(self, results: Path, cluster_id: str) -> None:
        self._results = results
        self._cluster_id = cluster_id
        self._path = results.with_name(results.name + DATABASE_SUFFIX)
        self._database: sqlite3.Connection
        # Hashes of what no row of the present payments file has been seen to be.
        self._unseen: set[int] = set()

    def __enter__(self) -> Self:
        """Opens the database and adds the result file.

        Raises DeployError when another import has it, or nothing can be written there, and TableError when
        the result file cannot be used.
        """
        with self._explained():
            self._database = sqlite3.connect(self._path, timeout=0, isolation_level=None)
        try:
            with self._explained():
                self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
                # One fsync for each transaction instead of three.
                self._database.execute("PRAGMA journal_mode = WAL")
                self._database.execute("PRAGMA synchronous = FULL")
                self._database.executescript(_SCHEMA)
            self._load()
        except BaseException:
            self._database.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def find(self, keys: Iterable[bytes]) -> dict[bytes, list[Record]]:
        """What is known under each of these ids; ids of which nothing is known are left out."""
        found: dict[bytes, list[Record]] = {}
        wanted = iter(set(keys))
        while some := list(islice(wanted, _KEYS_AT_ONCE)):
            places = ", ".join("?" * len(some))
            for record in self._records(f"WHERE key IN ({places})", some):
                found.setdefault(record.instruction.key, []).append(record)
        return found

    def funding(self, account_id: str) -> Record | None:
        """How a payer was, or may have been, funded; None if it was not."""
        is_funding = "from_account LIKE '@world:%' AND (standing < 2 OR outcome = 'COMMITTED')"
        return next(iter(self._records(f"WHERE to_account = ? AND {is_funding}", [account_id])), None)

    def doubts(self) -> Iterator[list[Record]]:
        """What is in doubt, about a thousand ids at a time; each id is given out once."""
        condition = (
            "WHERE standing = 0 AND key IN"
            " (SELECT DISTINCT key FROM known WHERE standing = 0 AND key > ? ORDER BY key LIMIT 1000)"
        )
        last = b""
        while some := self._records(condition, [last]):
            last = max(record.instruction.key for record in some)
            yield some

    def intend(self, instructions: Sequence[Instruction], sent_at: str) -> None:
        """Writes down, durably, that these are about to be sent."""
        unanswered = (Outcome.OUTCOME_UNKNOWN.name, "sent, not answered", sent_at, Standing.SENT.value)
        self._write(_ADD, ((*one, *unanswered) for one in instructions))
        self._unseen.update(
            hash(one[:2]) for one in instructions if one.from_account.startswith(WORLD_PREFIX)
        )

    def learn(self, records: Iterable[Record]) -> None:
        """Writes down, durably, what was found out of what is known here; what is certain stays as it is."""
        self._write(
            _LEARN,
            (
                (result.outcome.name, result.message, standing.value, *result.instruction[:2])
                for result, standing in records
            ),
        )

    def note_rows(self, instructions: Iterable[Instruction]) -> None:
        """Takes note that these stand in the payments file: `others` leaves them out."""
        self._unseen.difference_update(hash(one[:2]) for one in instructions)

    def others(self) -> Iterator[Result]:
        """What is known and stands in no row of the payments file, fundings included."""
        if self._unseen:
            with self._explained():
                for row in self._database.execute("SELECT * FROM known"):
                    if hash(row[:2]) in self._unseen:
                        yield _record(row).result

    def discard(self) -> None:
        """Removes the database: the result file has everything."""
        # Before it is closed, for whoever opened it meanwhile must not go on with a file without a name.
        for suffix in ("", "-wal"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    def _load(self) -> None:
        with self._explained():
            known = self._database.execute("SELECT cluster_id FROM of_cluster").fetchone()
            if known is None:
                self._database.execute("INSERT INTO of_cluster VALUES (?)", [self._cluster_id])
        if known is not None and known[0] != self._cluster_id:
            raise DeployError(
                f"an import into the cluster {known[0]!r} was killed and is not over: {self._path} is of it. "
                f"Run it again, or keep the outcomes in {self._cluster_id!r} elsewhere with --results FILE"
            )
        if not self._path.exists():
            # Opened a moment before that import removed it: what is written here would be lost.
            raise DeployError(f"another import into {self._results} has just ended: try again")
        results = (one for one in read_results(self._results, self._cluster_id) if one.sent_at)
        while some := list(islice(results, _LOAD_ROWS)):
            self._write(_ADD, map(_loaded, some))
        with self._explained():
            # The import that sent it is over.
            self._database.execute("UPDATE known SET standing = 0 WHERE standing = 1")
            self._unseen.update(map(hash, self._database.execute("SELECT key, fingerprint FROM known")))

    def _write(self, statement: str, rows: Iterable[Sequence[bytes | str | int]]) -> None:
        with self._explained(), self._database:
            self._database.execute("BEGIN")
            self._database.executemany(statement, rows)

    def _records(self, condition: str, parameters: Sequence[bytes | str]) -> list[Record]:
        with self._explained():
            found = self._database.execute(
                f"SELECT * FROM known {condition}",  # noqa: S608 - this module's own conditions
                parameters,
            )
            return [_record(row) for row in found]

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise DeployError(f"another import into {self._results} is under way") from error
            raise DeployError(f"{self._path} cannot be written: {error}") from error
        except sqlite3.DatabaseError as error:
            raise DeployError(
                f"{self._path} is damaged ({error}): what an import that was killed has sent is not known. "
                "Compare its rows with the ledger before anything is sent again"
            ) from error


def _loaded(result: Result) -> tuple[bytes | str | int, ...]:
    one, outcome, message, sent_at, _ = result
    standing = Standing.CERTAIN if result.is_certain else Standing.DOUBT
    return (*one, outcome.name, message, sent_at, standing.value)


def _record(columns: Sequence[Any]) -> Record:
    outcome, message, sent_at, standing = columns[-4:]
    result = Result(Instruction._make(columns[:-4]), Outcome[outcome], message, sent_at)
    return Record(result, _STANDINGS[standing])
