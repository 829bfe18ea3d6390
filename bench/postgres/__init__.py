"""The wallet that one would build on PostgreSQL, measured under the same load: `python -m bench.postgres`."""
