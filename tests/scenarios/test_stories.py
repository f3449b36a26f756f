"""Months of customers as stories under a moved clock; their invoices are checked in under expected/."""

from collections.abc import Callable, Iterator

import pytest

from ammeter.domain.cancellation import Timing
from ammeter.domain.catalog_rules import PhaseDraft, PlanDraft, RateCardDraft
from tests.scenarios.story import Story, as_expected, fee, tokens
from tests.usecases.world import exact

Begin = Callable[..., Story]


@pytest.fixture
def begin(new_database: Callable[[], str]) -> Iterator[Begin]:
    begun: list[Story] = []

    def story(now: str, zone: str = "UTC") -> Story:
        made = Story(new_database(), now, zone)
        begun.append(made)
        made.meter("tokens")
        made.feature("tokens", "tokens")
        return made

    yield story
    for one in begun:
        one.close()


def test_a_free_customer_upgrades_in_the_midst_of_a_month(begin: Begin) -> None:
    story = begin("2026-01-01T00:00")
    story.sell(PlanDraft("free", rate_cards=(tokens("0", "10000", soft=False),)))
    paid = (fee("31.00", in_advance=True), tokens("0.02", "1000000"))
    story.sell(PlanDraft("pro", rate_cards=paid))
    story.customer("acme", "acme-user")
    sub = story.subscribe("acme", "free")
    story.until("2026-01-16T11:59")
    story.use("acme-user", "10000")
    assert not story.check("acme", "tokens").access, "the free allowance is used up"
    story.until("2026-01-16T12:00")
    story.change(sub, "pro")
    access = story.check("acme", "tokens")
    assert access.access
    assert exact(access.balance) == 1_000_000
    story.use("acme-user", "123456")
    story.until("2026-02-01T00:00")
    story.use("acme-user", "500")
    story.until("2026-03-01T00:00")
    as_expected("free_to_paid", story.books())


def test_a_trial_turns_into_a_paid_plan_and_who_leaves_in_it_pays_nothing(begin: Begin) -> None:
    story = begin("2026-01-05T09:30")
    phases = (
        PhaseDraft("trial", "Trial", "P14D", (tokens("0", "5000"),)),
        PhaseDraft("paid", "Paid", "", (fee("20.00", in_advance=True), tokens("0.5", "5000"))),
    )
    story.sell(PlanDraft("pro", phases=phases))
    for customer in ("stays", "leaves"):
        story.customer(customer, f"{customer}-user")
    story.subscribe("stays", "pro")
    leaving = story.subscribe("leaves", "pro")
    story.until("2026-01-12T00:00")
    for customer in ("stays", "leaves"):
        story.use(f"{customer}-user", "4000")
    story.cancel(leaving, Timing.NOW)
    story.until("2026-01-19T09:29")
    assert exact(story.check("stays", "tokens").usage) == 4000
    story.until("2026-01-19T09:30")
    assert exact(story.check("stays", "tokens").usage) == 0, "the allowance goes on, in a new month"
    story.use("stays-user", "1500")
    story.until("2026-02-19T09:30")
    story.until("2026-03-19T09:30")
    as_expected("trial", story.books())


def test_seats_are_raised_and_lowered_within_a_month(begin: Begin) -> None:
    story = begin("2026-06-01T00:00")
    cards = (
        fee("15.00", "seats", "Seats", per_seat=True, in_advance=True),
        fee("9.00", "support", "Support"),
    )
    story.sell(PlanDraft("team", rate_cards=cards))
    story.customer("acme")
    sub = story.subscribe("acme", "team")
    story.seats(sub, 5)
    story.until("2026-06-11T00:00")
    story.seats(sub, 8)
    story.until("2026-06-21T00:00")
    story.seats(sub, 6)
    story.until("2026-07-01T00:00")
    story.until("2026-08-01T00:00")
    as_expected("seats", story.books())


def test_a_plan_is_migrated_and_each_customer_moves_at_the_end_of_its_own_period(begin: Begin) -> None:
    story = begin("2026-03-01T00:00")
    story.sell(PlanDraft("basic", rate_cards=(fee("10.00"), tokens("0.01"))))
    for customer in ("first", "fifteenth"):
        story.customer(customer, f"{customer}-user")
    story.subscribe("first", "basic")
    story.until("2026-03-15T00:00")
    story.subscribe("fifteenth", "basic")
    story.until("2026-03-20T00:00")
    tiers = {"tiers": [{"up_to": "100000", "unit_amount": "0"}, {"unit_amount": "0.00002"}]}
    graduated = RateCardDraft("tokens", "Tokens", "tokens", "graduated", tiers)
    story.publish(PlanDraft("basic", rate_cards=(fee("12.00"), graduated)))
    assert [one.moved_count for one in story.migrate("basic", dry_run=True)] == [1, 2, 2]
    assert [one.moved_count for one in story.migrate("basic")] == [1, 2, 2]
    assert [one.moved_count for one in story.migrate("basic")] == [0]
    for customer in ("first", "fifteenth"):
        story.use(f"{customer}-user", "150000")
    story.until("2026-04-01T00:00")
    for customer in ("first", "fifteenth"):
        story.use(f"{customer}-user", "150000")
    story.until("2026-05-01T00:00")
    story.until("2026-05-15T00:00")
    as_expected("migration", story.books())


def test_february_is_billed_whole_and_the_day_of_the_month_comes_back(begin: Begin) -> None:
    story = begin("2026-01-31T00:00")
    story.sell(PlanDraft("basic", rate_cards=(fee("28.00"),)))
    story.sell(PlanDraft("more", rate_cards=(fee("56.00"),)))
    story.customer("acme")
    sub = story.subscribe("acme", "basic")
    story.until("2026-02-14T00:00")
    story.change(sub, "more")
    story.until("2026-03-31T00:00")
    story.cancel(sub, Timing.AT_TIME, "2026-04-15T00:00")
    story.until("2026-04-15T00:00")
    as_expected("february", story.books())


def test_a_customer_in_auckland_has_a_month_of_an_hour_more(begin: Begin) -> None:
    story = begin("2026-04-01T00:00", "Pacific/Auckland")
    story.sell(PlanDraft("basic", rate_cards=(fee("721.00"), tokens("0.10"))))
    story.sell(PlanDraft("more", rate_cards=(fee("1442.00"), tokens("0.20"))))
    story.customer("kea", "kea-user", time_zone="Pacific/Auckland")
    sub = story.subscribe("kea", "basic")
    # The clock is put back on 5 April at 3:00, so the four days and a bit up to noon have 109 hours.
    story.until("2026-04-05T11:59")
    story.use("kea-user", "1000")
    story.until("2026-04-05T12:00")
    story.change(sub, "more")
    story.use("kea-user", "1000")
    story.until("2026-05-01T00:00")
    story.until("2026-06-01T00:00")
    as_expected("auckland", story.books())
