"""The free texts of a transaction."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Details:
    """The free texts of a transaction, kept in the ledger only. UTF-8."""

    # order_id of a purchase, bank_transaction_id of a deposit or withdrawal.
    external_id: bytes = b""
    initiated_by: bytes = b""
    reference: bytes = b""


def pack_details(details: Details) -> bytes:
    """Two lengths of a byte each, then the three texts."""
    external, initiated = details.external_id, details.initiated_by
    return bytes((len(external), len(initiated))) + external + initiated + details.reference
