"""The gRPC services: each call from its request to its answer."""

from router.services.ledger_service import LedgerService
from router.services.wallet_service import WalletService, add_methods

__all__ = [
    "LedgerService",
    "WalletService",
    "add_methods",
]
