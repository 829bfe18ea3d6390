"""The C header of the contract."""

from shard_node.contract.header import HEADER, header


def test_committed_header_is_what_the_contract_says() -> None:
    """`layout.h` is that of this contract: else run `python -m shard_node.contract.header` and commit."""
    assert HEADER.read_text() == header()
