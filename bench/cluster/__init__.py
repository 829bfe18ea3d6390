"""The cluster that is measured: started on this machine, checked, its CPU time read."""

from bench.cluster.cpu import CpuSpent, read_cpu, read_tree
from bench.cluster.local import (
    Machine,
    Part,
    by_part,
    changes,
    check_balance,
    check_durability,
    check_moves,
    data_folder,
    file_system,
    local_cluster,
    open_accounts,
    part_of,
    process_ids,
    read_backlog,
    read_topology,
    shard_redis,
)

__all__ = [
    "CpuSpent",
    "Machine",
    "Part",
    "by_part",
    "changes",
    "check_balance",
    "check_durability",
    "check_moves",
    "data_folder",
    "file_system",
    "local_cluster",
    "open_accounts",
    "part_of",
    "process_ids",
    "read_backlog",
    "read_cpu",
    "read_topology",
    "read_tree",
    "shard_redis",
]
