"""Kill the server while it bills: one invoice for each period, numbers without gaps, nothing lost."""

import os
import random
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import partial
from pathlib import Path

import grpc
import pytest

from ammeter.v1 import billing_pb2, invoice_pb2, subscription_pb2, usage_pb2
from tests.crash.results import publish, time_is_up
from tests.rpc.shop import Shop, flat, per_unit, unique
from tests.serving import ServerProcess, Stubs

KILLS = 50
# Of what is killed, this share is the server; the rest is a process that makes its invoices.
SERVERS = 0.5
DAYS = 20
PRICE = "0.335"


@pytest.fixture
def server(new_database: Callable[[], str], tmp_path: Path) -> Iterator[ServerProcess]:
    settings = {
        "billing_interval_seconds": 0.02,
        "checkpoint_interval_seconds": 0.5,
        "billing_processes": 2,
    }
    with ServerProcess(new_database(), tmp_path, **settings) as process:
        yield process


class Books:
    """Customers with daily periods, and all that was used, by subject and time."""

    def __init__(self, server: ServerProcess, rng: random.Random, size: int) -> None:
        self.stubs = server.stubs()
        self.rng = rng
        self.shop = Shop(self.stubs, "kill")
        self.now = datetime.now(UTC).replace(second=0, microsecond=0)
        self.used: list[usage_pb2.UsageEvent] = []
        plan = self.shop.plan(
            flat("2.40"), per_unit(self.shop.feature(self.shop.meter()), PRICE), billing_cadence="P1D"
        )
        self.subjects = [unique("subject") for _ in range(size)]
        self.subs: dict[str, subscription_pb2.Subscription] = {}
        for subject in self.subjects:
            customer = self.shop.customer(subject)
            start = self.now - timedelta(days=DAYS, minutes=self.rng.randrange(600))
            self.subs[subject] = self.shop.subscribe(customer, plan, start)
        self.use(200)
        profile = billing_pb2.BillingProfile(
            issue_mode=billing_pb2.BillingProfile.ISSUE_MODE_AUTOMATIC, grace_seconds=0
        )
        self.stubs.billing.SetBillingProfile(billing_pb2.SetBillingProfileRequest(profile=profile))

    def use(self, count: int) -> None:
        """Report usage of any day so far, again and again until it is acknowledged."""
        events = []
        for _ in range(count):
            event = self.shop.event(self.rng.choice(self.subjects), self.rng.randrange(-2, 9))
            event.time.FromDatetime(self.now - timedelta(minutes=self.rng.randrange(1, DAYS * 1440)))
            events.append(event)
        patiently(lambda: self.shop.record(*events))
        self.used += events

    def invoices(self) -> list[invoice_pb2.Invoice]:
        request = invoice_pb2.ListInvoicesRequest(page_size=1000)
        found: list[invoice_pb2.Invoice] = []
        while True:
            page = self.stubs.invoices.ListInvoices(request)
            found += page.invoices
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    def check(self) -> dict[str, int]:
        """Compare all invoices with what was used; returns figures."""
        found = self.invoices()
        numbers = sorted(one.number for one in found)
        assert numbers == list(range(1, len(found) + 1)), "gapless, and all are issued"
        flats: Counter[tuple[str, int]] = Counter()
        quantities: dict[tuple[str, int], Fraction] = defaultdict(Fraction)
        amounts: dict[tuple[str, int], Fraction] = defaultdict(Fraction)
        late = 0
        for head in found:
            request = invoice_pb2.GetInvoiceRequest(invoice_id=head.invoice_id)
            for line in self.stubs.invoices.GetInvoice(request).invoice.lines:
                place = (head.subscription_id, line.period_start_time.seconds)
                if line.kind == invoice_pb2.InvoiceLine.KIND_FLAT:
                    flats[place] += 1
                else:
                    late += line.kind == invoice_pb2.InvoiceLine.KIND_LATE_USAGE
                    quantities[place] += Fraction(line.quantity)
                    amounts[place] += Fraction(line.amount)
        assert set(flats.values()) == {1}, "one invoice for each subscription and period"
        ids = {sub.subscription_id for sub in self.subs.values()}
        assert len(flats) >= len(ids) * DAYS
        used = self._used(sorted(flats))
        assert {place: n for place, n in quantities.items() if n} == {p: n for p, n in used.items() if n}
        for place, quantity in used.items():
            cents = quantity * Fraction(PRICE) * 100
            half = 1 if cents >= 0 else -1
            assert amounts[place] * 100 == int(cents + Fraction(half, 2)), place
        return {"invoices": len(found), "late lines": late, "events": len(self.used)}

    def _used(self, places: list[tuple[str, int]]) -> dict[tuple[str, int], Fraction]:
        found: dict[tuple[str, int], Fraction] = defaultdict(Fraction)
        for event in self.used:
            sub = self.subs[event.subject]
            starts = [start for one, start in places if one == sub.subscription_id]
            inside = [start for start in starts if start <= event.time.seconds]
            if inside:
                found[sub.subscription_id, max(inside)] += Fraction(event.properties["tokens"])
        return found


def patiently(call: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            call()
        except grpc.RpcError:
            assert time.monotonic() < deadline, "no answer for a minute"
            time.sleep(0.05)
        else:
            return


def _kill_while_billing(server: ServerProcess, rng: random.Random, kills: int, size: int) -> None:
    books = Books(server, rng, size)
    stopping = threading.Event()

    def compete() -> None:
        # Somebody asks for the same at the same time.
        stubs: Stubs = server.stubs()
        while not stopping.wait(0.05):
            try:
                list(stubs.invoices.GenerateInvoices(invoice_pb2.GenerateInvoicesRequest(issue=True)))
            except grpc.RpcError:
                continue

    rival = threading.Thread(target=compete)
    rival.start()
    killed: Counter[str] = Counter()
    end = time_is_up()
    for kill in range(kills):
        if time.monotonic() > end:
            break
        _kill_one(server, rng, killed)
        if kill % 5 == 0:
            books.use(5)
    stopping.set()
    rival.join()
    _settle(books)
    books.use(50)
    for sub in books.subs.values():
        request = subscription_pb2.CancelSubscriptionRequest(
            subscription_id=sub.subscription_id,
            timing=subscription_pb2.CANCEL_TIMING_NOW,
        )
        patiently(partial(books.stubs.subscriptions.CancelSubscription, request))
    _settle(books)
    figures = books.check()
    assert figures["late lines"] > 0
    told = f"{figures}; each invoice once, no gap, nothing lost"
    what = f"{killed['server']} of the server, {killed['hand']} of a process that makes invoices"
    publish("billing-kills", f"{killed.total()} kills while billing, {what}: {told}")


def _kill_one(server: ServerProcess, rng: random.Random, killed: Counter[str]) -> None:
    """Kill a process that makes invoices, or the server with one of them at work."""
    deadline = time.monotonic() + 60
    while not (hands := [one for one in server.hands() if _is_at_work(one)]):
        assert time.monotonic() < deadline, "invoices are made, and by nobody"
        time.sleep(0.01)
    time.sleep(rng.random() * 0.4)
    if rng.random() < SERVERS:
        server.kill()
        server.start()
        killed["server"] += 1
        return
    with suppress(ProcessLookupError):
        os.kill(rng.choice(hands), signal.SIGKILL)
        killed["hand"] += 1


def _is_at_work(pid: int) -> bool:
    """Whether a process has more than its socket to the server: a connection to the database."""
    links = []
    for number in Path(f"/proc/{pid}/fd").glob("*"):
        with suppress(OSError):
            links.append(str(number.readlink()))
    return sum(link.startswith("socket:") for link in links) > 1


def _settle(books: Books) -> None:
    """Wait until the worker finds nothing more to do."""
    deadline, before = time.monotonic() + 120, -1
    while True:
        found = books.invoices()
        done = all(one.state == invoice_pb2.Invoice.STATE_ISSUED for one in found)
        if done and len(found) == before:
            return
        before = len(found)
        assert time.monotonic() < deadline, "billing does not come to an end"
        time.sleep(1)


@pytest.mark.timeout(600)
def test_fifty_kills_while_billing_make_each_invoice_once(server: ServerProcess, rng: random.Random) -> None:
    _kill_while_billing(server, rng, KILLS, 12)


@pytest.mark.long
def test_five_hundred_kills_while_billing_make_each_invoice_once(
    server: ServerProcess, rng: random.Random
) -> None:
    _kill_while_billing(server, rng, 500, 120)
