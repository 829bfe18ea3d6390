"""Calls that are not coalesced, tried again until their deadline."""

from collections.abc import Callable, Sequence
from itertools import zip_longest

from tallystick.errors import ClientClosed, NotYetArchived, OutcomeUnknown, RetryableError, TallystickError
from tallystick.retry import RetryPolicy, closing_error, is_verdict, may_have_begun, of_question
from tallystick.rotation import Rotation
from tallystick.surroundings import Surroundings
from tallystick.transport import CallFailed, Method, RequestT, ResponseT, Transport
from tallystick.v1 import wallet_pb2
from tallystick.values import AccountResult
from tallystick.wire import account_result


class Caller:
    """Unary calls, and batches of accounts, over all routers.

    Args:
        transport: the way to the routers.
        rotation: which router is next.
        policy: how long to wait between tries.
        surroundings: time and sleep.
        attempt_timeout_s: how long one try may take.
    """

    def __init__(
        self,
        transport: Transport,
        rotation: Rotation,
        policy: RetryPolicy,
        surroundings: Surroundings,
        attempt_timeout_s: float,
    ) -> None:
        self._transport = transport
        self._rotation = rotation
        self._policy = policy
        self._surroundings = surroundings
        self._attempt_timeout_s = attempt_timeout_s
        self._closed = False

    def close(self) -> None:
        """Begin no further try."""
        self._closed = True

    async def call(
        self,
        method: Method[RequestT, ResponseT],
        request: RequestT,
        deadline_s: float,
        transaction_id: str = "",
    ) -> ResponseT:
        """Call until there is an answer, a refusal, or no time left.

        Args:
            method: what to call; it must be safe to call twice with one request.
            request: sent as it is at every try.
            deadline_s: on the monotonic clock.
            transaction_id: what the request is known by; empty when it has none.

        Raises:
            TallystickError: of the kind that says what is known about the request.
        """
        attempts, begun = 0, False
        error: TallystickError = ClientClosed()
        now_s = self._surroundings.clock()
        while True:
            if self._closed:
                # Of a question that was asked, how that ended.
                last = error if method.only_asks else ClientClosed()
                raise closing_error(last, begun_before=begun, transaction_id=transaction_id)
            router = self._rotation.pick(now_s)
            timeout_s = max(0.0, min(self._attempt_timeout_s, deadline_s - now_s))
            try:
                response = await self._transport.call(router, method, request, timeout_s)
            except CallFailed as failed:
                failure = failed.failure
            else:
                self._rotation.succeeded(router)
                return response
            error = of_question(failure.error) if method.only_asks else failure.error
            now_s = self._surroundings.clock()
            full_time = timeout_s >= self._attempt_timeout_s
            self._rotation.failed(router, failure.router, now_s, had_full_time=full_time)
            if failure.verdict:
                raise error.concerning(transaction_id)
            attempts += 1
            delay_s = self._policy.delay_s(attempts, error)
            # The service has waited for all the time there was.
            waited = isinstance(error, NotYetArchived) and not full_time
            if waited or not isinstance(error, RetryableError) or now_s + delay_s >= deadline_s:
                raise closing_error(error, begun_before=begun, transaction_id=transaction_id)
            begun = begun or may_have_begun(error)
            await self._surroundings.sleep(delay_s)
            now_s = self._surroundings.clock()

    async def call_for_accounts(
        self,
        method: Method[RequestT, wallet_pb2.BatchAccountsResponse],
        request_of: Callable[[Sequence[int]], RequestT],
        account_ids: Sequence[str],
        deadline_s: float,
    ) -> list[AccountResult]:
        """Call with a batch of at most 8192, and again with those items that got no final answer.

        Args:
            method: what to call.
            request_of: makes the request for the items at these places.
            account_ids: the account of each item.
            deadline_s: on the monotonic clock.

        Returns:
            One result for each item, in order; an item's error is in its result.
        """
        results = [AccountResult(account_id) for account_id in account_ids]
        places: list[int] = list(range(len(account_ids)))
        attempts = 0
        while places:
            try:
                response = await self.call(method, request_of(places), deadline_s)
            except TallystickError as error:
                for place in places:
                    begun = isinstance(results[place].error, OutcomeUnknown)
                    final = closing_error(error, begun_before=begun, transaction_id="")
                    results[place] = AccountResult(account_ids[place], error=final)
                break
            again: list[int] = []
            for place, answer in zip_longest(places, response.results[: len(places)]):
                result = account_result(answer, account_ids[place])
                if isinstance(result.error, RetryableError):
                    again.append(place)
                if result.error:
                    known = _known(result.error, results[place].error, only_asks=method.only_asks)
                    result = AccountResult(account_ids[place], error=known)
                results[place] = result
            places = again
            if not places:
                break
            attempts += 1
            delay_s = self._policy.delay_s(attempts, OutcomeUnknown())
            if self._surroundings.clock() + delay_s >= deadline_s:
                break
            await self._surroundings.sleep(delay_s)
        return results


def _known(error: TallystickError, before: TallystickError | None, *, only_asks: bool) -> TallystickError:
    """What an item's error says of it, after the one that it had at the try before."""
    if only_asks:
        return of_question(error)
    if is_verdict(error):
        return error
    return closing_error(error, begun_before=isinstance(before, OutcomeUnknown), transaction_id="")
