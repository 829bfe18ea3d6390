"""Errors of a call to a shard or to the registry.

ShardNodeError
├── RetryableError            the same call may be made again
│   ├── StaleEpochError       the shard has another epoch; nothing was written; reload the topology
│   ├── ShardUnavailableError no answer: whether the call was carried out is not known
│   ├── ShardFullError        out of memory; nothing was written
│   ├── LedgerUnavailableError no answer from the ledger's database: whether it stored is not known
│   ├── ExponentUnknownError  the number of decimals of a currency is not known here: amounts cannot be told
│   └── BatchTakenError       another archiver stored that batch; nothing was written
├── ShardDefectError          the shard failed or refused what it should not: needs a person
├── IncompatibleError         server, engine and data of a shard do not fit together: needs a person
├── WrongShardError           the Redis belongs to another shard or cluster
├── LedgerError               the ledger's database is not what it should be: needs a person
└── RegistryError             ZooKeeper refused, or its content is not what it should be
"""


class ShardNodeError(Exception):
    """Root of the errors of this package."""


class RetryableError(ShardNodeError):
    """The same call may be made again, with the same transaction ids."""


class StaleEpochError(RetryableError):
    """The caller's epoch is not the shard's. Nothing was written."""


class ShardUnavailableError(RetryableError):
    """No answer came. The call may or may not have been carried out."""


class ShardFullError(RetryableError):
    """The shard's memory limit is reached. Nothing was written."""


class LedgerUnavailableError(RetryableError):
    """The ledger's database gave no answer. What was to be stored may or may not be stored."""


class BatchTakenError(RetryableError):
    """Another archiver has stored a batch of that number. Nothing was written."""


class ExponentUnknownError(RetryableError):
    """How many decimals a currency has is not known here, so its amounts cannot be read or told."""


class ShardDefectError(ShardNodeError):
    """The shard answered with an error that no correct caller and engine produce."""


class IncompatibleError(ShardNodeError):
    """Server, engine and data of a shard do not fit together; the text says what to do."""


class WrongShardError(ShardNodeError):
    """The Redis at this address belongs to another shard or another cluster."""


class LedgerError(ShardNodeError):
    """The ledger's database, or its URL, is not what it should be; trying again would not help."""


class RegistryError(ShardNodeError):
    """ZooKeeper could not be reached in time, or holds what it should not."""
