"""The public client, without a cluster and with one."""
