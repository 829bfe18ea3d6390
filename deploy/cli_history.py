"""`tallystick history`, `statement`, `balance-at` and `watch`: what an account did, from the ledger."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from itertools import islice
from typing import Annotated

import typer
from rich.markup import escape

from deploy.answers import print_json
from deploy.connection import ledger_client
from deploy.entries import entries_table, entry_document, entry_line, kind_name
from deploy.moments import moment_text
from deploy.options import AccountId, DataOption, JsonOption, RouterOption, err, out, parsed_moment
from deploy.statement_view import read_statement, show_statement, statement_document, write_csv
from tallystick.ledger import EntryKind, EntryOrder

DEFAULT_LIMIT = 20


def _kind(text: str) -> EntryKind:
    try:
        return EntryKind[text.upper().replace("-", "_")]
    except KeyError:
        known = ", ".join(kind_name(kind) for kind in EntryKind if kind is not EntryKind.UNSPECIFIED)
        raise typer.BadParameter(f"{text!r} is no kind of entry: {known}") from None


_TIME_HELP = '"2026-03-01T12:30:00Z", "2026-03-01" (UTC), or how long ago: "2h", "1d12h".'
_FromOption = Annotated[
    datetime | None,
    typer.Option(
        "--from", parser=parsed_moment, metavar="TIME", help=f"Included. {_TIME_HELP}", show_default=False
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


def history(
    account_id: AccountId,
    *,
    from_time: _FromOption = None,
    to_time: _ToOption = None,
    kinds: Annotated[
        list[EntryKind] | None,
        typer.Option("--kind", parser=_kind, metavar="KIND", help="Only these: purchase, refund, ..."),
    ] = None,
    oldest_first: Annotated[bool, typer.Option("--oldest-first", help="Instead of newest first.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = DEFAULT_LIMIT,
    as_json: JsonOption = False,
    router: RouterOption = None,
    data: DataOption = None,
) -> None:
    """List an account's ledger entries, newest first."""
    order = EntryOrder.OLDEST_FIRST if oldest_first else EntryOrder.NEWEST_FIRST
    with ledger_client(router, data) as client:
        found = client.entries(
            account_id, from_time=from_time, to_time=to_time, kinds=kinds or None, order=order
        )
        # One more than asked for tells whether there is more.
        entries = list(islice(found, limit + 1))
    more, entries = len(entries) > limit, entries[:limit]
    if as_json:
        print_json({"entries": [entry_document(entry) for entry in entries], "more": more})
        return
    if not entries:
        out.print("no entries")
        return
    out.print(entries_table(entries))
    if more:
        out.print(f"there are more than {limit}; --limit shows more")


def statement(
    account_id: AccountId,
    *,
    from_time: _FromOption = None,
    to_time: _ToOption = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="As CSV, for spreadsheets.")] = False,
    as_json: JsonOption = False,
    router: RouterOption = None,
    data: DataOption = None,
) -> None:
    """An account's opening balance, every entry with the balance after it, and its closing balance.

    From the opening of the account unless --from says otherwise. It adds up, or it is not shown.
    """
    with ledger_client(router, data) as client:
        made = read_statement(client, account_id, from_time, to_time)
    if as_json:
        print_json(statement_document(made))
    elif as_csv:
        write_csv(made, sys.stdout)
    else:
        show_statement(made)


def balance_at(
    account_id: AccountId,
    time: Annotated[datetime, typer.Argument(parser=parsed_moment, metavar="TIME", help=_TIME_HELP)],
    *,
    as_json: JsonOption = False,
    router: RouterOption = None,
    data: DataOption = None,
) -> None:
    """The balance that an account had at a moment."""
    with ledger_client(router, data) as client:
        found = client.balance_at(account_id, time)
    if as_json:
        print_json(
            {
                "account_id": account_id,
                "time": moment_text(time),
                "currency": found.currency,
                "balance": f"{found.balance:f}",
                "available": f"{found.available:f}",
                "held": f"{found.held:f}",
                "version": found.version,
                "changed_at": moment_text(found.changed_at),
            }
        )
        return
    out.print(
        f"{escape(account_id)} at {moment_text(time)}: [bold]{found.balance:f} {found.currency}[/], "
        f"{found.available:f} available, {found.held:f} held; version {found.version}, "
        f"changed at {moment_text(found.changed_at)}",
        highlight=False,
        soft_wrap=True,
    )


def watch(
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
    as_json: JsonOption = False,
    router: RouterOption = None,
    data: DataOption = None,
) -> None:
    """Show entries as they are archived, until Ctrl-C; a line each, in JSON a line for each message.

    Each entry comes at least once, those of an account in order. The cursor that it ends with, and that is in
    every message, is where --cursor goes on.
    """
    seen, last = 0, cursor
    try:
        with ledger_client(router, data) as client:
            for news in client.watch(account_ids or None, cursor=cursor, from_beginning=from_beginning):
                if as_json:
                    document = {"entries": [entry_document(e) for e in news.entries], "cursor": news.cursor}
                    out.print(json.dumps(document), highlight=False, markup=False, soft_wrap=True)
                else:
                    for entry in news.entries:
                        out.print(entry_line(entry), highlight=False, soft_wrap=True)
                seen, last = seen + len(news.entries), news.cursor
                if limit is not None and seen >= limit:
                    break
    except KeyboardInterrupt:
        # How it ends when nothing is wrong.
        pass
    finally:
        if last and not as_json:
            err.print(f"to go on from here: --cursor {last}", highlight=False, soft_wrap=True)
