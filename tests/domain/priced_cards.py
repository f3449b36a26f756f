"""Random rate cards and usage, as an operator writes them and as a meter counts them."""

from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

from hypothesis import strategies as st

from ammeter.domain.catalog import RateCard
from ammeter.domain.catalog_rules import PlanDraft, RateCardDraft, make_plan
from ammeter.domain.pricing import Usage
from ammeter.domain.quantity import decimal_text

CURRENCIES = {0: "JPY", 2: "USD", 3: "BHD", 4: "UYW"}
DIMENSIONS = ("model", "region")
_VALUES = ("", "a", "b")

Form = dict[str, Any]


class Case(NamedTuple):
    """A rate card, both ways, and what was used of it, again and again."""

    exponent: int
    form: Form
    card: RateCard
    usages: tuple[Usage, ...]


def text(number: int, digits: int) -> str:
    return decimal_text(Decimal(number).scaleb(-digits))


def decimals(most: int, digits: int, least: int = 0) -> st.SearchStrategy[str]:
    """Decimal text with up to so many digits after the point; `least` in its last place."""
    finest = st.integers(least, most * 10**digits)
    return st.tuples(finest, st.integers(0, digits)).map(
        lambda drawn: text(max(drawn[0] // 10 ** (digits - drawn[1]), least), drawn[1])
    )


prices = st.one_of(decimals(20, 2), decimals(2, 6), decimals(1, 12))
sizes = decimals(300, 2, least=1)
shares = st.one_of(decimals(100, 0), decimals(100, 3))
quantities = st.one_of(
    st.integers(-20, 300).map(str),
    decimals(1000, 3),
    decimals(10**6, 12),
    decimals(100, 2).map(lambda q: f"-{q}"),
)


def optional(**parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Form]:
    return st.fixed_dictionaries({}, optional=parts)


@st.composite
def tiers(draw: st.DrawFn, exponent: int, unit_name: str, unit: st.SearchStrategy[str]) -> list[Form]:
    parts = optional(**{unit_name: unit, "flat_amount": decimals(50, exponent)})
    bounds = sorted(draw(st.sets(sizes.map(Fraction), max_size=4)))
    found = [draw(parts.filter(bool)) for _ in range(len(bounds) + 1)]
    for tier, bound in zip(found, bounds, strict=False):
        tier["up_to"] = decimal_text(Decimal(bound.numerator) / Decimal(bound.denominator))
    return found


@st.composite
def matrices(draw: st.DrawFn) -> Form:
    names = draw(st.sampled_from([DIMENSIONS, DIMENSIONS[:1], DIMENSIONS[::-1]]))
    keys = draw(st.sets(st.tuples(*(st.sampled_from(_VALUES) for _ in names)), max_size=4))
    cells = [{"values": list(key), "unit_amount": draw(prices)} for key in sorted(keys)]
    return {"dimensions": list(names), "cells": cells, "default_unit_amount": draw(prices)}


def price_forms(exponent: int) -> st.SearchStrategy[Form]:
    def of(kind: str, form: st.SearchStrategy[Any]) -> st.SearchStrategy[Form]:
        return form.map(lambda made: {kind: made})

    def tiered(unit_name: str, unit: st.SearchStrategy[str]) -> st.SearchStrategy[Form]:
        return tiers(exponent, unit_name, unit).map(lambda made: {"tiers": made})

    share = st.fixed_dictionaries(
        {"percentage": shares},
        optional={
            "event_amount": prices,
            "free_amount": decimals(200, 2),
            "free_event_count": st.integers(0, 20),
        },
    )
    package = st.fixed_dictionaries(
        {"package_size": sizes.filter(lambda size: Decimal(size) > 1), "package_amount": prices}
    )
    return st.one_of(
        of("graduated", tiered("unit_amount", prices)),
        of("volume", tiered("unit_amount", prices)),
        of("graduated_percentage", tiered("percentage", shares)),
        of("unit", st.fixed_dictionaries({"unit_amount": prices})),
        of("package", package),
        of("percentage", share),
        of("dynamic", st.fixed_dictionaries({"multiplier": decimals(3, 4)})),
        of("matrix", matrices()),
    )


roundings = optional(rounding=st.sampled_from(["ceiling", "floor", "half_up"])).flatmap(
    lambda found: (
        st.integers(0, 3).map(lambda digits: found | {"precision": digits}) if found else st.just(found)
    )
)
factors = st.sampled_from(["multiply_by", "divide_by"]).flatmap(
    lambda name: st.sampled_from(["2", "3", "7", "0.125", "60", "1.1"]).map(lambda factor: {name: factor})
)
conversions = st.tuples(factors, roundings).map(lambda parts: parts[0] | parts[1])


@st.composite
def terms(draw: st.DrawFn, exponent: int, kind: str) -> Form:
    usage_quantity = {} if kind in {"matrix", "llm"} else {"usage_quantity": sizes}
    positive = shares.filter(lambda share: Decimal(share) > 0)
    bounds = draw(
        optional(minimum_amount=decimals(80, exponent), maximum_amount=decimals(300, exponent, least=1))
    )
    if len(bounds) == 2 and Decimal(bounds["minimum_amount"]) > Decimal(bounds["maximum_amount"]):
        del bounds["maximum_amount"]
    found = {
        "unit_conversion": draw(st.one_of(st.just({}), conversions)),
        "discounts": draw(optional(**usage_quantity, percentage=positive)),
        "commitments": bounds,
    }
    return {name: part for name, part in found.items() if part}


@st.composite
def usages(draw: st.DrawFn, dimensions: list[str], bounds: list[str]) -> Usage:
    """Some usage; often exactly up to where a tier ends."""
    events = draw(st.integers(0, 60))
    if not dimensions:
        places = st.one_of(quantities, st.sampled_from(bounds)) if bounds else quantities
        return Usage(Decimal(draw(places)), events)
    keys = st.tuples(*(st.sampled_from((*_VALUES, "c")) for _ in dimensions))
    groups = draw(st.dictionaries(keys, quantities.map(Decimal), max_size=5))
    return Usage(sum(groups.values(), Decimal(0)), events, groups)


@st.composite
def cases(draw: st.DrawFn, size: int) -> Case:
    exponent = draw(st.sampled_from([2, 0, 3, 4]))
    form = {"price": draw(price_forms(exponent))}
    ((kind, price),) = form["price"].items()
    form |= draw(terms(exponent, kind))
    dimensions = price["dimensions"] if kind == "matrix" else []
    bounds = [tier["up_to"] for tier in price.get("tiers", ()) if "up_to" in tier]
    found = draw(st.lists(usages(dimensions, bounds), min_size=size, max_size=size))
    return Case(exponent, form, made(form, CURRENCIES[exponent]), tuple(found))


def draft(form: Form, key: str = "card", feature_key: str = "feature") -> RateCardDraft:
    """A rate card as sent, of what is written as one tree."""
    ((kind, price),) = form["price"].items()
    around = {name: part for name, part in form.items() if name != "price"}
    return RateCardDraft(key, "", feature_key, kind, price, around)


def made(form: Form, currency: str) -> RateCard:
    """The rate card of a tree; it must have no fault."""
    plan = PlanDraft("plan", currency=currency, rate_cards=(draft(form),))
    return make_plan(plan, {"feature": DIMENSIONS}).rate_cards[0]
