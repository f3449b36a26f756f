"""Checks and their answers as bytes: what was read or written before is not read or written again.

Questions repeat (a gateway asks about the same customers all day) and answers
do until usage changes, while each takes protobuf longer than deciding it.
"""

import time
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from google.protobuf.message import DecodeError

from ammeter import metrics
from ammeter.domain.catalog import FailRule
from ammeter.domain.entitlement import MESSAGES, Access, Reason
from ammeter.domain.key import Caller
from ammeter.errors import AmmeterError, InvalidInputError, RetryableError, Violation
from ammeter.rpc.bind import decode
from ammeter.rpc.entitlement_messages import access_message, fail_words, read_check
from ammeter.usecases.check import Check, check_all, lasting
from ammeter.usecases.engine import Endings, EngineError
from ammeter.usecases.live import Live
from ammeter.v1 import access_pb2
from ammeter.v1 import entitlement_pb2 as pb

WAIT_SECONDS = 1.0

_ANSWERED = {reason: metrics.CHECKS.labels(reason.value) for reason in Reason}
_ALLOWED = _ANSWERED[Reason.ALLOWED]
_OVER = _ANSWERED[Reason.ALLOWED_OVER_SOFT_LIMIT]
_REACHED = _ANSWERED[Reason.LIMIT_REACHED]
_REMEMBERED = 16_384
# Longer ones than keys, an amount and a position make are not worth keeping.
_LONGEST = 512
# Tag and one byte of length: field 1, of messages shorter than 128 bytes.
_FIELD_1 = 0x0A
_HEAD = 2
# Tag of field 2, a number.
_FIELD_2 = 0x10
_ONE_BYTE = 0x80


async def answer_all(
    live: Live,
    caller: Caller,
    asked: Sequence[Check],
    violations: Sequence[Violation],
    min_position: int,
    wait_seconds: float,
    minute: int | None = None,
) -> tuple[list[Access], int]:
    """Decide checks now, or at a minute, and count them; raises InvalidInputError for `violations`."""
    if min_position < 0:
        violations = [*violations, Violation("min_position", "must not be negative")]
    if violations:
        raise InvalidInputError(violations)
    if minute is None:
        minute = int(time.time()) // 60
    accesses, position = await check_all(live, caller.tenant_id, asked, min_position, minute, wait_seconds)
    if len(accesses) == 1:
        _ANSWERED[accesses[0].reason].inc()
    else:
        for reason, count in Counter([access.reason for access in accesses]).items():
            _ANSWERED[reason].inc(count)
    return accesses, position


class Known(NamedTuple):
    """What the core answers of a request: fields 1, of each reason how many; what is missing, and where."""

    minute: int
    answers: bytes
    position: int
    allowed: int
    over: int
    reached: int
    missing: list[tuple[int, int]]

    @property
    def is_one(self) -> bool:
        """Whether it is the answer to one question and nothing else was asked."""
        return self.allowed + self.over + self.reached == 1 and not self.missing

    def counted(self) -> bytes:
        """Give the answers, and count them."""
        if self.allowed:
            _ALLOWED.inc(self.allowed)
        if self.over:
            _OVER.inc(self.over)
        if self.reached:
            _REACHED.inc(self.reached)
        return self.answers


class Answers:
    """Answers that the core gives by itself, and what it is told for that."""

    def __init__(self, live: Live) -> None:
        """Answer from `live`."""
        self._live = live
        self._checks = live.checks

    def known(self, caller: Caller, body: bytes) -> Known | None:
        """Answer what is known of a request; None where it has to be read first."""
        if self._live.behind:
            return None
        minute = int(time.time()) // 60
        try:
            found = self._checks.answer(caller.tenant_id, body, minute)
        except EngineError:
            return None
        return None if found is None else Known(minute, *found)

    def learn(self, caller: Caller, check: bytes, asked: Check) -> None:
        """Tell the core what a question, as it was sent, is decided by."""
        tenant_id, version = caller.tenant_id, self._checks.version
        found = lasting(self._live, tenant_id, asked, int(time.time()) // 60)
        if found is None or len(check) > _LONGEST:
            return
        customer_id, right, first, last = found
        rule = self._live.fail_rule(tenant_id, asked.feature_key)
        if right.access is not None:
            access = access_message(right.access, rule).SerializeToString()
            self._checks.learn_fixed(version, tenant_id, check, customer_id, first, last, access)
            return
        self._checks.learn_metered(
            version,
            tenant_id,
            check,
            customer_id,
            first,
            last,
            right.counter,
            right.allowance,
            asked.amount,
            right.soft_limit,
            _endings(rule),
        )


@lru_cache(maxsize=4096)
def _endings(rule: FailRule) -> Endings:
    """Write how answers end by a feature's fail mode."""
    mode, allowance = fail_words(rule)
    allowed, over, reached = (
        pb.Access(message=MESSAGES[reason], fail_mode=mode, fail_allowance=allowance).SerializeToString()
        for reason in (Reason.ALLOWED, Reason.ALLOWED_OVER_SOFT_LIMIT, Reason.LIMIT_REACHED)
    )
    return Endings(allowed, over, reached)


class Questions:
    """Reads checks; remembers those without fault."""

    def __init__(self) -> None:
        """Remember nothing."""
        self._single: dict[bytes, tuple[Check, int]] = {}
        self._pieces: dict[bytes, Check] = {}

    def single(self, body: bytes) -> tuple[Check, int, list[Violation]]:
        """Read a CheckEntitlementRequest: what is asked, its min_position, what is wrong."""
        known = self._single.get(body)
        if known is not None:
            return (*known, [])
        request = decode(pb.CheckEntitlementRequest, body)
        asked, violations = read_check(request.check, "check")
        if not violations and len(body) <= _LONGEST:
            if len(self._single) >= _REMEMBERED:
                self._single.clear()
            self._single[body] = asked, request.min_position
        return asked, request.min_position, violations

    def several(self, body: bytes) -> list[tuple[bytes, Check]] | None:
        """Read a plain BatchCheckEntitlementsRequest: short checks and nothing else, all without fault.

        Each as it was sent and as it is read. None for any other, which has to be decoded.
        """
        asked = []
        known, at, end = self._pieces, 0, len(body)
        try:
            while at < end:
                size = body[at + 1]
                if body[at] != _FIELD_1 or size >= _ONE_BYTE:
                    return None
                start = at + 2
                at = start + size
                piece = body[start:at]
                asked.append((piece, known.get(piece) or self._piece(piece, size)))
        except (IndexError, ValueError):
            return None
        return asked

    def _piece(self, piece: bytes, size: int) -> Check:
        """Read one check; raises ValueError if anything is wrong with it."""
        if len(piece) != size or b"\0" in piece:
            raise ValueError
        asked, violations = read_check(_parse(piece), "")
        if violations:
            raise ValueError
        if len(self._pieces) >= _REMEMBERED:
            self._pieces.clear()
        self._pieces[piece] = asked
        return asked


def _parse(piece: bytes) -> pb.EntitlementCheck:
    try:
        return pb.EntitlementCheck.FromString(piece)
    except DecodeError as error:  # the whole request will say it better
        raise ValueError from error


@lru_cache(maxsize=_REMEMBERED)
def framed(access: Access, fail: FailRule) -> bytes:
    """Write an answer as field 1 of a response."""
    body = access_message(access, fail).SerializeToString()
    return b"\x0a" + varint(len(body)) + body


@lru_cache(maxsize=256)
def position_field(position: int) -> bytes:
    """Write a position as field 2 of a response."""
    return b"\x10" + varint(position) if position else b""


def piece_of(body: bytes) -> bytes:
    """Give the check of a sound CheckEntitlementRequest as it was sent; empty unless short and plain."""
    if len(body) < _HEAD or body[0] != _FIELD_1 or body[1] >= _ONE_BYTE:
        return b""
    end = _HEAD + body[1]
    rest = body[end:]
    # Behind it nothing, or the position.
    if rest and not (rest[0] == _FIELD_2 and min(rest[1:-1], default=_ONE_BYTE) >= _ONE_BYTE > rest[-1]):
        return b""
    return body[_HEAD:end]


def sequence_field(sequence: int) -> bytes:
    """Write a sequence as field 3 of a StreamChecksResponse."""
    return b"\x18" + varint(sequence % 2**64) if sequence else b""


def decode_stream(body: bytes) -> access_pb2.StreamChecksRequest:
    """Read a message of a stream; what is wrong inside it is for later. Raises InvalidInputError."""
    try:
        return access_pb2.StreamChecksRequest.FromString(body)
    except DecodeError:
        return decode(access_pb2.StreamChecksRequest, body)


def require_increase(sequence: int, last: int | None) -> None:
    """Raise InvalidInputError unless a sequence is above the one before."""
    if last is not None and sequence <= last:
        why = f"is {sequence} after {last}: it must increase within a stream"
        raise InvalidInputError([Violation("sequence", why)], reason="SEQUENCE_NOT_INCREASING")


def fault(sequence: int, error: AmmeterError) -> bytes:
    """Write why a check of a stream is not answered."""
    told = access_pb2.CheckFault(
        reason=error.reason, message=error.message, retryable=isinstance(error, RetryableError)
    )
    if isinstance(error, InvalidInputError):
        told.fields.extend(violation.field for violation in error.violations)
    return access_pb2.StreamChecksResponse(sequence=sequence, fault=told).SerializeToString()


def varint(number: int) -> bytes:
    """Write a number that is not negative, as protobuf does."""
    written = bytearray()
    while number >= _ONE_BYTE:
        written.append(number & 0x7F | _ONE_BYTE)
        number >>= 7
    written.append(number)
    return bytes(written)
