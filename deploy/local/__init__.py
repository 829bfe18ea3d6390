"""A whole cluster on this machine: started, found again, surveyed and stopped; and the way to its routers."""

from deploy.local import cluster_file, ports
from deploy.local.cluster_file import ClusterRecord, Kind
from deploy.local.cluster_survey import State, Survey, Verdict, survey
from deploy.local.connection import (
    CALL_TIMEOUT_SECONDS,
    DEFAULT_DATA,
    ROUTER_VARIABLE,
    cluster_service,
    explain,
    find_operators,
    find_routers,
    ledger_client,
    named_routers,
    no_cluster,
    said,
    wallet,
)
from deploy.local.launcher import DEFAULT_SHARDS, MAX_NICENESS, ClusterSpec, LocalCluster
from deploy.local.ledger_url import checked, default_url, masked, sqlite_file, without_passwords
from deploy.local.ports import free_port
from deploy.local.remote_survey import survey_from

__all__ = [
    "CALL_TIMEOUT_SECONDS",
    "DEFAULT_DATA",
    "DEFAULT_SHARDS",
    "MAX_NICENESS",
    "ROUTER_VARIABLE",
    "ClusterRecord",
    "ClusterSpec",
    "Kind",
    "LocalCluster",
    "State",
    "Survey",
    "Verdict",
    "checked",
    "cluster_file",
    "cluster_service",
    "default_url",
    "explain",
    "find_operators",
    "find_routers",
    "free_port",
    "ledger_client",
    "masked",
    "named_routers",
    "no_cluster",
    "ports",
    "said",
    "sqlite_file",
    "survey",
    "survey_from",
    "wallet",
    "without_passwords",
]
