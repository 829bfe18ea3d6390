"""A service in an environment that has the client's wheel, what it declares, and nothing else.

A program of its own: ``alone.py ROUTER``. It imports every module of the client, moves money and reads the
ledger, and prints what it imported and got as JSON.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
import uuid

import tallystick
from tallystick import InsufficientFunds, SyncClient, SyncLedgerClient

# Needs what the distribution's extra brings.
OF_EXTRA = "tallystick.locust"


def import_all() -> list[str]:
    """Every module and subpackage that needs no extra."""
    found = pkgutil.walk_packages(tallystick.__path__, "tallystick.")
    names = [module.name for module in found if not module.name.startswith(OF_EXTRA)]
    for name in names:
        importlib.import_module(name)
    return names


def pay(router: str) -> dict[str, str]:
    """A payment, a refusal, and a look at the history."""
    payer, payee = f"alone-{uuid.uuid4()}", f"alone-{uuid.uuid4()}"
    with SyncClient(router) as wallet:
        for name in (payer, payee):
            wallet.open_account(name, "EUR")
        wallet.deposit(payer, "10.00", "EUR")
        paid = wallet.transfer(payer, payee, "2.50", "EUR")
        try:
            wallet.transfer(payer, payee, "1000.00", "EUR")
        except InsufficientFunds as refusal:
            refused = refusal.outcome.name
        left = wallet.get_account(payer).available
    with SyncLedgerClient(router) as ledger:
        watched = ledger.watch([payer], from_beginning=True)
        newest = next(news.entries for news in watched if news.entries)[0]
    return {"paid": paid.outcome.name, "refused": refused, "left": str(left), "first": newest.kind.name}


def main() -> None:
    """Does it all."""
    imported = import_all()
    print(json.dumps({"imported": imported, "from": tallystick.__file__, **pay(sys.argv[1])}))  # noqa: T201


if __name__ == "__main__":
    main()
