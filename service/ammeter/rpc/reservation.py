"""ReservationService: messages and values."""

import hashlib
from datetime import datetime, timedelta
from typing import Any, TypeVar

from google.protobuf.message import Message

from ammeter.domain.reservation import DEFAULT_LIFETIME, MAX_LIFETIME, Renewal, Reservation, State, Wish
from ammeter.errors import (
    AlreadyExistsError,
    InternalError,
    InvalidInputError,
    PermissionDeniedError,
    Violation,
    invalid,
)
from ammeter.rpc import paging
from ammeter.rpc.bind import MAX_REQUEST_ID
from ammeter.rpc.convert import to_timestamp
from ammeter.rpc.entitlement_messages import access_message, quantity_text, read_check
from ammeter.rpc.method import CHECK, INGEST, READ, Caller, Method
from ammeter.store import reservations as store
from ammeter.store.db import Tx
from ammeter.usecases.customers import get_customer
from ammeter.usecases.desk import Once
from ammeter.usecases.engine import Receipt, parse_quantity
from ammeter.usecases.live import Live
from ammeter.usecases.reserve import Call, Outcome, Reserving, Usage, get_reservation
from ammeter.v1 import entitlement_pb2, usage_pb2
from ammeter.v1 import reservation_pb2 as pb

_MILLISECOND = timedelta(milliseconds=1)
_STATES = {state: pb.Reservation.State.Value(f"STATE_{state.name}") for state in State}
_STATE_OF = {number: state for state, number in _STATES.items()}
T = TypeVar("T")
_QUANTITY = "with at most 26 digits before the point and 12 after"


class ReservationRpc:
    """The service."""

    service = "ammeter.v1.ReservationService"

    def __init__(self, live: Live, reserving: Reserving) -> None:
        """Decide by `reserving`; `live` knows the features' fail modes."""
        self._live = live
        self._reserving = reserving

    def methods(self) -> list[Method]:
        """List the RPCs."""
        return [
            Method.direct("Reserve", CHECK, self.reserve),
            Method.direct("ExtendReservation", CHECK, self.extend),
            Method.direct("SettleReservation", CHECK, self.settle),
            Method.direct("ReleaseReservation", CHECK, self.release),
            Method.direct("RenewLease", CHECK, self.renew),
            Method.read("GetReservation", READ, self.get),
            Method.read("ListReservations", READ, self.list_reservations),
        ]

    async def reserve(self, caller: Caller, request: pb.ReserveRequest, now: datetime) -> pb.ReserveResponse:
        """Hold an amount."""
        check = entitlement_pb2.EntitlementCheck(feature_key=request.feature_key)
        who = request.WhichOneof("who")
        if who is not None:
            setattr(check, who, getattr(request, who))
        asked, faults = read_check(check, "")
        faults = [fault._replace(field=fault.field.lstrip(".")) for fault in faults]
        amount = _amount(request.amount, "amount", faults)
        minimum = None
        if request.minimum_amount:
            minimum = _amount(request.minimum_amount, "minimum_amount", faults)
            if minimum > amount > 0:
                faults.append(Violation("minimum_amount", "must not be more than amount"))
        lifetime = _lifetime(request.lifetime_ms, faults)
        _refuse(faults)

        def encode(outcome: Outcome, _: int) -> bytes:
            access = access_message(
                _there(outcome.access), self._live.fail_rule(caller.tenant_id, request.feature_key)
            )
            answer = pb.ReserveResponse(access=access)
            if outcome.reservation is not None:
                answer.reservation.CopyFrom(reservation_message(outcome.reservation, outcome.now))
                answer.lifetime_ms = _lasts(outcome)
            return answer.SerializeToString()

        call = Call(caller.tenant_id, _once(request, "Reserve"), encode, now)
        wish = Wish(amount, minimum, lifetime, request.lease)
        return pb.ReserveResponse.FromString(await self._reserving.reserve(call, asked, wish))

    async def extend(
        self, caller: Caller, request: pb.ExtendReservationRequest, now: datetime
    ) -> pb.ExtendReservationResponse:
        """Let it last longer."""
        faults: list[Violation] = []
        wish = Wish(0, None, _lifetime(request.lifetime_ms, faults), lease=False)
        _refuse(faults)

        def encode(outcome: Outcome, _: int) -> bytes:
            message = reservation_message(_there(outcome.reservation), outcome.now)
            return pb.ExtendReservationResponse(
                reservation=message, lifetime_ms=_lasts(outcome)
            ).SerializeToString()

        call = Call(caller.tenant_id, _once(request, "ExtendReservation"), encode, now)
        answer = await self._reserving.extend(call, request.reservation_id, wish)
        return pb.ExtendReservationResponse.FromString(answer)

    async def settle(
        self, caller: Caller, request: pb.SettleReservationRequest, now: datetime
    ) -> pb.SettleReservationResponse:
        """End it with what was used."""
        faults: list[Violation] = []
        amount = _amount(request.amount, "amount", faults, zero=True)
        _refuse(faults)
        usage = _usage(caller, request.events)

        def encode(outcome: Outcome, position: int) -> bytes:
            return pb.SettleReservationResponse(
                reservation=reservation_message(_there(outcome.reservation), outcome.now),
                position=position,
                event_results=_results(outcome.receipt),
            ).SerializeToString()

        call = Call(caller.tenant_id, _once(request, "SettleReservation"), encode, now)
        answer = await self._reserving.settle(call, request.reservation_id, amount, usage)
        return pb.SettleReservationResponse.FromString(answer)

    async def release(
        self, caller: Caller, request: pb.ReleaseReservationRequest, now: datetime
    ) -> pb.ReleaseReservationResponse:
        """End it unused."""

        def encode(outcome: Outcome, _: int) -> bytes:
            message = reservation_message(_there(outcome.reservation), outcome.now)
            return pb.ReleaseReservationResponse(reservation=message).SerializeToString()

        call = Call(caller.tenant_id, _once(request, "ReleaseReservation"), encode, now)
        answer = await self._reserving.release(call, request.reservation_id)
        return pb.ReleaseReservationResponse.FromString(answer)

    async def renew(
        self, caller: Caller, request: pb.RenewLeaseRequest, now: datetime
    ) -> pb.RenewLeaseResponse:
        """Take off a lease what was used, and top it up."""
        faults: list[Violation] = []
        used = _amount(request.used_amount, "used_amount", faults, zero=True)
        amount = _amount(request.amount, "amount", faults, zero=True)
        lifetime = _lifetime(request.lifetime_ms, faults)
        _refuse(faults)
        usage = _usage(caller, request.events)

        def encode(outcome: Outcome, position: int) -> bytes:
            mine = _there(outcome.reservation)
            rule = self._live.fail_rule(caller.tenant_id, mine.key.feature_key)
            return pb.RenewLeaseResponse(
                reservation=reservation_message(mine, outcome.now),
                access=access_message(_there(outcome.access), rule),
                lifetime_ms=_lasts(outcome),
                position=position,
                event_results=_results(outcome.receipt),
            ).SerializeToString()

        call = Call(caller.tenant_id, _once(request, "RenewLease"), encode, now)
        wish = Wish(amount, None, lifetime, lease=True)
        renewal = Renewal(request.generation, used, wish, recorded=usage is None)
        answer = await self._reserving.renew(call, request.reservation_id, renewal, usage)
        return pb.RenewLeaseResponse.FromString(answer)

    def get(self, tx: Tx, request: pb.GetReservationRequest, now: datetime) -> pb.GetReservationResponse:
        """Read one."""
        found = get_reservation(tx, request.reservation_id)
        return pb.GetReservationResponse(reservation=reservation_message(found, now))

    def list_reservations(
        self, tx: Tx, request: pb.ListReservationsRequest, now: datetime
    ) -> pb.ListReservationsResponse:
        """List reservations."""
        size, query = paging.page_size(request.page_size), paging.fingerprint(request)
        after = paging.decode_token(request.page_token, query) or ("",)
        if request.state and request.state not in _STATE_OF:
            raise invalid("state", "is no Reservation.State")
        customer = get_customer(tx, request.customer_key).customer_id if request.customer_key else None
        found = store.page(tx, customer, _STATE_OF.get(request.state), now, str(after[0]), size + 1)
        token = paging.encode_token(query, (found[size - 1].reservation_id,)) if len(found) > size else ""
        return pb.ListReservationsResponse(
            reservations=[reservation_message(one, now) for one in found[:size]], next_page_token=token
        )


def reservation_message(mine: Reservation, now: datetime) -> pb.Reservation:
    """Write a reservation as it is now."""
    return pb.Reservation(
        reservation_id=mine.reservation_id,
        customer_key=mine.customer_key,
        feature_key=mine.key.feature_key,
        subject=mine.subject,
        lease=mine.lease,
        generation=mine.generation if mine.lease else 0,
        state=_STATES[mine.state_at(now)],
        amount=quantity_text(mine.wanted),
        granted_amount=quantity_text(mine.granted),
        held_amount=quantity_text(mine.held_at(now)),
        settled_amount=quantity_text(mine.settled),
        settled_late=mine.late,
        create_time=to_timestamp(mine.create_time),
        expire_time=to_timestamp(mine.expire_time),
        end_time=to_timestamp(mine.end_time),
    )


def _lasts(outcome: Outcome) -> int:
    return max(0, (_there(outcome.reservation).expire_time - outcome.now) // _MILLISECOND)


def _there(value: T | None) -> T:
    """Take what an outcome of this kind always has."""
    if value is None:
        message = "a decision without what it decided"
        raise InternalError(message)
    return value


def _once(request: Any, method: str) -> Once | None:  # noqa: ANN401 - a request with a request_id
    request_id: str = request.request_id
    if not request_id:
        return None
    if len(request_id) > MAX_REQUEST_ID:
        raise invalid("request_id", f"must be at most {MAX_REQUEST_ID} characters")
    message: Message = request
    digest = hashlib.sha256(message.SerializeToString(deterministic=True)).digest()
    return Once(request_id, f"/{ReservationRpc.service}/{method}", digest)


def _refuse(faults: list[Violation]) -> None:
    if faults:
        raise InvalidInputError(faults)


def _amount(text: str, field: str, faults: list[Violation], *, zero: bool = False) -> int:
    amount = parse_quantity(text) if text else None
    if amount is None or amount < 0 or not (amount or zero):
        least = "not negative" if zero else "above zero"
        faults.append(Violation(field, f"must be a decimal, {least}, {_QUANTITY}"))
        return 0
    return amount


def _lifetime(milliseconds: int, faults: list[Violation]) -> timedelta:
    if not 0 <= milliseconds <= MAX_LIFETIME // _MILLISECOND:
        faults.append(Violation("lifetime_ms", "must be from 1 to 86,400,000 (24 hours), or 0 for a minute"))
        return DEFAULT_LIFETIME
    return milliseconds * _MILLISECOND or DEFAULT_LIFETIME


def _usage(caller: Caller, events: Any) -> Usage | None:  # noqa: ANN401 - a repeated UsageEvent
    if not events:
        return None
    if INGEST not in caller.scopes:
        message = f"this needs a key with the scope {INGEST!r}, too: it records events"
        raise PermissionDeniedError(message)
    return Usage(usage_pb2.RecordUsageRequest(events=events).SerializeToString(), _judge)


def _judge(receipt: Receipt) -> None:
    """Raise what is wrong with events of which none counts."""
    if receipt.accepted or receipt.duplicates:
        return
    first = _results(receipt)[0]
    if first.outcome == usage_pb2.EVENT_OUTCOME_CONFLICT:
        message = (
            f"events[{first.index}] has the identity of an event with other content, whose digest is "
            f"{first.stored_digest}: nothing was settled"
        )
        raise AlreadyExistsError(message, reason="EVENT_CONFLICT")
    field = f"events[{first.index}].{first.field}".rstrip(".")
    raise InvalidInputError([Violation(field, first.message)], reason=first.reason)


def _results(receipt: Receipt | None) -> list[usage_pb2.EventResult]:
    if receipt is None or not (receipt.duplicates or receipt.conflicts or receipt.rejected):
        return []
    return list(usage_pb2.RecordUsageResponse.FromString(receipt.encode(0)).results)
