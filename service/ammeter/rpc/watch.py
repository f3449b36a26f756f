"""WatchAccess: answers as they change."""

import asyncio
import time
from collections.abc import AsyncIterator

from ammeter.domain.entitlement import Access
from ammeter.errors import InvalidInputError, Violation
from ammeter.rpc import paging
from ammeter.rpc.bind import decode
from ammeter.rpc.check_wire import answer_all
from ammeter.rpc.entitlement_messages import access_message
from ammeter.rpc.method import Caller
from ammeter.usecases.check import Check
from ammeter.usecases.live import Live
from ammeter.usecases.watch import Pair, Watch, Watcher
from ammeter.v1 import access_pb2 as pb

MAX_CUSTOMERS = 1000
MAX_FEATURES = 100
_AT_ONCE = 200
_MINUTE = 60


async def watch_access(live: Live, watch: Watch, caller: Caller, body: bytes) -> AsyncIterator[bytes]:
    """Send what is, then what changes, until the caller goes away."""
    request = decode(pb.WatchAccessRequest, body)
    _check(request)
    mark = _mark(request)
    watcher = Watcher(caller.tenant_id, request.customer_keys, request.feature_keys)
    watch.add(watcher)
    try:
        found = _resumed(watch, watcher, request.resume_token, mark)
        if found is None:
            if request.resume_token:
                yield _response(watch, mark, gap=pb.AccessGap())
            found = set().union(*(watcher.pairs(live, key) for key in watcher.customer_keys))
        watcher.touch(found)
        sent: dict[Pair, object] = {}
        async for response in _send(
            live, watch, caller, watcher, sent, mark, decisions_only=request.decisions_only
        ):
            yield response
        yield _response(watch, mark, complete=pb.AccessComplete())
        while True:
            if not await _changed(watcher):  # a minute has passed: time alone may have changed any of them
                watcher.touch(pair for key in watcher.customer_keys for pair in watcher.pairs(live, key))
            async for response in _send(
                live, watch, caller, watcher, sent, mark, decisions_only=request.decisions_only
            ):
                yield response
    finally:
        watch.remove(watcher)


async def _send(
    live: Live,
    watch: Watch,
    caller: Caller,
    watcher: Watcher,
    sent: dict[Pair, object],
    mark: bytes,
    *,
    decisions_only: bool,
) -> AsyncIterator[bytes]:
    """Send what may have changed, and has."""
    pairs = watcher.take()
    for first in range(0, len(pairs), _AT_ONCE):
        some = pairs[first : first + _AT_ONCE]
        asked = [Check(customer_key, None, feature_key, None) for customer_key, feature_key in some]
        answers, _ = await answer_all(live, caller, asked, (), 0, 0.0)
        for pair, access in zip(some, answers, strict=True):
            fail = live.fail_rule(caller.tenant_id, pair[1])
            now = (_decision(access) if decisions_only else access, fail)
            if sent.get(pair) == now:
                continue
            sent[pair] = now
            message = access_message(access, fail)
            state = pb.AccessState(customer_key=pair[0], feature_key=pair[1], access=message)
            yield _response(watch, mark, state=state)
        await asyncio.sleep(0)


def _decision(access: Access) -> tuple[object, ...]:
    return access.access, access.reason, access.allowance, access.period_start_minute, access.config


async def _changed(watcher: Watcher) -> bool:
    """Wait until something may have changed; False when a minute has begun first."""
    try:
        await asyncio.wait_for(watcher.changed.wait(), _MINUTE - time.time() % _MINUTE + 0.05)
    except TimeoutError:
        return False
    return True


def _response(watch: Watch, mark: bytes, **event: object) -> bytes:
    token = paging.encode_token(mark, (*watch.mark(), int(time.time()) // _MINUTE))
    return pb.WatchAccessResponse(resume_token=token, **event).SerializeToString()  # type: ignore[arg-type]


def _resumed(watch: Watch, watcher: Watcher, token: str, mark: bytes) -> set[Pair] | None:
    try:
        moment = paging.read_token(token, mark, _moment)
    except InvalidInputError as error:
        why = "is not from a response to this same request: begin without it"
        raise InvalidInputError([Violation("resume_token", why)], reason="INVALID_PAGE_TOKEN") from error
    return None if moment is None else watch.since(watcher, *moment)


def _moment(epoch: object, sequence: object, minute: object) -> tuple[int, int, int]:
    return paging.natural(epoch), paging.natural(sequence), paging.natural(minute)


def _mark(request: pb.WatchAccessRequest) -> bytes:
    """Hash what is watched, for tokens: another order of keys is the same."""
    bare = pb.WatchAccessRequest(
        customer_keys=sorted(request.customer_keys), feature_keys=sorted(request.feature_keys)
    )
    return paging.digest(bare)


def _check(request: pb.WatchAccessRequest) -> None:
    violations = []
    if not 1 <= len(request.customer_keys) <= MAX_CUSTOMERS:
        violations.append(Violation("customer_keys", f"must be 1 to {MAX_CUSTOMERS}: whom do you watch?"))
    if len(request.feature_keys) > MAX_FEATURES:
        violations.append(Violation("feature_keys", f"must be at most {MAX_FEATURES}"))
    for field in ("customer_keys", "feature_keys"):
        for index, key in enumerate(getattr(request, field)[: MAX_CUSTOMERS + 1]):
            if not key:
                violations.append(Violation(f"{field}[{index}]", "must not be empty"))
    if violations:
        raise InvalidInputError(violations)
