"""EntitlementService: checks from memory; entitlements by hand, and their grants."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from ammeter.domain.catalog import CLOSED
from ammeter.domain.entitlement import Access
from ammeter.domain.minute import time_of
from ammeter.errors import InvalidInputError, Violation, invalid
from ammeter.rpc import paging
from ammeter.rpc.bind import decode
from ammeter.rpc.check_wire import (
    WAIT_SECONDS,
    Answers,
    Known,
    Questions,
    answer_all,
    framed,
    piece_of,
    position_field,
)
from ammeter.rpc.convert import from_timestamp, to_timestamp
from ammeter.rpc.entitlement_messages import (
    access_message,
    entitlement_message,
    grant_message,
    read_check,
    read_entitlement,
    read_grant,
)
from ammeter.rpc.history_messages import read_question, segment_message, window_message
from ammeter.rpc.method import ADMIN, CHECK, READ, Caller, Method
from ammeter.store import entitlements as store
from ammeter.store import grants as grant_store
from ammeter.store.db import Database, Tx
from ammeter.usecases import entitle, grants
from ammeter.usecases.check import Check, features_of
from ammeter.usecases.customers import get_customer
from ammeter.usecases.history import entitlement_history, explain_access
from ammeter.usecases.live import Live
from ammeter.v1 import entitlement_pb2 as pb
from ammeter.v1 import history_pb2

MAX_CHECKS = 1000


class EntitlementRpc:
    """The service; checks wait up to `wait_seconds` for a min_position."""

    service = "ammeter.v1.EntitlementService"

    def __init__(self, live: Live, db: Database, wait_seconds: float = WAIT_SECONDS) -> None:
        """Answer checks from `live`, and questions about the past from `db`."""
        self._live = live
        self._db = db
        self._wait_seconds = wait_seconds
        self._questions = Questions()
        self._answers = Answers(live)

    def methods(self) -> list[Method]:
        """List the RPCs."""
        return [
            Method.raw("CheckEntitlement", CHECK, self.check),
            Method.raw("BatchCheckEntitlements", CHECK, self.check_batch),
            Method.read("ListEntitlements", READ, self.list_entitlements),
            Method.direct("ListAccess", CHECK, self.list_access),
            Method.write("CreateEntitlement", ADMIN, self.create_entitlement),
            Method.write("OverrideEntitlement", ADMIN, self.override_entitlement),
            Method.write("DeleteEntitlement", ADMIN, self.delete_entitlement),
            Method.write("CreateGrant", ADMIN, self.create_grant),
            Method.write("VoidGrant", ADMIN, self.void_grant),
            Method.read("ListGrants", READ, self.list_grants),
            Method.write("ResetUsage", ADMIN, self.reset_usage),
            Method.plain("GetEntitlementHistory", READ, self.history),
            Method.plain("ExplainAccess", READ, self.explain),
        ]

    async def check(self, caller: Caller, body: bytes) -> bytes:
        """Answer one check."""
        known = self._answers.known(caller, body)
        if known is not None and known.is_one:
            return known.counted() + position_field(known.position)
        asked, min_position, violations = self._questions.single(body)
        accesses, position = await answer_all(
            self._live, caller, (asked,), violations, min_position, self._wait_seconds
        )
        if piece := piece_of(body):
            self._answers.learn(caller, piece, asked)
        rule = self._live.fail_rule(caller.tenant_id, asked.feature_key)
        return framed(accesses[0], rule) + position_field(position)

    async def check_batch(self, caller: Caller, body: bytes) -> bytes:
        """Answer many, at one instant."""
        known = self._answers.known(caller, body)
        if known is not None:
            if not known.missing:
                return known.counted() + position_field(known.position)
            plain = self._questions.several(body)
            if plain is not None:
                return await self._complete(caller, plain, known)
        asked, min_position, violations = _read_batch(body)
        accesses, position = await answer_all(
            self._live, caller, asked, violations, min_position, self._wait_seconds
        )
        return self._written(caller, asked, accesses) + position_field(position)

    async def _complete(self, caller: Caller, plain: Sequence[tuple[bytes, Check]], known: Known) -> bytes:
        """Answer what is missing, and put it where it belongs."""
        asked = [plain[number][1] for number, _ in known.missing]
        accesses, _ = await answer_all(
            self._live, caller, asked, (), known.position, self._wait_seconds, known.minute
        )
        answers = known.counted()
        parts: list[bytes] = []
        done = 0
        for (number, place), one, access in zip(known.missing, asked, accesses, strict=True):
            self._answers.learn(caller, plain[number][0], one)
            parts += (answers[done:place], self._written(caller, (one,), (access,)))
            done = place
        return b"".join((*parts, answers[done:], position_field(known.position)))

    def _written(self, caller: Caller, asked: Iterable[Check], accesses: Iterable[Access]) -> bytes:
        tenant_id, rules = caller.tenant_id, self._live.features
        answers = (
            framed(access, rules.get((tenant_id, one.feature_key), CLOSED))
            for access, one in zip(accesses, asked, strict=True)
        )
        return b"".join(answers)

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

    async def list_access(
        self, caller: Caller, request: pb.ListAccessRequest, now: datetime
    ) -> pb.ListAccessResponse:
        """Answer for every feature of a customer."""
        del now
        features = features_of(self._live, caller.tenant_id, request.customer_key)
        asked = [Check(request.customer_key, None, feature, None) for feature in features]
        accesses, position = await answer_all(
            self._live, caller, asked, (), request.min_position, self._wait_seconds
        )
        answers = zip(features, accesses, strict=True)
        return pb.ListAccessResponse(
            features=[
                pb.FeatureAccess(
                    feature_key=feature,
                    access=access_message(access, self._live.fail_rule(caller.tenant_id, feature)),
                )
                for feature, access in answers
            ],
            position=position,
        )

    def create_entitlement(
        self, tx: Tx, request: pb.CreateEntitlementRequest, now: datetime
    ) -> pb.CreateEntitlementResponse:
        """Give a customer a feature."""
        made = entitle.create_entitlement(tx, self._live, read_entitlement(request.entitlement), now)
        return pb.CreateEntitlementResponse(entitlement=entitlement_message(made.entitlement))

    def override_entitlement(
        self, tx: Tx, request: pb.OverrideEntitlementRequest, now: datetime
    ) -> pb.OverrideEntitlementResponse:
        """Put an entitlement in place of another."""
        draft = read_entitlement(request.entitlement)
        made, overridden = entitle.override_entitlement(tx, self._live, draft, now)
        return pb.OverrideEntitlementResponse(
            entitlement=entitlement_message(made.entitlement),
            overridden=entitlement_message(overridden.entitlement),
        )

    def delete_entitlement(
        self, tx: Tx, request: pb.DeleteEntitlementRequest, now: datetime
    ) -> pb.DeleteEntitlementResponse:
        """End an entitlement."""
        ended = entitle.delete_entitlement(tx, self._live, request.entitlement_id, now)
        return pb.DeleteEntitlementResponse(entitlement=entitlement_message(ended.entitlement))

    def create_grant(self, tx: Tx, request: pb.CreateGrantRequest, now: datetime) -> pb.CreateGrantResponse:
        """Add a grant."""
        made = grants.create_grant(tx, self._live, read_grant(request.grant), now)
        return pb.CreateGrantResponse(grant=grant_message(made))

    def void_grant(self, tx: Tx, request: pb.VoidGrantRequest, now: datetime) -> pb.VoidGrantResponse:
        """Take back what is left of a grant."""
        time = from_timestamp(request.void_time, "void_time", present=request.HasField("void_time"))
        voided = grants.void_grant(tx, self._live, request.grant_id, time, now)
        return pb.VoidGrantResponse(grant=grant_message(voided))

    def list_grants(self, tx: Tx, request: pb.ListGrantsRequest, now: datetime) -> pb.ListGrantsResponse:
        """List an entitlement's grants."""
        del now
        size, query = paging.page_size(request.page_size), paging.fingerprint(request)
        after = paging.decode_token(request.page_token, query) or ("",)
        held = entitle.get_entitlement(tx, request.entitlement_id)
        found = grant_store.page(tx, held.entitlement.entitlement_id, str(after[0]), size + 1)
        token = paging.encode_token(query, (found[size - 1].grant.grant_id,)) if len(found) > size else ""
        return pb.ListGrantsResponse(
            grants=[grant_message(one) for one in found[:size]], next_page_token=token
        )

    def reset_usage(self, tx: Tx, request: pb.ResetUsageRequest, now: datetime) -> pb.ResetUsageResponse:
        """Begin a new usage period."""
        time = from_timestamp(request.reset_time, "reset_time", present=request.HasField("reset_time"))
        preserve = request.preserve_overage if request.HasField("preserve_overage") else None
        begun = grants.reset_usage(
            tx,
            self._live,
            request.entitlement_id,
            time,
            moves_anchor=request.move_anchor,
            preserve_overage=preserve,
            now=now,
        )
        return pb.ResetUsageResponse(
            period_start_time=to_timestamp(time_of(begun.start_minute)),
            period_end_time=to_timestamp(time_of(begun.end_minute)),
        )

    def history(
        self, caller: Caller, request: history_pb2.GetEntitlementHistoryRequest, now: datetime
    ) -> history_pb2.GetEntitlementHistoryResponse:
        """Tell how balances came about."""
        question = read_question(request)
        found = entitlement_history(self._db, self._live.engine, caller.tenant_id, question, now)
        return history_pb2.GetEntitlementHistoryResponse(
            windows=map(window_message, found.windows),
            segments=map(segment_message, found.segments),
            position=found.position,
        )

    def explain(
        self, caller: Caller, request: pb.ExplainAccessRequest, now: datetime
    ) -> pb.ExplainAccessResponse:
        """Answer a check and say why."""
        asked, violations = read_check(request.check, "check")
        if violations:
            raise InvalidInputError(violations)
        found = explain_access(self._live, self._db, caller.tenant_id, asked, now)
        fail = self._live.fail_rule(caller.tenant_id, asked.feature_key)
        response = pb.ExplainAccessResponse(
            access=access_message(found.access, fail), sentences=found.lines, position=found.position
        )
        if found.entitlement is not None:
            response.entitlement.CopyFrom(entitlement_message(found.entitlement))
        if found.segment is not None:
            response.segment.CopyFrom(segment_message(found.segment))
        return response


def _read_batch(body: bytes) -> tuple[list[Check], int, list[Violation]]:
    request = decode(pb.BatchCheckEntitlementsRequest, body)
    if len(request.checks) > MAX_CHECKS:
        raise invalid("checks", f"must be at most {MAX_CHECKS}, not {len(request.checks)}: split the batch")
    read = [read_check(one, f"checks[{index}]") for index, one in enumerate(request.checks)]
    violations = [violation for _, several in read for violation in several]
    return [one for one, _ in read], request.min_position, violations
