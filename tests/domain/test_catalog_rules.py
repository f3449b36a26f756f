"""What a feature or a plan must be like."""

from typing import Any

import pytest

from ammeter.domain.catalog import DimensionFilter, Feature, FlatPrice
from ammeter.domain.catalog_rules import PlanDraft, RateCardDraft, check_config, check_feature, make_plan
from ammeter.errors import InvalidInputError

FEATURES = {"tokens": True, "sso": False}


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
        RateCardDraft("Bad Key", "x" * 257, "nothing", "flat", "20.001"),
        RateCardDraft("a", feature_key="sso", price_kind="unit", price="-1"),
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
    card = RateCardDraft("fee", price_kind="flat", price=amount)
    if fits:
        (made,) = make_plan(PlanDraft("basic", currency=currency, rate_cards=(card,)), {}).rate_cards
        assert isinstance(made.price, FlatPrice)
    else:
        assert card_faults(card, currency=currency) == ["rate_cards[0].price.flat.amount"]


@pytest.mark.parametrize(
    "amount", ["", "-0.01", "NaN", "Infinity", "1e2", "1,5", " 1", "0x1", "٣", "0." + "0" * 12 + "1"]
)
def test_what_is_no_amount_is_refused(amount: str) -> None:
    card = RateCardDraft("use", feature_key="tokens", price_kind="unit", price=amount)
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
