"""Which router takes the next call: in turn, passing over those that failed lately.

Plain decisions without I/O. A router that failed rests for a while, longer after each
failure in a row, and then gets one batch at a time until it has answered one: a router
that hangs must not swallow several batches at every try.
"""

from dataclasses import dataclass
from enum import Enum


class RouterState(Enum):
    """What a call that brought no response says of the router it went to."""

    ANSWERED = "it answered, if only with a refusal"
    SILENT = "it did not answer in the time it was given"
    BROKEN = "it, or the way to it, failed"


@dataclass(slots=True)
class _Router:
    """Changes only in the methods of Rotation."""

    in_flight: int = 0
    failures: int = 0
    rests_until_s: float = 0.0


class Rotation:
    """The state of every router, by its place in the list of addresses.

    Args:
        routers: how many there are.
        room: batches in flight at once to each.
        first_rest_s: how long a router rests after its first failure.
        longest_rest_s: where the doubling of that ends.
    """

    __slots__ = ("_first_rest_s", "_longest_rest_s", "_next", "_room", "_routers")

    def __init__(self, routers: int, room: int, first_rest_s: float, longest_rest_s: float) -> None:
        if routers < 1:
            raise ValueError("a client needs the address of at least one router")
        self._routers = [_Router() for _ in range(routers)]
        self._room = room
        self._first_rest_s = first_rest_s
        self._longest_rest_s = longest_rest_s
        self._next = 0

    def __repr__(self) -> str:
        states = ", ".join(
            f"{router.in_flight} in flight" + (f" failed {router.failures}x" if router.failures else "")
            for router in self._routers
        )
        return f"<Rotation {states}>"

    @property
    def capacity(self) -> int:
        """Batches that may be in flight at once, over all routers in good health."""
        return self._room * len(self._routers)

    def pick(self, now_s: float) -> int:
        """The router for a call that needs no place: there always is one."""
        chosen = self._first(self._awake(now_s))
        return self._soonest_awake() if chosen is None else chosen

    def take(self, now_s: float) -> int | None:
        """The router for a batch, with a place reserved for it; None when all places are taken."""
        awake = self._awake(now_s)
        candidates = [index for index in awake if self.free(index)]
        chosen = self._first(candidates)
        if chosen is None and not awake:
            # All of them failed lately: better the one that has rested longest than to wait.
            soonest = self._soonest_awake()
            chosen = soonest if self.free(soonest) else None
        if chosen is not None:
            self._routers[chosen].in_flight += 1
        return chosen

    def free(self, index: int) -> int:
        """How many more batches this router takes now."""
        router = self._routers[index]
        room = 1 if router.failures else self._room
        return max(0, room - router.in_flight)

    def free_places(self, now_s: float) -> int:
        """How many more batches all routers that do not rest take now."""
        return sum(self.free(index) for index in self._awake(now_s))

    def give_back(self, index: int) -> None:
        """The place of a batch is free again."""
        self._routers[index].in_flight -= 1

    def succeeded(self, index: int) -> None:
        """The router answered, if only with a refusal."""
        self._routers[index].failures = 0

    def failed(self, index: int, state: RouterState, now_s: float, *, had_full_time: bool = True) -> None:
        """A call brought no response.

        Args:
            index: which router.
            state: what that says of it.
            now_s: on the monotonic clock.
            had_full_time: whether it could take as long as any try may take; silence
                within a hasty caller's deadline says nothing.
        """
        if state is RouterState.ANSWERED:
            self.succeeded(index)
            return
        router = self._routers[index]
        hasty = state is RouterState.SILENT and not had_full_time
        # One fault fails all that was in flight: it counts once.
        counted = router.failures and now_s < router.rests_until_s
        if hasty or counted:
            return
        router.failures += 1
        rest_s = min(self._longest_rest_s, self._first_rest_s * 2.0 ** min(router.failures - 1, 32))
        router.rests_until_s = now_s + rest_s

    def _awake(self, now_s: float) -> list[int]:
        return [
            index
            for index, router in enumerate(self._routers)
            if not router.failures or router.rests_until_s <= now_s
        ]

    def _first(self, candidates: list[int]) -> int | None:
        """The first candidate at or after the turn, which moves on past it."""
        if not candidates:
            return None
        count = len(self._routers)
        chosen = min(candidates, key=lambda index: (index - self._next) % count)
        self._next = (chosen + 1) % count
        return chosen

    def _soonest_awake(self) -> int:
        return min(range(len(self._routers)), key=lambda index: self._routers[index].rests_until_s)
