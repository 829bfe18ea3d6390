"""The choice of a router: in turn, with room, and not the one that just failed."""

import pytest

from tallystick.rotation import Rotation, RouterState


def rotation(routers: int, room: int = 2) -> Rotation:
    """Routers that rest 1 s after a failure, 4 s at most."""
    return Rotation(routers, room, first_rest_s=1.0, longest_rest_s=4.0)


def test_routers_take_turns() -> None:
    """Calls go round, one after the other."""
    turns = rotation(3)
    assert [turns.pick(0.0) for _ in range(6)] == [0, 1, 2, 0, 1, 2]


def test_batches_fill_all_places_and_no_more() -> None:
    """Each router gets its number of batches; then there is no place until one comes back."""
    turns = rotation(2, room=2)
    assert [turns.take(0.0) for _ in range(5)] == [0, 1, 0, 1, None]
    turns.give_back(1)
    assert turns.take(0.0) == 1
    assert repr(turns) == "<Rotation 2 in flight, 2 in flight>"


def test_failed_router_is_passed_over_while_it_rests() -> None:
    """For a second after its failure everything goes to the other one."""
    turns = rotation(2)
    turns.failed(0, RouterState.BROKEN, 10.0)
    assert [turns.pick(10.9) for _ in range(3)] == [1, 1, 1]
    assert {turns.pick(11.0) for _ in range(2)} == {0, 1}


def test_rested_router_gets_one_batch_until_it_answers() -> None:
    """A router that still hangs swallows one batch at a try, not all its places."""
    turns = rotation(2, room=2)
    turns.failed(0, RouterState.BROKEN, 10.0)
    assert [turns.take(12.0) for _ in range(4)] == [0, 1, 1, None]
    turns.succeeded(0)
    assert turns.take(12.0) == 0


def test_rest_doubles_with_each_failure_up_to_its_limit() -> None:
    """1, 2, 4 and then 4 seconds."""
    turns = rotation(2)
    now_s = 0.0
    for rest_s in (1.0, 2.0, 4.0, 4.0):
        turns.failed(0, RouterState.BROKEN, now_s)
        assert turns.free_places(now_s + rest_s - 0.01) == 2
        assert turns.free_places(now_s + rest_s) == 3
        now_s += rest_s


def test_one_fault_counts_once() -> None:
    """All batches in flight fail with their router; that is one failure."""
    turns = rotation(2)
    for _ in range(4):
        turns.failed(0, RouterState.BROKEN, 0.0)
    assert turns.free_places(1.0) == 3


def test_only_router_is_used_even_while_it_rests() -> None:
    """With nobody else to ask, waiting would help nobody: one batch goes out."""
    turns = rotation(1)
    turns.failed(0, RouterState.BROKEN, 0.0)
    assert turns.pick(0.1) == 0
    assert [turns.take(0.1), turns.take(0.1)] == [0, None]


def test_when_all_rest_the_one_that_rested_longest_goes_first() -> None:
    """The earliest to wake is the likeliest to be back."""
    turns = rotation(2)
    turns.failed(1, RouterState.BROKEN, 0.0)
    turns.failed(0, RouterState.BROKEN, 0.5)
    assert turns.take(0.6) == 1
    assert turns.pick(0.6) == 1


def test_refusal_is_an_answer() -> None:
    """A router that refuses is in good health."""
    turns = rotation(1)
    turns.failed(0, RouterState.BROKEN, 0.0)
    turns.failed(0, RouterState.ANSWERED, 0.1)
    assert turns.free_places(0.1) == 2


def test_silence_counts_only_when_the_try_was_long() -> None:
    """A caller in a hurry does not send a healthy router to rest."""
    turns = rotation(1)
    turns.failed(0, RouterState.SILENT, 0.0, had_full_time=False)
    assert turns.free_places(0.0) == 2
    turns.failed(0, RouterState.SILENT, 0.0, had_full_time=True)
    assert turns.free_places(0.0) == 0


def test_no_router_is_an_error() -> None:
    """A client without an address is a mistake, said at once."""
    with pytest.raises(ValueError, match="at least one router"):
        rotation(0)
