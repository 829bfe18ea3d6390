"""A fuzzer of the shard engine: its commands in one process, without a server, as fast as they go.

``stub_api`` stands in for the server, ``calls`` makes calls out of bytes, ``target`` says what must hold, and
``driver`` runs it where there is no libFuzzer.
"""
