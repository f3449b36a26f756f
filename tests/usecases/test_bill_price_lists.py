"""Invoices over price lists: the price of the time of use, late use and late prices, no price at all."""

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal

import pytest

from ammeter.domain.invoice import State
from ammeter.domain.lifecycle import Action, next_actions
from ammeter.domain.price import LlmPrice, Override, Rounding, Terms, UnitConversion
from ammeter.domain.price_import import EntryDraft
from ammeter.domain.price_list import Layer, PriceList
from ammeter.domain.profile import IssueMode
from ammeter.domain.subscription import Subscription
from ammeter.errors import ConflictError, NotFoundError, PreconditionError
from ammeter.store import invoices
from ammeter.store.db import Database
from ammeter.usecases.price_lists import Imported, PriceImport, create_price_list, import_prices
from tests.usecases.billing_world import World, lines, utc
from tests.usecases.test_bill_prices import explained


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    one = Database(database_url)
    yield one
    one.close()


@pytest.fixture
def world(db: Database) -> World:
    made = World(db)
    with db.tenant(made.tenant_id) as tx:
        create_price_list(tx, PriceList("models", "", "USD"), made.now)
    return made


LIST = LlmPrice("models", "input")


def price(world: World, model: str, amount: str, time: datetime, **options: object) -> Imported:
    draft = EntryDraft(model, "input", amount)
    with world.db.tenant(world.tenant_id) as tx:
        return import_prices(tx, PriceImport("models", [draft], time, **options), world.now)  # type: ignore[arg-type]


def sell(world: World, llm: LlmPrice = LIST, **options: object) -> Subscription:
    return world.subscribe(world.plan(llm, **options), utc(2026, 1, 1))  # type: ignore[arg-type]


def test_each_use_is_billed_at_the_price_of_its_minute(world: World) -> None:
    price(world, "small", "0.01", utc(2026, 1, 1))
    price(world, "small", "0.02", utc(2026, 1, 10, 12, 30))
    price(world, "model0", "1", utc(2025, 1, 1))
    sub = sell(world)
    world.use(sub, utc(2026, 1, 5), 100)
    world.use(sub, utc(2026, 1, 10, 12, 29), 1)
    world.use(sub, utc(2026, 1, 10, 12, 30), 50)
    world.use(sub, utc(2026, 1, 20), 3, "model0")
    world.now = utc(2026, 2, 1)
    price(world, "small", "9", utc(2026, 2, 1))
    [made] = world.generate(issue=True)
    assert lines(made) == [("usage", "card0", 0, "154", "5.01")]
    assert explained(made.lines[0]) == [
        ("model 'model0'", "3", "1", "3.00"),
        ("model 'small'", "101", "0.01", "1.01"),
        ("model 'small' from 2026-01-10 12:30 UTC", "50", "0.02", "1.00"),
    ]
    assert world.get(made) == made


def test_late_use_is_billed_at_the_price_of_its_own_time(world: World) -> None:
    price(world, "small", "0.01", utc(2026, 1, 1))
    sub = sell(world)
    world.use(sub, utc(2026, 1, 5), 100)
    world.now = utc(2026, 2, 1)
    [first] = world.generate(issue=True)
    price(world, "small", "5", utc(2026, 2, 1))
    world.use(sub, utc(2026, 1, 6), 50)
    world.use(sub, utc(2026, 2, 6), 1)
    world.now = utc(2026, 3, 1)
    [second] = world.generate(issue=True)
    assert lines(first) == [("usage", "card0", 0, "100", "1.00")]
    assert lines(second) == [("usage", "card0", 1, "1", "5.00"), ("late_usage", "card0", 0, "50", "0.50")]


def test_a_price_that_is_corrected_for_the_past_is_a_line_of_the_next_invoice(world: World) -> None:
    price(world, "small", "0.01", utc(2026, 1, 1))
    sub = sell(world)
    world.use(sub, utc(2026, 1, 5), 100)
    world.use(sub, utc(2026, 1, 25), 100)
    invoices = []
    for month in (2, 3, 4, 5):
        world.now = utc(2026, month, 1)
        invoices += world.generate(issue=True)
    assert lines(invoices[0]) == [("usage", "card0", 0, "200", "2.00")]
    price(world, "small", "0.03", utc(2026, 1, 20))  # months after the period was billed
    world.now = utc(2026, 6, 1)
    [corrected] = world.generate(issue=True)
    assert lines(corrected) == [("usage", "card0", 4, "0", "0.00"), ("late_usage", "card0", 0, "0", "2.00")]
    world.now = utc(2026, 7, 1)
    [after] = world.generate(issue=True)
    assert lines(after) == [("usage", "card0", 5, "0", "0.00")]


def test_a_correction_after_the_subscriptions_end_gets_an_invoice_of_its_own(world: World) -> None:
    world.profile(issue_mode=IssueMode.AUTOMATIC)
    price(world, "small", "0.01", utc(2026, 1, 1))
    sub = world.subscribe(world.plan(LIST), utc(2026, 1, 1), end=utc(2026, 2, 1))
    world.use(sub, utc(2026, 1, 5), 100)
    world.now = utc(2026, 2, 1)
    assert world.due() == (1, 1)
    world.now = utc(2026, 6, 1)
    assert world.due() == (0, 0)
    price(world, "small", "0.02", utc(2026, 1, 1))
    assert world.due() == (1, 1)
    assert lines(world.all()[-1]) == [("late_usage", "card0", 0, "0", "1.00")]


def test_without_a_price_an_invoice_is_shown_and_not_issued_until_there_is_one(world: World) -> None:
    world.profile(issue_mode=IssueMode.AUTOMATIC)
    price(world, "small", "0.01", utc(2026, 1, 1))
    sub = sell(world)
    world.use(sub, utc(2026, 1, 5), 100)
    world.use(sub, utc(2026, 1, 6), 7, "model0")
    world.now = utc(2026, 2, 1)
    assert world.due() == (1, 0)
    [draft] = world.all()
    assert draft.lines[0].unpriced_models == ("model0",)
    assert lines(draft) == [("usage", "card0", 0, "107", "1.00")]
    assert ("model 'model0', no price", "7", "", "0.00") in explained(draft.lines[0])
    with pytest.raises(PreconditionError, match="card0 has no price for 'model0': import") as refused:
        world.issue(draft)
    assert refused.value.reason == "UNPRICED_USAGE"
    assert world.get(draft).state is State.DRAFT
    price(world, "model0", "0", utc(2026, 1, 1))
    assert world.due() == (0, 1)
    [issued] = world.all()
    assert (lines(issued), issued.number) == ([("usage", "card0", 0, "107", "1.00")], 1)


def test_a_draft_that_waits_for_prices_says_so_and_is_taken_anew_when_there_are_some(world: World) -> None:
    world.profile(issue_mode=IssueMode.APPROVAL)
    price(world, "small", "0.01", utc(2026, 1, 1))
    sub = sell(world)
    world.use(sub, utc(2026, 1, 6), 7, "model0")
    world.now = utc(2026, 2, 1)
    assert world.due() == (1, 0)
    [draft] = world.all()
    assert (draft.unpriced_models, next_actions(draft)) == (("model0",), (Action.VOID,))
    with world.db.tenant(world.tenant_id) as tx:
        [listed] = invoices.list_invoices(tx, None, None, "", 10)
    assert listed.unpriced_models == draft.unpriced_models
    price(world, "model0", "2", utc(2026, 1, 1))
    assert world.due() == (0, 0)
    [fresh] = world.all()
    assert (fresh.unpriced_models, next_actions(fresh)) == ((), (Action.ISSUE, Action.VOID))
    assert (fresh.invoice_id, fresh.state, lines(fresh)) == (
        draft.invoice_id,
        State.DRAFT,
        [("usage", "card0", 0, "7", "14.00")],
    )


def test_a_run_that_issues_leaves_out_what_has_no_price_and_says_so(world: World) -> None:
    price(world, "small", "1", utc(2026, 1, 1))
    poor, rich = sell(world), sell(world)
    world.use(poor, utc(2026, 1, 5), 1, "model0")
    world.use(rich, utc(2026, 1, 5), 1)
    world.now = utc(2026, 2, 1)
    with pytest.raises(PreconditionError, match="1 of 2 subscriptions could not be billed") as refused:
        world.generate(issue=True)
    assert refused.value.reason == "UNPRICED_USAGE"
    assert [one.subscription_id for one in world.all()] == [rich.subscription_id]


def test_overrides_margins_and_defaults(world: World) -> None:
    price(world, "small", "0.10", utc(2026, 1, 1))
    price(world, "small", "0.05", utc(2026, 1, 10), layer=Layer.OVERRIDE)
    price(world, "small", "0.20", utc(2026, 1, 20))
    price(world, "small", "", utc(2026, 1, 25), layer=Layer.OVERRIDE)
    cards = [
        LIST,
        LlmPrice("models", "input", margin_percentage=Decimal(50)),
        LlmPrice("models", "input", margin_amount=Decimal("0.01"), default_unit_amount=Decimal(2)),
        LlmPrice("models", "input", overrides=(Override("small", Decimal(1)),)),
    ]
    sub = world.subscribe(world.plan(*cards), utc(2026, 1, 1))
    for day in (5, 15, 22, 28):
        world.use(sub, utc(2026, 1, day), 10)
    world.use(sub, utc(2026, 1, 7), 3, "model2")
    world.now = utc(2026, 2, 1)
    [made] = world.generate(issue=True)
    # 10 x 0.10, 20 x 0.05 (also while the list below rose), 10 x 0.20
    assert [str(line.amount) for line in made.lines] == ["4.00", "6.00", "10.40", "40.00"]


def test_conversion_is_of_each_model_and_price_by_itself(world: World) -> None:
    price(world, "small", "3", utc(2026, 1, 1))
    price(world, "small", "4", utc(2026, 1, 10))
    terms = Terms(UnitConversion(divide_by=Decimal(1000), rounding=Rounding.CEILING))
    sub = sell(world, terms=[terms])
    for day in (5, 6, 15):
        world.use(sub, utc(2026, 1, day), 600)
    world.now = utc(2026, 2, 1)
    [made] = world.generate()
    assert explained(made.lines[0]) == [
        ("1800 divided by 1000, rounded up: 3 units", "", "", "0.00"),
        ("model 'small'", "2", "3", "6.00"),
        ("model 'small' from 2026-01-10 00:00 UTC", "1", "4", "4.00"),
    ]


def test_an_import_again_changes_nothing_and_a_dry_run_writes_nothing(world: World) -> None:
    shown = price(world, "small", "1", utc(2026, 1, 1), dry_run=True)
    assert len(shown.changes) == 1
    done = price(world, "small", "1.0", utc(2026, 1, 1), etag=str(shown.price_list.version))
    assert (len(done.changes), done.price_list.version) == (1, shown.price_list.version + 1)
    again = price(world, "small", "1.00", utc(2026, 1, 5))
    assert (again.changes, again.unchanged_count) == ((), 1)
    assert again.price_list == done.price_list
    with pytest.raises(ConflictError):
        price(world, "small", "2", utc(2026, 1, 1), etag=str(shown.price_list.version))
    with pytest.raises(NotFoundError), world.db.tenant(world.tenant_id) as tx:
        import_prices(tx, PriceImport("other", [], world.now), world.now)


def test_what_is_missing_in_a_whole_list_is_withdrawn_if_asked(world: World) -> None:
    price(world, "small", "1", utc(2026, 1, 1))
    price(world, "model0", "1", utc(2026, 1, 3), withdraw_missing=True)
    sub = sell(world)
    world.use(sub, utc(2026, 1, 5), 1)
    assert world.preview(sub).lines[0].unpriced_models == ("small",)
