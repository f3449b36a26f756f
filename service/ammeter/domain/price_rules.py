"""What a price and its terms must be like beyond single fields; every fault is listed with its path."""

from collections.abc import Iterator, Sequence
from decimal import Decimal

from ammeter.domain import keys
from ammeter.domain import price as p
from ammeter.domain.money import currency_exponent
from ammeter.domain.price_form import Fields, Form, kind_of, read_price, read_terms
from ammeter.domain.quantity import decimal_text
from ammeter.errors import Violation

MAX_DIMENSIONS = 2
MAX_MARGIN = 1_000_000


def make_price(
    path: str,
    kind: str,
    form: Fields,
    currency: str,
    dimensions: Sequence[str] | None,
    faults: list[Violation],
) -> p.Price:
    """Read and check a price. `dimensions` are those of the feature's meter, None if it has none."""
    mine = f"{path}.{kind}"
    price = read_price(kind, Form(mine, form, faults))
    unreadable = {fault.field for fault in faults}
    faults += [fault for fault in _check(mine, price, currency, dimensions) if fault.field not in unreadable]
    return price


def _check(path: str, price: p.Price, currency: str, dimensions: Sequence[str] | None) -> Iterator[Violation]:
    if isinstance(price, p.FlatPrice):
        yield from _digits(f"{path}.amount", price.amount, currency)
    elif isinstance(price, p.GraduatedPrice | p.VolumePrice | p.GraduatedPercentagePrice):
        yield from _check_tiers(path, price.tiers, currency)
    elif isinstance(price, p.MatrixPrice):
        yield from _check_dimensions(f"{path}.dimensions", price.dimensions, dimensions)
        yield from _check_cells(f"{path}.cells", price)
    elif isinstance(price, p.LlmPrice):
        yield from _check_llm(path, price, dimensions)


def _check_tiers(path: str, tiers: Sequence[p.Tier | p.PercentageTier], currency: str) -> Iterator[Violation]:
    if not tiers:
        yield Violation(f"{path}.tiers", "must be at least one: the last has no up_to")
    before: Decimal | None = None
    for index, tier in enumerate(tiers):
        here = f"{path}.tiers[{index}]"
        last = index == len(tiers) - 1
        if last and tier.up_to is not None:
            yield Violation(f"{here}.up_to", "must be left out in the last tier, so that it has no end")
        if not last and tier.up_to is None:
            yield Violation(f"{here}.up_to", "is needed in every tier but the last")
        if before is not None and tier.up_to is not None and tier.up_to <= before:
            why = f"must be more than {decimal_text(before)}, where the tier before ends"
            yield Violation(f"{here}.up_to", why)
        before = before if tier.up_to is None else tier.up_to
        per_unit = tier.unit_amount if isinstance(tier, p.Tier) else tier.percentage
        if per_unit is None and tier.flat_amount is None:
            name = "unit_amount" if isinstance(tier, p.Tier) else "percentage"
            yield Violation(here, f'needs {name} or flat_amount or both: write "0" for a free tier')
        if tier.flat_amount is not None:
            yield from _digits(f"{here}.flat_amount", tier.flat_amount, currency)


def _check_dimensions(path: str, wanted: Sequence[str], known: Sequence[str] | None) -> Iterator[Violation]:
    if not 1 <= len(wanted) <= MAX_DIMENSIONS:
        yield Violation(path, f"must be 1-{MAX_DIMENSIONS} dimensions of the feature's meter")
    for index, name in enumerate(wanted):
        if name in wanted[:index]:
            yield Violation(f"{path}[{index}]", "is named twice")
        elif known is not None and name not in known:
            yield Violation(f"{path}[{index}]", "is no dimension of the feature's meter: add it there")


def _check_cells(path: str, price: p.MatrixPrice) -> Iterator[Violation]:
    seen: dict[tuple[str, ...], int] = {}
    for index, cell in enumerate(price.cells):
        here = f"{path}[{index}].values"
        if len(cell.values) != len(price.dimensions):
            yield Violation(here, f"must be {len(price.dimensions)}, one for each dimension")
        first = seen.setdefault(cell.values, index)
        if first != index:
            yield Violation(here, f"are those of {path}[{first}], too: each may occur once")
        for place, value in enumerate(cell.values):
            yield from keys.text(f"{here}[{place}]", value)


def _check_llm(path: str, price: p.LlmPrice, dimensions: Sequence[str] | None) -> Iterator[Violation]:
    yield from keys.catalog_key(f"{path}.price_list_key", price.price_list_key)
    yield from keys.catalog_key(f"{path}.token_type", price.token_type)
    if dimensions is not None and price.model_dimension not in dimensions:
        yield Violation(f"{path}.model_dimension", "is no dimension of the feature's meter: add it there")
    if price.margin_percentage is not None and price.margin_percentage > MAX_MARGIN:
        yield Violation(f"{path}.margin_percentage", f"must be at most {MAX_MARGIN} percent")
    seen: dict[str, int] = {}
    for index, override in enumerate(price.overrides):
        here = f"{path}.overrides[{index}].model"
        if not override.model:
            yield Violation(here, "is needed: the name that events carry")
        first = seen.setdefault(override.model, index)
        if first != index:
            yield Violation(here, f"is that of {path}.overrides[{first}], too: each may occur once")
        yield from keys.text(here, override.model)


def make_terms(
    path: str, form: Fields, price: p.Price | None, currency: str, faults: list[Violation]
) -> p.Terms:
    """Read and check what a rate card says around its price; `price` is None without a readable one."""
    unreadable: list[Violation] = []
    terms = read_terms(path, form, unreadable)
    faults += [*unreadable, *_check_use(path, terms, price)]
    if unreadable:
        return terms
    if terms.unit_conversion:
        faults += _check_conversion(f"{path}.unit_conversion", terms.unit_conversion)
    if terms.discounts == p.Discounts():
        faults.append(Violation(f"{path}.discounts", "is empty: leave it out, or give a discount"))
    if terms.commitments:
        faults += _check_commitments(f"{path}.commitments", terms.commitments, currency)
    return terms


def _check_use(path: str, terms: p.Terms, price: p.Price | None) -> Iterator[Violation]:
    """Say which terms do not go with the price."""
    discounts = terms.discounts
    by_usage = price is not None and not isinstance(price, p.FlatPrice)
    needs = "needs a price by usage" if price is None else "does not go with a flat price: leave it out"
    if terms.unit_conversion and not by_usage:
        yield Violation(f"{path}.unit_conversion", needs)
    if terms.commitments and not by_usage:
        yield Violation(f"{path}.commitments", needs)
    if discounts and discounts.usage_quantity and not by_usage:
        yield Violation(f"{path}.discounts.usage_quantity", needs)
    if discounts and discounts.usage_quantity and isinstance(price, p.MatrixPrice | p.LlmPrice):
        why = f"does not go with a {kind_of(price)} price: it could not be said whose units are free"
        yield Violation(f"{path}.discounts.usage_quantity", why)
    if discounts and discounts.percentage and price is None:
        yield Violation(f"{path}.discounts.percentage", "needs a price")


def _check_conversion(path: str, conversion: p.UnitConversion) -> Iterator[Violation]:
    if conversion.multiply_by is None and conversion.divide_by is None and conversion.rounding is None:
        yield Violation(path, "is empty: leave it out, or give a factor")
    if conversion.precision and conversion.rounding is None:
        yield Violation(f"{path}.precision", "needs rounding: leave it out, or say how to round")


def _check_commitments(path: str, commitments: p.Commitments, currency: str) -> Iterator[Violation]:
    minimum, maximum = commitments.minimum_amount, commitments.maximum_amount
    if minimum is None and maximum is None:
        yield Violation(path, "is empty: leave it out, or give a minimum or maximum")
    if minimum is not None:
        yield from _digits(f"{path}.minimum_amount", minimum, currency)
    if maximum is not None:
        yield from _digits(f"{path}.maximum_amount", maximum, currency)
    if minimum is not None and maximum is not None and minimum > maximum:
        yield Violation(f"{path}.minimum_amount", "must not be more than the maximum")


def make_minimum(path: str, text: str, currency: str, faults: list[Violation]) -> Decimal | None:
    """Read what a plan costs at least in a period; None where nothing is said."""
    form = Form(path, {"minimum_amount": text}, [])
    minimum = form.optional("minimum_amount", zero=False)
    faults += form.faults
    if minimum is not None:
        faults += _digits(f"{path}.minimum_amount", minimum, currency)
    return minimum


def _digits(field: str, amount: Decimal, currency: str) -> Iterator[Violation]:
    """Refuse digits that the currency has not."""
    try:
        exponent = currency_exponent(currency)
    except ValueError:
        return  # said of the currency already
    if len(decimal_text(amount).partition(".")[2]) > exponent:
        why = f"has more digits after the point than the {exponent} of {currency}: round it"
        yield Violation(field, why)
