"""A tenant with plans, customers and usage to bill; usage is a list in memory, all else is real."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count, pairwise
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa

from ammeter.domain.catalog import DimensionFilter, Feature, Plan, RateCard
from ammeter.domain.credit_note import CreditNote, CreditRequest
from ammeter.domain.customer import CustomerDraft
from ammeter.domain.invoice import Invoice, Kind, State
from ammeter.domain.meter import Meter
from ammeter.domain.minute import minute_of
from ammeter.domain.price import NO_TERMS, FlatPrice, Price, Terms, UnitPrice
from ammeter.domain.pricing import Usage
from ammeter.domain.profile import BillingProfile
from ammeter.domain.subscription import Subscription
from ammeter.domain.tax import TaxRate
from ammeter.store import catalog, customers, invoices, meters, subscriptions
from ammeter.store.db import Database
from ammeter.store.tables import customers as customers_table
from ammeter.usecases.bill import issue_invoice, void_invoice
from ammeter.usecases.bill_due import Due, bill_due
from ammeter.usecases.billing import Billing, Measured, Question
from ammeter.usecases.change import Wish
from ammeter.usecases.collect import mark_paid, mark_uncollectible
from ammeter.usecases.credit import create_credit_note
from ammeter.usecases.ids import new_id
from ammeter.usecases.operations import Made, claim, error_of, run_operation, start_generation
from ammeter.usecases.preview import preview_invoice
from ammeter.usecases.profiles import create_tax_rate, set_profile

HORIZON = timedelta(days=35)
_numbers = count(1)


def utc(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, tzinfo=UTC)


def insert_tenant(db: Database) -> int:
    with db.engine() as conn:
        add = sa.text("INSERT INTO tenants (tenant_key) VALUES (:key) RETURNING tenant_id")
        tenant_id: int = conn.execute(add, {"key": f"tenant{next(_numbers)}"}).scalar_one()
        return tenant_id


@dataclass
class World:
    db: Database
    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    tenant_id: int = 0
    events: list[tuple[int, str, datetime, Decimal]] = field(default_factory=list)
    questions: Counter[tuple[int, ...]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.tenant_id = self.tenant_id or insert_tenant(self.db)
        self.run = Billing(self.db, self.measure, HORIZON)

    def measure(self, questions: Sequence[Question]) -> list[Measured]:
        return [self.measure_one(question) for question in questions]

    def measure_one(self, question: Question) -> Measured:
        self.questions[question.minutes] += 1
        models = set(question.filters[0][1]) if question.filters else None
        events = list(self.events)
        usages = []
        for first, last in pairwise(question.minutes):
            found = [
                (model, quantity)
                for customer, model, time, quantity in events
                if customer == question.customer_id
                and (models is None or model in models)
                and first <= minute_of(time) < last
            ]
            groups: dict[tuple[str, ...], Decimal] = {}
            for model, quantity in found if question.dimensions else ():
                groups[model,] = groups.get((model,), Decimal(0)) + quantity
            total = sum((quantity for _, quantity in found), Decimal(0))
            usages.append(Usage(total, len(found), groups))
        return Measured(usages, len(events))

    def use(self, sub: Subscription, time: datetime, quantity: str | int, model: str = "small") -> None:
        self.events.append((sub.customer_id, model, time, Decimal(quantity)))

    def meter(self, *, served: bool = True) -> str:
        key = f"meter{next(_numbers)}"
        with self.db.tenant(self.tenant_id) as tx:
            meters.insert(tx, Meter(key, "", "", "llm", "SUM", "tokens", ("model",), ()), self.now)
            build = meters.get_meter(tx, key).build
        assert build is not None
        if served:
            with self.db.engine() as conn:
                meters.activate(conn, self.tenant_id, build.revision_id, 0, [])
        return key

    def plan(
        self,
        *prices: Price | None,
        cadence: str = "P1M",
        currency: str = "USD",
        served: bool = True,
        terms: Sequence[Terms] = (),
        advance: Collection[int] = (),
        minimum: str = "",
        own: Mapping[int, str] = MappingProxyType({}),
    ) -> Plan:
        """A plan with a rate card for each price; the filter of card n keeps the models small and model n.

        own: cadences of rate cards, or "once".
        """
        number = next(_numbers)
        meter_key = self.meter(served=served)
        with self.db.tenant(self.tenant_id) as tx:
            ids, cards = {}, []
            for n, price in enumerate(prices):
                key = f"feature{number}_{n}"
                wanted = (DimensionFilter("model", ("small", f"model{n}")),)
                feature = catalog.insert_feature(
                    tx, Feature(key, "", meter_key, wanted), self._meter_id(tx, meter_key), self.now
                )
                assert feature is not None
                ids[key] = feature.feature_id
                cards.append(
                    RateCard(
                        f"card{n}",
                        f"Card {n}",
                        key,
                        price,
                        None,
                        terms=terms[n] if terms else NO_TERMS,
                        in_advance=n in advance,
                        billing_cadence=own.get(n, "").replace("once", ""),
                        one_time=own.get(n) == "once",
                    )
                )
            plan = catalog.insert_plan(
                tx,
                Plan(
                    f"plan{number}",
                    "",
                    currency,
                    cadence,
                    tuple(cards),
                    minimum_amount=Decimal(minimum) if minimum else None,
                ),
                ids,
                self.now,
            )
        assert plan is not None
        return plan

    def _meter_id(self, tx: object, key: str) -> int:
        return meters.get_meter(tx, key).meter_id  # type: ignore[arg-type]

    def subscribe(
        self,
        plan: Plan,
        start: datetime,
        *,
        end: datetime | None = None,
        anchor: datetime | None = None,
        zone: str = "UTC",
        customer_id: int = 0,
    ) -> Subscription:
        number = next(_numbers)
        with self.db.tenant(self.tenant_id) as tx:
            if not customer_id:
                draft = CustomerDraft(f"customer{number}", currency=plan.currency, time_zone=zone)
                customer = customers.insert(tx, draft, start)
                assert customer is not None
                customer_id = customer.customer_id
            found = customers.get_by_id(tx, customer_id)
            assert found is not None
            sub = Subscription(
                f"sub_{number:08}", customer_id, found.customer_key, plan.plan_id, plan.plan_key, start, end,
                anchor or start, zone, plan.billing_cadence, plan.currency, start,
            )  # fmt: skip
            subscriptions.insert(tx, sub)
        return sub

    def end(self, sub: Subscription, end: datetime) -> Subscription:
        with self.db.tenant(self.tenant_id) as tx:
            subscriptions.set_end(tx, sub.subscription_id, end, self.now)
        return replace(sub, end_time=end)

    def subjects_changed(self, sub: Subscription) -> None:
        with self.db.tenant(self.tenant_id) as tx:
            tx.conn.execute(
                sa.update(customers_table)
                .where(customers_table.c.customer_id == sub.customer_id)
                .values(subjects_time=self.now)
            )

    def steps(self, customer_key: str = "", *, issue: bool = False) -> list[Made]:
        """What an operation makes, one after the other; raises what it fails with."""
        with self.db.tenant(self.tenant_id) as tx:
            start_generation(tx, new_id("op", self.now), customer_key, issue=issue, now=self.now)
        operation = claim(self.run, self.tenant_id, self.now)
        assert operation is not None
        made = list(run_operation(self.run, self.tenant_id, operation, lambda: self.now))
        error = error_of(made[-1].operation)
        if error is not None:
            raise error
        return made

    def generate(self, customer_key: str = "", *, issue: bool = False) -> list[Invoice]:
        return [step.invoice for step in self.steps(customer_key, issue=issue) if step.invoice]

    def due(self) -> Due:
        """What the billing worker does when it looks."""
        return bill_due(self.run, self.now, lambda: False)

    def issue(self, invoice: Invoice) -> Invoice:
        return issue_invoice(self.run, self.tenant_id, invoice.invoice_id, self.now)

    def void(self, invoice: Invoice) -> Invoice:
        with self.db.tenant(self.tenant_id) as tx:
            return void_invoice(tx, invoice.invoice_id, self.now)

    def pay(self, invoice: Invoice, reference: str = "", time: datetime | None = None) -> Invoice:
        with self.db.tenant(self.tenant_id) as tx:
            return mark_paid(tx, invoice.invoice_id, time, reference, self.now)

    def write_off(self, invoice: Invoice) -> Invoice:
        with self.db.tenant(self.tenant_id) as tx:
            return mark_uncollectible(tx, invoice.invoice_id, self.now)

    def credit(
        self, invoice: Invoice, *lines: tuple[str, str | None], amount: str = "", reason: str = "goodwill"
    ) -> CreditNote:
        request = CreditRequest(
            tuple((line, None if of_it is None else Decimal(of_it)) for line, of_it in lines),
            Decimal(amount) if amount else None,
        )
        with self.db.tenant(self.tenant_id) as tx:
            return create_credit_note(tx, invoice.invoice_id, request, reason, self.now)

    def tax_rate(self, key: str, percentage: str, *, inclusive: bool = False) -> TaxRate:
        with self.db.tenant(self.tenant_id) as tx:
            rate = TaxRate(key, key.upper(), Decimal(0), inclusive, f"note of {key}")
            return create_tax_rate(tx, rate, percentage, self.now)

    def profile(self, customer_key: str = "", **values: Any) -> None:  # noqa: ANN401 - fields of BillingProfile
        with self.db.tenant(self.tenant_id) as tx:
            set_profile(tx, customer_key, BillingProfile(**values), "", self.now)

    def preview(self, sub: Subscription, subscription_id: str = "", wish: Wish | None = None) -> Invoice:
        return preview_invoice(self.run, self.tenant_id, sub.customer_key, subscription_id, self.now, wish)

    def get(self, invoice: Invoice) -> Invoice:
        with self.db.tenant(self.tenant_id) as tx:
            return invoices.get_invoice(tx, invoice.invoice_id)

    def all(self, *, standing: bool = False) -> list[Invoice]:
        """Every invoice, oldest first, with lines."""
        with self.db.tenant(self.tenant_id) as tx:
            found = [
                invoices.get_invoice(tx, one.invoice_id)
                for one in invoices.list_invoices(tx, None, None, "", 10_000)[::-1]
            ]
        return [one for one in found if not (standing and one.state is State.VOID)]


def flat(amount: str) -> FlatPrice:
    return FlatPrice(Decimal(amount))


def unit(amount: str) -> UnitPrice:
    return UnitPrice(Decimal(amount))


def lines(invoice: Invoice) -> list[tuple[str, str, int, str, str]]:
    """What matters of each line: kind, rate card, period, quantity, amount."""
    return [
        (
            line.kind.value,
            line.rate_card_key,
            line.period_index,
            f"{line.quantity.normalize():f}",
            f"{line.amount:f}",
        )
        for line in invoice.lines
    ]


def late_kinds(found: Sequence[Invoice]) -> int:
    return sum(line.kind is Kind.LATE_USAGE for invoice in found for line in invoice.lines)
