"""The service that calls the wallet: a process with some connections, each used by a thread of its own.

As thrifty as Python can call PostgreSQL: one prepared statement a transaction, sent by libpq itself; a cursor
would cost the client as much again. Every outcome is read; any but "committed" and "insufficient funds" fails
the run.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import psycopg
from psycopg.pq import ExecStatus

from bench.errors import BenchError
from bench.load import Counted, Latencies, LoadSettings, Run
from bench.transfers import AMOUNTS, Payments, Workload, make_accounts
from tallystick import new_transaction_id

COMMITTED, INSUFFICIENT_FUNDS = 1, 2
# Drawn ahead, so that drawing costs little; small enough to be drawn between two calls.
_DRAWN_AT_ONCE = 1000
# The amounts in minor units, as text.
_MINOR = [amount.replace(".", "") for amount in AMOUNTS]
_ONE = "PREPARE pay (uuid, text, text, bigint) AS SELECT transfer($1, $2, $3, $4)"
_MANY = "PREPARE pay (uuid[], text[], text[], bigint[]) AS SELECT unnest(transfer_batch($1, $2, $3, $4))"


class Caller:
    """Carries out runs over its connections, which stay open from one run to the next.

    Args:
        settings: ``concurrency`` is how many connections it has.
        conninfo: how libpq connects to the database.
        group: transfers of one transaction; 1: a call a transfer.
    """

    def __init__(self, settings: LoadSettings, conninfo: str, group: int) -> None:
        self._settings = settings
        self._group = group
        accounts = make_accounts(settings.shape)
        self._ids = accounts.ids
        with ExitStack() as stack:
            self._threads = stack.enter_context(ThreadPoolExecutor(settings.concurrency))
            self._connections = [
                stack.enter_context(_connect(conninfo, group)) for _ in range(settings.concurrency)
            ]
            # Everything is there: from here on `close` ends it.
            self._stack = stack.pop_all()
        # One for each thread.
        self._workloads = [Workload(settings.shape, accounts, settings.owners) for _ in self._connections]

    def carry_out(self, order: Run) -> Counted:
        """Sends transfers over all connections at once. Raises BenchError for an odd outcome, or an error."""
        # Not at the order's moment: the first one has waited for the connections.
        begun = time.monotonic()
        until = begun + order.seconds
        runs = [
            self._threads.submit(self._send, number, order.number, until)
            for number in range(len(self._connections))
        ]
        outcomes: Counter[int] = Counter()
        for run in runs:
            outcomes.update(run.result())
        seconds = time.monotonic() - begun
        if odd := outcomes.keys() - {COMMITTED, INSUFFICIENT_FUNDS}:
            raise BenchError(f"PostgreSQL answered with the outcomes {sorted(odd)}")
        none = Latencies().encoded()
        return Counted(outcomes[COMMITTED], outcomes[INSUFFICIENT_FUNDS], seconds, none, none, [])

    def close(self) -> None:
        """Closes the connections."""
        self._stack.close()

    def _send(self, number: int, run: int, until: float) -> Counter[int]:
        settings, connection, workload = self._settings, self._connections[number], self._workloads[number]
        workload.start(f"{settings.seed}/{run}/{settings.process}/{number}")
        outcomes: Counter[int] = Counter()
        call = connection.pgconn.exec_prepared
        while True:
            for parameters in self._calls(workload.draw(max(_DRAWN_AT_ONCE, self._group))):
                if time.monotonic() > until:
                    return outcomes
                result = call(b"pay", parameters)
                if result.status != ExecStatus.TUPLES_OK:
                    raise BenchError(f"PostgreSQL refused a call: {connection.pgconn.error_message.decode()}")
                for row in range(result.ntuples):
                    outcomes[int(result.get_value(row, 0) or 0)] += 1

    def _calls(self, payments: Payments) -> Iterator[list[bytes]]:
        """The parameters of each call, in PostgreSQL's text format; amounts in minor units."""
        ids, group = self._ids, self._group
        payers = [ids[position] for position in payments.payers.tolist()]
        payees = [ids[position] for position in payments.payees.tolist()]
        amounts = [_MINOR[position] for position in payments.amounts.tolist()]
        for first in range(0, len(amounts), group):
            rows = slice(first, first + group)
            values = (
                [new_transaction_id() for _ in amounts[rows]],
                payers[rows],
                payees[rows],
                amounts[rows],
            )
            if group == 1:
                yield [column[0].encode() for column in values]
            else:
                # Neither ids nor amounts hold what an array's text would have to quote.
                yield [f"{{{','.join(column)}}}".encode() for column in values]


def _connect(conninfo: str, group: int) -> psycopg.Connection:
    """A connection, each statement a transaction of its own. Raises BenchError."""
    try:
        connection = psycopg.connect(conninfo, autocommit=True)
        connection.execute(_ONE if group == 1 else _MANY)
    except psycopg.Error as error:
        raise BenchError(f"PostgreSQL does not answer: {error}") from error
    return connection
