"""Documents: formats, and JSON, which is the API's own message."""

import json
from collections.abc import Callable
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from ammeter.domain.paper.numbers import parse_locale
from ammeter.errors import invalid
from ammeter.usecases.render import CONTENT_TYPES, Format, file_name
from ammeter.v1 import invoice_pb2 as pb

_FORMATS = {
    pb.DOCUMENT_FORMAT_HTML: Format.HTML,
    pb.DOCUMENT_FORMAT_PDF: Format.PDF,
    pb.DOCUMENT_FORMAT_CSV: Format.CSV,
    pb.DOCUMENT_FORMAT_JSON: Format.JSON,
}
# Of an invoice: what may still change after issue, so that the same invoice stays the same bytes.
_LATER = (
    "next_actions",
    "credited_total",
    "amount_due",
    "paid_time",
    "payment_reference",
    "uncollectible_time",
    "void_time",
    "state",
)


def wanted_format(request: pb.RenderInvoiceRequest | Any, field: str = "format") -> Format:  # noqa: ANN401 - or of a credit note
    """Read the format, and refuse what is none, and a locale that is none."""
    if request.format not in _FORMATS:
        names = ", ".join(pb.DocumentFormat.keys()[1:])
        raise invalid(field, f"say which: {names}")
    parse_locale(request.locale)
    return _FORMATS[request.format]


def document(kind: str, number: str, document_id: str, wanted: Format, content: bytes) -> pb.Document:
    """Put a document together."""
    return pb.Document(
        content=content,
        content_type=CONTENT_TYPES[wanted],
        file_name=file_name(kind, number, document_id, wanted),
    )


def invoice_json(message: pb.Invoice, usage: list[dict[str, Any]]) -> bytes:
    """Write an invoice as it was issued."""
    plain = _plain(message)
    for name in _LATER:
        plain.pop(name, None)
    return _write(plain | {"usage_by_group": usage})


def message_json(message: Message) -> bytes:
    """Write what never changes."""
    return _write(_plain(message))


def _plain(message: Message) -> dict[str, Any]:
    to_dict: Callable[..., dict[str, Any]] = MessageToDict
    return to_dict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def _write(plain: dict[str, Any]) -> bytes:
    return json.dumps(plain, ensure_ascii=False, indent=1).encode() + b"\n"
