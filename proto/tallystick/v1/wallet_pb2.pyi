import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from tallystick.v1 import outcome_pb2 as _outcome_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AccountState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACCOUNT_STATE_UNSPECIFIED: _ClassVar[AccountState]
    ACCOUNT_STATE_OPEN: _ClassVar[AccountState]
    ACCOUNT_STATE_FROZEN: _ClassVar[AccountState]
    ACCOUNT_STATE_CLOSED: _ClassVar[AccountState]
ACCOUNT_STATE_UNSPECIFIED: AccountState
ACCOUNT_STATE_OPEN: AccountState
ACCOUNT_STATE_FROZEN: AccountState
ACCOUNT_STATE_CLOSED: AccountState

class Account(_message.Message):
    __slots__ = ("account_id", "currency", "available", "held", "version", "state", "minimum_balance", "maximum_balance", "maximum_transfer")
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_BALANCE_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_BALANCE_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_TRANSFER_FIELD_NUMBER: _ClassVar[int]
    account_id: str
    currency: str
    available: str
    held: str
    version: int
    state: AccountState
    minimum_balance: str
    maximum_balance: str
    maximum_transfer: str
    def __init__(self, account_id: _Optional[str] = ..., currency: _Optional[str] = ..., available: _Optional[str] = ..., held: _Optional[str] = ..., version: _Optional[int] = ..., state: _Optional[_Union[AccountState, str]] = ..., minimum_balance: _Optional[str] = ..., maximum_balance: _Optional[str] = ..., maximum_transfer: _Optional[str] = ...) -> None: ...

class OpenAccountRequest(_message.Message):
    __slots__ = ("account_id", "currency", "minimum_balance", "maximum_balance", "maximum_transfer", "validate_only")
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_BALANCE_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_BALANCE_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_TRANSFER_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    account_id: str
    currency: str
    minimum_balance: str
    maximum_balance: str
    maximum_transfer: str
    validate_only: bool
    def __init__(self, account_id: _Optional[str] = ..., currency: _Optional[str] = ..., minimum_balance: _Optional[str] = ..., maximum_balance: _Optional[str] = ..., maximum_transfer: _Optional[str] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class BatchOpenAccountsRequest(_message.Message):
    __slots__ = ("accounts",)
    ACCOUNTS_FIELD_NUMBER: _ClassVar[int]
    accounts: _containers.RepeatedCompositeFieldContainer[OpenAccountRequest]
    def __init__(self, accounts: _Optional[_Iterable[_Union[OpenAccountRequest, _Mapping]]] = ...) -> None: ...

class GetAccountRequest(_message.Message):
    __slots__ = ("account_id",)
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    account_id: str
    def __init__(self, account_id: _Optional[str] = ...) -> None: ...

class BatchGetAccountsRequest(_message.Message):
    __slots__ = ("account_ids",)
    ACCOUNT_IDS_FIELD_NUMBER: _ClassVar[int]
    account_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, account_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class ListAccountsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "prefix")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    prefix: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., prefix: _Optional[str] = ...) -> None: ...

class ListAccountsResponse(_message.Message):
    __slots__ = ("accounts", "next_page_token")
    ACCOUNTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    accounts: _containers.RepeatedCompositeFieldContainer[Account]
    next_page_token: str
    def __init__(self, accounts: _Optional[_Iterable[_Union[Account, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("outcome", "message", "field")
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    outcome: _outcome_pb2.Outcome
    message: str
    field: str
    def __init__(self, outcome: _Optional[_Union[_outcome_pb2.Outcome, str]] = ..., message: _Optional[str] = ..., field: _Optional[str] = ...) -> None: ...

class AccountResult(_message.Message):
    __slots__ = ("account", "refusal")
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    account: Account
    refusal: Refusal
    def __init__(self, account: _Optional[_Union[Account, _Mapping]] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ...) -> None: ...

class BatchAccountsResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[AccountResult]
    def __init__(self, results: _Optional[_Iterable[_Union[AccountResult, _Mapping]]] = ...) -> None: ...

class TransferRequest(_message.Message):
    __slots__ = ("transaction_id", "from_account", "to_account", "amount", "currency", "reference", "validate_only", "expected_version")
    TRANSACTION_ID_FIELD_NUMBER: _ClassVar[int]
    FROM_ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    TO_ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_VERSION_FIELD_NUMBER: _ClassVar[int]
    transaction_id: str
    from_account: str
    to_account: str
    amount: str
    currency: str
    reference: str
    validate_only: bool
    expected_version: int
    def __init__(self, transaction_id: _Optional[str] = ..., from_account: _Optional[str] = ..., to_account: _Optional[str] = ..., amount: _Optional[str] = ..., currency: _Optional[str] = ..., reference: _Optional[str] = ..., validate_only: _Optional[bool] = ..., expected_version: _Optional[int] = ...) -> None: ...

class TransferResponse(_message.Message):
    __slots__ = ("transaction_id", "outcome", "from_available", "to_available", "refusal")
    TRANSACTION_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    FROM_AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    TO_AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    transaction_id: str
    outcome: _outcome_pb2.Outcome
    from_available: str
    to_available: str
    refusal: Refusal
    def __init__(self, transaction_id: _Optional[str] = ..., outcome: _Optional[_Union[_outcome_pb2.Outcome, str]] = ..., from_available: _Optional[str] = ..., to_available: _Optional[str] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ...) -> None: ...

class BatchTransferRequest(_message.Message):
    __slots__ = ("transfers", "return_balances")
    TRANSFERS_FIELD_NUMBER: _ClassVar[int]
    RETURN_BALANCES_FIELD_NUMBER: _ClassVar[int]
    transfers: _containers.RepeatedCompositeFieldContainer[TransferRequest]
    return_balances: bool
    def __init__(self, transfers: _Optional[_Iterable[_Union[TransferRequest, _Mapping]]] = ..., return_balances: _Optional[bool] = ...) -> None: ...

class BatchTransferResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[TransferResponse]
    def __init__(self, results: _Optional[_Iterable[_Union[TransferResponse, _Mapping]]] = ...) -> None: ...

class GetTransferRequest(_message.Message):
    __slots__ = ("transaction_id", "from_account")
    TRANSACTION_ID_FIELD_NUMBER: _ClassVar[int]
    FROM_ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    transaction_id: str
    from_account: str
    def __init__(self, transaction_id: _Optional[str] = ..., from_account: _Optional[str] = ...) -> None: ...

class GetTransferResponse(_message.Message):
    __slots__ = ("transaction_id", "from_account", "outcome", "amount", "currency", "decided_at")
    TRANSACTION_ID_FIELD_NUMBER: _ClassVar[int]
    FROM_ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    DECIDED_AT_FIELD_NUMBER: _ClassVar[int]
    transaction_id: str
    from_account: str
    outcome: _outcome_pb2.Outcome
    amount: str
    currency: str
    decided_at: _timestamp_pb2.Timestamp
    def __init__(self, transaction_id: _Optional[str] = ..., from_account: _Optional[str] = ..., outcome: _Optional[_Union[_outcome_pb2.Outcome, str]] = ..., amount: _Optional[str] = ..., currency: _Optional[str] = ..., decided_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class DepositRequest(_message.Message):
    __slots__ = ("transaction_id", "account_id", "amount", "currency", "reference", "bank_transaction_id", "initiated_by", "validate_only")
    TRANSACTION_ID_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    BANK_TRANSACTION_ID_FIELD_NUMBER: _ClassVar[int]
    INITIATED_BY_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    transaction_id: str
    account_id: str
    amount: str
    currency: str
    reference: str
    bank_transaction_id: str
    initiated_by: str
    validate_only: bool
    def __init__(self, transaction_id: _Optional[str] = ..., account_id: _Optional[str] = ..., amount: _Optional[str] = ..., currency: _Optional[str] = ..., reference: _Optional[str] = ..., bank_transaction_id: _Optional[str] = ..., initiated_by: _Optional[str] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class WithdrawRequest(_message.Message):
    __slots__ = ("transaction_id", "account_id", "amount", "currency", "reference", "bank_transaction_id", "initiated_by", "validate_only")
    TRANSACTION_ID_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    BANK_TRANSACTION_ID_FIELD_NUMBER: _ClassVar[int]
    INITIATED_BY_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    transaction_id: str
    account_id: str
    amount: str
    currency: str
    reference: str
    bank_transaction_id: str
    initiated_by: str
    validate_only: bool
    def __init__(self, transaction_id: _Optional[str] = ..., account_id: _Optional[str] = ..., amount: _Optional[str] = ..., currency: _Optional[str] = ..., reference: _Optional[str] = ..., bank_transaction_id: _Optional[str] = ..., initiated_by: _Optional[str] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class PurchaseRequest(_message.Message):
    __slots__ = ("transaction_id", "customer_account", "merchant_account", "amount", "currency", "order_id", "reference", "validate_only")
    TRANSACTION_ID_FIELD_NUMBER: _ClassVar[int]
    CUSTOMER_ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    MERCHANT_ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    transaction_id: str
    customer_account: str
    merchant_account: str
    amount: str
    currency: str
    order_id: str
    reference: str
    validate_only: bool
    def __init__(self, transaction_id: _Optional[str] = ..., customer_account: _Optional[str] = ..., merchant_account: _Optional[str] = ..., amount: _Optional[str] = ..., currency: _Optional[str] = ..., order_id: _Optional[str] = ..., reference: _Optional[str] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class RefundRequest(_message.Message):
    __slots__ = ("transaction_id", "purchase_transaction_id", "customer_account", "amount", "currency", "reference", "validate_only")
    TRANSACTION_ID_FIELD_NUMBER: _ClassVar[int]
    PURCHASE_TRANSACTION_ID_FIELD_NUMBER: _ClassVar[int]
    CUSTOMER_ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    transaction_id: str
    purchase_transaction_id: str
    customer_account: str
    amount: str
    currency: str
    reference: str
    validate_only: bool
    def __init__(self, transaction_id: _Optional[str] = ..., purchase_transaction_id: _Optional[str] = ..., customer_account: _Optional[str] = ..., amount: _Optional[str] = ..., currency: _Optional[str] = ..., reference: _Optional[str] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class HoldRequest(_message.Message):
    __slots__ = ("transaction_id", "account_id", "amount", "currency", "life_seconds", "reference", "validate_only")
    TRANSACTION_ID_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    LIFE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    transaction_id: str
    account_id: str
    amount: str
    currency: str
    life_seconds: int
    reference: str
    validate_only: bool
    def __init__(self, transaction_id: _Optional[str] = ..., account_id: _Optional[str] = ..., amount: _Optional[str] = ..., currency: _Optional[str] = ..., life_seconds: _Optional[int] = ..., reference: _Optional[str] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class HoldResponse(_message.Message):
    __slots__ = ("transaction_id", "outcome", "available")
    TRANSACTION_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    transaction_id: str
    outcome: _outcome_pb2.Outcome
    available: str
    def __init__(self, transaction_id: _Optional[str] = ..., outcome: _Optional[_Union[_outcome_pb2.Outcome, str]] = ..., available: _Optional[str] = ...) -> None: ...

class CaptureRequest(_message.Message):
    __slots__ = ("transaction_id", "hold_transaction_id", "account_id", "to_account", "amount", "currency", "reference", "validate_only")
    TRANSACTION_ID_FIELD_NUMBER: _ClassVar[int]
    HOLD_TRANSACTION_ID_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    TO_ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    transaction_id: str
    hold_transaction_id: str
    account_id: str
    to_account: str
    amount: str
    currency: str
    reference: str
    validate_only: bool
    def __init__(self, transaction_id: _Optional[str] = ..., hold_transaction_id: _Optional[str] = ..., account_id: _Optional[str] = ..., to_account: _Optional[str] = ..., amount: _Optional[str] = ..., currency: _Optional[str] = ..., reference: _Optional[str] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class VoidRequest(_message.Message):
    __slots__ = ("transaction_id", "hold_transaction_id", "account_id", "reference", "validate_only")
    TRANSACTION_ID_FIELD_NUMBER: _ClassVar[int]
    HOLD_TRANSACTION_ID_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    transaction_id: str
    hold_transaction_id: str
    account_id: str
    reference: str
    validate_only: bool
    def __init__(self, transaction_id: _Optional[str] = ..., hold_transaction_id: _Optional[str] = ..., account_id: _Optional[str] = ..., reference: _Optional[str] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class JournalLeg(_message.Message):
    __slots__ = ("account_id", "amount", "currency", "expected_version")
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_VERSION_FIELD_NUMBER: _ClassVar[int]
    account_id: str
    amount: str
    currency: str
    expected_version: int
    def __init__(self, account_id: _Optional[str] = ..., amount: _Optional[str] = ..., currency: _Optional[str] = ..., expected_version: _Optional[int] = ...) -> None: ...

class PostJournalRequest(_message.Message):
    __slots__ = ("transaction_id", "legs", "reference", "initiated_by", "validate_only")
    TRANSACTION_ID_FIELD_NUMBER: _ClassVar[int]
    LEGS_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    INITIATED_BY_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    transaction_id: str
    legs: _containers.RepeatedCompositeFieldContainer[JournalLeg]
    reference: str
    initiated_by: str
    validate_only: bool
    def __init__(self, transaction_id: _Optional[str] = ..., legs: _Optional[_Iterable[_Union[JournalLeg, _Mapping]]] = ..., reference: _Optional[str] = ..., initiated_by: _Optional[str] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class PostJournalResponse(_message.Message):
    __slots__ = ("transaction_id", "outcome", "available")
    TRANSACTION_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    transaction_id: str
    outcome: _outcome_pb2.Outcome
    available: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, transaction_id: _Optional[str] = ..., outcome: _Optional[_Union[_outcome_pb2.Outcome, str]] = ..., available: _Optional[_Iterable[str]] = ...) -> None: ...

class FreezeAccountRequest(_message.Message):
    __slots__ = ("account_id", "validate_only")
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    account_id: str
    validate_only: bool
    def __init__(self, account_id: _Optional[str] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class UnfreezeAccountRequest(_message.Message):
    __slots__ = ("account_id", "validate_only")
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    account_id: str
    validate_only: bool
    def __init__(self, account_id: _Optional[str] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class CloseAccountRequest(_message.Message):
    __slots__ = ("account_id", "validate_only")
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    account_id: str
    validate_only: bool
    def __init__(self, account_id: _Optional[str] = ..., validate_only: _Optional[bool] = ...) -> None: ...
