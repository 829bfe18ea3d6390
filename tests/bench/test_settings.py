"""What cannot be measured is refused before anything starts, with the field and its limits."""

from typing import Any

import pytest

from bench.errors import BenchError
from bench.settings import BenchSettings, CrossShare, HotAccount, Shape


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"shards": 0}, "shards"),
        ({"clients": 65}, "clients"),
        ({"archivers": -1}, "archivers"),
        ({"batch": 8193}, "batch"),
        ({"seconds": 601.0}, "seconds"),
        ({"runs": 0}, "runs"),
        ({"transfers": 20_000_001}, "transfers"),
        ({"transfers": 3, "clients": 4}, "transfers"),
        ({"concurrency": 3, "clients": 4}, "concurrency"),
        ({"rate": 0.0}, "rate"),
        ({"accounts": 1_000_001}, "accounts"),
        ({"theta": -0.1}, "theta"),
        ({"same_shard": 1.1}, "same_shard"),
        ({"rejections": -0.1}, "rejections"),
        ({"rejections": float("nan")}, "rejections"),
    ],
)
def test_a_value_out_of_its_limits_is_named_with_them(wrong: dict[str, Any], field: str) -> None:
    """The field, the value, and from where to where it may be."""
    with pytest.raises(BenchError, match=rf"^{field}: .* is not within .* to "):
        BenchSettings(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"same_shard": 0.5, "cross_share": CrossShare.SAME},
        {"hot_payee": True, "hot": HotAccount.PAYER},
        {"hot": HotAccount.PAYER, "rejections": 0.1},
    ],
)
def test_settings_that_contradict_each_other_are_refused(wrong: dict[str, Any]) -> None:
    """Rather than one of them be left out silently."""
    with pytest.raises(BenchError):
        BenchSettings(**wrong)


def test_short_forms_mean_the_same() -> None:
    """As in the commands that are written down."""
    assert BenchSettings(cross_share=CrossShare.SAME).shape == Shape(same_shard=1.0)
    assert BenchSettings(cross_share=CrossShare.CROSS).shape == Shape(same_shard=0.0)
    assert BenchSettings().shape == Shape()
    assert BenchSettings(hot_payee=True).shape == Shape(hot=HotAccount.PAYEE)


def test_calls_in_flight_when_nobody_says() -> None:
    """Few in a closed loop, more in an open one, and always one for each process."""
    assert BenchSettings().in_flight == 8
    assert BenchSettings(clients=20).in_flight == 20
    assert BenchSettings(rate=100.0).in_flight == 256
    assert BenchSettings(rate=100.0, concurrency=5).in_flight == 5
