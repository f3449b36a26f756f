"""Prices and what is around them: messages to trees of text and back.

The trees have the names of the proto (see domain/price_form.py), so protobuf's
own JSON form does the work. Only names of enums differ.
"""

from collections.abc import Mapping
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message

from ammeter.domain.price import Price, Rounding, Terms
from ammeter.domain.price_form import form_of, kind_of
from ammeter.v1 import catalog_pb2 as pb
from ammeter.v1 import price_override_pb2, price_pb2

_ROUNDINGS = {
    Rounding.CEILING: price_pb2.UnitConversion.ROUNDING_CEILING,
    Rounding.FLOOR: price_pb2.UnitConversion.ROUNDING_FLOOR,
    Rounding.HALF_UP: price_pb2.UnitConversion.ROUNDING_HALF_UP,
}
_ROUNDING_OF: dict[int, str] = {number: rounding.value for rounding, number in _ROUNDINGS.items()}


def form_of_price(price: price_pb2.Price) -> dict[str, Any]:
    """Read the fields of the kind of price that is set; none if it is left open."""
    kind = price.WhichOneof("kind")
    return _form(getattr(price, kind)) if kind else {}


def form_of_terms(card: pb.RateCard | price_override_pb2.PriceOverride) -> dict[str, Any]:
    """Read what is around a rate card's price."""
    form = {
        name: _form(getattr(card, name))
        for name in ("unit_conversion", "discounts", "commitments")
        if card.HasField(name)
    }
    if card.unit_conversion.rounding:
        number = card.unit_conversion.rounding
        form["unit_conversion"]["rounding"] = _ROUNDING_OF.get(number, str(number))
    return form


def price_message(price: Price) -> price_pb2.Price:
    """Write a price."""
    return ParseDict({kind_of(price): form_of(price)}, price_pb2.Price())


def terms_messages(terms: Terms) -> dict[str, Any]:
    """Write what is around a price: fields of a rate card."""
    return draft_terms(form_of(terms))


def draft_terms(form: Mapping[str, Any]) -> dict[str, Any]:
    """As terms_messages, of terms as they were sent."""
    parts = {name: dict(part) for name, part in form.items()}
    conversion = parts.get("unit_conversion", {})
    if conversion.get("rounding") is not None:
        said = str(conversion["rounding"])
        conversion["rounding"] = _ROUNDINGS[Rounding(said)] if said in tuple(Rounding) else int(said)
    messages: dict[str, Message] = {
        "unit_conversion": price_pb2.UnitConversion(),
        "discounts": price_pb2.Discounts(),
        "commitments": price_pb2.Commitments(),
    }
    return {name: ParseDict(part, messages[name]) for name, part in parts.items()}


def _form(message: Message) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True)
