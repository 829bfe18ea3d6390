"""Deposits that fund payers have ids of their own, which repeat and expire with the rows they come from."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from deploy.importing.funding import deposit_id
from tallystick import new_transaction_id

_UUIDS = st.uuids() | st.builds(lambda _: UUID(new_transaction_id()), st.none())


@given(_UUIDS, st.text(), st.text())
def test_the_id_depends_on_row_and_account_alone(row_id: UUID, account: str, other: str) -> None:
    """A second import asks for the same deposit; two accounts never share one."""
    made = deposit_id(str(row_id), account)
    assert made == deposit_id(str(row_id).upper(), account)
    assert made != str(row_id)
    assert (made == deposit_id(str(row_id), other)) == (account == other)


@given(st.text())
def test_a_deposit_expires_with_its_row(account: str) -> None:
    """From a UUIDv7 comes a UUIDv7 of the same moment: so also the deposit is exactly-once for ever."""
    row_id = UUID(new_transaction_id())
    made = UUID(deposit_id(str(row_id), account))
    assert made.version == 7
    assert made.variant == row_id.variant
    assert made.int >> 80 == row_id.int >> 80


def test_no_deposit_comes_from_a_row_without_an_id() -> None:
    """That row is refused anyway; the payer's next one counts."""
    assert deposit_id("payment-17", "alice") is None
    assert deposit_id("", "alice") is None
