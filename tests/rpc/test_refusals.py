"""Every refusal that the services of customers, plans, subscriptions, checks and invoices promise."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ammeter.v1 import (
    catalog_pb2,
    customer_pb2,
    entitlement_pb2,
    invoice_pb2,
    meter_pb2,
    subscription_pb2,
    usage_pb2,
)
from tests.rpc.shop import Shop, flat, minutes_ago, per_unit, stamp, unique
from tests.rpc.wire import BY_NAME, Failure, refusal
from tests.serving import Stubs


@pytest.fixture(scope="module")
def shop(stubs: Stubs) -> Shop:
    return Shop(stubs, "no")


def told(failed: Failure, code: str, reason: str, *words: str) -> None:
    """A refusal is of a code and a reason, and says what to do in words."""
    assert (failed.code, failed.reason) == (code, reason), failed
    for word in words:
        assert word in failed.message, failed
    assert (failed.retry_seconds is not None) is (reason == "POSITION_NOT_REACHED"), failed


NOT_FOUND = ("NOT_FOUND", "NOT_FOUND", "check the key")
_UNKNOWN: dict[str, dict[str, Any]] = {
    "GetCustomer": {"customer_key": "nobody"},
    "UpdateCustomer": {"customer": {"customer_key": "nobody"}, "update_mask": {"paths": ["name"]}},
    "AssignSubject": {"customer_key": "nobody", "subject": "s"},
    "ReleaseSubject": {"customer_key": "nobody", "subject": "s"},
    "GetFeature": {"feature_key": "nothing"},
    "DeleteFeature": {"feature_key": "nothing"},
    "GetPlan": {"plan_key": "nothing"},
    "ArchivePlan": {"plan_key": "nothing"},
    "CreateSubscription": {"customer_key": "nobody", "plan_key": "nothing"},
    "GetSubscription": {"subscription_id": "sub_0"},
    "CancelSubscription": {"subscription_id": "sub_0"},
    "ListSubscriptions": {"customer_key": "nobody"},
    "ListEntitlements": {"customer_key": "nobody"},
    "ListAccess": {"customer_key": "nobody"},
    "CreateEntitlement": {"entitlement": {"customer_key": "nobody"}},
    "OverrideEntitlement": {"entitlement": {"customer_key": "nobody"}},
    "DeleteEntitlement": {"entitlement_id": "ent_0"},
    "CreateGrant": {"grant": {"entitlement_id": "ent_0"}},
    "VoidGrant": {"grant_id": "grt_0"},
    "ListGrants": {"entitlement_id": "ent_0"},
    "ResetUsage": {"entitlement_id": "ent_0"},
    "GetEntitlementHistory": {"entitlement_id": "ent_0"},
    "GetReservation": {"reservation_id": "rsv_0"},
    "ListReservations": {"customer_key": "nobody"},
    "ExtendReservation": {"reservation_id": "rsv_0"},
    "SettleReservation": {"reservation_id": "rsv_0", "amount": "1"},
    "ReleaseReservation": {"reservation_id": "rsv_0"},
    "RenewLease": {"reservation_id": "rsv_0", "used_amount": "0", "amount": "1"},
    "GetInvoice": {"invoice_id": "inv_0"},
    "IssueInvoice": {"invoice_id": "inv_0"},
    "VoidInvoice": {"invoice_id": "inv_0"},
    "ListInvoices": {"customer_key": "nobody"},
    "GenerateInvoices": {"customer_key": "nobody"},
    "PreviewInvoice": {"customer_key": "nobody"},
    "StartInvoiceGeneration": {"customer_key": "nobody"},
    "GetOperation": {"operation_id": "op_0"},
    "CancelOperation": {"operation_id": "op_0"},
    "GrantCredit": {"credit_lot": {"customer_key": "nobody", "amount": "1"}},
    "PurchaseCredit": {"credit_lot": {"customer_key": "nobody", "amount": "1"}},
    "VoidCreditLot": {"credit_lot_id": "crl_0"},
    "GetCreditLot": {"credit_lot_id": "crl_0"},
    "ListCreditLots": {"customer_key": "nobody"},
    "GetCreditBalance": {"customer_key": "nobody"},
    "ListCreditTransactions": {"customer_key": "nobody"},
    "SetTopUpRule": {"rule": {"customer_key": "nobody", "threshold": "1", "amount": "1"}},
    "GetTopUpRule": {"customer_key": "nobody"},
    "DeleteTopUpRule": {"customer_key": "nobody"},
    "ListCreditEvents": {"customer_key": "nobody"},
}


def _method(stubs: Stubs, name: str) -> Any:  # noqa: ANN401 - of any service
    return next(found for stub in vars(stubs).values() if (found := getattr(stub, name, None)))


@pytest.mark.parametrize("name", _UNKNOWN)
def test_what_is_not_there_is_not_found(name: str, stubs: Stubs) -> None:
    told(refusal(_method(stubs, name), BY_NAME[name].request(**_UNKNOWN[name])), *NOT_FOUND)


# Customers


def test_a_taken_customer_key_or_subject_is_refused(shop: Shop, stubs: Stubs) -> None:
    subject = unique("subject")
    taken = shop.customer(subject)
    create = stubs.customers.CreateCustomer
    request = customer_pb2.CreateCustomerRequest(customer=customer_pb2.Customer(customer_key=taken))
    told(refusal(create, request), "ALREADY_EXISTS", "ALREADY_EXISTS", "choose another")
    other = customer_pb2.Customer(customer_key=unique("c"))
    request = customer_pb2.CreateCustomerRequest(customer=other, subjects=[unique("s"), subject])
    told(refusal(create, request), "FAILED_PRECONDITION", "IN_USE", subject, "AssignSubject")
    failed = refusal(
        stubs.customers.GetCustomer, customer_pb2.GetCustomerRequest(customer_key=other.customer_key)
    )
    assert failed.code == "NOT_FOUND", "nothing was created"


def test_a_stale_etag_and_a_currency_in_use_are_refused(shop: Shop, stubs: Stubs) -> None:
    key = shop.customer()
    shop.subscribe(key, shop.plan(flat("1")))
    for fields, path, answer in (
        ({"name": "x", "etag": '"99"'}, "name", ("ABORTED", "ETAG_MISMATCH", "read it again")),
        ({"currency": "EUR"}, "currency", ("FAILED_PRECONDITION", "WRONG_STATE", "create another customer")),
        ({"time_zone": "Asia/Tokyo"}, "time_zone", ("FAILED_PRECONDITION", "WRONG_STATE", "time_zone")),
    ):
        request: Any = customer_pb2.UpdateCustomerRequest(
            customer=customer_pb2.Customer(customer_key=key, **fields)  # type: ignore[arg-type]
        )
        request.update_mask.paths.append(path)
        told(refusal(stubs.customers.UpdateCustomer, request), *answer)
    request = customer_pb2.UpdateCustomerRequest(customer=customer_pb2.Customer(customer_key=key))
    request.update_mask.paths.append("customer_key")
    failed = refusal(stubs.customers.UpdateCustomer, request)
    told(failed, "INVALID_ARGUMENT", "INVALID_FIELD")
    assert "update_mask" in failed.fields


def test_a_subject_moves_forward_only_and_is_released_by_its_owner_only(shop: Shop, stubs: Stubs) -> None:
    subject = unique("subject")
    first, second = shop.customer(subject), shop.customer()
    assign, release = stubs.customers.AssignSubject, stubs.customers.ReleaseSubject
    assign(
        customer_pb2.AssignSubjectRequest(
            customer_key=second, subject=subject, from_time=stamp(minutes_ago(10))
        )
    )
    earlier = stamp(minutes_ago(20))
    move = customer_pb2.AssignSubjectRequest(customer_key=first, subject=subject, from_time=earlier)
    told(refusal(assign, move), "FAILED_PRECONDITION", "WRONG_STATE", "later from_time")
    strange = customer_pb2.ReleaseSubjectRequest(customer_key=first, subject=subject)
    told(refusal(release, strange), "FAILED_PRECONDITION", "WRONG_STATE", "GetCustomer")
    early = customer_pb2.ReleaseSubjectRequest(customer_key=second, subject=subject, to_time=earlier)
    told(refusal(release, early), "FAILED_PRECONDITION", "WRONG_STATE", "later to_time")


# Features and plans


def test_a_feature_needs_a_meter_that_fits(shop: Shop, stubs: Stubs) -> None:
    create = stubs.catalog.CreateFeature
    average, total = shop.meter("AVG"), shop.meter(dimensions=["model"])
    odd = [usage_pb2.DimensionFilter(dimension="region", values=["x"])]
    for feature, field in (
        (catalog_pb2.Feature(feature_key="f", meter_key="nothing"), "feature.meter_key"),
        (catalog_pb2.Feature(feature_key="f", meter_key=average), "feature.meter_key"),
        (catalog_pb2.Feature(feature_key="f", meter_key=total, filters=odd), "feature.filters[0].dimension"),
        (catalog_pb2.Feature(feature_key="f", filters=odd), "feature.filters"),
        (catalog_pb2.Feature(feature_key="F"), "feature.feature_key"),
    ):
        failed = refusal(create, catalog_pb2.CreateFeatureRequest(feature=feature))
        told(failed, "INVALID_ARGUMENT", "INVALID_FIELD")
        assert field in failed.fields


def test_taken_keys_and_things_in_use_are_refused(shop: Shop, stubs: Stubs) -> None:
    meter = shop.meter()
    feature = shop.feature(meter)
    plan = shop.plan(per_unit(feature, "1"))
    again = catalog_pb2.CreateFeatureRequest(feature=catalog_pb2.Feature(feature_key=feature))
    told(refusal(stubs.catalog.CreateFeature, again), "ALREADY_EXISTS", "ALREADY_EXISTS", "another key")
    twice = catalog_pb2.CreatePlanRequest(plan=catalog_pb2.Plan(plan_key=plan))
    told(refusal(stubs.catalog.CreatePlan, twice), "ALREADY_EXISTS", "ALREADY_EXISTS", "another key")
    delete = catalog_pb2.DeleteFeatureRequest(feature_key=feature)
    told(refusal(stubs.catalog.DeleteFeature, delete), "FAILED_PRECONDITION", "IN_USE", plan)
    drop = meter_pb2.DeleteMeterRequest(meter_key=meter)
    told(refusal(stubs.meters.DeleteMeter, drop), "FAILED_PRECONDITION", "IN_USE", feature)


# Subscriptions


def _subscribing(customer: str, plan: str, **fields: Any) -> subscription_pb2.CreateSubscriptionRequest:  # noqa: ANN401 - its fields
    return subscription_pb2.CreateSubscriptionRequest(customer_key=customer, plan_key=plan, **fields)


def test_a_subscription_that_cannot_be_is_refused_with_the_reason(shop: Shop, stubs: Stubs) -> None:
    create = stubs.subscriptions.CreateSubscription
    customer, feature = shop.customer(), shop.feature(shop.meter())
    plan = shop.plan(per_unit(feature, "1", "5"))
    euros = shop.plan(flat("1"), currency="EUR")
    failed = refusal(create, _subscribing(customer, euros))
    told(failed, "FAILED_PRECONDITION", "WRONG_STATE", "EUR", "USD")
    assert failed.fields == {"plan_key": failed.message}
    closed = shop.plan()
    stubs.catalog.ArchivePlan(catalog_pb2.ArchivePlanRequest(plan_key=closed))
    told(refusal(create, _subscribing(customer, closed)), "FAILED_PRECONDITION", "WRONG_STATE", "archived")
    first = create(_subscribing(customer, plan)).subscription
    rival = shop.plan(per_unit(feature, "2", "9"))
    failed = refusal(create, _subscribing(customer, rival))
    told(failed, "FAILED_PRECONDITION", "FEATURE_OVERLAP", first.subscription_id, feature)
    now = datetime.now(UTC)
    for start in (now - timedelta(days=36), now + timedelta(days=367)):
        failed = refusal(create, _subscribing(shop.customer(), plan, start_time=stamp(start)))
        told(failed, "INVALID_ARGUMENT", "INVALID_FIELD")
        assert "start_time" in failed.fields
    told(refusal(create, _subscribing(customer, "nothing")), *NOT_FOUND)


def test_a_cancellation_that_makes_no_sense_is_refused(shop: Shop, stubs: Stubs) -> None:
    cancel = stubs.subscriptions.CancelSubscription
    sub = shop.subscribe(shop.customer(), shop.plan(flat("1")), minutes_ago(60))
    request = subscription_pb2.CancelSubscriptionRequest
    known = sub.subscription_id
    past, ahead = stamp(minutes_ago(1)), stamp(minutes_ago(-60))
    for wrong, field in (
        (request(subscription_id=known, timing=subscription_pb2.CANCEL_TIMING_AT_TIME), "cancel_time"),
        (
            request(subscription_id=known, timing=subscription_pb2.CANCEL_TIMING_AT_TIME, cancel_time=past),
            "cancel_time",
        ),
        (request(subscription_id=known, cancel_time=ahead), "cancel_time"),
        (request(subscription_id=known, timing=9), "timing"),  # type: ignore[arg-type]
    ):
        failed = refusal(cancel, wrong)
        told(failed, "INVALID_ARGUMENT", "INVALID_FIELD")
        assert list(failed.fields) == [field]
    cancel(request(subscription_id=known))
    told(
        refusal(cancel, request(subscription_id=known)), "FAILED_PRECONDITION", "WRONG_STATE", "ended already"
    )


# Checks


def test_no_is_an_answer_and_nonsense_is_an_error(shop: Shop, stubs: Stubs) -> None:
    check = stubs.entitlements.CheckEntitlement
    customer, feature = shop.customer(), shop.feature()

    def ask(**fields: Any) -> entitlement_pb2.CheckEntitlementRequest:  # noqa: ANN401 - its fields
        return entitlement_pb2.CheckEntitlementRequest(check=entitlement_pb2.EntitlementCheck(**fields))

    for asked, reason in (
        (ask(customer_key="nobody", feature_key=feature), entitlement_pb2.ACCESS_REASON_CUSTOMER_UNKNOWN),
        (ask(subject="nobody's", feature_key=feature), entitlement_pb2.ACCESS_REASON_CUSTOMER_UNKNOWN),
        (ask(customer_key=customer, feature_key="nothing"), entitlement_pb2.ACCESS_REASON_FEATURE_UNKNOWN),
        (ask(customer_key=customer, feature_key=feature), entitlement_pb2.ACCESS_REASON_NOT_ENTITLED),
    ):
        access = check(asked).access
        assert not access.access
        assert access.reason == reason
        assert len(access.message) > 10
    failed = refusal(check, entitlement_pb2.CheckEntitlementRequest())
    told(failed, "INVALID_ARGUMENT", "INVALID_FIELD")
    assert failed.fields.keys() == {"check.customer_key", "check.feature_key"}
    unreached = ask(customer_key=customer, feature_key=feature)
    unreached.min_position = 2**62
    told(refusal(check, unreached), "FAILED_PRECONDITION", "POSITION_NOT_REACHED", "try again")
    many = entitlement_pb2.BatchCheckEntitlementsRequest(checks=[unreached.check] * 1001)
    failed = refusal(stubs.entitlements.BatchCheckEntitlements, many)
    told(failed, "INVALID_ARGUMENT", "INVALID_FIELD", "split")
    assert "checks" in failed.fields


# Invoices


def test_an_invoice_goes_from_draft_to_issued_to_void_and_no_other_way(shop: Shop, stubs: Stubs) -> None:
    customer = shop.customer()
    shop.subscribe(customer, shop.plan(flat("10")), datetime.now(UTC) - timedelta(days=32))
    run = invoice_pb2.GenerateInvoicesRequest(customer_key=customer)
    made = [step.invoice for step in stubs.invoices.GenerateInvoices(run) if step.HasField("invoice")]
    (draft,) = made
    assert draft.state == invoice_pb2.Invoice.STATE_DRAFT
    issue = invoice_pb2.IssueInvoiceRequest(invoice_id=draft.invoice_id)
    issued = stubs.invoices.IssueInvoice(issue)
    assert issued.invoice.number > 0
    assert stubs.invoices.IssueInvoice(issue) == issued, "issuing again answers it as it is"
    void = invoice_pb2.VoidInvoiceRequest(invoice_id=draft.invoice_id)
    voided = stubs.invoices.VoidInvoice(void)
    assert voided.invoice.number == issued.invoice.number
    assert stubs.invoices.VoidInvoice(void) == voided, "voiding again, too"
    told(refusal(stubs.invoices.IssueInvoice, issue), "FAILED_PRECONDITION", "WRONG_STATE", "void")


def test_a_preview_says_which_subscription_it_needs(shop: Shop, stubs: Stubs) -> None:
    customer = shop.customer()
    preview = invoice_pb2.PreviewInvoiceRequest(customer_key=customer)
    told(refusal(stubs.invoices.PreviewInvoice, preview), "NOT_FOUND", "NOT_FOUND", customer)
    subs = [shop.subscribe(customer, shop.plan(flat("1"))) for _ in range(2)]
    failed = refusal(stubs.invoices.PreviewInvoice, preview)
    told(failed, "INVALID_ARGUMENT", "INVALID_FIELD", *(sub.subscription_id for sub in subs))
    assert list(failed.fields) == ["subscription_id"]
    failed = refusal(stubs.invoices.PreviewInvoice, invoice_pb2.PreviewInvoiceRequest())
    assert list(failed.fields) == ["customer_key"]
    later = shop.customer()
    shop.subscribe(later, shop.plan(flat("1")), minutes_ago(-60))
    preview = invoice_pb2.PreviewInvoiceRequest(customer_key=later)
    told(
        refusal(stubs.invoices.PreviewInvoice, preview),
        "FAILED_PRECONDITION",
        "WRONG_STATE",
        "GenerateInvoices",
    )
    wrong = invoice_pb2.ListInvoicesRequest(state=9)  # type: ignore[arg-type]
    assert list(refusal(stubs.invoices.ListInvoices, wrong).fields) == ["state"]
