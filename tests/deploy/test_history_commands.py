"""`tallystick history`, `statement`, `balance-at` and `watch` against a real cluster and its archiver."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from deploy.cli import statement, statement_view
from deploy.cli.main import app
from deploy.cli.statement import Line
from deploy.demo.ledger import wait_until_archived
from deploy.local.launcher import LocalCluster
from tallystick import SyncClient, new_transaction_id

pytestmark = pytest.mark.cluster


@dataclass(frozen=True, slots=True)
class _Story:
    """Ann's account: opened, 100.00 in, 30.00 for a purchase, 5.00 held, 10.00 to Bob."""

    data: str
    ann: str
    bob: str

    def run(self, *arguments: str) -> Result:
        """Runs a command on the cluster; it must never end in a traceback."""
        result = CliRunner().invoke(app, [*arguments, "--data", self.data])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return result

    def json(self, *arguments: str) -> Any:
        """The answer of a command that succeeds."""
        result = self.run(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


@pytest.fixture(scope="module")
def story(cluster: LocalCluster) -> _Story:
    """What the tests read; all of it archived."""
    ann, bob = (f"{name}-{new_transaction_id()}" for name in ("ann", "bob"))
    with SyncClient(cluster.router_addresses) as client:
        client.open_account(ann, "EUR")
        client.open_account(bob, "EUR")
        client.deposit(ann, "100.00", "EUR", bank_transaction_id="bank-1", initiated_by="teller")
        client.purchase(ann, bob, "30.00", "EUR", order_id="order-1", reference="shoes")
        client.hold(ann, "5.00", "EUR", reference="deposit [on] shoes")
        client.transfer(ann, bob, "10.00", "EUR", reference="lunch")
    wait_until_archived(cluster.router_addresses)
    return _Story(str(cluster.data), ann, bob)


_KINDS = ["open", "deposit", "purchase", "hold", "transfer"]


def test_history_comes_newest_first_or_oldest_first(story: _Story) -> None:
    """With all that an entry tells."""
    entries = story.json("history", story.ann, "--oldest-first")["entries"]
    assert [entry["kind"] for entry in entries] == _KINDS
    assert [entry["version"] for entry in entries] == list(range(5))
    assert [entry["kind"] for entry in story.json("history", story.ann)["entries"]] == _KINDS[::-1]
    deposit, purchase, hold = entries[1], entries[2], entries[3]
    assert (deposit["delta"], deposit["external_id"], deposit["initiated_by"]) == (
        "100.00",
        "bank-1",
        "teller",
    )
    assert (purchase["counterparty"], purchase["delta"], purchase["balance"]) == (
        story.bob,
        "-30.00",
        "70.00",
    )
    assert (hold["delta"], hold["held_delta"], hold["balance"]) == ("0.00", "5.00", "70.00")
    table = story.run("history", story.ann).stdout
    for text in ("+100.00", "-30.00", "purchase", "60.00"):
        assert text in table


def test_history_of_some_kinds_some_time_and_some_length(story: _Story) -> None:
    """Filters together; what was left out is said."""
    found = story.json("history", story.ann, "--kind", "purchase", "--kind", "HOLD")
    assert [entry["kind"] for entry in found["entries"]] == ["hold", "purchase"]
    found = story.json("history", story.ann, "--limit", "2")
    assert ([entry["kind"] for entry in found["entries"]], found["more"]) == (["transfer", "hold"], True)
    assert "--limit shows more" in story.run("history", story.ann, "--limit", "2").stdout
    assert len(story.json("history", story.ann, "--from", "1h")["entries"]) == 5
    nothing = story.json("history", story.ann, "--to", "1h")
    assert (nothing["entries"], nothing["more"]) == ([], False)
    assert "no entries" in story.run("history", story.ann, "--to", "1h").stdout
    bought = story.json("history", story.ann, "--kind", "purchase")["entries"][0]["at"]
    earlier = story.json("history", story.ann, "--to", bought)["entries"]
    assert "purchase" not in {entry["kind"] for entry in earlier}
    later = story.json("history", story.ann, "--from", bought)["entries"]
    assert "purchase" in {entry["kind"] for entry in later}


def test_a_statement_adds_up_in_every_form(story: _Story, cluster: LocalCluster) -> None:
    """From nothing to what the live account has."""
    with SyncClient(cluster.router_addresses) as client:
        live = client.get_account(story.ann)
    made = story.json("statement", story.ann)
    assert made["opening"] == {"balance": "0.00", "held": "0.00"}
    assert made["closing"] == {"balance": f"{live.available + live.held}", "held": f"{live.held}"}
    assert sum(Decimal(entry["delta"]) for entry in made["entries"]) == Decimal("60.00")
    rows = list(csv.DictReader(io.StringIO(story.run("statement", story.ann, "--csv").stdout)))
    assert [row["kind"] for row in rows] == ["opening balance", *_KINDS, "closing balance"]
    running = Decimal(rows[0]["balance"])
    for row in rows[1:-1]:
        running += Decimal(row["amount"])
        assert Decimal(row["balance"]) == running
    assert (rows[-1]["balance"], rows[-1]["held"]) == (f"{running}", "5.00")
    table = story.run("statement", story.ann).stdout
    assert "closing" in table
    assert "60.00" in table


def test_a_statement_of_a_part_goes_on_where_the_one_before_ended(story: _Story) -> None:
    """Cut anywhere, the closing balance of the first is the opening balance of the second."""
    whole = story.json("statement", story.ann)
    cut = next(entry["at"] for entry in whole["entries"] if entry["kind"] == "hold")
    first = story.json("statement", story.ann, "--to", cut)
    second = story.json("statement", story.ann, "--from", cut)
    assert first["opening"]["balance"] == "0.00"
    assert first["closing"] == second["opening"]
    assert first["entries"] + second["entries"] == whole["entries"]
    assert second["closing"] == whole["closing"]
    assert first["entries"]
    assert second["entries"]
    nothing = story.json("statement", story.ann, "--from", "now")
    assert (nothing["opening"], nothing["entries"]) == (nothing["closing"], [])


def test_a_statement_that_does_not_add_up_is_not_shown(
    story: _Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry that is missed on the way is found, and said; nothing is printed."""
    whole = statement.statement_lines

    def without_one(account_id: str, opening: Any, entries: Any, closing: Any) -> Iterator[Line]:
        return whole(account_id, opening, (e for e in entries if e.version != 2), closing)

    monkeypatch.setattr(statement_view, "statement_lines", without_one)
    result = story.run("statement", story.ann)
    assert result.exit_code == 1
    assert "version 1 is followed by version 3" in " ".join(result.stderr.split())
    assert result.stdout == ""


def test_a_balance_at_a_moment(story: _Story) -> None:
    """After the last entry up to then, that moment's own included."""
    for entry in story.json("history", story.ann, "--kind", "purchase")["entries"]:
        found = story.json("balance-at", story.ann, entry["at"])
        assert (found["balance"], found["version"]) >= ("70.00", 2)
    now = story.json("balance-at", story.ann, "now")
    assert (now["balance"], now["available"], now["held"]) == ("60.00", "55.00", "5.00")
    assert "60.00 EUR" in story.run("balance-at", story.ann, "now").stdout


def test_what_nobody_has_heard_of_is_said_so(story: _Story) -> None:
    """An account, a moment before it, a kind, a time."""
    for command in (["history"], ["statement"]):
        result = story.run(*command, "nobody-at-all")
        assert result.exit_code == 1
        assert "account not found" in result.stderr
    assert story.run("balance-at", story.ann, "2001-01-01").exit_code == 1
    assert story.run("history", story.ann, "--kind", "gift").exit_code == 2
    assert story.run("history", story.ann, "--from", "noon").exit_code == 2


def test_data_is_shown_and_not_obeyed(cluster: LocalCluster) -> None:
    """Emoji names, markup, escape sequences, directions, a last backslash: wherever an entry is shown."""
    name = f"cli:bank:{new_transaction_id()}"
    reference = ":pizza: [b]x[/b] \x1b[31m\u202e\n\\"
    shown = r":pizza: [b]x[/b] \x1b[31m\u202e\n" + "\\"
    with SyncClient(cluster.router_addresses) as client:
        client.open_account(name, "EUR")
        client.deposit(name, "1234567.89", "EUR", reference=reference, initiated_by="=cmd()")
    wait_until_archived(cluster.router_addresses)
    story = _Story(str(cluster.data), name, name)
    for command in ("history", "statement"):
        lines = story.run(command, name).stdout.splitlines()
        (line,) = (line for line in lines if " deposit " in line)
        assert line.endswith(f"  {shown}")
        assert "\x1b" not in "".join(lines)
        entries = {entry["kind"]: entry for entry in story.json(command, name)["entries"]}
        assert entries["deposit"]["reference"] == reference
    assert name in story.run("statement", name).stdout.splitlines()[0]
    rows = list(csv.DictReader(io.StringIO(story.run("statement", name, "--csv").stdout, newline="")))
    assert (rows[2]["reference"], rows[2]["initiated_by"]) == (reference, "=cmd()")
    watched = story.run("watch", name, "--from-beginning", "--limit", "2").stdout.splitlines()
    assert [line.split(" ")[1] for line in watched] == [name, name]
    news = story.run("watch", name, "--from-beginning", "--limit", "2", "--json").stdout.splitlines()
    assert {e["account_id"] for line in news for e in json.loads(line)["entries"]} == {name}
    shown_account = story.run("account", "show", name).stdout.splitlines()[-1].split()
    assert (shown_account[0], shown_account[2]) == (name, "1234567.89")


def test_watch_goes_on_from_its_cursor(story: _Story) -> None:
    """Every entry from the beginning, in pieces that fit together, and with the account's order kept."""
    first = story.run("watch", story.ann, story.bob, "--from-beginning", "--limit", "1", "--json")
    assert first.exit_code == 0, first.output
    news = [json.loads(line) for line in first.stdout.splitlines()]
    entries = [entry for message in news for entry in message["entries"]]
    if len(entries) < 8:
        rest = story.run(
            "watch", story.ann, story.bob, "--cursor", news[-1]["cursor"], "--limit", "1", "--json"
        )
        entries += [entry for line in rest.stdout.splitlines() for entry in json.loads(line)["entries"]]
    for name, versions in ((story.ann, range(5)), (story.bob, range(3))):
        assert [e["version"] for e in entries if e["account_id"] == name] == list(versions)
    lines = story.run("watch", story.ann, "--from-beginning", "--limit", "5")
    assert "purchase" in lines.stdout
    assert "deposit [on] shoes" not in lines.stdout
    assert "--cursor " in lines.stderr
