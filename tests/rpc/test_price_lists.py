"""Price lists over the wire and on the command line: from a supplier's file to an invoice."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ammeter.v1 import catalog_pb2, invoice_pb2, price_list_pb2, price_pb2
from tests.rpc.shop import Shop, minutes_ago, stamp, unique
from tests.rpc.terminal import Terminal
from tests.rpc.wire import refusal
from tests.serving import ServerProcess, Stubs

Kind = price_list_pb2.PriceChange.Kind


@pytest.fixture(scope="module")
def shop(stubs: Stubs) -> Shop:
    return Shop(stubs, "llm")


@pytest.fixture(scope="module")
def terminal(server: ServerProcess) -> Terminal:
    return Terminal(server.address)


def card(feature_key: str, price_list_key: str, **fields: object) -> catalog_pb2.RateCard:
    price = price_pb2.LlmPrice(price_list_key=price_list_key, token_type="input", **fields)  # type: ignore[arg-type]  # noqa: S106
    return catalog_pb2.RateCard(
        rate_card_key=feature_key, feature_key=feature_key, price=price_pb2.Price(llm=price)
    )


def test_a_day_of_tokens_is_billed_at_the_prices_of_its_minutes(shop: Shop) -> None:
    prices = shop.price_list(large="0.000015", small="0.00000015")
    subject = unique("s")
    customer = shop.customer(subject)
    feature = shop.feature(shop.meter(dimensions=["model"]))
    plan = shop.plan(card(feature, prices, margin_percentage="20"), billing_cadence="P1D")
    sub = shop.subscribe(customer, plan, minutes_ago(60 * 25))
    raised = price_list_pb2.PriceEntry(model="large", token_type="input", unit_amount="0.00003")  # noqa: S106
    request = price_list_pb2.ImportPricesRequest(
        price_list_key=prices, entries=[raised], effective_time=stamp(minutes_ago(60 * 10))
    )
    changed = shop.stubs.price_lists.ImportPrices(request)
    assert [(one.kind, one.before_unit_amount, one.in_past) for one in changed.changes] == [
        (Kind.KIND_RAISED, "0.000015", True)
    ]
    for hours, model, tokens in ((20, "large", 1_000_000), (10, "large", 100_000), (5, "small", 4_000_000)):
        event = shop.event(subject, tokens, properties={"model": model}, time=stamp(minutes_ago(60 * hours)))
        shop.record(event)
    unknown = shop.event(subject, 5, properties={"model": "tiny"}, time=stamp(minutes_ago(60 * 5)))
    shop.record(unknown)
    generate = invoice_pb2.GenerateInvoicesRequest(customer_key=customer)
    draft = next(iter(shop.stubs.invoices.GenerateInvoices(generate))).invoice
    assert draft.subscription_id == sub.subscription_id
    [line] = draft.lines
    assert [(one.description.partition(" from")[0], one.unit_price, one.amount) for one in line.details] == [
        ("model 'large', 0.000015 and 20 percent", "0.000018", "18.00"),
        ("model 'large'", "0.000036", "3.60"),
        ("model 'small', 0.00000015 and 20 percent", "0.00000018", "0.72"),
        ("model 'tiny', no price", "", "0.00"),
    ]
    assert (line.amount, list(line.unpriced_models)) == ("22.32", ["tiny"])
    assert (line.price_list_key, line.plan_key, line.plan_version) == (prices, plan, 1)
    since = [one.price_effective_time for one in line.details]
    assert since[1] == request.effective_time
    assert since[0] == since[2]
    assert since[0].seconds < request.effective_time.seconds
    assert not line.details[3].HasField("price_effective_time")
    assert (list(draft.unpriced_models), list(draft.next_actions)) == (
        ["tiny"],
        [invoice_pb2.Invoice.ACTION_VOID],
    )
    [there] = shop.stubs.invoices.ListInvoices(
        invoice_pb2.ListInvoicesRequest(customer_key=customer)
    ).invoices
    assert (there.unpriced_models, there.next_actions) == (draft.unpriced_models, draft.next_actions)
    issue = invoice_pb2.IssueInvoiceRequest(invoice_id=draft.invoice_id)
    failed = refusal(shop.stubs.invoices.IssueInvoice, issue)
    assert (failed.code, failed.reason) == ("FAILED_PRECONDITION", "UNPRICED_USAGE")
    assert "'tiny'" in failed.message
    request.entries[0].model = "tiny"
    shop.stubs.price_lists.ImportPrices(request)
    assert not [one for one in shop.stubs.invoices.GenerateInvoices(generate) if one.HasField("invoice")]
    get = invoice_pb2.GetInvoiceRequest(invoice_id=draft.invoice_id)
    fresh = shop.stubs.invoices.GetInvoice(get).invoice
    assert (fresh.state, list(fresh.unpriced_models)) == (draft.state, []), "a run took the draft anew"
    assert invoice_pb2.Invoice.ACTION_ISSUE in fresh.next_actions
    issued = shop.stubs.invoices.IssueInvoice(issue).invoice
    assert (issued.total, issued.lines[0].unpriced_models[:]) == ("22.32", [])
    request.entries[0].unit_amount = "7"
    shop.stubs.price_lists.ImportPrices(request)
    assert shop.stubs.invoices.GetInvoice(get).invoice == issued, "with since when each price held"
    assert issued.lines[0].details[3].price_effective_time == request.effective_time


def test_a_plan_says_its_price_list_as_it_was_made_and_refuses_what_cannot_be(shop: Shop) -> None:
    prices = shop.price_list(a="1")
    feature = shop.feature(shop.meter(dimensions=["model"]))
    made = card(
        feature,
        prices,
        margin_amount="0.01",
        default_unit_amount="2",
        overrides=[price_pb2.LlmPrice.Override(model="x", unit_amount="3")],
    )
    key = shop.plan(made)
    found = shop.stubs.catalog.GetPlan(catalog_pb2.GetPlanRequest(plan_key=key)).plan.rate_cards[0]
    made.price.llm.model_dimension = "model"
    assert found == made
    level = shop.feature(shop.meter("MAX", dimensions=["model"]))
    plan = catalog_pb2.Plan(
        plan_key=unique("p"), currency="EUR", rate_cards=[card(level, "none"), card(feature, prices)]
    )
    refused = refusal(shop.stubs.catalog.CreatePlan, catalog_pb2.CreatePlanRequest(plan=plan))
    assert list(refused.fields) == [
        "plan.rate_cards[0].price.llm.price_list_key",
        "plan.rate_cards[0].feature_key",
        "plan.rate_cards[1].price.llm.price_list_key",
    ]


def test_a_list_is_read_by_page_and_as_of_a_time(shop: Shop) -> None:
    prices = shop.price_list(**{f"m{n}": str(n) for n in range(5)})
    request = price_list_pb2.ImportPricesRequest(price_list_key=prices, override=True)
    request.entries.add(model="m2", token_type="input", unit_amount="9")  # noqa: S106
    shop.stubs.price_lists.ImportPrices(request)
    for time, third in ((None, "2"), (minutes_ago(-1), "9"), (minutes_ago(60 * 24), "2")):
        asked = price_list_pb2.ListPricesRequest(price_list_key=prices, page_size=2)
        if time is not None:
            asked.at_time.FromDatetime(time)
        entries: list[price_list_pb2.PriceEntry] = []
        while True:
            answer = shop.stubs.price_lists.ListPrices(asked)
            entries += answer.entries
            asked.page_token = answer.next_page_token
            if not asked.page_token:
                break
        assert [one.model for one in entries] == [f"m{n}" for n in range(5)] if time else 6
        assert entries[2].unit_amount == third
    early = price_list_pb2.ListPricesRequest(
        price_list_key=prices, at_time=stamp(datetime(1990, 1, 1, tzinfo=UTC))
    )
    assert not shop.stubs.price_lists.ListPrices(early).entries


def test_what_is_wrong_with_an_import_is_told_at_once_and_nothing_is_written(shop: Shop) -> None:
    prices = shop.price_list(a="1")
    request = price_list_pb2.ImportPricesRequest(price_list_key=prices)
    request.entries.add(model="b", token_type="input", unit_amount="2")  # noqa: S106
    request.entries.add(model="", token_type="IN", unit_amount="-1")  # noqa: S106
    failed = refusal(shop.stubs.price_lists.ImportPrices, request)
    assert list(failed.fields) == ["entries[1].model", "entries[1].token_type", "entries[1].unit_amount"]
    request.entries[1].effective_time.seconds = -1
    assert list(refusal(shop.stubs.price_lists.ImportPrices, request).fields) == ["entries[1].effective_time"]
    listed = shop.stubs.price_lists.ListPrices(price_list_pb2.ListPricesRequest(price_list_key=prices))
    assert [one.model for one in listed.entries] == ["a"]
    again = price_list_pb2.CreatePriceListRequest(price_list=price_list_pb2.PriceList(price_list_key=prices))
    assert refusal(shop.stubs.price_lists.CreatePriceList, again).reason == "ALREADY_EXISTS"
    wrong = price_list_pb2.PriceList(price_list_key="X", currency="XXX")
    failed = refusal(
        shop.stubs.price_lists.CreatePriceList, price_list_pb2.CreatePriceListRequest(price_list=wrong)
    )
    assert list(failed.fields) == ["price_list.price_list_key", "price_list.currency"]


def test_the_command_line_shows_a_files_changes_then_imports_them(terminal: Terminal, tmp_path: Path) -> None:
    assert terminal.json("price-list", "create", "supplier", "--name", "Supplier")["currency"] == "USD"
    file = tmp_path / "prices.csv"
    file.write_text("model,token_type,unit_amount,per\nlarge,input,15,1000000\nsmall,input,0.15,1000000\n")
    shown = terminal.run("price-list", "diff", "supplier", str(file), "--from", "2026-01-01").stdout
    assert "0.000015" in shown
    assert "2 change, 0 stay" in shown
    assert terminal.json("price-list", "show", "supplier")["entries"] == []
    terminal.run("price-list", "import", "supplier", str(file), "--from", "2026-01-01", stdin="n\n", code=1)
    assert terminal.json("price-list", "show", "supplier")["entries"] == []
    asked = terminal.run("price-list", "import", "supplier", str(file), "--from", "2026-01-01", stdin="y\n")
    assert "2 prices changed" in asked.stdout
    again = terminal.run("price-list", "import", "supplier", str(file), "--yes")
    assert "nothing changes: 2 prices are as the list has them" in again.stdout
    file.write_text(json.dumps([{"model": "large", "token_type": "input", "unit_amount": 2e-5}]))
    raised = terminal.json("price-list", "import", "supplier", str(file), "--yes", "--withdraw-missing")
    assert [one["kind"] for one in raised["changes"]] == ["KIND_RAISED", "KIND_WITHDRAWN"]
    above = terminal.json("price-list", "override", "supplier", "large", "input", "0.000001")
    assert above["changes"][0]["entry"]["layer"] == "LAYER_OVERRIDE"
    now = terminal.run("price-list", "show", "supplier", "--at", "now").stdout
    assert "0.000001" in now
    assert "small" not in now
    terminal.run("price-list", "override", "supplier", "large", "input", "none")
    assert (
        "0.00002" in terminal.run("price-list", "show", "supplier", "--at", "now", "--model", "large").stdout
    )
    assert "supplier" in terminal.run("price-list", "list").stdout
    file.write_text("model,price\n")
    wrong = terminal.run("price-list", "diff", "supplier", str(file), code=2)
    assert "token_type, unit_amount is missing" in " ".join(wrong.stderr.replace("│", "").split())
