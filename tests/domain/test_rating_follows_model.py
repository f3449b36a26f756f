"""Whatever is sold and used, it costs what the slow model says, in one go or in slices."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from ammeter.domain.invoice import Billed, Slot, usage_line
from ammeter.domain.period import Period
from ammeter.domain.price import VolumePrice
from ammeter.domain.pricing import Detail, Usage, rate
from ammeter.domain.subscription import Subscription
from tests import model
from tests.crash.results import publish
from tests.domain.priced_cards import Case, cases

START = datetime(2026, 1, 1, tzinfo=UTC)
SUB = Subscription("sub_1", 1, "acme", 1, "pro", START, None, START, "UTC", "P1M", "USD", START)
MONTH = Period(0, START, START + timedelta(days=31), 31 * 86_400)
NEXT = Period(1, MONTH.end, MONTH.end + timedelta(days=28), 28 * 86_400)
PAIRS = 10

quick = settings(max_examples=500, suppress_health_check=[HealthCheck.too_slow])
thorough = settings(max_examples=10_000, suppress_health_check=[HealthCheck.too_slow])


def wanted(case: Case, usage: Usage, *, last: bool = True) -> Fraction:
    groups = {values: Fraction(quantity) for values, quantity in usage.groups.items()}
    return model.rated(
        case.form, Fraction(usage.quantity), usage.event_count, groups, case.exponent, last=last
    )


def check_details(details: tuple[Detail, ...], amount: Decimal, exponent: int) -> None:
    assert sum((Fraction(one.amount) for one in details), Fraction()) == Fraction(amount)
    for one in (*details, Detail("", None, None, amount)):
        assert one.amount.as_tuple().exponent == -exponent
        assert one.amount or not one.amount.is_signed()


def check_slices(case: Case) -> None:
    """Each usage in turn is all there is of one period; a line adds what the price of all of it grew by."""
    billed = Billed()
    for number, usage in enumerate(case.usages):
        whole = rate(case.card.price, case.card.terms, usage, MONTH, case.exponent)  # type: ignore[arg-type]
        assert Fraction(whole.amount) == wanted(case, usage)
        check_details(whole.details, whole.amount, case.exponent)
        carrier = Slot(NEXT, number) if number else None
        line = usage_line(
            SUB, case.card, MONTH, usage, number, billed=billed, exponent=case.exponent, carrier=carrier
        )
        check_details(line.details, line.amount, case.exponent)
        billed = Billed(billed.quantity + line.quantity, billed.amount + line.amount)
        assert (billed.quantity, Fraction(billed.amount)) == (usage.quantity, wanted(case, usage))


def check_progress(case: Case) -> None:
    """Before a period's last slice its minimum is not due; a volume price cannot be cut at all."""
    price, usage = case.card.price, case.usages[0]
    assert price is not None
    if isinstance(price, VolumePrice):
        with pytest.raises(ValueError, match="volume"):
            rate(price, case.card.terms, usage, MONTH, case.exponent, last=False)
    else:
        so_far = rate(price, case.card.terms, usage, MONTH, case.exponent, last=False)
        assert Fraction(so_far.amount) == wanted(case, usage, last=False)


@pytest.mark.timeout(300)
@quick
@given(cases(size=PAIRS))
def test_five_thousand_pairs_of_rate_card_and_usage_cost_what_the_model_says(case: Case) -> None:
    check_slices(case)
    check_progress(case)


@pytest.mark.long
def test_a_hundred_thousand_pairs_of_rate_card_and_usage_cost_what_the_model_says(rng: random.Random) -> None:
    kinds: Counter[str] = Counter()
    number = rng.getrandbits(32)

    @seed(number)
    @thorough
    @given(cases(size=PAIRS))
    def compare(case: Case) -> None:
        check_slices(case)
        check_progress(case)
        kinds.update({next(iter(case.form["price"])): len(case.usages)})

    compare()
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    publish(
        "prices",
        f"{kinds.total()} random pairs of rate card and usage cost what the model of exact rationals says, "
        f"each also as a slice after the ones before; no difference. By price: {told}. "
        f"Hypothesis seed {number}.",
    )


BIG = st.decimals(
    min_value=-(10**26) + 1, max_value=10**26 - 1, places=12, allow_nan=False, allow_infinity=False
)


@given(cases(size=1), BIG)
def test_quantities_of_38_digits_lose_none(case: Case, quantity: Decimal) -> None:
    ((kind, _),) = case.form["price"].items()
    if kind not in {"package", "matrix"}:  # the model counts packages one by one
        usage = Usage(quantity, 1)
        found = rate(case.card.price, case.card.terms, usage, MONTH, case.exponent)  # type: ignore[arg-type]
        assert Fraction(found.amount) == wanted(case, usage)
        check_details(found.details, found.amount, case.exponent)
