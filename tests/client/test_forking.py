"""Clients and forks, with real ones: see `forks`. Nothing hangs and nothing crashes."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.servers

# What a client that the child made read: the account that it asked for.
ALIVE = "alice"


def forked(scenario: str, address: str) -> list[str]:
    """What a scenario's children said."""
    command = [sys.executable, "-m", "tests.client.forks", scenario, address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_an_inherited_client_is_refused_at_once(address: str) -> None:
    """Every kind of client raises ForkedClient in a child; closing it does nothing; the parent's goes on."""
    assert forked("inherited", address) == ["refused"] * 7 + ["None", ALIVE]


@pytest.mark.parametrize("scenario", ["unused", "closed", "in_a_loop", "pool"])
def test_a_client_made_in_the_child_works(address: str, scenario: str) -> None:
    """Whatever the parent did with gRPC before the fork, or does at the moment."""
    assert set(forked(scenario, address)) == {ALIVE}


def test_a_parent_may_be_at_work(address: str) -> None:
    """Its calls are not lost, and no child hangs or dies; one is refused where a call took too long."""
    said = forked("busy", address)
    assert len(said) == 5
    assert ALIVE in said
    assert set(said) <= {ALIVE, "ForkedClient"}


def test_a_parent_goes_on_between_forks(address: str) -> None:
    """Its own client connects again at the next call."""
    assert forked("used", address) == [f"{ALIVE} {ALIVE}"] * 4


def test_a_client_that_could_not_work_is_refused_at_once(address: str) -> None:
    """Where other code of the parent uses grpc.aio, the child hears so, and ends in order."""
    assert forked("foreign", address) == ["refused", "refused"]


def test_a_handler_may_fork_at_any_moment(address: str) -> None:
    """Also one that interrupts the thread that forks, or that connects."""
    assert forked("in_a_handler", address) == ["3", "3", ALIVE, ALIVE, ALIVE]
