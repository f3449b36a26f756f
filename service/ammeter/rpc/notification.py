"""NotificationService: rules, and what they told."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime

from ammeter.domain.minute import time_of
from ammeter.domain.threshold import Threshold, ThresholdKind
from ammeter.errors import invalid
from ammeter.rpc import paging
from ammeter.rpc.bind import decode
from ammeter.rpc.convert import to_timestamp
from ammeter.rpc.entitlement_messages import quantity_text
from ammeter.rpc.method import ADMIN, READ, Method
from ammeter.rpc.streams import Authenticate, Streams
from ammeter.store import notifications as store
from ammeter.store.db import Database, Tx
from ammeter.store.notifications import Told, Wanted
from ammeter.usecases import thresholds
from ammeter.usecases.bell import Bell
from ammeter.v1 import notification_pb2 as pb

_AT_ONCE = 100
# Bells may be missed when another process was the writer: look again anyway.
_LOOK_SECONDS = 5.0
_MAX_SEQUENCE = 2**62
_KIND = "NOTIFICATION_KIND_"


class NotificationRpc:
    """The service."""

    service = "ammeter.v1.NotificationService"

    def __init__(self, db: Database, bell: Bell, streams: Streams, changed: Callable[[], None]) -> None:
        """`changed` is called when rules were made or deleted; `bell` rings when something was told."""
        self._db = db
        self._bell = bell
        self._streams = streams
        self._changed = changed

    def methods(self) -> list[Method]:
        """List the RPCs."""
        return [
            Method.write("CreateThreshold", ADMIN, self.create),
            Method.read("GetThreshold", READ, self.get),
            Method.read("ListThresholds", READ, self.list_thresholds),
            Method.write("DeleteThreshold", ADMIN, self.delete),
            Method.read("ListNotifications", READ, self.list_notifications),
            Method.raw_stream("WatchNotifications", READ, self.watch),
        ]

    def create(self, tx: Tx, request: pb.CreateThresholdRequest, now: datetime) -> pb.CreateThresholdResponse:
        """Make a rule."""
        sent = request.threshold
        kind = None
        if sent.kind and sent.kind in pb.ThresholdKind.values():
            kind = ThresholdKind(pb.ThresholdKind.Name(sent.kind).removeprefix("THRESHOLD_KIND_"))
        about, level = (sent.customer_key, sent.feature_key), (sent.amount, sent.percent)
        made = thresholds.create_threshold(tx, about, kind, level, self._changed, now)
        return pb.CreateThresholdResponse(threshold=threshold_message(made))

    def get(self, tx: Tx, request: pb.GetThresholdRequest, now: datetime) -> pb.GetThresholdResponse:
        """Read a rule."""
        del now
        found = thresholds.get_threshold(tx, request.threshold_id)
        return pb.GetThresholdResponse(threshold=threshold_message(found))

    def list_thresholds(
        self, tx: Tx, request: pb.ListThresholdsRequest, now: datetime
    ) -> pb.ListThresholdsResponse:
        """List rules."""
        del now
        size, query = paging.page_size(request.page_size), paging.fingerprint(request)
        after = paging.decode_token(request.page_token, query) or ("",)
        found = store.page_thresholds(tx, str(after[0]), size + 1)
        token = paging.encode_token(query, (found[size - 1].threshold_id,)) if len(found) > size else ""
        return pb.ListThresholdsResponse(
            thresholds=[threshold_message(one) for one in found[:size]], next_page_token=token
        )

    def delete(self, tx: Tx, request: pb.DeleteThresholdRequest, now: datetime) -> pb.DeleteThresholdResponse:
        """Forget a rule."""
        del now
        thresholds.delete_threshold(tx, request.threshold_id, self._changed)
        return pb.DeleteThresholdResponse()

    def list_notifications(
        self, tx: Tx, request: pb.ListNotificationsRequest, now: datetime
    ) -> pb.ListNotificationsResponse:
        """List what was told."""
        del now
        size, query = paging.page_size(request.page_size), paging.fingerprint(request)
        after = paging.read_token(request.page_token, query, paging.natural)
        wanted = _wanted(request)
        if after is not None:
            wanted = wanted._replace(after_sequence=after)
        found = store.page(tx, wanted, size + 1)
        token = paging.encode_token(query, (found[size - 1].sequence,)) if len(found) > size else ""
        return pb.ListNotificationsResponse(
            notifications=[notification_message(one) for one in found[:size]], next_page_token=token
        )

    async def watch(self, authenticate: Authenticate, bodies: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Send what was told, and what will be."""
        async with self._streams.open(authenticate) as caller:
            body = await anext(aiter(bodies), b"")
            wanted = _wanted(decode(pb.WatchNotificationsRequest, body))
            while True:
                heard = self._bell.next(caller.tenant_id)
                found = await asyncio.to_thread(self._read, caller.tenant_id, wanted)
                for told in found:
                    message = pb.WatchNotificationsResponse(notification=notification_message(told))
                    yield message.SerializeToString()
                    wanted = wanted._replace(after_sequence=told.sequence)
                if not found:
                    await _either(heard, _LOOK_SECONDS)

    def _read(self, tenant_id: int, wanted: Wanted) -> list[Told]:
        with self._db.tenant(tenant_id) as tx:
            return store.page(tx, wanted, _AT_ONCE)


async def _either(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return


def _wanted(request: pb.ListNotificationsRequest | pb.WatchNotificationsRequest) -> Wanted:
    if not 0 <= request.after_sequence <= _MAX_SEQUENCE:
        raise invalid("after_sequence", "must be 0 or the sequence of a notification")
    if request.kind not in pb.NotificationKind.values():
        raise invalid("kind", f"is no kind of notification: {', '.join(pb.NotificationKind.keys()[1:])}")
    return Wanted(
        request.after_sequence,
        request.customer_key,
        request.feature_key,
        request.threshold_id,
        pb.NotificationKind.Name(request.kind).removeprefix(_KIND) if request.kind else "",
    )


def threshold_message(rule: Threshold) -> pb.Threshold:
    """Write a rule."""
    return pb.Threshold(
        threshold_id=rule.threshold_id,
        customer_key=rule.customer_key,
        feature_key=rule.feature_key,
        kind=pb.ThresholdKind.Value(f"THRESHOLD_KIND_{rule.kind.value}"),
        amount="" if rule.amount is None else quantity_text(rule.amount),
        percent="" if rule.percent is None else quantity_text(rule.percent),
        create_time=to_timestamp(rule.create_time),
    )


def notification_message(told: Told) -> pb.Notification:
    """Write what was told."""
    if told.top_up is not None:
        return pb.Notification(
            sequence=told.sequence,
            kind=pb.NOTIFICATION_KIND_TOP_UP_NEEDED,
            customer_key=told.customer_key,
            top_up=pb.TopUpNeeded(**told.top_up._asdict()),
            create_time=to_timestamp(told.create_time),
        )
    return pb.Notification(
        kind=pb.NotificationKind.Value(f"{_KIND}{told.rule.kind.value}"),
        sequence=told.sequence,
        threshold=threshold_message(told.rule),
        entitlement_id=told.entitlement_id,
        customer_key=told.customer_key,
        feature_key=told.feature_key,
        period_start_time=to_timestamp(time_of(told.start_minute)),
        period_end_time=to_timestamp(time_of(told.end_minute)),
        usage=quantity_text(told.usage),
        balance=quantity_text(told.balance),
        overage=quantity_text(told.overage),
        create_time=to_timestamp(told.create_time),
    )
