"""What a feature or a plan must be like."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given

from ammeter.domain.catalog import DimensionFilter, Feature
from ammeter.domain.catalog_rules import PlanDraft, RateCardDraft, check_config, check_feature, make_plan
from ammeter.domain.price import FlatPrice
from ammeter.domain.price_form import KINDS, Form, form_of, kind_of, read_price, read_terms
from ammeter.errors import InvalidInputError, Violation
from tests.domain.priced_cards import Case, cases

FEATURES = {"tokens": ("model", "region"), "sso": None}


def faults(draft: PlanDraft) -> list[str]:
    with pytest.raises(InvalidInputError) as caught:
        make_plan(draft, FEATURES)
    return [violation.field.removeprefix("plan.") for violation in caught.value.violations]


def card_faults(*cards: RateCardDraft, currency: str = "USD") -> list[str]:
    return faults(PlanDraft("basic", currency=currency, rate_cards=cards))


def test_defaults_are_us_dollars_a_month() -> None:
    plan = make_plan(PlanDraft("basic"), {})
    assert (plan.currency, plan.billing_cadence, plan.state) == ("USD", "P1M", "active")


def test_every_fault_of_a_plan_is_listed_with_its_path() -> None:
    cards = (
        RateCardDraft("Bad Key", "x" * 257, "nothing", "flat", {"amount": "20.001"}),
        RateCardDraft("a", feature_key="sso", price_kind="unit", price={"unit_amount": "-1"}),
        RateCardDraft("a", feature_key="sso", template_kind="metered", allowance="1e3"),
        RateCardDraft("b", price_kind="?", template_kind="?"),
    )
    assert faults(PlanDraft("1", "\0", "XXX", "P1H", cards)) == [
        "plan_key",
        "name",
        "currency",
        "billing_cadence",
        "rate_cards[2].rate_card_key",
        "rate_cards[2].feature_key",
        "rate_cards[0].rate_card_key",
        "rate_cards[0].name",
        "rate_cards[0].feature_key",
        "rate_cards[1].feature_key",
        "rate_cards[1].price.unit.unit_amount",
        "rate_cards[2].feature_key",
        "rate_cards[2].entitlement.metered.allowance",
        "rate_cards[3].feature_key",
        "rate_cards[3].price",
        "rate_cards[3].entitlement",
    ]


@pytest.mark.parametrize(
    ("currency", "amount", "fits"),
    [
        ("USD", "20.01", True),
        ("USD", "20.010", True),
        ("USD", "20.001", False),
        ("JPY", "20", True),
        ("JPY", "20.0", True),
        ("JPY", "20.5", False),
        ("BHD", "0.001", True),
        ("USD", "0", True),
        ("USD", "0.00000", True),
        ("USD", "100000000000000000000", True),
    ],
)
def test_a_flat_amount_has_no_more_digits_than_its_currency(
    currency: str, amount: str, *, fits: bool
) -> None:
    card = RateCardDraft("fee", price_kind="flat", price={"amount": amount})
    if fits:
        (made,) = make_plan(PlanDraft("basic", currency=currency, rate_cards=(card,)), {}).rate_cards
        assert isinstance(made.price, FlatPrice)
    else:
        assert card_faults(card, currency=currency) == ["rate_cards[0].price.flat.amount"]


@pytest.mark.parametrize(
    "amount", ["", "-0.01", "NaN", "Infinity", "1e2", "1,5", " 1", "0x1", "٣", "0." + "0" * 12 + "1"]
)
def test_what_is_no_amount_is_refused(amount: str) -> None:
    card = RateCardDraft("use", feature_key="tokens", price_kind="unit", price={"unit_amount": amount})
    assert card_faults(card) == ["rate_cards[0].price.unit.unit_amount"]


@pytest.mark.parametrize("kind", ["boolean", "static", "metered"])
def test_an_entitlement_needs_a_feature(kind: str) -> None:
    card = RateCardDraft("x", template_kind=kind, allowance="1")
    assert card_faults(card) == ["rate_cards[0].feature_key"]


def test_a_plan_names_a_feature_once() -> None:
    cards = (
        RateCardDraft("a", feature_key="sso"),
        RateCardDraft("b", feature_key="sso", template_kind="boolean"),
    )
    assert card_faults(*cards) == ["rate_cards[1].feature_key"]


def test_two_hundred_rate_cards_are_enough() -> None:
    cards = [RateCardDraft(f"card{number}") for number in range(201)]
    assert len(make_plan(PlanDraft("basic", rate_cards=tuple(cards[:200])), {}).rate_cards) == 200
    assert card_faults(*cards) == ["rate_cards"]


def nested(depth: int) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for _ in range(depth):
        config = {"a": config}
    return config


@pytest.mark.parametrize(
    "config",
    [
        {"a": float("nan")},
        {"a": [float("inf")]},
        {"a": "x" * (16 * 1024)},
        {"a": {"b": ["c\0"]}},
        {"\0": 1},
        nested(40),
    ],
)
def test_a_configuration_that_cannot_be_kept_is_refused(config: dict[str, Any]) -> None:
    card = RateCardDraft("x", feature_key="sso", template_kind="static", config=config)
    assert card_faults(card) == ["rate_cards[0].entitlement.static.config"]


def test_a_configuration_may_hold_anything_that_json_can() -> None:
    config = {"a": [1, 1.5, None, True, {"b": "\\u0000 é"}], "": {}}
    assert not check_config("config", config)


@pytest.mark.parametrize(
    ("feature", "expected"),
    [
        (Feature("A", "", "", ()), ["feature_key"]),
        (Feature("a", "x" * 257, "M", ()), ["name", "meter_key"]),
        (Feature("a", "", "", (DimensionFilter("d", ("x",)),)), ["filters"]),
        (Feature("a", "", "m", (DimensionFilter("d", ()),)), ["filters[0].values"]),
        (Feature("a", "", "m", (DimensionFilter("d", ("ok", "\0")),)), ["filters[0].values[1]"]),
        (Feature("a", "", "m", (DimensionFilter("d", ("x",)),) * 2), ["filters[1].dimension"]),
        (Feature("a", "", "m", (DimensionFilter("d", ("x",)),) * 17), ["filters"]),
    ],
)
def test_faults_of_a_feature_are_listed(feature: Feature, expected: list[str]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        check_feature(feature)
    assert [violation.field.removeprefix("feature.") for violation in caught.value.violations] == expected


def price_faults(
    kind: str, price: dict[str, Any], currency: str = "USD", **terms: dict[str, str]
) -> list[str]:
    feature = "" if kind == "flat" else "tokens"
    card = RateCardDraft("x", feature_key=feature, price_kind=kind, price=price, terms=terms)
    return [fault.removeprefix("rate_cards[0].") for fault in card_faults(card, currency=currency)]


def tiered(*tiers: str) -> dict[str, Any]:
    """Tiers as "up_to unit flat", with - for what is left out."""
    names = ("up_to", "unit_amount", "flat_amount")
    return {
        "tiers": [
            {name: part for name, part in zip(names, tier.split(), strict=True) if part != "-"}
            for tier in tiers
        ]
    }


@pytest.mark.parametrize("kind", ["graduated", "volume"])
@pytest.mark.parametrize(
    ("tiers", "expected"),
    [
        ((), ["tiers"]),
        (("10 1 -",), ["tiers[0].up_to"]),
        (("- 1 -", "- 1 -"), ["tiers[0].up_to"]),
        (("10 1 -", "10 1 -", "9.9 1 -", "- 1 -"), ["tiers[1].up_to", "tiers[2].up_to"]),
        (("0 1 -", "- 1 -"), ["tiers[0].up_to"]),
        (("-5 1 -", "- 1 -"), ["tiers[0].up_to"]),
        (("1e3 1 -", "- 1 -"), ["tiers[0].up_to"]),
        (("10 - -", "- 1 -"), ["tiers[0]"]),
        (("10 -1 -", "- 1 -2"), ["tiers[0].unit_amount", "tiers[1].flat_amount"]),
        (("10 0.0001 0.001", "- 1 -"), ["tiers[0].flat_amount"]),
        (("1 1 -",) * 101, ["tiers"]),
    ],
)
def test_faults_of_tiers_are_listed(kind: str, tiers: tuple[str, ...], expected: list[str]) -> None:
    assert price_faults(kind, tiered(*tiers)) == [f"price.{kind}.{fault}" for fault in expected]


def matrix(dimensions: list[str], *cells: list[str], default: str = "1") -> dict[str, Any]:
    named = [{"values": values, "unit_amount": "1"} for values in cells]
    return {"dimensions": dimensions, "cells": named, "default_unit_amount": default}


@pytest.mark.parametrize(
    ("kind", "price", "expected"),
    [
        ("package", {}, ["package_size", "package_amount"]),
        ("package", {"package_size": "0", "package_amount": "-1"}, ["package_size", "package_amount"]),
        ("percentage", {}, ["percentage"]),
        ("percentage", {"percentage": "100.1"}, ["percentage"]),
        ("percentage", {"percentage": "-1", "event_amount": "-1"}, ["percentage", "event_amount"]),
        (
            "percentage",
            {"percentage": "1", "free_amount": "-1", "free_event_count": "-1"},
            ["free_amount", "free_event_count"],
        ),
        ("graduated_percentage", {"tiers": [{"percentage": "101"}]}, ["tiers[0].percentage"]),
        ("graduated_percentage", {"tiers": [{}]}, ["tiers[0]"]),
        ("dynamic", {"multiplier": "-1"}, ["multiplier"]),
        ("matrix", matrix([]), ["dimensions"]),
        ("matrix", matrix(["model", "region", "zone"]), ["dimensions", "dimensions[2]"]),
        ("matrix", matrix(["zone"]), ["dimensions[0]"]),
        ("matrix", matrix(["model", "model"]), ["dimensions[1]"]),
        ("matrix", matrix(["model"], ["a"], ["b"], ["a"]), ["cells[2].values"]),
        ("matrix", matrix(["model"], ["a", "b"], []), ["cells[0].values", "cells[1].values"]),
        ("matrix", matrix(["model"], ["a\0"]), ["cells[0].values[0]"]),
        ("matrix", matrix(["model"], *[[str(n)] for n in range(1001)]), ["cells"]),
        ("matrix", matrix(["model"], default=""), ["default_unit_amount"]),
    ],
)
def test_faults_of_a_price_are_listed(kind: str, price: dict[str, Any], expected: list[str]) -> None:
    assert price_faults(kind, price) == [f"price.{kind}.{fault}" for fault in expected]


UNIT = {"unit_amount": "1"}


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ({"unit_conversion": {}}, ["unit_conversion"]),
        ({"unit_conversion": {"divide_by": "0"}}, ["unit_conversion.divide_by"]),
        ({"unit_conversion": {"multiply_by": "-2"}}, ["unit_conversion.multiply_by"]),
        ({"unit_conversion": {"divide_by": "2", "precision": 1}}, ["unit_conversion.precision"]),
        ({"unit_conversion": {"rounding": "floor", "precision": 13}}, ["unit_conversion.precision"]),
        ({"unit_conversion": {"rounding": "9"}}, ["unit_conversion.rounding"]),
        ({"discounts": {}}, ["discounts"]),
        ({"discounts": {"usage_quantity": "0"}}, ["discounts.usage_quantity"]),
        ({"discounts": {"percentage": "0"}}, ["discounts.percentage"]),
        ({"discounts": {"percentage": "100.5"}}, ["discounts.percentage"]),
        ({"commitments": {}}, ["commitments"]),
        ({"commitments": {"minimum_amount": "1.001"}}, ["commitments.minimum_amount"]),
        ({"commitments": {"maximum_amount": "0"}}, ["commitments.maximum_amount"]),
        ({"commitments": {"minimum_amount": "2", "maximum_amount": "1"}}, ["commitments.minimum_amount"]),
    ],
)
def test_faults_around_a_price_are_listed(terms: dict[str, Any], expected: list[str]) -> None:
    assert price_faults("unit", UNIT, **terms) == expected


AROUND: dict[str, Any] = {
    "unit_conversion": {"divide_by": "1000"},
    "discounts": {"usage_quantity": "5", "percentage": "10"},
    "commitments": {"maximum_amount": "9"},
}


def test_a_flat_price_may_have_a_percentage_discount_and_nothing_else_around_it() -> None:
    wanted = ["unit_conversion", "commitments", "discounts.usage_quantity"]
    assert price_faults("flat", {"amount": "1"}, **AROUND) == wanted
    assert price_faults("", {}, **AROUND) == [*wanted, "discounts.percentage"]
    half = RateCardDraft(
        "x", price_kind="flat", price={"amount": "1"}, terms={"discounts": {"percentage": "50"}}
    )
    assert make_plan(PlanDraft("basic", rate_cards=(half,)), {}).rate_cards[0].terms.discounts


def test_only_a_flat_price_is_billed_in_advance() -> None:
    fee = RateCardDraft("fee", price_kind="flat", price={"amount": "1"}, in_advance=True)
    assert make_plan(PlanDraft("basic", rate_cards=(fee,)), {}).rate_cards[0].in_advance
    usage = RateCardDraft("x", feature_key="tokens", price_kind="unit", price=UNIT, in_advance=True)
    assert card_faults(usage, RateCardDraft("free", in_advance=True)) == [
        "rate_cards[0].in_advance",
        "rate_cards[1].in_advance",
    ]


def test_free_units_of_a_matrix_would_be_nobodys() -> None:
    assert price_faults("matrix", matrix(["model"]), **AROUND) == ["discounts.usage_quantity"]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "flat"])
def test_a_price_by_usage_needs_a_feature_with_a_meter(kind: str) -> None:
    assert "rate_cards[0].feature_key" in card_faults(RateCardDraft("x", price_kind=kind))
    card = RateCardDraft("x", feature_key="sso", price_kind=kind)
    assert "rate_cards[0].feature_key" in card_faults(card)


@pytest.mark.parametrize(("minimum", "fits"), [("100", True), ("0.01", True), ("0", False), ("1.001", False)])
def test_a_plans_minimum_is_an_amount_of_its_currency(minimum: str, *, fits: bool) -> None:
    if fits:
        assert make_plan(PlanDraft("basic", minimum_amount=minimum), {}).minimum_amount == Decimal(minimum)
    else:
        assert faults(PlanDraft("basic", minimum_amount=minimum)) == ["minimum_amount"]


@given(cases(size=0))
def test_a_price_is_read_back_as_it_was_written(case: Case) -> None:
    assert case.card.price is not None
    faults: list[Violation] = []
    form = form_of(case.card.price)
    assert read_price(kind_of(case.card.price), Form("price", form, faults)) == case.card.price
    assert read_terms("card", form_of(case.card.terms), faults) == case.card.terms
    assert not faults
