"""What all commands that move money share: their options, their call to the cluster, their answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from deploy.cli.answers import Balance, show_result
from deploy.cli.options import (
    DataOption,
    IdOption,
    JsonOption,
    ReferenceOption,
    RouterOption,
    ValidateOption,
)
from deploy.local import wallet
from deploy.terminal import about
from tallystick import HoldResult, JournalResult, TransferResult

ResultT = TypeVar("ResultT", TransferResult, HoldResult, JournalResult)


@dataclass(frozen=True, slots=True)
class Operation:
    """The options of a command that moves money."""

    reference: ReferenceOption = ""
    transaction_id: IdOption = None  # type: ignore[assignment]  # the option makes an id of it
    validate_only: ValidateOption = False
    as_json: JsonOption = False
    router: RouterOption = None
    data: DataOption = None

    def send(self, method: Callable[..., ResultT], *arguments: Any, **fields: Any) -> ResultT:
        """Calls a method of `SyncClient` with the arguments and the options. Raises what the method does."""
        with wallet(self.router, self.data) as client:
            about(transaction_id=self.transaction_id)
            return method(
                client,
                *arguments,
                transaction_id=self.transaction_id,
                reference=self.reference,
                validate_only=self.validate_only,
                **fields,
            )

    def show_both(self, result: TransferResult, payer: str, payee: str, currency: str) -> None:
        """Prints what became of it, and what payer and payee have available, where known."""
        self.show(result, (payer, result.from_available, currency), (payee, result.to_available, currency))

    def show(self, result: TransferResult | HoldResult | JournalResult, *balances: Balance) -> None:
        """Prints what became of it, and what its accounts have available, where known."""
        show_result(self.transaction_id, result.outcome, balances, as_json=self.as_json)
