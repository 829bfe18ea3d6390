"""The commands for every money operation and account state, against a real cluster."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from deploy.cli.main import app
from deploy.local.launcher import LocalCluster
from tallystick import SyncClient, new_transaction_id

pytestmark = pytest.mark.cluster


@pytest.fixture
def data(cluster: LocalCluster) -> str:
    """The running cluster's folder, as it is typed."""
    return str(cluster.data)


@pytest.fixture
def run(data: str) -> Any:
    """Runs a command that must succeed, with --json; its answer."""

    def run(*arguments: str) -> Any:
        result = CliRunner().invoke(app, [*arguments, "--json", "--data", data], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return run


@pytest.fixture
def refused(data: str) -> Any:
    """Runs a command that must be refused; the JSON of the refusal, after a look at its sentence."""

    def refused(*arguments: str) -> Any:
        result = CliRunner().invoke(app, [*arguments, "--json", "--data", data], catch_exceptions=False)
        assert result.exit_code == 1, result.output
        assert result.stderr.startswith("error: ")
        return json.loads(result.stdout)

    return refused


@pytest.fixture
def people(cluster: LocalCluster) -> list[str]:
    """Three new accounts; the first has 100.00 EUR."""
    names = [f"{role}-{new_transaction_id()}" for role in ("ann", "shop", "fees")]
    with SyncClient(cluster.router_addresses) as client:
        for name in names:
            client.open_account(name, "EUR")
        client.deposit(names[0], "100.00", "EUR")
    return names


def _available(answer: Any) -> dict[str, str]:
    return {balance["account_id"]: balance["available"] for balance in answer["balances"]}


def test_a_purchase_is_refunded_up_to_what_was_paid(run: Any, refused: Any, people: list[str]) -> None:
    """And not a cent more; a repetition of a refund moves nothing."""
    ann, shop, _ = people
    bought = run("purchase", ann, shop, "40.00", "EUR", "--order-id", "order-1", "--reference", "shoes")
    assert bought["outcome"] == "COMMITTED"
    assert _available(bought) == {ann: "60.00", shop: "40.00"}
    purchase_id, refund_id = bought["transaction_id"], new_transaction_id()
    back = run("refund", purchase_id, ann, "15.00", "EUR", "--transaction-id", refund_id)
    assert (back["transaction_id"], _available(back)) == (refund_id, {ann: "75.00"})
    again = run("refund", purchase_id, ann, "15.00", "EUR", "--transaction-id", refund_id)
    assert again["outcome"] == "COMMITTED"
    too_much = refused("refund", purchase_id, ann, "25.01", "EUR")
    assert too_much["outcome"] == "REFUND_EXCEEDS_PURCHASE"
    assert _available(run("refund", purchase_id, ann, "25.00", "EUR")) == {ann: "100.00"}
    assert refused("refund", new_transaction_id(), ann, "1", "EUR")["outcome"] == "PURCHASE_NOT_FOUND"


def test_a_hold_is_captured_or_voided_once(run: Any, refused: Any, people: list[str]) -> None:
    """What is held is not available; what a capture leaves is."""
    ann, shop, _ = people
    held = run("hold", ann, "30.00", "EUR", "--life", "1h")
    assert _available(held) == {ann: "70.00"}
    (account,) = run("account", "show", ann)["accounts"]
    assert (account["available"], account["held"]) == ("70.00", "30.00")
    hold_id = held["transaction_id"]
    assert refused("capture", hold_id, ann, shop, "30.01", "EUR")["outcome"] == "CAPTURE_EXCEEDS_HOLD"
    captured = run("capture", hold_id, ann, shop, "12.50", "EUR")
    assert _available(captured) == {ann: "87.50", shop: "12.50"}
    assert refused("void", hold_id, ann)["outcome"] == "HOLD_NOT_ACTIVE"
    other = run("hold", ann, "5.00", "EUR")["transaction_id"]
    assert _available(run("void", other, ann)) == {ann: "87.50"}


def test_a_journal_from_arguments_and_from_a_file(
    run: Any, refused: Any, people: list[str], tmp_path: Path
) -> None:
    """All legs or none; those that do not sum to zero are refused with nothing moved."""
    ann, shop, fees = people
    done = run("journal", f"{ann}=-10.00", f"{shop}=9.50", f"{fees}=0.50", "--currency", "EUR")
    assert _available(done) == {ann: "90.00", shop: "9.50", fees: "0.50"}
    file = tmp_path / "legs.csv"
    file.write_text(f"account_id,amount,currency\n{ann},-20,EUR\n{shop},19,EUR\n{fees},1,EUR\n")
    done = run("journal", "--file", str(file), "--initiated-by", "payroll")
    assert _available(done) == {ann: "70.00", shop: "28.50", fees: "1.50"}
    uneven = refused("journal", f"{ann}=-10.00", f"{shop}=9.00", "--currency", "EUR")
    assert uneven["outcome"] == "INVALID_ARGUMENT"
    assert uneven["field"]
    (account,) = run("account", "show", ann)["accounts"]
    assert account["available"] == "70.00"


def test_an_account_s_limits_are_kept(run: Any, refused: Any, people: list[str]) -> None:
    """The most it may hold, and the most that one transfer may take."""
    ann, *_ = people
    name = f"limited-{new_transaction_id()}"
    limits = ("--minimum-balance", "-5", "--maximum-balance", "50", "--maximum-transfer", "20")
    (account,) = run("account", "open", name, "EUR", *limits)["accounts"]
    assert (account["minimum_balance"], account["maximum_balance"], account["maximum_transfer"]) == (
        "-5.00",
        "50.00",
        "20.00",
    )
    assert refused("account", "open", name, "EUR")["outcome"] == "ACCOUNT_EXISTS"
    assert refused("transfer", ann, name, "50.01", "EUR")["outcome"] == "BALANCE_LIMIT"
    run("transfer", ann, name, "50.00", "EUR")
    assert refused("transfer", name, ann, "20.01", "EUR")["outcome"] == "TRANSFER_LIMIT"


def test_an_account_is_frozen_unfrozen_and_closed(run: Any, refused: Any, people: list[str]) -> None:
    """Frozen it takes no part; closed only when it is empty."""
    ann, shop, _ = people
    assert run("account", "freeze", ann)["accounts"][0]["state"] == "frozen"
    assert refused("transfer", ann, shop, "1", "EUR")["outcome"] == "ACCOUNT_FROZEN"
    assert run("account", "unfreeze", ann)["accounts"][0]["state"] == "open"
    not_empty = refused("account", "close", ann)
    assert (not_empty["account_id"], not_empty["outcome"]) == (ann, "ACCOUNT_NOT_EMPTY")
    run("account", "withdraw", ann, "100.00", "EUR")
    assert run("account", "close", ann)["accounts"][0]["state"] == "closed"
    assert refused("transfer", shop, ann, "1", "EUR")["outcome"] in {"ACCOUNT_CLOSED", "INSUFFICIENT_FUNDS"}


def test_validate_only_moves_nothing(
    run: Any, refused: Any, people: list[str], cluster: LocalCluster
) -> None:
    """Every operation answers VALID, or the refusal that it would get."""
    ann, shop, fees = people
    purchase_id = run("purchase", ann, shop, "10.00", "EUR")["transaction_id"]
    hold_id = run("hold", ann, "10.00", "EUR")["transaction_id"]
    with SyncClient(cluster.router_addresses) as client:
        before = [client.get_account(name) for name in people]
        for command in (
            ("transfer", ann, shop, "1", "EUR"),
            ("purchase", ann, shop, "1", "EUR"),
            ("refund", purchase_id, ann, "1", "EUR"),
            ("hold", ann, "1", "EUR"),
            ("capture", hold_id, ann, shop, "1", "EUR"),
            ("void", hold_id, ann),
            ("journal", f"{ann}=-1", f"{fees}=1", "--currency", "EUR"),
            ("account", "deposit", ann, "1", "EUR"),
            ("account", "withdraw", ann, "1", "EUR"),
        ):
            answer = run(*command, "--validate-only")
            assert answer["outcome"] == "VALID", command
        for verb, name in (("freeze", ann), ("unfreeze", ann), ("close", fees)):
            run("account", verb, name, "--validate-only")
        assert (
            refused("transfer", ann, shop, "81", "EUR", "--validate-only")["outcome"] == "INSUFFICIENT_FUNDS"
        )
        unopened = f"nobody-{new_transaction_id()}"
        run("account", "open", unopened, "EUR", "--validate-only")
        assert refused("transfer", ann, unopened, "1", "EUR")["outcome"] == "ACCOUNT_NOT_FOUND"
        assert [client.get_account(name) for name in people] == before
    assert before[0].available == Decimal(80)


def test_a_journal_s_mistakes_are_said_before_anything_is_sent(data: str, tmp_path: Path) -> None:
    """Which word is no leg; legs and a file at once."""
    runner = CliRunner()
    result = runner.invoke(app, ["journal", "alice", "--data", data])
    assert result.exit_code == 1
    assert "ACCOUNT=AMOUNT" in result.stderr
    file = tmp_path / "legs.csv"
    file.write_text("account_id,amount\n")
    for command in (["journal"], ["journal", "a=1", "--file", str(file)]):
        result = runner.invoke(app, [*command, "--data", data])
        assert result.exit_code == 1
        assert "one of the two" in " ".join(result.stderr.split())
    result = runner.invoke(app, ["hold", "a", "1", "EUR", "--life", "soon", "--data", data])
    assert result.exit_code == 2
    assert "1d12h" in result.stderr


@pytest.mark.parametrize("life", ["0s", "0", "0.4s", "32d"])
def test_a_life_of_a_hold_is_what_is_asked_for_or_refused(
    cluster: LocalCluster, data: str, people: list[str], life: str
) -> None:
    """None is no week; nothing is reserved."""
    result = CliRunner().invoke(app, ["hold", people[0], "1", "EUR", "--life", life, "--data", data])
    assert result.exit_code == (2 if life == "0.4s" else 1)
    told = " ".join(result.stderr.split())
    if life != "0.4s":
        assert "life_seconds: must be 1 to 2678400 (31 days), or left out for 7 days, is" in told
    with SyncClient(cluster.router_addresses) as client:
        assert client.get_account(people[0]).available == Decimal("100.00")


def test_what_is_given_empty_is_not_what_is_left_out(refused: Any, data: str, people: list[str]) -> None:
    """An unset variable of a script makes no new id, lifts no limit, and leads to no other cluster."""
    ann, shop, _ = people
    for command in (("transfer", ann, shop, "1", "EUR"), ("account", "deposit", ann, "1", "EUR")):
        assert refused(*command, "--transaction-id", "")["field"] == "transaction_id"
    name = f"none-{new_transaction_id()}"
    for option in ("minimum-balance", "maximum-balance", "maximum-transfer"):
        document = refused("account", "open", name, "EUR", f"--{option}", "")
        assert document["field"] == option.replace("-", "_")
    result = CliRunner().invoke(app, ["watch", "--cursor", "", "--limit", "1", "--data", data])
    assert (result.exit_code, "cursor" in result.stderr) == (1, True)
    result = CliRunner().invoke(app, ["account", "show", ann, "--router", "", "--data", data])
    assert (result.exit_code, "no router is named: --router is ''" in " ".join(result.stderr.split())) == (
        1,
        True,
    )


def test_a_transfer_on_a_condition(run: Any, refused: Any, people: list[str]) -> None:
    """It moves money while the payer is at that version, and no more afterwards."""
    ann, shop, _ = people
    transfer = ("transfer", ann, shop, "10", "EUR", "--expected-version", "1")
    assert run(*transfer)["outcome"] == "COMMITTED"
    assert refused(*transfer)["outcome"] == "VERSION_MISMATCH"
