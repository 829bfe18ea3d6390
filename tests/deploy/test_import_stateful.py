"""A payments file is edited, reordered, saved by a spreadsheet, imported, stopped, and all that again.

Against a real cluster whose shards forget on demand, as they do at the end of a deduplication window. What
must hold, whatever the order:

- every row's money moves at most once, and a payer is funded at most once;
- a result file never says less than an earlier one did;
- after an import that ran to its end, the result file says of every row that moved that it is committed.
"""

from __future__ import annotations

import asyncio
import csv
import io
import os
import tempfile
from collections import Counter
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import grpc
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from deploy.errors import DeployError, TableError
from deploy.importing import importer
from deploy.importing.funding import Wallet
from deploy.importing.importer import Importer, ImportSettings, ImportSummary, opened
from deploy.importing.payments_file import COLUMNS, instruction
from deploy.importing.results_file import Result, read_results, result_path
from deploy.importing.witness import Ledger
from deploy.local.launcher import LocalCluster
from deploy.moments import EVERYTHING
from shard_node.client import Shard, connect
from tallystick import (
    AccountResult,
    Amount,
    Client,
    LedgerClient,
    NewAccount,
    Outcome,
    OutcomeUnknown,
    TransactionNotFound,
    Transfer,
    TransferRecord,
    TransferResult,
    new_transaction_id,
)
from tallystick.ledger import Entry, EntryKind
from tallystick.v1 import cluster_pb2
from tallystick.v1.cluster_pb2_grpc import ClusterServiceStub

pytestmark = pytest.mark.cluster

# A fixed sample; more, for a search that may take its time.
_EXAMPLES = int(os.environ.get("TALLYSTICK_IMPORT_EXAMPLES", "20"))
_STEPS = 10
_BATCH_ROWS = 3
_CHANGES = ["add", "edit", "edit", "comma", "remove", "repeat", "reorder", "spreadsheet"]
_FUND = "20"
T = TypeVar("T")


class _KilledError(BaseException):
    """The process is gone: nothing that comes after this happens."""


@dataclass(frozen=True, slots=True)
class _Fault:
    """What befalls an import at its ``at``-th call that moves money: see `_Wallet`."""

    kind: str
    at: int


class _Wallet(Wallet):
    """The real client; one of its calls that move money goes wrong."""

    def __init__(self, client: Client, fault: _Fault | None) -> None:
        self._client = client
        self._fault = fault
        self._calls = 0
        self.task: asyncio.Task[ImportSummary] | None = None

    async def open_accounts(
        self, accounts: Iterable[NewAccount], *, timeout_s: float | None = None
    ) -> list[AccountResult]:
        return await self._client.open_accounts(accounts, timeout_s=timeout_s)

    async def deposit(self, account_id: str, amount: Amount, currency: str, **options: Any) -> TransferResult:
        kind = self._befalls()
        return await self._carried_out(kind, self._client.deposit(account_id, amount, currency, **options))

    async def transfers(
        self, batch: Iterable[Transfer], *, timeout_s: float | None = None
    ) -> list[TransferResult]:
        kind = self._befalls()
        results = await self._carried_out(kind, self._client.transfers(batch, timeout_s=timeout_s))
        if kind == "unanswered":
            lost = OutcomeUnknown("the answer was lost")
            return [one._replace(outcome=lost.outcome, error=lost) for one in results[:-1]] + results[-1:]
        return results

    async def get_transfer(
        self, transaction_id: str | UUID, from_account: str, *, timeout_s: float | None = None
    ) -> TransferRecord:
        return await self._client.get_transfer(transaction_id, from_account, timeout_s=timeout_s)

    def _befalls(self) -> str:
        self._calls += 1
        return self._fault.kind if self._fault is not None and self._calls == self._fault.at else ""

    async def _carried_out(self, kind: str, call: Coroutine[Any, Any, T]) -> T:
        if kind == "killed before":
            call.close()
            raise _KilledError
        if kind == "stopped" and self.task is not None:
            self.task.cancel()
        result = await call
        if kind == "killed after":
            raise _KilledError
        return result


class _Ledger(Ledger):
    """The real ledger, or one whose archive is behind."""

    def __init__(self, client: LedgerClient, *, is_behind: bool) -> None:
        self._client = client
        self._is_behind = is_behind

    async def transfer(
        self,
        transaction_id: str | UUID,
        from_account: str | None = None,
        *,
        wait_for: datetime | None = None,
        timeout_s: float | None = None,
    ) -> Sequence[Entry]:
        if self._is_behind:
            raise OutcomeUnknown("the archive is behind")
        return await self._client.transfer(
            transaction_id, from_account, wait_for=wait_for, timeout_s=timeout_s
        )


class ImportMachine(RuleBasedStateMachine):
    """The file, what is done to it, and what must hold."""

    runner: asyncio.Runner
    client: Client
    ledger: LedgerClient
    # Id, fence and address of each.
    shards: Sequence[tuple[str, str, str]]

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(prefix="tallystick-import-")
        self._path = Path(self._folder.name) / "payments.csv"
        self._name = uuid4().hex[:10]
        self._rows: list[list[str]] = []
        # Every id that was ever in the file, and the best that was ever said of each instruction.
        self._ids: set[str] = set()
        self._said: dict[tuple[bytes, bytes], Outcome] = {}
        self._is_complete = True

    def teardown(self) -> None:
        """Nothing moved twice, however it ended."""
        try:
            self._look_at_the_ledger()
        finally:
            self._folder.cleanup()

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        """Some rows, and accounts for imports without --open-accounts."""

        async def open_accounts() -> None:
            await self.client.open_accounts(NewAccount(self._account(n), "EUR") for n in range(4))
            for n in range(2):
                await self.client.deposit(self._account(n), "20", "EUR")

        self.runner.run(open_accounts())
        for _ in range(data.draw(st.integers(2, 6))):
            self._add_row(data)

    @precondition(lambda self: self._rows)
    @rule(
        data=st.data(),
        change=st.sampled_from(_CHANGES),
    )
    def change(self, data: st.DataObject, change: str) -> None:
        """What people do to a file."""
        place = data.draw(st.integers(0, len(self._rows) - 1))
        row = self._rows[place]
        match change:
            case "add":
                self._add_row(data)
            case "edit":
                field = data.draw(st.sampled_from([2, 3, 5]))
                row[field] = {2: self._account(2), 3: "1.25", 5: "edited"}[field]
                if row[1] == row[2]:
                    row[2] = self._account(3)
            case "comma":
                # Or gone again, where it was: the row has too many cells, and fails alone.
                self._rows[place] = row[:6] if len(row) > 6 else [*row, ""]
            case "remove":
                del self._rows[place]
            case "repeat":
                self._rows.append(list(row))
            case "reorder":
                self._rows = data.draw(st.permutations(self._rows))
            case "spreadsheet":
                self._save_by_spreadsheet()

    @rule(
        forgets=st.sampled_from([True, True, False]),
        opens=st.sampled_from([False, False, True]),
        kind=st.sampled_from(["", "killed after", "killed after", "unanswered", "stopped", "killed before"]),
        at=st.sampled_from([1, 1, 2]),
        is_behind=st.sampled_from([False, False, False, True]),
    )
    def run_import(self, *, forgets: bool, opens: bool, kind: str, at: int, is_behind: bool) -> None:
        """To its end, or to something worse; two deduplication windows may have passed before."""
        if forgets:
            self.runner.run(self._forget())
        text = io.StringIO()
        csv.writer(text).writerows([COLUMNS, *self._rows])
        self._path.write_text(text.getvalue(), encoding="utf-8")
        self._is_complete = False
        run = ImportSettings(fund=_FUND if opens else None, retry_seconds=10)
        with suppress(_KilledError, asyncio.CancelledError, DeployError):
            summary = self._import(run, _Fault(kind, at) if kind else None, is_behind=is_behind)
            self._is_complete = kind == "" and not is_behind
            assert summary.open == 0 or not self._is_complete

    @precondition(lambda self: result_path(self._path).exists())
    @rule()
    def save_results_with_semicolons(self) -> None:
        """Then nothing is sent, until the file is put back."""
        results = result_path(self._path)
        before = results.read_bytes()
        results.write_bytes(before.replace(b",", b";"))
        with pytest.raises(TableError):
            self._import(ImportSettings(fund=_FUND), _Fault("killed before", 1), is_behind=False)
        results.write_bytes(before)

    @invariant()
    def the_result_file_never_says_less(self) -> None:
        """Whatever it once said with certainty it still says, of rows that are gone too."""
        now = {result.instruction[:2]: result for result in self._results()}
        for known, outcome in self._said.items():
            assert known in now, f"nothing is said any more of {known}"
            assert now[known].outcome is outcome
        self._said.update(
            {known: one.outcome for known, one in now.items() if one.is_certain and one.sent_at}
        )

    # ------------------------------------------------------------------ within

    def _add_row(self, data: st.DataObject) -> None:
        identity = new_transaction_id() if data.draw(st.booleans()) else str(uuid4())
        payer = self._account(data.draw(st.integers(0, 2)))
        amount = data.draw(st.sampled_from(["1.50", "2", "3.00", "90", "x"]))
        place = data.draw(st.integers(0, len(self._rows)))
        self._rows.insert(place, [identity, payer, self._account(3), amount, "EUR", f"r{len(self._ids)}"])
        self._ids.add(identity)

    def _save_by_spreadsheet(self) -> None:
        """Payments and results: other line ends, a byte order mark, amounts without their zeros."""
        shorter = {"3.00": "3", "1.50": "1.5"}
        self._rows = [[*row[:3], shorter.get(row[3], row[3]), *row[4:]] for row in self._rows]
        results = result_path(self._path)
        if results.exists():
            text = results.read_text(encoding="utf-8-sig").replace(",3.00,", ",3,").replace(",1.50,", ",1.5,")
            results.write_bytes(b"\xef\xbb\xbf" + text.replace("\r\n", "\n").replace("\n", "\r\n").encode())

    def _account(self, number: int) -> str:
        # On one shard: transfers across shards are remembered for as long as they are not settled.
        return f"{{import-{self._name}}}:{number}"

    def _results(self) -> list[Result]:
        return list(read_results(result_path(self._path)))

    def _import(self, run: ImportSettings, fault: _Fault | None, *, is_behind: bool) -> ImportSummary:
        async def carry() -> ImportSummary:
            wallet = _Wallet(self.client, fault)
            one = Importer(wallet, _Ledger(self.ledger, is_behind=is_behind), "c", run)
            with opened(self._path) as (rows, target):
                wallet.task = asyncio.ensure_future(one.run(rows, target))
                return await wallet.task

        return self.runner.run(carry())

    async def _forget(self) -> None:
        for shard_id, fence, address in self.shards:
            shard = Shard(shard_id, fence, connect(address))
            try:
                for _ in range(2):
                    await shard.rotate()
            finally:
                await shard.close()

    def _look_at_the_ledger(self) -> None:
        async def entries() -> list[Entry]:
            found: list[Entry] = []
            for identity in self._ids:
                with suppress(TransactionNotFound):
                    found += await self.ledger.transfer(identity, wait_for=EVERYTHING)
            for number in range(4):
                deposits = self.ledger.entries(
                    self._account(number), kinds=[EntryKind.DEPOSIT], wait_for=EVERYTHING
                )
                found += [entry async for entry in deposits if entry.reference == "funded by import"]
            return found

        moved = self.runner.run(entries())
        debits = Counter((entry.transaction_id, entry.account_id) for entry in moved if entry.delta < 0)
        assert not [one for one, count in debits.items() if count > 1], "a row's money moved twice"
        fundings = Counter(entry.account_id for entry in moved if entry.kind is EntryKind.DEPOSIT)
        assert all(count == 1 for count in fundings.values()), "a payer was funded twice"
        if self._is_complete:
            committed = {
                (one.instruction.transaction_id, one.instruction.from_account)
                for one in self._results()
                if one.outcome is Outcome.COMMITTED
            }
            assert set(debits) <= committed, "money moved without a record"


@pytest.fixture
def machine(cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[ImportMachine]]:
    """The machine, with clients of the session's cluster and small batches."""
    monkeypatch.setattr(importer, "BATCH_ROWS", _BATCH_ROWS)
    addresses = cluster.router_addresses
    with grpc.insecure_channel(addresses[0]) as channel:
        topology = ClusterServiceStub(channel).GetTopology(cluster_pb2.GetTopologyRequest(), timeout=10)
    ImportMachine.shards = [
        (info.shard_id, f"{topology.cluster_id}/{info.shard_id}/{info.epoch}", info.primary)
        for info in topology.shards
    ]
    ImportMachine.client, ImportMachine.ledger = Client(addresses), LedgerClient(addresses)
    with asyncio.Runner() as runner:
        ImportMachine.runner = runner
        yield ImportMachine
        runner.run(ImportMachine.client.close())
        runner.run(ImportMachine.ledger.close())


def test_every_rows_money_moves_at_most_once(machine: type[ImportMachine]) -> None:
    """Files edited, reordered, saved by a spreadsheet, stopped at any point, run again at any time."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=_EXAMPLES,
            stateful_step_count=_STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_an_instruction_is_what_the_cluster_takes_for_one() -> None:
    """What counts as the same here is the same there: amounts and ids by value, all else as it stands."""
    first = instruction(["0192E4A6-7C5E-4D3A-8F1B-2C3D4E5F6A7B", "a", "b", "1.50", "EUR", ""])
    second = instruction(["0192e4a6-7c5e-4d3a-8f1b-2c3d4e5f6a7b", "a", "b", "01.5", "EUR", ""])
    assert first[:2] == second[:2]
    assert Decimal(first.amount) == Decimal(second.amount)
