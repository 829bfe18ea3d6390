"""The ground floor: what a shard is, how it is asked, who looks after it, and the ledger of what it did.

Each folder's ``__init__`` names what others may use of it; the modules that stand here alone are small enough
to be used as they are.
"""
