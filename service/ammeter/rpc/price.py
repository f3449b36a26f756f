"""Prices and what is around them: messages to trees of text and back.

The trees have the names of the proto (see domain/price_form.py), so protobuf's
own JSON form does the work. Only names of enums differ.
"""

from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message

from ammeter.domain.price import Price, Rounding, Terms
from ammeter.domain.price_form import form_of, kind_of
from ammeter.v1 import catalog_pb2 as pb

_ROUNDINGS = {
    Rounding.CEILING: pb.UnitConversion.ROUNDING_CEILING,
    Rounding.FLOOR: pb.UnitConversion.ROUNDING_FLOOR,
    Rounding.HALF_UP: pb.UnitConversion.ROUNDING_HALF_UP,
}
_ROUNDING_OF: dict[int, str] = {number: rounding.value for rounding, number in _ROUNDINGS.items()}


def form_of_price(price: pb.Price) -> dict[str, Any]:
    """Read the fields of the kind of price that is set; none if it is left open."""
    kind = price.WhichOneof("kind")
    return _form(getattr(price, kind)) if kind else {}


def form_of_terms(card: pb.RateCard) -> dict[str, Any]:
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


def price_message(price: Price) -> pb.Price:
    """Write a price."""
    return ParseDict({kind_of(price): form_of(price)}, pb.Price())


def terms_messages(terms: Terms) -> dict[str, Any]:
    """Write what is around a price: fields of a rate card."""
    form = form_of(terms)
    conversion = terms.unit_conversion
    if conversion and conversion.rounding:
        form["unit_conversion"]["rounding"] = _ROUNDINGS[conversion.rounding]
    messages: dict[str, Message] = {
        "unit_conversion": pb.UnitConversion(),
        "discounts": pb.Discounts(),
        "commitments": pb.Commitments(),
    }
    return {name: ParseDict(part, messages[name]) for name, part in form.items()}


def _form(message: Message) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True)
