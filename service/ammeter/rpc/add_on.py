"""AddOnService: messages to values and back."""

from datetime import datetime

from ammeter.domain.add_on import AddOn
from ammeter.rpc.convert import from_timestamp, to_timestamp
from ammeter.rpc.method import ADMIN, READ, Method
from ammeter.rpc.paging import decode_token, encode_token, fingerprint, page_size
from ammeter.store import add_ons as store
from ammeter.store.db import Tx
from ammeter.usecases import add_ons
from ammeter.usecases.live import Live
from ammeter.usecases.subscribe import get_subscription
from ammeter.v1 import add_on_pb2 as pb


class AddOnRpc:
    """The service's methods."""

    service = "ammeter.v1.AddOnService"

    def __init__(self, live: Live) -> None:
        """Tell `live` what changes."""
        self._live = live

    def methods(self) -> list[Method]:
        """Every RPC of the service."""
        return [
            Method.write("AttachAddOn", ADMIN, self.attach),
            Method.write("DetachAddOn", ADMIN, self.detach),
            Method.read("ListAddOns", READ, self.list),
        ]

    def attach(self, tx: Tx, request: pb.AttachAddOnRequest, now: datetime) -> pb.AttachAddOnResponse:
        """Attach an add-on."""
        time = from_timestamp(request.from_time, "from_time", present=request.HasField("from_time"))
        made = add_ons.attach_add_on(
            tx, self._live, request.subscription_id, request.plan_key, request.quantity or 1, time, now
        )
        return pb.AttachAddOnResponse(add_on=_message(made))

    def detach(self, tx: Tx, request: pb.DetachAddOnRequest, now: datetime) -> pb.DetachAddOnResponse:
        """End an add-on."""
        time = from_timestamp(request.to_time, "to_time", present=request.HasField("to_time"))
        done = add_ons.detach_add_on(tx, self._live, request.add_on_id, time or now, now)
        return pb.DetachAddOnResponse(add_on=_message(done))

    def list(self, tx: Tx, request: pb.ListAddOnsRequest, _now: datetime) -> pb.ListAddOnsResponse:
        """Answer a page of add-ons, by creation."""
        query, size = fingerprint(request), page_size(request.page_size)
        after = decode_token(request.page_token, query) or ("",)
        sub = get_subscription(tx, request.subscription_id)
        found = store.of_subscription(tx, sub.subscription_id, str(after[0]), size + 1)
        token = encode_token(query, (found[size - 1].add_on_id,)) if len(found) > size else ""
        return pb.ListAddOnsResponse(add_ons=map(_message, found[:size]), next_page_token=token)


def _message(one: AddOn) -> pb.AddOn:
    return pb.AddOn(
        add_on_id=one.add_on_id,
        subscription_id=one.subscription_id,
        plan_key=one.plan_key,
        plan_version=one.plan_version,
        quantity=one.quantity,
        from_time=to_timestamp(one.from_time),
        to_time=to_timestamp(one.to_time),
        create_time=to_timestamp(one.create_time),
    )
