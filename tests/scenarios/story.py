"""A month, or several, told as a story under a moved clock, and the invoices that come of it as text."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from ammeter.domain.catalog import Plan
from ammeter.domain.catalog_rules import PlanDraft, RateCardDraft
from ammeter.domain.invoice import Invoice, InvoiceLine
from ammeter.domain.quantity import decimal_text
from ammeter.domain.subscription import Subscription
from ammeter.store import invoices
from ammeter.usecases import catalog, change, migrate
from ammeter.usecases.generate import generate_invoices
from ammeter.usecases.measure import engine_billing
from tests.usecases.world import World

EXPECTED = Path(__file__).parent / "expected"


class Story(World):
    """A world whose clock is set by the local time of whom the story is about."""

    def __init__(self, url: str, now: str, zone: str = "UTC") -> None:
        self.zone = ZoneInfo(zone)
        super().__init__(url, self.local(now).isoformat())
        self.run = engine_billing(self.db, self.engine, timedelta(days=35))

    def local(self, text: str) -> datetime:
        return datetime.fromisoformat(text).replace(tzinfo=getattr(self, "zone", UTC)).astimezone(UTC)

    def until(self, text: str) -> None:
        """Let time pass to a local time; every minute's work of the billing worker is done at its end."""
        self.now = self.local(text)
        self.bill()

    def bill(self) -> None:
        for _ in generate_invoices(self.run, self.tenant_id, "", issue=True, now=self.now):
            pass

    # What operators do

    def sell(self, draft: PlanDraft) -> Plan:
        with self.tx() as tx:
            return catalog.create_plan(tx, draft, self.now)

    def publish(self, draft: PlanDraft) -> Plan:
        with self.tx() as tx:
            catalog.draft_plan(tx, draft, self.now)
            return catalog.publish_plan(tx, draft.plan_key, "", self.now)

    def change(self, sub: Subscription, plan_key: str, when: change.When = change.NOW) -> Subscription:
        with self.tx() as tx:
            wish = change.Wish(plan_key, when=when)
            return change.change_subscription(tx, self.live, sub.subscription_id, wish, self.now)

    def seats(self, sub: Subscription, quantity: int) -> Subscription:
        with self.tx() as tx:
            return change.set_quantity(tx, self.live, sub.subscription_id, quantity, change.NOW, self.now)

    def migrate(self, plan_key: str, *, dry_run: bool = False) -> list[migrate.Progress]:
        wanted = migrate.Migration(plan_key, dry_run=dry_run)
        return list(migrate.migrate_subscriptions(self.db, self.live, self.tenant_id, wanted, self.now))

    # What comes of it

    def books(self) -> str:
        """Every invoice with its lines and why they are what they are, by number."""
        with self.tx() as tx:
            found = [
                invoices.get_invoice(tx, one.invoice_id)
                for one in invoices.list_invoices(tx, None, None, "", 1000)
            ]
        return "\n".join(line for one in sorted(found, key=_number) for line in self._invoice(one))

    def _invoice(self, invoice: Invoice) -> Iterator[str]:
        plan = f"{invoice.plan_key} version {invoice.plan_version}"
        yield f"Invoice {invoice.number} for {invoice.customer_key}, {plan}, {invoice.currency}"
        span = f"{self._time(invoice.period_start_time)} to {self._time(invoice.period_end_time)}"
        yield f"  {span}, issued {self._time(invoice.issue_time)}"
        for line in invoice.lines:
            yield from self._line(invoice, line)
        yield f"  {'total':<76}{invoice.total:>10}"
        yield ""

    def _line(self, invoice: Invoice, line: InvoiceLine) -> Iterator[str]:
        span = f"{self._time(line.period_start_time)} to {self._time(line.period_end_time)}"
        text = line.description
        if (line.plan_key, line.plan_version) != (invoice.plan_key, invoice.plan_version):
            text += f" ({line.plan_key} version {line.plan_version})"
        yield f"  {text:<30}{span:<46}{line.amount:>10}"
        for detail in line.details:
            factor = ""
            if detail.quantity is not None and detail.unit_price is not None:
                factor = f"{decimal_text(detail.quantity)} x {decimal_text(detail.unit_price)}"
            yield f"      {detail.description:<44}{factor:<28}{detail.amount:>10}"

    def _time(self, time: datetime | None) -> str:
        return "never" if time is None else f"{time.astimezone(self.zone):%Y-%m-%d %H:%M}"


def _number(invoice: Invoice) -> int:
    return invoice.number or 0


def fee(
    amount: str, key: str = "fee", name: str = "Fee", *, per_seat: bool = False, in_advance: bool = False
) -> RateCardDraft:
    price = {"amount": amount, "per_seat": per_seat}
    return RateCardDraft(key, name, price_kind="flat", price=price, in_advance=in_advance)


def tokens(unit_amount: str, allowance: str = "", *, soft: bool = True) -> RateCardDraft:
    """Tokens, sold by the thousand that was begun."""
    return RateCardDraft(
        "tokens",
        "Tokens",
        "tokens",
        "unit",
        {"unit_amount": unit_amount},
        {"unit_conversion": {"divide_by": "1000", "rounding": "ceiling"}},
        "metered" if allowance else "",
        allowance,
        soft,
    )


def as_expected(name: str, text: str) -> None:
    """Compare with what is checked in. A story that is new fails, and shows what to check and keep."""
    file = EXPECTED / f"{name}.txt"
    expected = file.read_text(encoding="utf-8") if file.exists() else ""
    assert text == expected, f"{file} differs from:\n{text}"
