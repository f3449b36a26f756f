"""The API as its descriptors tell it, called with bytes; and errors taken apart."""

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from ammeter.v1 import (
    access_pb2,
    add_on_pb2,
    billing_pb2,
    catalog_pb2,
    coupon_pb2,
    credit_note_pb2,
    credit_pb2,
    customer_pb2,
    entitlement_pb2,
    error_reason_pb2,
    invoice_pb2,
    key_pb2,
    meter_pb2,
    notification_pb2,
    operation_pb2,
    price_list_pb2,
    price_override_pb2,
    reservation_pb2,
    subscription_pb2,
    usage_pb2,
)

_FILES = (
    access_pb2,
    add_on_pb2,
    billing_pb2,
    catalog_pb2,
    coupon_pb2,
    credit_note_pb2,
    credit_pb2,
    customer_pb2,
    entitlement_pb2,
    invoice_pb2,
    key_pb2,
    meter_pb2,
    operation_pb2,
    notification_pb2,
    price_list_pb2,
    price_override_pb2,
    reservation_pb2,
    subscription_pb2,
    usage_pb2,
)
# google.protobuf.Struct contains itself: two levels show all that there is.
_DEEPEST = 8
_WATCHED_SECONDS = 2.0


@dataclass(frozen=True)
class Rpc:
    """One method of the API."""

    method: MethodDescriptor

    @property
    def service(self) -> str:
        return str(self.method.containing_service.full_name)

    @property
    def name(self) -> str:
        return str(self.method.name)

    @property
    def path(self) -> str:
        return f"/{self.service}/{self.name}"

    @property
    def request(self) -> type[Message]:
        return GetMessageClass(self.method.input_type)

    @property
    def response(self) -> type[Message]:
        return GetMessageClass(self.method.output_type)

    @property
    def field_names(self) -> set[str]:
        return {field.name for field in self.method.input_type.fields}

    @property
    def mutates(self) -> bool:
        reads = (
            "Get",
            "List",
            "Query",
            "Check",
            "BatchCheck",
            "StreamChecks",
            "Preview",
            "Explain",
            "Render",
        )
        return not self.name.startswith((*reads, "Watch"))

    def __str__(self) -> str:
        return f"{self.service.rpartition('.')[2]}.{self.name}"


RPCS = [
    Rpc(method)
    for file in _FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
BY_NAME = {rpc.name: rpc for rpc in RPCS}


def call(
    channel: grpc.Channel,
    rpc: Rpc,
    request: bytes | Message = b"",
    *,
    secret: str = "",
    metadata: Iterable[tuple[str, str | bytes]] = (),
    seconds: float = 15,
) -> list[bytes]:
    """Call any method with one request, as bytes if wanted; returns the answers' bytes."""
    body = request if isinstance(request, bytes) else request.SerializeToString()
    sent = (*metadata, *bearer(secret))
    if rpc.method.client_streaming:
        streaming = channel.stream_stream(rpc.path, _same, _same)
        return list(streaming(iter([body]), metadata=sent, timeout=seconds))
    if rpc.name.startswith("Watch"):
        return _watched(channel.unary_stream(rpc.path, _same, _same)(body, metadata=sent, timeout=seconds))
    if rpc.method.server_streaming:
        return list(channel.unary_stream(rpc.path, _same, _same)(body, metadata=sent, timeout=seconds))
    return [channel.unary_unary(rpc.path, _same, _same)(body, metadata=sent, timeout=seconds)]


def _watched(stream: Any) -> list[bytes]:  # noqa: ANN401 - a call that is an iterator
    """What comes within a while, of what has no end."""
    timer = threading.Timer(_WATCHED_SECONDS, stream.cancel)
    timer.start()
    answers: list[bytes] = []
    try:
        answers.extend(stream)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.CANCELLED:
            raise
    finally:
        timer.cancel()
    return answers


def bearer(secret: str) -> tuple[tuple[str, str | bytes], ...]:
    """The metadata that carries a key; none for none."""
    return (("authorization", f"Bearer {secret}"),) if secret else ()


def _same(body: bytes) -> bytes:
    return body


@dataclass(frozen=True)
class Failure:
    """A refused call: its code by name, and what its details say."""

    code: str
    reason: str
    message: str
    fields: dict[str, str]
    retry_seconds: float | None
    details: tuple[str, ...]


def failure(error: grpc.RpcError) -> Failure:
    """Take an error apart; it must be rich, and say the same in all places."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # it is a Call, too
    assert status is not None, f"a poor error: {error.code()}: {error.details()}"
    assert status.code == error.code().value[0]
    assert status.message == error.details()
    found: dict[str, Any] = {}
    for kind in ("ErrorInfo", "BadRequest", "RetryInfo", "QuotaFailure"):
        message = getattr(error_details_pb2, kind)()
        for packed in status.details:
            if packed.Is(message.DESCRIPTOR):
                packed.Unpack(message)
                found[kind] = message
    info = found["ErrorInfo"]
    assert info.domain == "ammeter"
    assert f"ERROR_REASON_{info.reason}" in error_reason_pb2.ErrorReason.keys()  # noqa: SIM118 - an enum, no dict
    assert status.message, "an error says what to do"
    violations = found["BadRequest"].field_violations if "BadRequest" in found else ()
    delay = found["RetryInfo"].retry_delay.ToTimedelta().total_seconds() if "RetryInfo" in found else None
    return Failure(
        error.code().name,
        info.reason,
        status.message,
        {violation.field: violation.description for violation in violations},
        delay,
        tuple(found),
    )


def refusal(method: Callable[..., Any], *args: object, **kwargs: object) -> Failure:
    """Call what has to be refused; a stream is read to its end."""
    try:
        answer = method(*args, timeout=15, **kwargs)
        if not isinstance(answer, Message):
            answer = list(answer)
    except grpc.RpcError as error:
        return failure(error)
    raise AssertionError(f"not refused: {answer}")


def attempt(
    channel: grpc.Channel, rpc: Rpc, request: bytes | Message = b"", *, secret: str = ""
) -> list[bytes] | Failure:
    """Call any method; returns its answers, or why it was refused."""
    try:
        return call(channel, rpc, request, secret=secret)
    except grpc.RpcError as error:
        return failure(error)


def refused(
    channel: grpc.Channel, rpc: Rpc, request: bytes | Message = b"", *, secret: str = ""
) -> Failure | None:
    """Call any method; None if it was not refused."""
    outcome = attempt(channel, rpc, request, secret=secret)
    return outcome if isinstance(outcome, Failure) else None


@dataclass(frozen=True)
class Leaf:
    """A field somewhere in a request: the way to it, and its path in messages."""

    way: tuple[FieldDescriptor, ...]

    @property
    def field(self) -> FieldDescriptor:
        return self.way[-1]

    @property
    def path(self) -> str:
        parts: list[str] = []
        for field in self.way:
            if field.containing_type and field.containing_type.GetOptions().map_entry:
                parts[-1] = parts[-1].replace("[0]", "[k]")
                continue
            parts.append(f"{field.name}[0]" if field.is_repeated else field.name)
        return ".".join(parts)

    def put(self, request: Message, value: object) -> None:
        """Set the field to a value, making what leads to it."""
        message: Any = request
        for position, field in enumerate(self.way):
            last = position == len(self.way) - 1
            inner = getattr(message, field.name)
            if _is_map(field):
                self._put_into_map(field, inner, self.way[position + 1 :], value)
                return
            if last and field.is_repeated:
                inner.append(value)
            elif last:
                setattr(message, field.name, value)
            elif field.is_repeated:
                message = inner.add()
            else:
                inner.SetInParent()
                message = inner

    @staticmethod
    def _put_into_map(
        field: FieldDescriptor,
        inner: Any,  # noqa: ANN401 - a map of whatever kind
        rest: tuple[FieldDescriptor, ...],
        value: object,
    ) -> None:
        leads_on = _entry(field).fields_by_name["value"].message_type is not None
        if rest[0].name == "key" and leads_on:
            inner[value].SetInParent()
        elif rest[0].name == "key":
            inner[value] = "v"
        elif leads_on:
            Leaf(rest[1:]).put(inner["k"], value)
        else:
            inner["k"] = value


def _entry(field: FieldDescriptor) -> Descriptor:
    assert field.message_type is not None
    return field.message_type


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def leaves(
    message: Any,  # noqa: ANN401 - a Descriptor, of which protobuf has two types
    *,
    kinds: Iterable[int],
    way: tuple[FieldDescriptor, ...] = (),
) -> Iterator[Leaf]:
    """Every field of the given types in a message and in what it contains."""
    wanted = frozenset(kinds)
    for field in message.fields:
        here = (*way, field)
        if field.type in wanted:
            yield Leaf(here)
        if field.message_type and len(here) < _DEEPEST and sum(f is field for f in here) < 2:
            yield from leaves(field.message_type, kinds=wanted, way=here)


TEXT = (FieldDescriptor.TYPE_STRING,)
ENUM = (FieldDescriptor.TYPE_ENUM,)
MESSAGE = (FieldDescriptor.TYPE_MESSAGE,)


def time_leaves(message: Descriptor) -> Iterator[Leaf]:
    """Every Timestamp in a message."""
    for leaf in leaves(message, kinds=MESSAGE):
        if _entry(leaf.field).full_name == "google.protobuf.Timestamp":
            yield leaf


def panics(metrics: str) -> float:
    """How many panics the core counted, from the text of the metrics page."""
    for line in metrics.splitlines():
        if line.startswith('ammeter_engine{what="panics"}'):
            return float(line.rpartition(" ")[2])
    raise AssertionError("the metrics page counts no panics")
