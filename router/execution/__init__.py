"""Carries out what was read: splits it by shards, asks them and coordinators, repeats by newer maps."""

from router.execution.account_pages import AccountQuery, account_page
from router.execution.coalescer import Coalescer, OverloadedError
from router.execution.coordinators import Coordinators
from router.execution.dispatch import Dispatcher, Results
from router.execution.kept import DEFAULT_DEADLINE_SECONDS, KeptTasks, deadline_of
from router.execution.ledger_completeness import MAX_WAIT_SECONDS, CompleteAnswers, NotYetArchivedError
from router.execution.ledger_reader import LedgerReader, TooManyQuestionsError
from router.execution.maps import Maps, at_owner, spread
from router.execution.purchases import PurchaseArchive, Purchases
from router.execution.validation import Validator

__all__ = [
    "DEFAULT_DEADLINE_SECONDS",
    "MAX_WAIT_SECONDS",
    "AccountQuery",
    "Coalescer",
    "CompleteAnswers",
    "Coordinators",
    "Dispatcher",
    "KeptTasks",
    "LedgerReader",
    "Maps",
    "NotYetArchivedError",
    "OverloadedError",
    "PurchaseArchive",
    "Purchases",
    "Results",
    "TooManyQuestionsError",
    "Validator",
    "account_page",
    "at_owner",
    "deadline_of",
    "spread",
]
