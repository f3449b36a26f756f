"""EntitlementService: checks from memory, and the list of entitlements."""

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

from google.protobuf.json_format import Parse
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from ammeter import metrics
from ammeter.domain.entitlement import MESSAGES, Access, Entitlement, Kind, Reason
from ammeter.domain.minute import minute_of
from ammeter.errors import InvalidInputError, Violation, invalid
from ammeter.rpc import paging
from ammeter.rpc.convert import to_decimal_text, to_timestamp
from ammeter.rpc.method import CHECK, READ, Caller, Method
from ammeter.store import entitlements as store
from ammeter.store.db import Tx
from ammeter.usecases.check import Check, check_all
from ammeter.usecases.customers import get_customer
from ammeter.usecases.engine import QUANTITY_SCALE, parse_quantity
from ammeter.usecases.live import Live
from ammeter.v1 import entitlement_pb2 as pb

MAX_CHECKS = 1000

_REASONS = {reason: pb.AccessReason.Value(f"ACCESS_REASON_{reason.value}") for reason in Reason}
_ANSWERED = {reason: metrics.CHECKS.labels(reason.value) for reason in Reason}
_WAIT_SECONDS = 1.0


class EntitlementRpc:
    """The service; checks wait up to `wait_seconds` for a min_position."""

    service = "ammeter.v1.EntitlementService"

    def __init__(self, live: Live, wait_seconds: float = _WAIT_SECONDS) -> None:
        """Answer checks from `live`."""
        self._live = live
        self._wait_seconds = wait_seconds

    def methods(self) -> list[Method]:
        """List the RPCs."""
        return [
            Method.direct("CheckEntitlement", CHECK, self.check),
            Method.direct("BatchCheckEntitlements", CHECK, self.check_batch),
            Method.read("ListEntitlements", READ, self.list_entitlements),
        ]

    async def check(
        self, caller: Caller, request: pb.CheckEntitlementRequest, now: datetime
    ) -> pb.CheckEntitlementResponse:
        """Answer one check."""
        asked, violations = read_check(request.check, "check")
        accesses, position = await self._answer(caller, [asked], violations, request.min_position, now)
        return pb.CheckEntitlementResponse(access=access_message(accesses[0]), position=position)

    async def check_batch(
        self, caller: Caller, request: pb.BatchCheckEntitlementsRequest, now: datetime
    ) -> pb.BatchCheckEntitlementsResponse:
        """Answer many, at one instant."""
        if len(request.checks) > MAX_CHECKS:
            raise invalid(
                "checks", f"must be at most {MAX_CHECKS}, not {len(request.checks)}: split the batch"
            )
        read = [read_check(one, f"checks[{index}]") for index, one in enumerate(request.checks)]
        violations = [violation for _, several in read for violation in several]
        asked = [one for one, _ in read]
        accesses, position = await self._answer(caller, asked, violations, request.min_position, now)
        return pb.BatchCheckEntitlementsResponse(
            accesses=[access_message(access) for access in accesses], position=position
        )

    async def _answer(
        self,
        caller: Caller,
        asked: Sequence[Check],
        violations: Sequence[Violation],
        min_position: int,
        now: datetime,
    ) -> tuple[list[Access], int]:
        if min_position < 0:
            violations = [*violations, Violation("min_position", "must not be negative")]
        if violations:
            raise InvalidInputError(violations)
        accesses, position = await check_all(
            self._live, caller.tenant_id, asked, min_position, minute_of(now), self._wait_seconds
        )
        for access in accesses:
            _ANSWERED[access.reason].inc()
        return accesses, position

    def list_entitlements(
        self, tx: Tx, request: pb.ListEntitlementsRequest, now: datetime
    ) -> pb.ListEntitlementsResponse:
        """List a customer's entitlements."""
        del now
        customer = get_customer(tx, request.customer_key)
        size, query = paging.page_size(request.page_size), paging.fingerprint(request)
        after = paging.decode_token(request.page_token, query) or ("",)
        found = store.page(tx, customer.customer_id, str(after[0]), size + 1)
        token = paging.encode_token(query, (found[size - 1].entitlement_id,)) if len(found) > size else ""
        return pb.ListEntitlementsResponse(
            entitlements=[entitlement_message(one) for one in found[:size]], next_page_token=token
        )


def read_check(message: pb.EntitlementCheck, path: str) -> tuple[Check, list[Violation]]:
    """Read a check, and what is wrong with it."""
    violations = []
    who = message.WhichOneof("who")
    if who is None or not getattr(message, who):
        violations.append(
            Violation(f"{path}.{who or 'customer_key'}", "must be given: whom is the check about?")
        )
    if not message.feature_key:
        violations.append(Violation(f"{path}.feature_key", "must be given"))
    amount = None
    if message.amount:
        amount = parse_quantity(message.amount)
        if amount is None or amount <= 0:
            why = "must be a decimal above zero, with at most 26 digits before the point and 12 after"
            violations.append(Violation(f"{path}.amount", why))
    customer_key = message.customer_key if who == "customer_key" else None
    subject = message.subject if who == "subject" else None
    return Check(customer_key, subject, message.feature_key, amount), violations


def access_message(access: Access) -> pb.Access:
    """Write an answer."""
    reason, message = _REASONS[access.reason], MESSAGES[access.reason]
    if access.usage is None:
        config = _struct(access.config) if isinstance(access.config, str) else None
        return pb.Access(access=access.access, reason=reason, message=message, config=config)
    return pb.Access(
        access=access.access,
        reason=reason,
        balance=_quantity(access.balance),
        overage=_quantity(access.overage),
        usage=_quantity(access.usage),
        allowance=_quantity(access.allowance),
        period_start_time=_minute(access.period_start_minute),
        period_end_time=_minute(access.period_end_minute),
        message=message,
    )


def _quantity(scaled: int | None) -> str:
    """Write a scaled int as decimal text, without the detour over Decimal."""
    whole, fraction = divmod(abs(scaled or 0), QUANTITY_SCALE)
    text = f"{whole}.{fraction:012d}".rstrip("0") if fraction else str(whole)
    return f"-{text}" if scaled and scaled < 0 else text


@lru_cache(maxsize=4096)
def _minute(minute: int | None) -> Timestamp:
    return Timestamp(seconds=(minute or 0) * 60)


@lru_cache(maxsize=4096)
def _struct(config: str) -> Struct:
    return Parse(config, Struct())


def entitlement_message(entitlement: Entitlement) -> pb.Entitlement:
    """Write an entitlement."""
    message = pb.Entitlement(
        entitlement_id=entitlement.entitlement_id,
        customer_key=entitlement.customer_key,
        feature_key=entitlement.feature_key,
        subscription_id=entitlement.subscription_id,
        from_time=to_timestamp(entitlement.from_time),
        to_time=to_timestamp(entitlement.to_time),
    )
    if entitlement.kind is Kind.BOOLEAN:
        message.boolean.SetInParent()
    elif entitlement.kind is Kind.STATIC:
        message.static.config.update(entitlement.config or {})
    elif entitlement.allowance is not None:
        message.metered.allowance = to_decimal_text(entitlement.allowance)
        message.metered.soft_limit = entitlement.soft_limit
    return message
