"""An instruction is known by its id and its content, however they are written."""

from __future__ import annotations

import io

import pytest

from deploy.importing.payments_file import COLUMNS, Instruction, PaymentsFile, Row, instruction

_HEADER = b"transaction_id,from_account,to_account,amount,currency,reference\n"
_ID = "0192e4a6-7c5e-4d3a-8f1b-2c3d4e5f6a7b"
_ONE = instruction((_ID, "alice", "bob", "12.50", "EUR", "rent"))


def _changed(**fields: str) -> Instruction:
    return instruction([fields.get(name, text) for name, text in zip(COLUMNS, _ONE.texts, strict=True)])


def test_a_row_is_an_instruction_with_its_place() -> None:
    """Only the reference may lack."""
    rows = list(PaymentsFile("p.csv", io.BytesIO(_HEADER + b"id,a,b,1,EUR,x\n")))
    assert rows == [Row(1, 2, instruction(("id", "a", "b", "1", "EUR", "x")))]
    rows = list(
        PaymentsFile(
            "p.csv", io.BytesIO(b"amount,currency,transaction_id,to_account,from_account\n1,EUR,id,b,a\n")
        )
    )
    assert rows == [Row(1, 2, instruction(("id", "a", "b", "1", "EUR", "")))]


@pytest.mark.parametrize("amount", ["12.5", "12.50", "012.500", "12.5000"])
def test_a_spreadsheet_writes_an_amount_in_another_way(amount: str) -> None:
    """It is the same instruction, as it is for the cluster."""
    assert _changed(amount=amount).fingerprint == _ONE.fingerprint


def test_a_row_that_the_system_pays_fails_alone() -> None:
    """In the results such a payer stands for the funding of an account."""
    content = _HEADER + b"id,@world:EUR,b,1,EUR,x\nid,a,@world:EUR,1,EUR,x\n"
    first, second = PaymentsFile("p.csv", io.BytesIO(content))
    assert "belong to the system" in first.defect
    assert not second.defect


def test_all_but_the_id_makes_the_fingerprint() -> None:
    """One field altered makes another instruction."""
    others = [
        _changed(from_account="carol"),
        _changed(to_account="carol"),
        _changed(amount="12.05"),
        _changed(amount="125.0"),
        _changed(amount="-12.50"),
        _changed(amount="1e3"),
        _changed(currency="USD"),
        _changed(reference=""),
        _changed(from_account="alice\0bob", to_account=""),
    ]
    assert len({_ONE.fingerprint, *(one.fingerprint for one in others)}) == len(others) + 1
    assert _changed(transaction_id="x").fingerprint == _ONE.fingerprint


def test_the_key_is_the_ids_value_in_its_one_form() -> None:
    """A malformed id is another id: it is refused, and that must not stick to the good one."""
    assert _changed(transaction_id=_ID.upper()).key == _ONE.key
    for malformed in (_ID.replace("-", ""), "{" + _ID + "}", "payment-17", ""):
        assert _changed(transaction_id=malformed).key != _ONE.key
