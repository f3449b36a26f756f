# ruff: noqa: E501 - lines of the page are as long as a page's
"""Plays one invoice from event to total, and writes docs/amount.md from what came out.

`python -m tests.scenarios.amount` writes the page; a test compares it.
"""

import json
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

from ammeter.domain.catalog_rules import RateCardDraft
from ammeter.domain.credit_lot import LotDraft, LotKind
from ammeter.domain.invoice import Invoice, InvoiceLine
from ammeter.domain.minute import minute_of
from ammeter.domain.money import add
from ammeter.domain.profile import BillingProfile, TaxRule
from ammeter.domain.quantity import decimal_text, from_scaled
from ammeter.domain.tax import TaxRate
from ammeter.store import meters
from ammeter.store.embedded import EmbeddedPostgres
from ammeter.store.migrate import migrate
from ammeter.usecases.credit_lots import make_lot
from ammeter.usecases.ids import new_id
from ammeter.usecases.measure import engine_billing
from ammeter.usecases.operations import claim, run_operation, start_generation
from ammeter.usecases.profiles import create_tax_rate, set_profile
from ammeter.usecases.query import meter_usage
from tests.usecases.world import World, at

PAGE = Path(__file__).resolve().parents[2] / "docs" / "amount.md"
MARCH, APRIL, MAY = at("2025-03-01T00:00"), at("2025-04-01T00:00"), at("2025-05-01T00:00")
USED = (("2025-03-03T10:15", "61250.5"), ("2025-03-17T08:00", "58000"), ("2025-03-31T23:59", "39750"))
TOP, FIRST, REST, ENTRY, FREE, OFF = "100", "0.1", "0.045", "2", "10", "5"
LATE = ("2025-03-31T23:59", "1200")


@dataclass(frozen=True)
class Played:
    """What happened: the metered sum, March's invoice, and what April's says of March."""

    metered: Decimal
    position: int
    march: Invoice
    late: InvoiceLine


def play(world: World) -> Played:
    """A month of one customer, and one event that came late."""
    world.meter("tokens")
    world.feature("tokens", "tokens")
    tiers = [{"up_to": TOP, "unit_amount": FIRST}, {"unit_amount": REST, "flat_amount": ENTRY}]
    card = RateCardDraft(
        "tokens",
        "Tokens",
        "tokens",
        price_kind="graduated",
        price={"tiers": tiers},
        terms={
            "unit_conversion": {"divide_by": "1000", "rounding": "ceiling"},
            "discounts": {"usage_quantity": FREE, "percentage": OFF},
        },
    )
    base = RateCardDraft("base", "Platform", price_kind="flat", price={"amount": "20"})
    world.plan("pro", base, card)
    world.customer("acme", "acme-prod")
    world.subscribe("acme", "pro", start="2025-03-01T00:00")
    with world.tx() as tx:
        create_tax_rate(tx, TaxRate("vat", "VAT", Decimal(0), inclusive=False), "19", world.now)
        set_profile(tx, "", BillingProfile(tax_rules=(TaxRule("", ("vat",)),)), "", world.now)
        make_lot(tx, LotDraft("acme", Decimal(15)), LotKind.GRANTED, world.now)
    for time, tokens in USED:
        world.now = at(time) + timedelta(minutes=1)
        world.use("acme-prod", tokens, at(time))
    world.now = APRIL
    metered, position = _metered(world)
    (march,) = _issue(world)
    world.use("acme-prod", LATE[1], at(LATE[0]))
    world.now = MAY
    (april,) = _issue(world)
    (late,) = (line for line in april.lines if line.period_start_time == MARCH)
    return Played(metered, position, march, late)


def _metered(world: World) -> tuple[Decimal, int]:
    with world.tx() as tx:
        revision = meters.served_revision(meters.get_meter(tx, "tokens"))
    span = (minute_of(MARCH), minute_of(APRIL))
    found = meter_usage(world.db, world.engine, world.tenant_id, revision, span, group_by=("customer",))
    return from_scaled(found.values[0]), found.position


def _issue(world: World) -> list[Invoice]:
    run = engine_billing(world.db, world.engine, timedelta(days=40))
    with world.tx() as tx:
        start_generation(tx, new_id("op", world.now), "", issue=True, now=world.now)
    operation = claim(run, world.tenant_id, world.now)
    assert operation is not None
    steps = run_operation(run, world.tenant_id, operation, lambda: world.now)
    return [step.invoice for step in steps if step.invoice is not None]


def page(played: Played) -> str:
    """Write the page; every number in it is taken from what was played."""
    march = played.march
    flat, usage = sorted(march.lines, key=lambda line: line.rate_card_key)
    (vat,) = march.taxes
    event = {"id": "1", "source": "test", "type": "use", "subject": "acme-prod", "time": f"{USED[0][0]}:00Z"}
    sent = event | {"properties": {"n": USED[0][1]}}
    conversion = usage.details[0].description
    free = usage.details[1]
    assert free.quantity is not None
    return f"""# How an amount comes about

One invoice, from the bytes that a gateway sent to the total. A test plays this month and writes the numbers of this page
(`python -m tests.scenarios.amount`); the rules are in `service/ammeter/domain/README.md`.

## Events

In March, acme's gateway reports {len(USED)} events, each acknowledged with a position. The first one:

```json
{json.dumps(sent)}
```

It counts once, whatever is sent again. Its `n` is text and stays a decimal: nothing on this page ever was a float.

## Quantity

The meter `tokens` sums `n` of events of type `use`. From 2025-03-01 up to, and without, 2025-04-01 that is, for the
subjects that acme owned in those minutes:

```
{_sum(tokens for _, tokens in USED)} = {decimal_text(played.metered)}
```

The invoice says at which position it looked: {played.position}. Whoever asks for usage before anything else comes finds this number.

## Price

The plan sells the first {TOP} thousand tokens at {FIRST} each thousand, all others at {REST}, with {ENTRY} for going beyond; {FREE} of the
thousands are free, and there are {OFF} percent off. In this order:

```
{_details(usage)}
```

- **Conversion** comes first: {conversion}. It is of the month's quantity, not of each event.
- **Free units** next, {decimal_text(free.quantity)} of them, so that tiers begin after them.
- **Tiers**: a unit costs what its own tier says. The flat amount is due once, on entering the tier.
- **The discount** is of what stands above it. Only the running sum is rounded, half away from zero, and each step is what the rounded
  sum grew by: so the steps add up to {usage.amount:f} exactly.

## Lines and total

```
{_row("Platform, the whole of March", flat.amount)}
{_row("Tokens", usage.amount)}
{_row("subtotal", march.subtotal)}
{_row(f"VAT, {decimal_text(vat.percentage)} percent of {vat.covered_amount:f}", vat.amount)}
{_row("total", march.total)}
{_row("prepaid credits", march.prepaid_total.copy_negate())}
{_row("to pay", march.total - march.prepaid_total)}
```

Tax is taken of the sum of the lines it covers, and rounded once. Prepaid credits come off last; which lot paid which line is on the
invoice. It is numbered in the transaction that issues it: this one is number {march.number}, the next one that commits is {(march.number or 0) + 1}.

## Late

After that, an event of {decimal_text(Decimal(LATE[1]))} tokens arrives, whose time is still in March. The issued invoice never changes. April's carries a line:

```
{_details(played.late)}
```

All of March is priced anew, {decimal_text(played.late.total_quantity)} tokens, and what was billed is taken off. So acme pays for March what it would
have paid had the event come in time.
"""


def _sum(texts: Iterable[str]) -> str:
    return " + ".join(texts)


def _details(line: InvoiceLine) -> str:
    rows = [
        (
            step.description,
            "" if step.quantity is None else decimal_text(step.quantity),
            "" if step.unit_price is None else decimal_text(step.unit_price),
            f"{step.amount:f}",
        )
        for step in line.details
    ]
    text = [f"{what:52}{quantity:>8}{price:>8}{amount:>10}" for what, quantity, price, amount in rows]
    assert add(step.amount for step in line.details) == line.amount
    return "\n".join([*text, f"{'':68}{line.amount:>10f}"])


def _row(what: str, amount: Decimal) -> str:
    return f"{what:68}{amount:>10f}"


def main() -> None:
    """Write the page."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o711)
        with EmbeddedPostgres(Path(directory) / "data") as postgres:
            migrate(postgres.url)
            world = World(postgres.url, "2025-03-01T00:00")
            PAGE.write_text(page(play(world)))
            world.close()


if __name__ == "__main__":
    main()
