"""What requests to open accounts must be. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from router.requests.fields import FieldReader, minimum_balance, new_currency, positive
from shard_node.contract import AccountTerms

if TYPE_CHECKING:
    from tallystick.v1 import wallet_pb2


class Opening(NamedTuple):
    """What an account is to be opened with, and the exponent that its limits were read by."""

    terms: AccountTerms
    digits: int


def read_opening(fields: FieldReader, request: wallet_pb2.OpenAccountRequest) -> Opening:
    """What an account is to be opened with. Raises BadField.

    A currency that is not known is read by ISO 4217: whoever opens stores that, and reads again.
    """
    slot, currency = fields.account_slot(request.account_id, "account_id"), request.currency
    digits = fields.exponents[currency] if currency in fields.exponents else new_currency(currency)
    minimum = minimum_balance(request.minimum_balance, digits) if request.HasField("minimum_balance") else 0
    maxima = (_maximum(request, field, digits) for field in ("maximum_balance", "maximum_transfer"))
    return Opening(AccountTerms(request.account_id, slot, currency, minimum, *maxima), digits)


def _maximum(request: wallet_pb2.OpenAccountRequest, field: str, digits: int) -> int:
    """An optional limit above zero, in minor units; 0 for none."""
    return positive(getattr(request, field), digits, field) if request.HasField(field) else 0
