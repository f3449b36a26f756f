"""PriceOverrideService: messages to values and back."""

from datetime import datetime

from ammeter.domain.price_form import form_of
from ammeter.domain.price_override import OverrideDraft, PriceOverride
from ammeter.rpc.convert import from_timestamp, to_timestamp
from ammeter.rpc.method import ADMIN, READ, Method
from ammeter.rpc.paging import decode_token, encode_token, fingerprint, page_size
from ammeter.rpc.price import draft_terms, form_of_price, form_of_terms, price_message
from ammeter.store import price_overrides as store
from ammeter.store.db import Tx
from ammeter.usecases import price_overrides
from ammeter.usecases.subscribe import get_subscription
from ammeter.v1 import price_override_pb2 as pb

_OPEN = "?"


class PriceOverrideRpc:
    """The service's methods."""

    service = "ammeter.v1.PriceOverrideService"

    def methods(self) -> list[Method]:
        """Every RPC of the service."""
        return [
            Method.write("CreatePriceOverride", ADMIN, self.create),
            Method.write("EndPriceOverride", ADMIN, self.end),
            Method.read("ListPriceOverrides", READ, self.list),
        ]

    def create(
        self, tx: Tx, request: pb.CreatePriceOverrideRequest, now: datetime
    ) -> pb.CreatePriceOverrideResponse:
        """Agree on another price."""
        sent = request.price_override
        path = "price_override"
        draft = OverrideDraft(
            sent.subscription_id,
            sent.rate_card_key,
            from_timestamp(sent.from_time, f"{path}.from_time", present=sent.HasField("from_time")),
            from_timestamp(sent.to_time, f"{path}.to_time", present=sent.HasField("to_time")),
            (sent.price.WhichOneof("kind") or _OPEN) if sent.HasField("price") else "",
            form_of_price(sent.price),
            form_of_terms(sent),
            sent.reason,
        )
        made = price_overrides.create_price_override(tx, draft, now)
        return pb.CreatePriceOverrideResponse(price_override=override_message(made))

    def end(self, tx: Tx, request: pb.EndPriceOverrideRequest, now: datetime) -> pb.EndPriceOverrideResponse:
        """End an override."""
        time = from_timestamp(request.to_time, "to_time", present=request.HasField("to_time"))
        ended = price_overrides.end_price_override(tx, request.price_override_id, time or now, now)
        return pb.EndPriceOverrideResponse(price_override=override_message(ended))

    def list(
        self, tx: Tx, request: pb.ListPriceOverridesRequest, _now: datetime
    ) -> pb.ListPriceOverridesResponse:
        """Answer a page of overrides, by creation."""
        query, size = fingerprint(request), page_size(request.page_size)
        after = decode_token(request.page_token, query) or ("",)
        sub = get_subscription(tx, request.subscription_id)
        found = store.of_subscription(tx, sub.subscription_id, str(after[0]), size + 1)
        token = encode_token(query, (found[size - 1].price_override_id,)) if len(found) > size else ""
        return pb.ListPriceOverridesResponse(
            price_overrides=map(override_message, found[:size]), next_page_token=token
        )


def override_message(one: PriceOverride) -> pb.PriceOverride:
    """Write an override."""
    terms = {name: {} if part is None else form_of(part) for name, part in one.given.items()}
    return pb.PriceOverride(
        price_override_id=one.price_override_id,
        subscription_id=one.subscription_id,
        rate_card_key=one.rate_card_key,
        from_time=to_timestamp(one.from_time),
        to_time=to_timestamp(one.to_time),
        price=price_message(one.price) if one.price else None,
        reason=one.reason,
        create_time=to_timestamp(one.create_time),
        **draft_terms(terms),
    )
