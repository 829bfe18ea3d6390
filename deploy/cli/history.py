"""`tallystick history`, `statement`, `balance-at` and `watch`: what an account did, from the ledger."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from itertools import islice
from typing import Annotated, Any

import typer

from deploy.cli.answers import document
from deploy.cli.completeness import TICK, WaitOption, answered, end_if_late, until_document, until_text
from deploy.cli.entries import entries_table, entry_line, kind_name
from deploy.cli.options import TIME_HELP, AccountId, Asking, parsed_moment, with_options
from deploy.cli.statement_view import read_statement, show_statement, statement_document, write_csv
from deploy.local import ledger_client
from deploy.moments import EVERYTHING, local_text, moment_text
from deploy.terminal import csv_sink, err, out, strong, write_json
from tallystick.ledger import BalanceAt, Entry, EntryKind, EntryOrder

DEFAULT_LIMIT = 20
# All of them are kept until the table's columns are known.
MAX_LIMIT = 1_000_000


def _kind(text: str) -> EntryKind:
    try:
        return EntryKind[text.upper().replace("-", "_")]
    except KeyError:
        known = ", ".join(kind_name(kind) for kind in EntryKind if kind is not EntryKind.UNSPECIFIED)
        raise typer.BadParameter(f"{text!r} is no kind of entry: {known}") from None


_FromOption = Annotated[
    datetime | None,
    typer.Option(
        "--from", parser=parsed_moment, metavar="TIME", help=f"Included. {TIME_HELP}", show_default=False
    ),
]
_ToOption = Annotated[
    datetime | None,
    typer.Option(
        "--to", parser=parsed_moment, metavar="TIME", help="Not included. Default: now.", show_default=False
    ),
]


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command()(history)
    app.command()(statement)
    app.command("balance-at")(balance_at)
    app.command()(watch)


@with_options
def history(
    asking: Asking,
    account_id: AccountId,
    *,
    from_time: _FromOption = None,
    to_time: _ToOption = None,
    kinds: Annotated[
        list[EntryKind] | None,
        typer.Option("--kind", parser=_kind, metavar="KIND", help="Only these: purchase, refund, ..."),
    ] = None,
    oldest_first: Annotated[bool, typer.Option("--oldest-first", help="Instead of newest first.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=MAX_LIMIT, help="At most so many.")] = DEFAULT_LIMIT,
    wait: WaitOption = None,
) -> None:
    """List an account's ledger entries, newest first.

    Exit code 2 when some may be missing, because they are not archived yet.
    """
    order = EntryOrder.OLDEST_FIRST if oldest_first else EntryOrder.NEWEST_FIRST
    with ledger_client(asking.router, asking.data) as client:

        def read(**waiting: Any) -> tuple[list[Entry], datetime | None]:
            found = client.entries(
                account_id, from_time=from_time, to_time=to_time, kinds=kinds or None, order=order, **waiting
            )
            # One more than asked for tells whether there is more.
            return list(islice(found, limit + 1)), found.complete_until

        (entries, complete_until), late = answered(read, to_time or EVERYTHING, wait, lambda _: read())
    more, entries = len(entries) > limit, entries[:limit]
    if asking.as_json:
        write_json(
            {
                "entries": [document(entry) for entry in entries],
                "more": more,
                "complete_until": until_document(complete_until),
            }
        )
    else:
        if entries:
            out.table(entries_table(entries))
        else:
            out.print("no entries")
        if more:
            out.print(f"there are more than {limit}; --limit shows more")
        out.print(until_text(complete_until))
    end_if_late(late)


@with_options
def statement(
    asking: Asking,
    account_id: AccountId,
    *,
    from_time: _FromOption = None,
    to_time: _ToOption = None,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="As CSV, the data as it is: a spreadsheet may compute a cell.")
    ] = False,
    wait: WaitOption = None,
) -> None:
    """An account's opening balance, every entry with the balance after it, and its closing balance.

    From the opening of the account unless --from says otherwise. It adds up, or it is not shown. Where not
    all is archived up to its end, it ends earlier, at a moment up to which all is: exit code 2.
    """
    with ledger_client(asking.router, asking.data) as client:
        made, late = answered(
            partial(read_statement, client, account_id, from_time, to_time),
            to_time or EVERYTHING,
            wait,
            lambda until: read_statement(client, account_id, from_time, until + TICK),
        )
    if asking.as_json:
        write_json(statement_document(made))
    elif as_csv:
        write_csv(made, csv_sink())
        err.print(until_text(made.complete_until))
    else:
        show_statement(made)
    end_if_late(late)


@with_options
def balance_at(
    asking: Asking,
    account_id: AccountId,
    time: Annotated[datetime, typer.Argument(parser=parsed_moment, metavar="TIME", help=TIME_HELP)],
    *,
    wait: WaitOption = None,
) -> None:
    """The balance that an account had at a moment.

    Where not all is archived up to then, that of an earlier moment, up to which all is: exit code 2.
    """
    with ledger_client(asking.router, asking.data) as client:

        def read(at: datetime, **waiting: Any) -> tuple[datetime, BalanceAt]:
            return at, client.balance_at(account_id, at, **waiting)

        (time, found), late = answered(partial(read, time), time, wait, lambda until: read(min(time, until)))
    if asking.as_json:
        write_json(document(found) | {"time": moment_text(time)})
    else:
        out.print(
            f"{account_id} at {local_text(time)}: ",
            strong(f"{found.balance:f} {found.currency}"),
            f", {found.available:f} available, {found.held:f} held; version {found.version}, "
            f"changed at {local_text(found.changed_at)}; {until_text(found.complete_until)}",
        )
    end_if_late(late)


@with_options
def watch(
    asking: Asking,
    account_ids: Annotated[
        list[str] | None, typer.Argument(metavar="ACCOUNT...", help="All accounts when none is named.")
    ] = None,
    *,
    cursor: Annotated[
        str | None,
        typer.Option(help="Go on after what was seen up to here. Default: from now on.", show_default=False),
    ] = None,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="From the very first entry, not from now on.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="End once so many entries have come.")] = None,
) -> None:
    """Show entries as they are archived, until Ctrl-C; a line each, in JSON a line for each message.

    Each entry comes at least once, those of an account in order. The cursor that it ends with, and that is in
    every message, is where --cursor goes on; complete_until says up to when all has come.
    """
    seen, last = 0, cursor
    complete_until = None
    try:
        with ledger_client(asking.router, asking.data) as client:
            for news in client.watch(account_ids or None, cursor=cursor, from_beginning=from_beginning):
                if asking.as_json:
                    entries = [document(entry) for entry in news.entries]
                    write_json(document(news) | {"entries": entries}, one_line=True)
                else:
                    for entry in news.entries:
                        out.print(entry_line(entry))
                seen, last = seen + len(news.entries), news.cursor
                complete_until = news.complete_until or complete_until
                if limit is not None and seen >= limit:
                    break
    except KeyboardInterrupt:
        # How it ends when nothing is wrong.
        pass
    finally:
        if last and not asking.as_json:
            err.print(until_text(complete_until))
            err.print(f"to go on from here: --cursor {last}")
