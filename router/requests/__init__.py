"""Reads requests and checks them: what comes out is right in every field, or a BadField. No I/O."""

from router.requests import ledger
from router.requests.batches import BatchReader
from router.requests.byte_tables import Bytes
from router.requests.fields import ACCOUNT_ID, CURRENCY, BadField, FieldReader, UnknownCurrency, shown
from router.requests.journals import JournalReader, JournalRequest, PurchaseTerms, RefundRequest, VoidRequest
from router.requests.ledger import WatchRequest
from router.requests.parts import Batch, Part
from router.requests.reader import AccountTerms, ReadTransfers, RequestReader, columns
from router.requests.transactions import TransactionRequest

__all__ = [
    "ACCOUNT_ID",
    "CURRENCY",
    "AccountTerms",
    "BadField",
    "Batch",
    "BatchReader",
    "Bytes",
    "FieldReader",
    "JournalReader",
    "JournalRequest",
    "Part",
    "PurchaseTerms",
    "ReadTransfers",
    "RefundRequest",
    "RequestReader",
    "TransactionRequest",
    "UnknownCurrency",
    "VoidRequest",
    "WatchRequest",
    "columns",
    "ledger",
    "shown",
]
