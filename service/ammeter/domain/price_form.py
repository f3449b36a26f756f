"""Prices as they are written: trees of text under the names of the proto.

The same form is sent and stored. Reading lists every fault with its path and
puts something harmless in its place; what was written by `form_of` has none.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from decimal import Decimal
from typing import Any, Protocol

from ammeter.domain import price as p
from ammeter.domain.quantity import decimal_text, parse_decimal
from ammeter.errors import InvalidInputError, Violation

MAX_COUNT = 2**63 - 1
_MAX_PERCENTAGE = 100
_ONE = Decimal(1)

Fields = Mapping[str, Any]


def form_of(value: object) -> Any:  # noqa: ANN401 - a tree of dicts, lists, text, numbers
    """Write a price or terms: decimals as text, nothing that is left out."""
    if is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: getattr(value, field.name) for field in fields(value)}
        return {name: form_of(part) for name, part in parts.items() if part is not None and part is not False}
    if isinstance(value, tuple):
        return [form_of(part) for part in value]
    return decimal_text(value) if isinstance(value, Decimal) else value


# Fields of prices that say what something costs.
_COSTS = frozenset(
    f"{what}amount" for what in ("", "unit_", "flat_", "package_", "event_", "default_unit_", "minimum_")
) | {"percentage", "multiplier", "price_list_key"}


class Priced(Protocol):
    """What has a price and what is around it: a rate card."""

    @property
    def price(self) -> p.Price | None:
        """None: it costs nothing."""

    @property
    def terms(self) -> p.Terms:
        """What is done around the price."""


def may_charge(card: Priced) -> bool:
    """Whether a rate card can ever cost something: one whose amounts are all zero cannot."""
    return _costs(card.price) or _costs(card.terms.commitments)


def _costs(value: object) -> bool:
    if isinstance(value, tuple):
        return any(map(_costs, value))
    if not is_dataclass(value):
        return False
    parts = {field.name: getattr(value, field.name) for field in fields(value)}
    return any(bool(part) if name in _COSTS else _costs(part) for name, part in parts.items())


@dataclass(frozen=True)
class Form:
    """Some fields, where they are in the request, and the faults found so far."""

    path: str
    fields: Fields
    faults: list[Violation]

    def fault(self, name: str, why: str) -> None:
        """Note what is wrong with a field; "" is the form itself."""
        self.faults.append(Violation(f"{self.path}.{name}" if name else self.path, why))

    def given(self, name: str) -> bool:
        """Whether a field is neither left out nor empty."""
        return self.fields.get(name) not in (None, "")

    def amount(self, name: str, *, zero: bool = True) -> Decimal:
        """Read a decimal that is not negative, or is positive; 1 when it is faulty."""
        try:
            amount = parse_decimal(str(self.fields.get(name, "")), f"{self.path}.{name}")
        except InvalidInputError as error:
            self.faults.extend(error.violations)
            return _ONE
        if amount < 0 or (not amount and not zero):
            self.fault(name, "must not be negative" if zero else "must be more than zero")
            return _ONE
        return amount.copy_abs()

    def optional(self, name: str, *, zero: bool = True) -> Decimal | None:
        """As `amount`; None where it is left out."""
        return self.amount(name, zero=zero) if self.given(name) else None

    def percentage(self, name: str, *, zero: bool = True) -> Decimal:
        """Read a share of at most 100."""
        share = self.amount(name, zero=zero)
        if share > _MAX_PERCENTAGE:
            self.fault(name, f"must be at most {_MAX_PERCENTAGE} percent")
            return _ONE
        return share

    def count(self, name: str, maximum: int) -> int:
        """Read a whole number from 0; 0 where it is left out."""
        number = int(self.fields.get(name) or 0)
        if not 0 <= number <= maximum:
            self.fault(name, f"must be 0-{maximum}")
            return 0
        return number

    def forms(self, name: str, maximum: int) -> list["Form"]:
        """Read a list of forms; none of them if there are more than `maximum`."""
        found = self.fields.get(name) or []
        if len(found) > maximum:
            self.fault(name, f"must be at most {maximum}")
            return []
        return [Form(f"{self.path}.{name}[{index}]", one, self.faults) for index, one in enumerate(found)]

    def text(self, name: str) -> str:
        """Read a text; empty where it is left out."""
        return str(self.fields.get(name) or "")

    def texts(self, name: str) -> tuple[str, ...]:
        """Read a list of texts."""
        return tuple(self.fields.get(name) or ())


MAX_TIERS = 100
MAX_CELLS = 1000
MAX_PRECISION = 12
MAX_OVERRIDES = 1000
MODEL_DIMENSION = "model"


def _tiers(form: Form) -> tuple[p.Tier, ...]:
    return tuple(
        p.Tier(
            one.optional("up_to", zero=False),
            one.optional("unit_amount"),
            one.optional("flat_amount"),
        )
        for one in form.forms("tiers", MAX_TIERS)
    )


def _percentage(form: Form) -> p.PercentagePrice:
    return p.PercentagePrice(
        form.percentage("percentage"),
        form.optional("event_amount"),
        form.optional("free_amount"),
        form.count("free_event_count", MAX_COUNT),
    )


def _percentage_tiers(form: Form) -> tuple[p.PercentageTier, ...]:
    return tuple(
        p.PercentageTier(
            one.optional("up_to", zero=False),
            one.percentage("percentage") if one.given("percentage") else None,
            one.optional("flat_amount"),
        )
        for one in form.forms("tiers", MAX_TIERS)
    )


def _matrix(form: Form) -> p.MatrixPrice:
    cells = tuple(
        p.Cell(one.texts("values"), one.amount("unit_amount")) for one in form.forms("cells", MAX_CELLS)
    )
    return p.MatrixPrice(form.texts("dimensions"), cells, form.amount("default_unit_amount"))


def _llm(form: Form) -> p.LlmPrice:
    return p.LlmPrice(
        form.text("price_list_key"),
        form.text("token_type"),
        form.text("model_dimension") or MODEL_DIMENSION,
        form.optional("margin_percentage"),
        form.optional("margin_amount"),
        tuple(
            p.Override(one.text("model"), one.amount("unit_amount"))
            for one in form.forms("overrides", MAX_OVERRIDES)
        ),
        form.optional("default_unit_amount"),
    )


_READERS: Mapping[str, Callable[[Form], p.Price]] = {
    "flat": lambda form: p.FlatPrice(form.amount("amount"), bool(form.fields.get("per_seat"))),
    "unit": lambda form: p.UnitPrice(form.amount("unit_amount")),
    "graduated": lambda form: p.GraduatedPrice(_tiers(form)),
    "volume": lambda form: p.VolumePrice(_tiers(form)),
    "package": lambda form: p.PackagePrice(
        form.amount("package_size", zero=False), form.amount("package_amount")
    ),
    "percentage": _percentage,
    "graduated_percentage": lambda form: p.GraduatedPercentagePrice(_percentage_tiers(form)),
    "dynamic": lambda form: p.DynamicPrice(form.amount("multiplier")),
    "matrix": _matrix,
    "llm": _llm,
}
KINDS = tuple(_READERS)

_KIND_OF: Mapping[type, str] = {
    p.FlatPrice: "flat",
    p.UnitPrice: "unit",
    p.GraduatedPrice: "graduated",
    p.VolumePrice: "volume",
    p.PackagePrice: "package",
    p.PercentagePrice: "percentage",
    p.GraduatedPercentagePrice: "graduated_percentage",
    p.DynamicPrice: "dynamic",
    p.MatrixPrice: "matrix",
    p.LlmPrice: "llm",
}


def kind_of(price: p.Price) -> str:
    """Name the kind of a price as the proto does."""
    return _KIND_OF[type(price)]


def read_price(kind: str, form: Form) -> p.Price:
    """Read a price of one of KINDS; adds what is wrong with single fields to the form's faults."""
    return _READERS[kind](form)


def read_terms(path: str, found: Fields, faults: list[Violation]) -> p.Terms:
    """Read the terms among a rate card's fields; `found` may hold others, too."""

    def part(name: str) -> Form | None:
        there = found.get(name)
        return None if there is None else Form(f"{path}.{name}", there, faults)

    conversion, discounts, commitments = map(part, ("unit_conversion", "discounts", "commitments"))
    return p.Terms(
        None if conversion is None else _conversion(conversion),
        None if discounts is None else _discounts(discounts),
        None if commitments is None else _commitments(commitments),
    )


def _conversion(form: Form) -> p.UnitConversion:
    rounding = form.fields.get("rounding")
    if rounding is not None and rounding not in tuple(p.Rounding):
        form.fault("rounding", "is none: leave it out, or give CEILING, FLOOR or HALF_UP")
        rounding = None
    return p.UnitConversion(
        form.optional("multiply_by", zero=False),
        form.optional("divide_by", zero=False),
        rounding and p.Rounding(rounding),
        form.count("precision", MAX_PRECISION),
    )


def _commitments(form: Form) -> p.Commitments:
    return p.Commitments(form.optional("minimum_amount"), form.optional("maximum_amount", zero=False))


def _discounts(form: Form) -> p.Discounts:
    return p.Discounts(
        form.optional("usage_quantity", zero=False),
        form.percentage("percentage", zero=False) if form.given("percentage") else None,
    )
