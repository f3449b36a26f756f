"""A channel to an ammeter server, and a stub for each of its services.

Retries are gRPC's own, by service config. They are safe because usage carries
the sender's ids and every mutating call a request_id: a repeat is answered,
not done again. The two calls for which that does not hold are listed.
"""

import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Self

import grpc

from ammeter.v1.access_pb2_grpc import AccessServiceStub
from ammeter.v1.add_on_pb2_grpc import AddOnServiceStub
from ammeter.v1.billing_pb2_grpc import BillingServiceStub
from ammeter.v1.catalog_pb2_grpc import CatalogServiceStub
from ammeter.v1.coupon_pb2_grpc import CouponServiceStub
from ammeter.v1.credit_note_pb2_grpc import CreditNoteServiceStub
from ammeter.v1.credit_pb2_grpc import CreditServiceStub
from ammeter.v1.customer_pb2_grpc import CustomerServiceStub
from ammeter.v1.entitlement_pb2_grpc import EntitlementServiceStub
from ammeter.v1.invoice_pb2_grpc import InvoiceServiceStub
from ammeter.v1.key_pb2_grpc import KeyServiceStub
from ammeter.v1.meter_pb2_grpc import MeterServiceStub
from ammeter.v1.notification_pb2_grpc import NotificationServiceStub
from ammeter.v1.operation_pb2_grpc import OperationServiceStub
from ammeter.v1.price_list_pb2_grpc import PriceListServiceStub
from ammeter.v1.price_override_pb2_grpc import PriceOverrideServiceStub
from ammeter.v1.reservation_pb2_grpc import ReservationServiceStub
from ammeter.v1.subscription_pb2_grpc import SubscriptionServiceStub
from ammeter.v1.usage_pb2_grpc import UsageServiceStub

_SERVICES = (
    "Access",
    "Notification",
    "AddOn",
    "Billing",
    "Catalog",
    "Coupon",
    "Credit",
    "CreditNote",
    "Customer",
    "Entitlement",
    "Invoice",
    "Key",
    "Meter",
    "Operation",
    "PriceList",
    "PriceOverride",
    "Reservation",
    "Subscription",
    "Usage",
)
_NOT_RETRIED = (
    {"service": "ammeter.v1.KeyService", "method": "CreateKey"},  # a lost answer is a lost secret
    {
        "service": "ammeter.v1.UsageService",
        "method": "StreamUsage",
    },  # whoever streams resends what is unanswered
)
_RETRY_POLICY = {
    "maxAttempts": 5,
    "initialBackoff": "0.4s",
    "maxBackoff": "3s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "CANCELLED"],
}
_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{"service": f"ammeter.v1.{name}Service"} for name in _SERVICES],
            "retryPolicy": _RETRY_POLICY,
        },
        {"name": list(_NOT_RETRIED)},
    ]
}
_OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.enable_retries", 1),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
)
_UNARY_TIMEOUT_SECONDS = 30.0


def new_request_id() -> str:
    """Make the request_id of one mutation; every retry of it carries the same."""
    return str(uuid.uuid4())


class Client:
    """Stubs over one channel. `secret` is an API key's; `ca` a PEM bundle, the system's if None."""

    def __init__(self, address: str, *, secret: str = "", tls: bool = False, ca: bytes | None = None) -> None:
        """Connect lazily to host:port."""
        self.channel = _open(address, tls=tls, ca=ca)
        channel = grpc.intercept_channel(self.channel, _CallSettings(secret))
        self.access = AccessServiceStub(channel)
        self.add_ons = AddOnServiceStub(channel)
        self.billing = BillingServiceStub(channel)
        self.catalog = CatalogServiceStub(channel)
        self.coupons = CouponServiceStub(channel)
        self.credits = CreditServiceStub(channel)
        self.credit_notes = CreditNoteServiceStub(channel)
        self.customers = CustomerServiceStub(channel)
        self.entitlements = EntitlementServiceStub(channel)
        self.invoices = InvoiceServiceStub(channel)
        self.keys = KeyServiceStub(channel)
        self.meters = MeterServiceStub(channel)
        self.price_overrides = PriceOverrideServiceStub(channel)
        self.notifications = NotificationServiceStub(channel)
        self.price_lists = PriceListServiceStub(channel)
        self.reservations = ReservationServiceStub(channel)
        self.operations = OperationServiceStub(channel)
        self.subscriptions = SubscriptionServiceStub(channel)
        self.usage = UsageServiceStub(channel)

    def close(self) -> None:
        """Close the channel; calls under way end as CANCELLED."""
        self.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open(address: str, *, tls: bool, ca: bytes | None) -> grpc.Channel:
    if tls or ca is not None:
        return grpc.secure_channel(address, grpc.ssl_channel_credentials(ca), options=_OPTIONS)
    return grpc.insecure_channel(address, options=_OPTIONS)


class _Details(NamedTuple):
    """What grpc.ClientCallDetails asks for; grpcio leaves it to us to make one."""

    method: str
    timeout: float | None
    metadata: Sequence[tuple[str, str | bytes]] | None
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class _CallSettings(
    grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor, grpc.StreamStreamClientInterceptor
):
    """Sends the key with every call, and bounds unary calls in time."""

    def __init__(self, secret: str) -> None:
        self._metadata = [("authorization", f"Bearer {secret}")] if secret else []

    def _settle(self, details: grpc.ClientCallDetails, timeout: float | None = None) -> Any:  # noqa: ANN401 - the stubs make ClientCallDetails abstract
        return _Details(
            details.method,
            details.timeout or timeout,
            [*(details.metadata or ()), *self._metadata],
            details.credentials,
            getattr(details, "wait_for_ready", None),
            getattr(details, "compression", None),
        )

    def intercept_unary_unary(
        self,
        continuation: Callable[[Any, Any], Any],
        client_call_details: grpc.ClientCallDetails,
        request: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        return continuation(self._settle(client_call_details, _UNARY_TIMEOUT_SECONDS), request)

    def intercept_unary_stream(
        self,
        continuation: Callable[[Any, Any], Any],
        client_call_details: grpc.ClientCallDetails,
        request: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        return continuation(self._settle(client_call_details), request)

    def intercept_stream_stream(
        self,
        continuation: Callable[[Any, Any], Any],
        client_call_details: grpc.ClientCallDetails,
        request_iterator: Iterator[Any],
    ) -> Any:  # noqa: ANN401
        return continuation(self._settle(client_call_details), request_iterator)
