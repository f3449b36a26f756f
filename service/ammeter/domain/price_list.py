"""Price lists: what a unit of a model costs, resolved at the time of its use.

A list has entries by model and token type, each from a minute on, in two
layers: what is imported, and what was set above that. The curve of a model is
what its unit costs from which minute on, with neighbours that differ.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

from ammeter.domain.minute import BEGINNING, time_of
from ammeter.domain.money import add, multiply
from ammeter.domain.price import LlmPrice
from ammeter.domain.pricing import Part, Usage
from ammeter.domain.quantity import decimal_text

_ONE = Decimal(1)
_PERCENT = Decimal("0.01")

# (from minute, price) in order, from the beginning of time; None: no price.
Curve = Sequence[tuple[int, Decimal | None]]
# Curves by model, of one token type.
Book = Mapping[str, Curve]
NOWHERE: Curve = ((BEGINNING, None),)


class Layer(StrEnum):
    """Where an entry stands: an override wins until it is withdrawn."""

    LIST = "list"
    OVERRIDE = "override"


@dataclass(frozen=True)
class PriceList:
    """A price list without its entries; `version` counts its changes."""

    price_list_key: str
    name: str
    currency: str
    version: int = 0
    price_list_id: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None


class Entry(NamedTuple):
    """What a unit costs from a minute on; None: withdrawn."""

    model: str
    token_type: str
    effective_minute: int
    unit_amount: Decimal | None
    layer: Layer = Layer.LIST


def book_of(entries: Iterable[Entry]) -> Book:
    """Put the entries of one token type together, the override above the list."""
    found: dict[str, dict[Layer, dict[int, Decimal | None]]] = {}
    for entry in entries:
        layers = found.setdefault(entry.model, {Layer.LIST: {}, Layer.OVERRIDE: {}})
        layers[entry.layer][entry.effective_minute] = entry.unit_amount
    return {model: _layered(layers[Layer.LIST], layers[Layer.OVERRIDE]) for model, layers in found.items()}


def _layered(below: Mapping[int, Decimal | None], above: Mapping[int, Decimal | None]) -> Curve:
    price = over = under = None
    curve: list[tuple[int, Decimal | None]] = [*NOWHERE]
    for minute in sorted(below.keys() | above.keys()):
        over = above.get(minute, over)
        under = below.get(minute, under)
        price = under if over is None else over
        _step(curve, minute, price)
    return curve


def _step(curve: list[tuple[int, Decimal | None]], minute: int, price: Decimal | None) -> None:
    """Go on with a price; what costs the same is one step."""
    if price != curve[-1][1]:
        curve.append((minute, price))


def holding(entries: Iterable[Entry], minute: int) -> list[Entry]:
    """Keep the entries that hold at a minute, one of each model and token type, in that order."""
    last: dict[tuple[str, str, Layer], Entry] = {}
    for entry in entries:
        key = entry.model, entry.token_type, entry.layer
        if entry.effective_minute <= minute and (
            key not in last or entry.effective_minute >= last[key].effective_minute
        ):
            last[key] = entry
    found: dict[tuple[str, str], Entry] = {}
    for layer in (Layer.OVERRIDE, Layer.LIST):
        for entry in last.values():
            if entry.layer is layer and entry.unit_amount is not None:
                found.setdefault((entry.model, entry.token_type), entry)
    return [found[key] for key in sorted(found)]


def at(curve: Curve, minute: int) -> Decimal | None:
    """Return what holds at a minute."""
    return curve[_place(curve, minute)][1]


def _place(curve: Curve, minute: int) -> int:
    return bisect_right(curve, minute, key=lambda step: step[0]) - 1


def curve_of(price: LlmPrice, curve: Curve) -> Curve:
    """Return what a rate card charges where the list says `curve`: with margin, or the default."""
    charged: list[tuple[int, Decimal | None]] = []
    for minute, cost in curve:
        amount = price.default_unit_amount if cost is None else with_margin(price, cost)
        if charged:
            _step(charged, minute, amount)
        else:
            charged.append((minute, amount))
    return charged


def with_margin(price: LlmPrice, cost: Decimal) -> Decimal:
    """Turn a cost into a price, exactly."""
    if price.margin_percentage is not None:
        return multiply(cost, add((_ONE, multiply(price.margin_percentage, _PERCENT))))
    return cost if price.margin_amount is None else add((cost, price.margin_amount))


def cuts(price: LlmPrice, book: Book, start: int, end: int) -> set[int]:
    """Return the minutes inside [start, end) where the price of any model changes."""
    own = {override.model for override in price.overrides}
    curves = (curve_of(price, curve) for model, curve in book.items() if model not in own)
    return {minute for curve in curves for minute, _ in curve[1:] if start < minute < end}


def parts_of(price: LlmPrice, book: Book, windows: Sequence[tuple[int, Usage]]) -> Usage:
    """Put a period's windows together: what was used of each model while it had one price.

    windows: from which minute on, and what was used of each model, in order,
    cut at least at `cuts`; the first one begins with the period.
    """
    start = windows[0][0]
    own = {override.model: override.unit_amount for override in price.overrides}
    models = {model for _, usage in windows for (model,) in usage.groups}
    curves = {
        model: ((BEGINNING, own[model]),) if model in own else curve_of(price, book.get(model, NOWHERE))
        for model in models
    }
    found: dict[tuple[str, int], Decimal] = {}
    for minute, usage in windows:
        for (model,), quantity in usage.groups.items():
            key = model, _place(curves[model], minute)
            found[key] = add((found.get(key, Decimal(0)), quantity))
    parts = []
    for (model, place), quantity in sorted(found.items()):
        since, amount = curves[model][place]
        text = f"{price.model_dimension} {model!r}"
        if since > start:
            text += f" from {time_of(since):%Y-%m-%d %H:%M} UTC"
        how = "own price" if model in own else _how(price, at(book.get(model, NOWHERE), max(since, start)))
        label = f"{text}, {how}" if how else text
        parts.append(Part(model, label, amount, quantity, time_of(since)))
    return Usage(
        quantity=add(usage.quantity for _, usage in windows),
        event_count=sum(usage.event_count for _, usage in windows),
        parts=tuple(parts),
    )


def _how(price: LlmPrice, cost: Decimal | None) -> str:
    """Say how a price came about, unless it is what the list says."""
    if cost is None:
        return "no price" if price.default_unit_amount is None else "default"
    if price.margin_percentage is not None:
        return f"{decimal_text(cost)} and {decimal_text(price.margin_percentage)} percent"
    return (
        "" if price.margin_amount is None else f"{decimal_text(cost)} and {decimal_text(price.margin_amount)}"
    )
