"""Entitlements, grants and answers to checks: messages and values."""

from functools import lru_cache

from google.protobuf.json_format import MessageToDict, Parse
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from ammeter.domain.catalog import FailRule
from ammeter.domain.entitlement import MESSAGES, Access, Entitlement, Kind, Reason
from ammeter.domain.entitlement_rules import EntitlementDraft, GrantDraft
from ammeter.domain.minute import time_of
from ammeter.errors import Violation
from ammeter.rpc.catalog import fail_mode
from ammeter.rpc.convert import from_timestamp, to_decimal_text, to_timestamp
from ammeter.store.grants import StoredGrant
from ammeter.usecases.check import Check
from ammeter.usecases.engine import QUANTITY_SCALE, parse_quantity
from ammeter.v1 import entitlement_pb2 as pb
from ammeter.v1.catalog_pb2 import FailMode

_REASONS = {reason: pb.AccessReason.Value(f"ACCESS_REASON_{reason.value}") for reason in Reason}


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


def access_message(access: Access, fail: FailRule) -> pb.Access:
    """Write an answer, and what to do where there is none."""
    reason, message = _REASONS[access.reason], MESSAGES[access.reason]
    mode, fail_allowance = fail_words(fail)
    if access.usage is None:
        config = _struct(access.config) if isinstance(access.config, str) else None
        return pb.Access(
            access=access.access,
            reason=reason,
            message=message,
            config=config,
            fail_mode=mode,
            fail_allowance=fail_allowance,
        )
    return pb.Access(
        access=access.access,
        reason=reason,
        balance=quantity_text(access.balance),
        overage=quantity_text(access.overage),
        usage=quantity_text(access.usage),
        allowance=quantity_text(access.allowance),
        period_start_time=minute_stamp(access.period_start_minute),
        period_end_time=minute_stamp(access.period_end_minute),
        message=message,
        fail_mode=mode,
        fail_allowance=fail_allowance,
        held=quantity_text(access.held) if access.held else "",
    )


@lru_cache(maxsize=4096)
def fail_words(rule: FailRule) -> "tuple[FailMode.ValueType, str]":
    """Write a fail mode and its allowance."""
    return fail_mode(rule), "" if rule.allowance is None else to_decimal_text(rule.allowance)


def quantity_text(scaled: int | None) -> str:
    """Write a scaled int as decimal text, without the detour over Decimal."""
    whole, fraction = divmod(abs(scaled or 0), QUANTITY_SCALE)
    text = f"{whole}.{fraction:012d}".rstrip("0") if fraction else str(whole)
    return f"-{text}" if scaled and scaled < 0 else text


@lru_cache(maxsize=4096)
def minute_stamp(minute: int | None) -> Timestamp:
    """Write a minute since the epoch. Shared: copy it, do not change it."""
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
    else:
        message.metered.CopyFrom(_metered_message(entitlement))
    return message


def _metered_message(entitlement: Entitlement) -> pb.MeteredEntitlement:
    message = pb.MeteredEntitlement(
        soft_limit=entitlement.soft_limit, preserve_overage=entitlement.preserve_overage
    )
    if entitlement.allowance is not None:
        message.allowance = to_decimal_text(entitlement.allowance)
    for change in entitlement.changes:
        message.changes.add(
            from_time=to_timestamp(change.from_time),
            allowance=to_decimal_text(change.allowance),
            soft_limit=change.soft_limit,
        )
    if entitlement.cadence is not None:
        anchor = to_timestamp(entitlement.anchor_time)
        message.usage_period.MergeFrom(pb.UsagePeriod(cadence=entitlement.cadence, anchor_time=anchor))
    return message


def read_entitlement(message: pb.Entitlement) -> EntitlementDraft:
    """Read an entitlement to make; raises InvalidInputError."""
    metered, period = message.metered, message.metered.usage_period
    anchor_given = period.HasField("anchor_time")
    path = "entitlement.metered.usage_period.anchor_time"
    return EntitlementDraft(
        message.customer_key,
        message.feature_key,
        message.WhichOneof("kind") or "",
        message.subscription_id,
        metered.allowance,
        metered.soft_limit,
        metered.preserve_overage,
        # A period that names no cadence is at fault, not left out.
        period.cadence or ("?" if metered.HasField("usage_period") else ""),
        from_timestamp(period.anchor_time, path, present=anchor_given),
        MessageToDict(message.static.config) if message.HasField("static") else None,
        from_timestamp(message.from_time, "entitlement.from_time", present=message.HasField("from_time")),
        from_timestamp(message.to_time, "entitlement.to_time", present=message.HasField("to_time")),
    )


def read_grant(message: pb.Grant) -> GrantDraft:
    """Read a grant to make; raises InvalidInputError."""
    recurrence = message.recurrence
    anchor_given = recurrence.HasField("anchor_time")
    return GrantDraft(
        message.entitlement_id,
        message.amount,
        message.priority,
        from_timestamp(
            message.effective_time, "grant.effective_time", present=message.HasField("effective_time")
        ),
        from_timestamp(message.expire_time, "grant.expire_time", present=message.HasField("expire_time")),
        message.HasField("recurrence"),
        recurrence.cadence,
        from_timestamp(recurrence.anchor_time, "grant.recurrence.anchor_time", present=anchor_given),
        message.rollover_minimum,
        message.rollover_maximum,
    )


def grant_message(stored: StoredGrant) -> pb.Grant:
    """Write a grant."""
    grant, recurrence = stored.grant, stored.grant.recurrence
    message = pb.Grant(
        grant_id=grant.grant_id,
        entitlement_id=stored.entitlement_id,
        amount=quantity_text(grant.amount),
        priority=grant.priority,
        effective_time=to_timestamp(time_of(grant.from_minute)),
        expire_time=to_timestamp(time_of(grant.expire_minute)),
        rollover_minimum=quantity_text(grant.rollover_minimum),
        create_time=to_timestamp(stored.create_time),
    )
    if grant.rollover_maximum is not None:
        message.rollover_maximum = quantity_text(grant.rollover_maximum)
    if recurrence is not None:
        anchor = to_timestamp(recurrence.anchor_time)
        message.recurrence.MergeFrom(pb.Recurrence(cadence=recurrence.billing_cadence, anchor_time=anchor))
    if stored.void_time is not None:
        message.void_time.MergeFrom(minute_stamp(grant.end_minute))
    return message
