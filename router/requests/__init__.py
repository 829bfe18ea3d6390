"""Reads requests and checks them: what comes out is right in every field, or a BadField. No I/O."""

from router.requests import ledger
from router.requests.accounts import Opening, read_opening
from router.requests.batch_reader import BatchReader
from router.requests.fields import (
    ACCOUNT_ID,
    CURRENCY,
    BadField,
    FieldReader,
    UnknownCurrency,
    shown,
    time_of_id,
)
from router.requests.ledger import WatchRequest
from router.requests.parts import Batch, Part
from router.requests.text_tables import Bytes
from router.requests.transaction_reader import (
    ReadTransfers,
    RefundRequest,
    TransactionReader,
    VoidRequest,
)
from router.requests.transactions import TransactionRequest, Transactions

__all__ = [
    "ACCOUNT_ID",
    "CURRENCY",
    "BadField",
    "Batch",
    "BatchReader",
    "Bytes",
    "FieldReader",
    "Opening",
    "Part",
    "ReadTransfers",
    "RefundRequest",
    "TransactionReader",
    "TransactionRequest",
    "Transactions",
    "UnknownCurrency",
    "VoidRequest",
    "WatchRequest",
    "ledger",
    "read_opening",
    "shown",
    "time_of_id",
]
