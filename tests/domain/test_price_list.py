"""A use costs what its model cost when it happened, whatever the list says before and after."""

import random
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from ammeter.domain.catalog import RateCard
from ammeter.domain.catalog_rules import PlanDraft, RateCardDraft, Sources, make_plan
from ammeter.domain.price import LlmPrice
from ammeter.domain.price_list import Entry, Layer, book_of, cuts, holding, parts_of
from ammeter.domain.pricing import Usage, rate, unpriced_models
from ammeter.errors import InvalidInputError
from tests import model
from tests.crash.results import publish
from tests.domain.priced_cards import CURRENCIES, decimals, draft, optional, prices, quantities, terms
from tests.domain.test_rating_follows_model import MONTH, check_details

MODELS = ("", "a", "b", "c")
MINUTES = range(40, 100)
Use = tuple[int, str, str]


class Case(NamedTuple):
    exponent: int
    form: dict[str, Any]
    card: RateCard
    entries: list[Entry]
    uses: list[Use]


def make(form: dict[str, Any], currency: str = "USD") -> RateCard:
    plan = PlanDraft("plan", currency=currency, rate_cards=(draft(form),))
    sources = Sources({"list": currency}, {"feature"})
    return make_plan(plan, {"feature": ("model", "region")}, sources).rate_cards[0]


@st.composite
def llm_prices(draw: st.DrawFn) -> dict[str, Any]:
    margin = draw(
        st.one_of(
            st.just({}), optional(margin_percentage=decimals(300, 3)), optional(margin_amount=decimals(1, 12))
        )
    )
    own = draw(st.dictionaries(st.sampled_from(MODELS[1:]), prices, max_size=2))
    found: dict[str, Any] = (
        {"price_list_key": "list", "token_type": "input"}
        | margin
        | draw(optional(default_unit_amount=prices))
    )
    if own:
        found["overrides"] = [{"model": name, "unit_amount": amount} for name, amount in own.items()]
    return {"llm": found}


entries = st.dictionaries(
    st.tuples(st.sampled_from(MODELS[1:]), st.integers(0, 120), st.sampled_from(Layer)),
    st.one_of(st.none(), st.sampled_from(["0", "1", "0.25"]), prices),
    max_size=12,
)
uses = st.lists(st.tuples(st.sampled_from(MINUTES), st.sampled_from(MODELS), quantities), max_size=20)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    exponent = draw(st.sampled_from([2, 0, 3]))
    form = {"price": draw(llm_prices())} | draw(terms(exponent, "llm"))
    listed = [
        Entry(name, "input", minute, None if amount is None else Decimal(amount), layer)
        for (name, minute, layer), amount in draw(entries).items()
    ]
    return Case(exponent, form, make(form, CURRENCIES[exponent]), listed, draw(uses))


def metered(card: RateCard, listed: Sequence[Entry], used: Sequence[Use]) -> Usage:
    """Measure as billing does: in windows, by model, cut where any price changes."""
    price, book = card.price, book_of(listed)
    assert isinstance(price, LlmPrice)
    edges = sorted({MINUTES.start, MINUTES.stop} | cuts(price, book, MINUTES.start, MINUTES.stop))
    windows = []
    for first, last in pairwise(edges):
        there = [(name, Decimal(amount)) for minute, name, amount in used if first <= minute < last]
        groups: dict[tuple[str, ...], Decimal] = {}
        for name, amount in there:
            groups[name,] = groups.get((name,), Decimal(0)) + amount
        windows.append((first, Usage(sum((a for _, a in there), Decimal(0)), len(there), groups)))
    return parts_of(price, book, windows)


def in_model(found: Sequence[Entry]) -> list[model.ListedPrice]:
    return [
        model.ListedPrice(
            one.model,
            one.effective_minute,
            None if one.unit_amount is None else Fraction(one.unit_amount),
            one.layer is Layer.OVERRIDE,
        )
        for one in found
    ]


def check(case: Case) -> None:
    usage = metered(case.card, case.entries, case.uses)
    price = case.card.price
    assert price is not None
    found = rate(price, case.card.terms, usage, MONTH, case.exponent)
    listed = in_model(case.entries)
    used = [(minute, name, Fraction(amount)) for minute, name, amount in case.uses]
    amount, unpriced = model.llm_rated(case.form, listed, used, MINUTES, case.exponent)
    assert Fraction(found.amount) == amount
    assert set(unpriced_models(usage)) == unpriced
    assert usage.quantity == sum((Decimal(q) for _, _, q in case.uses), Decimal(0))
    check_details(found.details, found.amount, case.exponent)


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(cases())
def test_what_is_used_costs_what_the_model_says(case: Case) -> None:
    check(case)


@pytest.mark.long
def test_twenty_thousand_price_lists_and_uses_of_them_cost_what_the_model_says(rng: random.Random) -> None:
    uses_in_all = Counter[str]()
    number = rng.getrandbits(32)

    @seed(number)
    @settings(max_examples=20_000, suppress_health_check=[HealthCheck.too_slow])
    @given(cases())
    def compare(case: Case) -> None:
        check(case)
        uses_in_all.update({"uses": len(case.uses), "lists": 1})

    compare()
    publish(
        "price-lists",
        f"{uses_in_all['lists']} random price lists and rate cards, {uses_in_all['uses']} uses: "
        f"each costs what the model says that walks minute by minute; no difference. "
        f"Hypothesis seed {number}.",
    )


@given(cases(), entries)
def test_what_holds_after_the_last_use_changes_nothing(case: Case, later: dict[Any, Any]) -> None:
    after = [
        Entry(name, "input", minute + MINUTES.stop, amount and Decimal(amount), layer)
        for (name, minute, layer), amount in later.items()
    ]
    assert metered(case.card, case.entries, case.uses) == metered(
        case.card, [e for e in case.entries if e.effective_minute < MINUTES.stop] + after, case.uses
    )


@given(cases(), st.integers(0, 130))
def test_what_holds_at_a_time_is_what_a_use_then_would_cost(case: Case, minute: int) -> None:
    held = {entry.model: entry.unit_amount for entry in holding(case.entries, minute)}
    listed = in_model(case.entries)
    for name in MODELS:
        assert model.listed_at(listed, name, minute) == held.get(name)


def explain(form: dict[str, Any], listed: Sequence[Entry], used: Sequence[Use]) -> list[tuple[str, str]]:
    card = make({"price": {"llm": {"price_list_key": "list", "token_type": "input"} | form}})
    assert card.price is not None
    rated = rate(card.price, card.terms, metered(card, listed, used), MONTH, 2)
    return [(one.description, str(one.amount)) for one in rated.details]


def test_details_say_which_price_it_was_and_how_it_came_about() -> None:
    listed = [
        Entry("a", "input", 0, Decimal("0.1")),
        Entry("a", "input", 60, Decimal("0.2")),
        Entry("b", "input", 0, Decimal(5)),
    ]
    used = [(50, "a", "10"), (60, "a", "10"), (70, "b", "1"), (70, "c", "2")]
    assert explain(
        {"margin_percentage": "20", "overrides": [{"model": "b", "unit_amount": "4"}]}, listed, used
    ) == [
        ("model 'a', 0.1 and 20 percent", "1.20"),
        ("model 'a' from 1970-01-01 01:00 UTC, 0.2 and 20 percent", "2.40"),
        ("model 'b', own price", "4.00"),
        ("model 'c', no price", "0.00"),
    ]
    assert explain({"margin_amount": "0.05", "default_unit_amount": "7"}, listed, used[2:]) == [
        ("model 'b', 5 and 0.05", "5.05"),
        ("model 'c', default", "14.00"),
    ]


@pytest.mark.parametrize(
    ("changed", "sources", "field"),
    [
        ({"price_list_key": "other"}, Sources({"list": "USD"}, {"feature"}), "price.llm.price_list_key"),
        ({}, Sources({"list": "EUR"}, {"feature"}), "price.llm.price_list_key"),
        ({"price_list_key": ""}, Sources({"": "USD"}, {"feature"}), "price.llm.price_list_key"),
        ({}, Sources({"list": "USD"}, ()), "feature_key"),
        ({"token_type": "In Put"}, Sources({"list": "USD"}, {"feature"}), "price.llm.token_type"),
        ({"model_dimension": "m"}, Sources({"list": "USD"}, {"feature"}), "price.llm.model_dimension"),
        (
            {"margin_percentage": "1000001"},
            Sources({"list": "USD"}, {"feature"}),
            "price.llm.margin_percentage",
        ),
        ({"margin_amount": "-1"}, Sources({"list": "USD"}, {"feature"}), "price.llm.margin_amount"),
        (
            {"overrides": [{"model": "a", "unit_amount": "1"}, {"model": "a", "unit_amount": "2"}]},
            Sources({"list": "USD"}, {"feature"}),
            "price.llm.overrides[1].model",
        ),
        (
            {"overrides": [{"model": "", "unit_amount": "1"}]},
            Sources({"list": "USD"}, {"feature"}),
            "price.llm.overrides[0].model",
        ),
        (
            {"default_unit_amount": "x"},
            Sources({"list": "USD"}, {"feature"}),
            "price.llm.default_unit_amount",
        ),
    ],
)
def test_a_rate_card_that_cannot_be_priced_is_refused(
    changed: dict[str, Any], sources: Sources, field: str
) -> None:
    price = {"price_list_key": "list", "token_type": "input"} | changed
    card = RateCardDraft("card", "", "feature", "llm", price)
    with pytest.raises(InvalidInputError) as refused:
        make_plan(PlanDraft("plan", rate_cards=(card,)), {"feature": ("model",)}, sources)
    assert [one.field for one in refused.value.violations] == [f"plan.rate_cards[0].{field}"]


def test_free_units_do_not_go_with_a_price_list() -> None:
    price = {"price_list_key": "list", "token_type": "input"}
    with pytest.raises(InvalidInputError) as refused:
        make({"price": {"llm": price}, "discounts": {"usage_quantity": "1"}})
    assert refused.value.violations[0].field == "plan.rate_cards[0].discounts.usage_quantity"
