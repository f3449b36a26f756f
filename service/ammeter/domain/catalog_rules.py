"""What a feature or a plan must be like; every fault is listed with its field path."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, NamedTuple

from ammeter.domain import keys
from ammeter.domain.card_cadence import check_timing
from ammeter.domain.catalog import (
    WHOLE,
    BooleanTemplate,
    DimensionFilter,
    FailMode,
    FailRule,
    Feature,
    MeteredTemplate,
    Phase,
    Plan,
    RateCard,
    StaticTemplate,
    Template,
)
from ammeter.domain.period import parse_cadence
from ammeter.domain.phase_rules import MAX_PHASES, check_phases
from ammeter.domain.price import NO_TERMS, LlmPrice, Price, Terms
from ammeter.domain.price_form import KINDS
from ammeter.domain.price_rules import make_minimum, make_price, make_terms
from ammeter.domain.quantity import parse_decimal
from ammeter.errors import InvalidInputError, Violation

MAX_RATE_CARDS = 200
MAX_FILTERS = 16
MAX_FILTER_VALUES = 1000
MAX_CONFIG_BYTES = 16 * 1024
MAX_CONFIG_DEPTH = 32
DEFAULT_CADENCE = "P1M"

# What a counter can keep for a period (MIN and AVG are no quantity to allow).
FEATURE_AGGREGATIONS = ("SUM", "COUNT", "UNIQUE_COUNT", "LATEST", "MAX")


@dataclass(frozen=True)
class RateCardDraft:
    """A rate card as sent: amounts are text. A kind is "" where none was said, "?" where it was left open.

    `price` holds the fields of that kind of price, `terms` what is around it:
    see price_form.
    """

    rate_card_key: str
    name: str = ""
    feature_key: str = ""
    price_kind: str = ""
    price: Mapping[str, Any] = field(default_factory=dict)
    terms: Mapping[str, Any] = field(default_factory=dict)
    template_kind: str = ""
    allowance: str = ""
    soft_limit: bool = False
    config: dict[str, Any] | None = None
    in_advance: bool = False
    billing_cadence: str = ""
    one_time: bool = False


@dataclass(frozen=True)
class PhaseDraft:
    """A phase as sent."""

    phase_key: str = ""
    name: str = ""
    duration: str = ""
    rate_cards: tuple[RateCardDraft, ...] = ()


@dataclass(frozen=True)
class PlanDraft:
    """A plan as sent: with rate cards, or with phases that have them."""

    plan_key: str
    name: str = ""
    currency: str = ""
    billing_cadence: str = ""
    rate_cards: tuple[RateCardDraft, ...] = ()
    minimum_amount: str = ""
    phases: tuple[PhaseDraft, ...] = ()


def read_fail(path: str, mode: FailMode, allowance: str, faults: list[Violation]) -> FailRule:
    """Read a fail mode as sent; adds what is wrong to `faults`."""
    field = f"{path}.fail_allowance"
    if mode is not FailMode.OPEN_WITHIN:
        if allowance:
            faults.append(Violation(field, "is for FAIL_MODE_OPEN_WITHIN only: leave it out"))
        return FailRule(mode)
    if not allowance:
        faults.append(Violation(field, "is required: how much may be used without an answer?"))
        return FailRule(mode)
    amount = _amount(field, allowance, faults)
    if not amount and not any(fault.field == field for fault in faults):
        faults.append(Violation(field, "must be above zero: FAIL_MODE_CLOSED allows nothing"))
    return FailRule(mode, amount)


def check_fail(feature: Feature) -> Iterator[Violation]:
    """Check what a fail mode asks of its feature."""
    if feature.fail.mode is FailMode.OPEN_WITHIN and not feature.meter_key:
        why = "FAIL_MODE_OPEN_WITHIN needs a meter: without one there is no amount to stay within"
        yield Violation("feature.fail_mode", why)


def check_feature(feature: Feature, faults: Sequence[Violation] = ()) -> None:
    """Refuse a feature that cannot be, whatever its meter; raises InvalidInputError.

    `faults` were found in reading it.
    """
    violations = [
        *faults,
        *check_fail(feature),
        *keys.catalog_key("feature.feature_key", feature.feature_key),
        *keys.text("feature.name", feature.name),
        *(keys.catalog_key("feature.meter_key", feature.meter_key) if feature.meter_key else ()),
        *_check_filters(feature),
    ]
    if violations:
        raise InvalidInputError(violations)


def _check_filters(feature: Feature) -> Iterator[Violation]:
    if feature.filters and not feature.meter_key:
        yield Violation("feature.filters", "need a meter: set meter_key, or leave the filters out")
    if len(feature.filters) > MAX_FILTERS:
        yield Violation("feature.filters", f"must be at most {MAX_FILTERS}")
        return
    seen: set[str] = set()
    for index, dimension_filter in enumerate(feature.filters):
        path = f"feature.filters[{index}]"
        if dimension_filter.dimension in seen:
            yield Violation(f"{path}.dimension", "is filtered twice: put all its values into one filter")
        seen.add(dimension_filter.dimension)
        yield from _check_values(f"{path}.values", dimension_filter)


def _check_values(path: str, dimension_filter: DimensionFilter) -> Iterator[Violation]:
    if not 1 <= len(dimension_filter.values) <= MAX_FILTER_VALUES:
        yield Violation(path, f"must be 1-{MAX_FILTER_VALUES} values")
        return
    for index, value in enumerate(dimension_filter.values):
        yield from keys.text(f"{path}[{index}]", value)


def check_feature_meter(feature: Feature, aggregation: str, dimensions: Sequence[str]) -> None:
    """Refuse a feature that its meter cannot back; raises InvalidInputError."""
    violations = [
        Violation(
            f"feature.filters[{index}].dimension",
            f"is no dimension of meter {feature.meter_key!r}: add it there",
        )
        for index, dimension_filter in enumerate(feature.filters)
        if dimension_filter.dimension not in dimensions
    ]
    if aggregation not in FEATURE_AGGREGATIONS:
        why = f"aggregates by {aggregation}, no quantity to sell: use {', '.join(FEATURE_AGGREGATIONS)}"
        violations.insert(0, Violation("feature.meter_key", why))
    if violations:
        raise InvalidInputError(violations)


# Of each feature that exists: the dimensions of its meter; None if it has none.
Metered = Mapping[str, Sequence[str] | None]


class Sources(NamedTuple):
    """What prices from price lists refer to: currencies by list, and features whose usage adds up."""

    currencies: Mapping[str, str]
    additive: Collection[str]


NO_SOURCES = Sources({}, ())


def make_plan(draft: PlanDraft, metered: Metered, sources: Sources = NO_SOURCES) -> Plan:
    """Turn a draft into a plan; raises InvalidInputError with every fault."""
    plan, violations = check_plan(draft, metered, sources)
    if violations:
        raise InvalidInputError(violations)
    return plan


def check_plan(
    draft: PlanDraft, metered: Metered, sources: Sources = NO_SOURCES
) -> tuple[Plan, list[Violation]]:
    """Turn a draft into a plan, with something harmless in place of each fault; lists them all."""
    violations: list[Violation] = []
    currency = draft.currency or keys.DEFAULT_CURRENCY
    cadence = draft.billing_cadence or DEFAULT_CADENCE
    violations += keys.catalog_key("plan.plan_key", draft.plan_key)
    violations += keys.text("plan.name", draft.name)
    violations += keys.currency("plan.currency", currency)
    violations += _check_cadence(cadence)
    minimum = make_minimum("plan", draft.minimum_amount, currency, violations)
    if draft.phases and draft.rate_cards:
        violations.append(Violation("plan.rate_cards", "go without phases: move them into a phase"))
    phases = tuple(Phase(one.phase_key, one.name, one.duration) for one in draft.phases)
    violations += check_phases(phases)
    cards: list[RateCard] = []
    for number, (path, drafts) in enumerate(_cards_by_phase(draft)):
        if len(drafts) > MAX_RATE_CARDS:
            violations.append(Violation(path, f"must be at most {MAX_RATE_CARDS}"))
            continue
        violations += _check_unique(path, drafts)
        for index, one in enumerate(drafts):
            card = _make_card(f"{path}[{index}]", one, currency, metered, violations)
            violations += _check_sources(f"{path}[{index}]", card, currency, sources)
            violations += check_timing(f"{path}[{index}]", card, one.price_kind, cadence)
            cards.append(replace(card, phase=number))
    plan = Plan(
        draft.plan_key,
        draft.name,
        currency,
        cadence,
        tuple(cards),
        minimum_amount=minimum,
        phases=phases or (WHOLE,),
    )
    return plan, violations


def cards_of(draft: PlanDraft) -> list[RateCardDraft]:
    """List the rate cards of all phases."""
    return [card for _, cards in _cards_by_phase(draft) for card in cards]


def _cards_by_phase(draft: PlanDraft) -> list[tuple[str, tuple[RateCardDraft, ...]]]:
    """List (path, rate cards) of each phase."""
    phases = [
        (f"plan.phases[{number}].rate_cards", phase.rate_cards)
        for number, phase in enumerate(draft.phases[:MAX_PHASES])
    ]
    return phases or [("plan.rate_cards", draft.rate_cards)]


def _check_cadence(cadence: str) -> list[Violation]:
    try:
        parse_cadence(cadence)
    except ValueError as error:
        return [Violation("plan.billing_cadence", str(error)[: keys.MAX_TEXT])]
    return []


def _check_unique(path: str, cards: Sequence[RateCardDraft]) -> Iterator[Violation]:
    names: dict[tuple[str, str], int] = {}
    for index, card in enumerate(cards):
        for name in ("rate_card_key", "feature_key"):
            key = (name, getattr(card, name))
            if key[1] and names.setdefault(key, index) != index:
                why = f"is that of {path}[{names[key]}], too: each may occur once in a plan or phase"
                yield Violation(f"{path}[{index}].{name}", why)


def _make_card(
    path: str, card: RateCardDraft, currency: str, metered: Metered, violations: list[Violation]
) -> RateCard:
    """Make a rate card; adds to `violations` what is wrong with it."""
    violations += keys.catalog_key(f"{path}.rate_card_key", card.rate_card_key)
    violations += keys.text(f"{path}.name", card.name)
    violations += _check_feature_use(path, card, metered)
    if card.in_advance and card.price_kind != "flat":
        why = "goes with a flat price only: usage is billed when it is known"
        violations.append(Violation(f"{path}.in_advance", why))
    price, terms = _make_price(path, card, currency, metered, violations)
    template = _make_template(f"{path}.entitlement", card, violations)
    return RateCard(
        card.rate_card_key,
        card.name,
        card.feature_key,
        price,
        template,
        terms=terms,
        in_advance=card.in_advance,
        billing_cadence=card.billing_cadence,
        one_time=card.one_time,
    )


def _check_feature_use(path: str, card: RateCardDraft, metered: Metered) -> Iterator[Violation]:
    field = f"{path}.feature_key"
    needs_meter = [
        what
        for what, needed in (
            (f"a {card.price_kind} price", card.price_kind in KINDS and card.price_kind != "flat"),
            ("a metered entitlement", card.template_kind == "metered"),
        )
        if needed
    ]
    if not card.feature_key:
        if needs_meter or card.template_kind:
            yield Violation(field, "is required for a price by usage and for an entitlement")
    elif card.feature_key not in metered:
        yield Violation(field, "names no feature: create it first, or mend the key")
    elif needs_meter and metered[card.feature_key] is None:
        yield Violation(field, f"names a feature without a meter, which {' and '.join(needs_meter)} needs")


def _make_price(
    path: str, card: RateCardDraft, currency: str, metered: Metered, violations: list[Violation]
) -> tuple[Price | None, Terms]:
    price = None
    if card.price_kind in KINDS:
        dimensions = metered.get(card.feature_key)
        price = make_price(f"{path}.price", card.price_kind, card.price, currency, dimensions, violations)
    elif card.price_kind:
        why = f"must be one of {', '.join(KINDS)}: leave price out to charge nothing"
        violations.append(Violation(f"{path}.price", why))
        return None, NO_TERMS
    return price, make_terms(path, card.terms, price, currency, violations)


def _check_sources(path: str, card: RateCard, currency: str, sources: Sources) -> Iterator[Violation]:
    if not isinstance(card.price, LlmPrice):
        return
    field = f"{path}.price.llm.price_list_key"
    theirs = sources.currencies.get(card.price.price_list_key)
    if theirs is None:
        yield Violation(field, "names no price list: create it first, or mend the key")
    elif theirs != currency:
        yield Violation(field, f"names a price list in {theirs}, the plan is in {currency}: choose another")
    if card.feature_key and card.feature_key not in sources.additive:
        why = "names a feature whose usage does not add up, so that no price of a time can be of a part of it"
        yield Violation(f"{path}.feature_key", f"{why}: use a meter that aggregates by SUM or COUNT")


def _make_template(path: str, card: RateCardDraft, violations: list[Violation]) -> Template | None:
    if card.template_kind == "boolean":
        return BooleanTemplate()
    if card.template_kind == "static":
        config = card.config or {}
        violations += check_config(f"{path}.static.config", config)
        return StaticTemplate(config)
    if card.template_kind == "metered":
        allowance = _amount(f"{path}.metered.allowance", card.allowance, violations)
        return MeteredTemplate(allowance, card.soft_limit)
    if card.template_kind:
        violations.append(
            Violation(path, "must be boolean, static or metered: leave entitlement out for none")
        )
    return None


def _amount(field: str, text: str, violations: list[Violation]) -> Decimal:
    """Read an amount that is not negative; 0 when it is faulty."""
    try:
        amount = parse_decimal(text, field)
    except InvalidInputError as error:
        violations += error.violations
        return Decimal(0)
    if amount < 0:
        violations.append(Violation(field, "must not be negative"))
    return amount.copy_abs()


def check_config(field: str, config: dict[str, Any]) -> list[Violation]:
    """Check a static configuration: what JSON and Postgres can hold, and not too much of it."""
    if _depth(config) > MAX_CONFIG_DEPTH:
        return [Violation(field, f"is nested more than {MAX_CONFIG_DEPTH} deep: flatten it")]
    try:
        encoded = json.dumps(config, allow_nan=False, ensure_ascii=False)
    except ValueError:
        return [Violation(field, "holds a number that JSON cannot: no NaN and no infinity")]
    if len(encoded.encode()) > MAX_CONFIG_BYTES:
        return [
            Violation(field, f"is more than {MAX_CONFIG_BYTES} bytes of JSON: hand out a reference instead")
        ]
    if any("\0" in text for text in _texts(config)):
        return [Violation(field, "must not contain NUL (U+0000): remove it")]
    return []


def _depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
