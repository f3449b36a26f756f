"""A tenant never sees or touches another's: every method, with every key and id of the other.

Three lines of defence are tried one by one: the server as it is, row-level
security with the application's own filter turned the wrong way, and the
filter with row-level security switched off.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import psycopg
import pytest
import sqlalchemy as sa
from google.protobuf.message import Message

from ammeter.domain.key import SCOPES as ALL_SCOPES
from ammeter.domain.key import Caller
from ammeter.errors import AmmeterError
from ammeter.rpc.access import AccessRpc
from ammeter.rpc.add_on import AddOnRpc
from ammeter.rpc.billing import BillingRpc
from ammeter.rpc.bind import Service
from ammeter.rpc.catalog import CatalogRpc
from ammeter.rpc.coupon import CouponRpc
from ammeter.rpc.credit import CreditRpc
from ammeter.rpc.credit_note import CreditNoteRpc
from ammeter.rpc.customer import CustomerRpc
from ammeter.rpc.entitlement import EntitlementRpc
from ammeter.rpc.invoice import InvoiceRpc
from ammeter.rpc.key import KeyRpc
from ammeter.rpc.meter import MeterRpc
from ammeter.rpc.method import Method, Run
from ammeter.rpc.notification import NotificationRpc
from ammeter.rpc.operation import OperationRpc
from ammeter.rpc.price_list import PriceListRpc
from ammeter.rpc.price_override import PriceOverrideRpc
from ammeter.rpc.reservation import ReservationRpc
from ammeter.rpc.streams import Streams
from ammeter.rpc.subscription import SubscriptionRpc
from ammeter.rpc.usage import UsageRpc
from ammeter.store.db import Database, Tx
from ammeter.usecases.engine import Engine
from ammeter.usecases.live import Live
from ammeter.usecases.measure import engine_billing
from ammeter.usecases.meters import MeterShop
from ammeter.v1 import (
    billing_pb2,
    credit_note_pb2,
    credit_pb2,
    entitlement_pb2,
    invoice_pb2,
    notification_pb2,
    operation_pb2,
    price_override_pb2,
    price_pb2,
    reservation_pb2,
    usage_pb2,
)
from tests.rpc.shop import (
    PEPPER,
    SCOPES,
    Shop,
    eventually,
    flat,
    key_with,
    minutes_ago,
    new_tenant,
    per_unit,
    stamp,
    stubs_with,
)
from tests.rpc.wire import BY_NAME, RPCS, TEXT, Failure, Rpc, attempt, call, leaves, refused
from tests.serving import ServerProcess
from tests.usecases.inline import Inline

MARK = "canary"
# What a method answers to a stranger who knows every key and id.
_MAY_DO_SO_FOR_THEMSELVES = {
    "RecordUsage",
    "StreamUsage",
    "CreateMeter",
    "CreateCustomer",
    "CreateKey",
    "CreatePlan",
    "DraftPlan",
    "CreateFeature",
    "CreateTaxRate",
    "CreatePriceList",
    "CreateCoupon",
    "SetBillingProfile",
}
_ANSWERS_NO = {
    "CheckEntitlement",
    "BatchCheckEntitlements",
    "StreamChecks",
    "WatchAccess",
    "ExplainAccess",
    "Reserve",
}


@dataclass(frozen=True)
class Alpha:
    """A tenant that has one of everything, and the secrets in it."""

    server: ServerProcess
    url: str
    tenant_id: int
    secret: str
    shop: Shop
    names: dict[str, str]

    def words(self) -> set[str]:
        """What must not be seen elsewhere."""
        return {MARK, *(name for field, name in self.names.items() if field.endswith("_id"))}


@pytest.fixture(scope="module")
def alpha(new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alpha]:
    url = new_database()
    settings = {
        "allow_anonymous_loopback": "false",
        "key_pepper": PEPPER,
        "billing_interval_seconds": 0.5,
    }
    with ServerProcess(url, tmp_path_factory.mktemp("tenants"), **settings) as server:
        tenant_id, admin = new_tenant(url, f"{MARK}-tenant")
        key_id, secret = key_with(stubs_with(server, admin), *SCOPES)
        shop = Shop(stubs_with(server, secret), MARK)
        yield Alpha(server, url, tenant_id, secret, shop, _stock(shop) | {"key_id": key_id})


def _stock(shop: Shop) -> dict[str, str]:
    """Make one of everything, and of some two, so that lists have a second page; returns names by field."""
    meter = shop.meter(dimensions=[f"{MARK}-dimension"])
    feature = shop.feature(meter)
    plan = shop.plan(flat("10"), per_unit(feature, "1", "5"))
    shop.draft(flat("11"), plan_key=plan)
    subject = f"{MARK}-subject"
    customer = shop.customer(subject)
    sub = shop.subscribe(customer, plan, datetime.now(UTC) - timedelta(days=32))
    other = shop.customer(f"{MARK}-other")
    shop.subscribe(other, plan, datetime.now(UTC) - timedelta(days=32))
    shop.meter("COUNT", event_type=f"{MARK}.more")
    shop.feature()
    shop.plan()
    event = shop.event(subject, 3, id=f"{MARK}-id", properties={f"{MARK}-dimension": MARK})
    shop.record(event, shop.event(subject, 4))
    steps = list(shop.stubs.invoices.GenerateInvoices(invoice_pb2.GenerateInvoicesRequest(issue=True)))
    shop.stubs.invoices.StartInvoiceGeneration(
        invoice_pb2.StartInvoiceGenerationRequest(customer_key=customer)
    )
    entitlements = shop.stubs.entitlements.ListEntitlements(
        entitlement_pb2.ListEntitlementsRequest(customer_key=customer)
    )
    entitlement_id = entitlements.entitlements[0].entitlement_id
    for _ in range(2):
        draft = entitlement_pb2.Grant(entitlement_id=entitlement_id, amount="2")
        grant = shop.stubs.entitlements.CreateGrant(entitlement_pb2.CreateGrantRequest(grant=draft)).grant
    reservations = [
        shop.stubs.reservations.Reserve(
            reservation_pb2.ReserveRequest(
                customer_key=customer, feature_key=feature, amount="0.5", lease=lease, lifetime_ms=3_600_000
            )
        ).reservation
        for lease in (False, True)
    ]
    threshold, _ = shop.threshold(kind=1, amount="1"), shop.threshold(kind=2, amount="0")
    told = notification_pb2.ListNotificationsRequest()
    eventually(lambda: len(shop.stubs.notifications.ListNotifications(told).notifications) > 1)
    tax_rate, _ = shop.tax_rate(), shop.tax_rate()
    for whose in ("", customer):
        profile = billing_pb2.BillingProfile(customer_key=whose, memo=MARK)
        shop.stubs.billing.SetBillingProfile(billing_pb2.SetBillingProfileRequest(profile=profile))
    for key in ("base", feature):
        agreed = price_override_pb2.PriceOverride(
            subscription_id=sub.subscription_id,
            rate_card_key=key,
            discounts=price_pb2.Discounts(percentage="1"),
            reason=MARK,
        )
        override = shop.stubs.price_overrides.CreatePriceOverride(
            price_override_pb2.CreatePriceOverrideRequest(price_override=agreed)
        ).price_override
    for word in ("one", "two"):
        added = shop.add_on(sub.subscription_id, plan_key=shop.plan(flat("1", key=word)))
    coupon, more = shop.coupon(), shop.coupon()
    shop.attach(more, customer_key=customer)
    attached = shop.attach(coupon, customer_key=customer)
    price_list, _ = shop.price_list(**{MARK: "1", "other": "2"}), shop.price_list()
    notes = [
        shop.stubs.credit_notes.CreateCreditNote(
            credit_note_pb2.CreateCreditNoteRequest(
                invoice_id=steps[0].invoice.invoice_id, amount="0.10", reason=MARK
            )
        ).credit_note
        for _ in range(2)
    ]
    for whose in (other, customer):
        rule = credit_pb2.TopUpRule(customer_key=whose, threshold="9", amount="9")
        shop.stubs.credits.SetTopUpRule(credit_pb2.SetTopUpRuleRequest(rule=rule))
        draft_lot = credit_pb2.CreditLot(customer_key=whose, amount="1", description=MARK, reference=MARK)
        lot = shop.stubs.credits.GrantCredit(credit_pb2.GrantCreditRequest(credit_lot=draft_lot)).credit_lot
    events = credit_pb2.ListCreditEventsRequest()
    eventually(lambda: len(shop.stubs.credits.ListCreditEvents(events).events) == 2)
    operations = shop.stubs.operations.ListOperations(operation_pb2.ListOperationsRequest()).operations
    return {
        "operation_id": operations[0].operation_id,
        "credit_lot_id": lot.credit_lot_id,
        "add_on_id": added.add_on_id,
        "price_override_id": override.price_override_id,
        "coupon_key": coupon,
        "attached_coupon_id": attached.attached_coupon_id,
        "price_list_key": price_list,
        "model": MARK,
        "token_type": "input",
        "threshold_id": threshold.threshold_id,
        "tax_rate_key": tax_rate,
        "tax_rate_keys": tax_rate,
        "credit_note_id": notes[0].credit_note_id,
        "line_id": notes[0].lines[0].line_id,
        "meter_key": meter,
        "feature_key": feature,
        "plan_key": plan,
        "customer_key": customer,
        "customer_keys": customer,
        "subject": subject,
        "subjects": subject,
        "subscription_id": sub.subscription_id,
        "invoice_id": steps[0].invoice.invoice_id,
        "entitlement_id": entitlement_id,
        "grant_id": grant.grant_id,
        "reservation_id": reservations[0].reservation_id,
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "event_type": event.type,
        "dimension": f"{MARK}-dimension",
        "value_property": "tokens",
        "rate_card_key": "base",
    }


def requests(rpc: Rpc, names: dict[str, str]) -> Iterator[Message]:
    """Requests of a method with the other's names in the fields that take one: one at a time, and all."""
    taking = [leaf for leaf in leaves(rpc.method.input_type, kinds=TEXT) if leaf.field.name in names]
    for chosen in [*([leaf] for leaf in taking), taking]:
        request: Any = rpc.request()
        for leaf in chosen:
            leaf.put(request, names[leaf.field.name])
        if rpc.name == "QueryUsage":
            request.from_time.CopyFrom(stamp(minutes_ago(60)))
            request.to_time.CopyFrom(stamp(minutes_ago(-60)))
        if "update_mask" in rpc.field_names:
            request.update_mask.paths.append("name")
        if rpc.name in {"Reserve", "SettleReservation", "RenewLease"}:
            request.amount = "1"
        if rpc.name == "RenewLease":
            request.used_amount = "0"
        if rpc.name == "CreateMeter":
            request.meter.aggregation = 2
        if rpc.name == "CreateKey":
            request.scopes.append(3)
        yield request


def leaks(answer: bytes | str, request: Message, words: set[str]) -> set[str]:
    """The words of the other that an answer holds and the request did not."""
    text = answer if isinstance(answer, str) else answer.decode("latin1")
    sent = [
        str(value)
        for leaf in leaves(request.DESCRIPTOR, kinds=TEXT)
        for value in _values(request, [field.name for field in leaf.way])
    ]
    for word in sorted(sent, key=len, reverse=True):
        if word:
            text = text.replace(word, "")
    return {word for word in words if word in text}


def _values(message: Any, way: list[str]) -> list[object]:  # noqa: ANN401 - a message, or repeated, or a map
    if not way:
        return [message]
    inner = getattr(message, way[0], None)
    if isinstance(inner, str | Message):
        return _values(inner, way[1:])
    return [found for one in inner or () for found in _values(one, way[1:])]


@pytest.fixture
def stranger(alpha: Alpha) -> Iterator[tuple[grpc.Channel, str]]:
    """A key of another tenant, new and empty."""
    _, admin = new_tenant(alpha.url, f"beta{datetime.now(UTC).timestamp():.6f}".replace(".", "-"))
    _, secret = key_with(stubs_with(alpha.server, admin), *SCOPES)
    channel = alpha.server.channel()
    yield channel, secret
    channel.close()


def contents(url: str, tenant_id: int) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of a tenant."""
    found = {}
    with psycopg.connect(url) as conn:
        for table in _tables(conn) - {"writer", "server_state", "alembic_version"}:
            rows = conn.execute(f"SELECT * FROM {table} WHERE tenant_id = {tenant_id}".encode()).fetchall()
            found[table] = sorted(rows, key=repr)
    del found["blocks"], found["checkpoints"], found["top_up_rules"]  # written as time goes by
    return found


def _tables(conn: psycopg.Connection[Any]) -> set[str]:
    query = (
        "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
    )
    return {name for (name,) in conn.execute(query)}


@pytest.mark.parametrize("rpc", RPCS, ids=str)
def test_no_method_shows_or_touches_what_is_anothers(
    rpc: Rpc, alpha: Alpha, stranger: tuple[grpc.Channel, str]
) -> None:
    channel, secret = stranger
    before = contents(alpha.url, alpha.tenant_id)
    for request in requests(rpc, alpha.names):
        outcome = attempt(channel, rpc, request, secret=secret)
        if isinstance(outcome, Failure):
            told = f"{outcome.message} {outcome.fields}"
            assert not leaks(told, request, alpha.words()), (request, outcome)
            again = (
                outcome.code in {"ALREADY_EXISTS", "FAILED_PRECONDITION"}
                and rpc.name in _MAY_DO_SO_FOR_THEMSELVES
            )
            assert again or outcome.code in {"NOT_FOUND", "INVALID_ARGUMENT"}, (request, outcome)
            continue
        for answer in outcome:
            assert not leaks(answer, request, alpha.words()), (request, answer)
            _assert_nothing_in(rpc, answer)
    assert contents(alpha.url, alpha.tenant_id) == before


def _assert_nothing_in(rpc: Rpc, answer: bytes) -> None:
    if rpc.name in _MAY_DO_SO_FOR_THEMSELVES or rpc.name == "ListKeys":
        return
    message = rpc.response.FromString(answer)
    if rpc.name in _ANSWERS_NO:
        assert "access: true" not in str(message)
        return
    for field, value in message.ListFields():
        assert not field.is_repeated, (str(rpc), message)
        assert not isinstance(value, Message), (str(rpc), message)


@pytest.mark.parametrize(
    "name",
    [
        "GetMeter",
        "GetCustomer",
        "GetFeature",
        "GetPlan",
        "GetSubscription",
        "GetReservation",
        "GetInvoice",
        "GetCreditNote",
        "GetPriceList",
        "GetCoupon",
        "QueryUsage",
    ],
)
def test_anothers_and_nobodys_are_told_apart_by_nothing(
    name: str, alpha: Alpha, stranger: tuple[grpc.Channel, str]
) -> None:
    channel, secret = stranger
    rpc = BY_NAME[name]
    *_, theirs = requests(rpc, {**alpha.names, "customer_keys": "", "subjects": "", "dimension": ""})
    unknown = {field: value[:-1] + "~" for field, value in alpha.names.items()}
    *_, nobodys = requests(rpc, {**unknown, "customer_keys": "", "subjects": "", "dimension": ""})
    first = refused(channel, rpc, theirs, secret=secret)
    second = refused(channel, rpc, nobodys, secret=secret)
    assert first
    assert second
    assert (first.code, first.reason) == (second.code, second.reason) == ("NOT_FOUND", "NOT_FOUND")
    assert len(first.message) == len(second.message)


@pytest.mark.parametrize("rpc", [rpc for rpc in RPCS if "page_token" in rpc.field_names], ids=str)
def test_anothers_page_token_opens_no_page_of_theirs(
    rpc: Rpc, alpha: Alpha, stranger: tuple[grpc.Channel, str]
) -> None:
    channel, secret = stranger
    request: Any = rpc.request(page_size=1)
    if rpc.name == "ListEntitlements":
        request.customer_key = alpha.names["customer_key"]
    if rpc.name == "ListGrants":
        request.entitlement_id = alpha.names["entitlement_id"]
    if rpc.name in {"ListPriceOverrides", "ListAddOns"}:
        request.subscription_id = alpha.names["subscription_id"]
    if rpc.name == "ListPrices":
        request.price_list_key = alpha.names["price_list_key"]
    if rpc.name == "QueryUsage":
        request.meter_key = alpha.names["meter_key"]
        request.window_size = usage_pb2.WINDOW_SIZE_MINUTE
        request.fill = True
        request.from_time.CopyFrom(stamp(minutes_ago(60)))
        request.to_time.CopyFrom(stamp(minutes_ago(-60)))
    (own,) = call(channel, rpc, request, secret=alpha.secret)
    token = rpc.response.FromString(own).next_page_token  # type: ignore[attr-defined]
    if rpc.name == "ListEntitlements":
        assert not token, "there is one"
        return
    assert token, "or this shows nothing"
    request.page_token = token
    outcome = attempt(channel, rpc, request, secret=secret)
    if isinstance(outcome, Failure):
        assert outcome.reason in {"NOT_FOUND", "INVALID_PAGE_TOKEN"}
        assert not leaks(outcome.message, request, alpha.words())
        return
    (answer,) = outcome
    assert not leaks(answer, request, alpha.words())
    if rpc.name != "ListKeys":
        _assert_nothing_in(rpc, answer)


def test_the_same_keys_and_event_ids_are_free_in_another_tenant(
    alpha: Alpha, stranger: tuple[grpc.Channel, str]
) -> None:
    _, secret = stranger
    mine = Shop(stubs_with(alpha.server, secret), "mine")
    mine.meter(meter_key=alpha.names["meter_key"], event_type=alpha.names["type"])
    event = mine.event(
        alpha.names["subject"], 1000, id=alpha.names["id"], source=MARK, type=alpha.names["type"]
    )
    answer = mine.record(event)
    assert (answer.accepted_count, answer.duplicate_count, answer.conflict_count) == (1, 0, 0)
    assert mine.total(alpha.names["meter_key"]) == "1000"
    assert alpha.shop.total(alpha.names["meter_key"]) == "7"


# One line of defence at a time


class Crossed(Database):
    """Transactions of `shown` for row-level security (None: without) and of `asked` for our own filters.

    They are rolled back, so that what is written in one is in no other.
    """

    def __init__(self, url: str, shown: int | None, asked: int) -> None:
        super().__init__(url)
        self._shown = shown
        self._asked = asked

    @contextmanager
    def tenant(self, tenant_id: int, *, snapshot: bool = False) -> Iterator[Tx]:
        del tenant_id
        if self._shown is None:
            with self._pool.connect() as conn:
                # As a superuser, whom no policy binds.
                query = sa.text("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
                assert conn.execute(query).scalar()
                yield Tx(conn, self._asked)
                conn.rollback()
            return
        with super().tenant(self._shown, snapshot=snapshot) as tx:
            yield Tx(tx.conn, self._asked)
            transaction = tx.conn.get_transaction()
            assert transaction is not None
            transaction.rollback()


def _services(db: Database, engine: Engine, tenant_id: int) -> list[Service]:
    live = Live(db, engine)
    run = engine_billing(db, engine, timedelta(days=35))
    return [
        UsageRpc(db, engine, None, 1, 0),  # type: ignore[arg-type]  # nothing is recorded
        MeterRpc(MeterShop(engine, lambda _: None, set())),
        CustomerRpc(live),
        CatalogRpc(live),
        SubscriptionRpc(live, db),
        EntitlementRpc(live, db),
        ReservationRpc(live, None),  # type: ignore[arg-type]  # nothing is decided
        AccessRpc(live, Streams(), None),  # type: ignore[arg-type]  # nobody watches
        InvoiceRpc(run, Inline(run, tenant_id, lambda: datetime.now(UTC))),
        OperationRpc(),
        NotificationRpc(db, None, Streams(), lambda: None),  # type: ignore[arg-type]  # nothing rings
        CreditNoteRpc(db),
        CreditRpc(run),
        BillingRpc(),
        PriceListRpc(),
        CouponRpc(),
        PriceOverrideRpc(),
        AddOnRpc(live),
        KeyRpc(b"pepper"),
    ]


def _run(db: Database, method: Method, asked: int, request: Message) -> list[Message]:
    now = datetime.now(UTC)
    caller = Caller(asked, "", "", ALL_SCOPES)
    if method.run in {Run.READ, Run.WRITE}:
        with db.tenant(asked) as tx:
            return [method.call(tx, request, now)]
    if method.run is Run.PLAIN:
        return [method.call(caller, request, now)]
    return list(method.call(caller, request, now))


# These answer from memory, which is asked by tenant: no row is read.
_MEMORY_ONLY = {
    "RecordUsage",
    "StreamUsage",
    "CheckEntitlement",
    "BatchCheckEntitlements",
    "ListAccess",
    "Reserve",
    "ExtendReservation",
    "SettleReservation",
    "ReleaseReservation",
    "RenewLease",
    "StreamChecks",
    "WatchAccess",
    "WatchNotifications",  # reads what ListNotifications does
}


@pytest.fixture(scope="module")
def beta_id(alpha: Alpha) -> int:
    return new_tenant(alpha.url, "beta")[0]


@pytest.fixture(scope="module")
def engine(alpha: Alpha, beta_id: int) -> Engine:
    empty = Engine(hash_key=bytes(16), horizon_past_seconds=1, horizon_future_seconds=1, max_pending_bytes=1)
    for tenant_id in (alpha.tenant_id, beta_id):
        empty.open_tenant(tenant_id, 0, bytes(32))
    return empty


@pytest.mark.parametrize("line", ["row-level security alone", "the filter alone"])
def test_each_line_of_defence_holds_alone(line: str, alpha: Alpha, beta_id: int, engine: Engine) -> None:
    shown, asked = (beta_id, alpha.tenant_id) if line.startswith("row") else (None, beta_id)
    before = contents(alpha.url, alpha.tenant_id)
    tried = set()
    with closing(Crossed(alpha.url, shown, asked)) as db:
        for service in _services(db, engine, asked):
            for method in service.methods():
                tried.add(method.name)
                if method.name in _MEMORY_ONLY:
                    continue
                for request in requests(BY_NAME[method.name], alpha.names):
                    _assert_barred(db, method, asked, request, alpha)
    assert tried == BY_NAME.keys()
    assert contents(alpha.url, alpha.tenant_id) == before


def _assert_barred(db: Database, method: Method, asked: int, request: Message, alpha: Alpha) -> None:
    rpc = BY_NAME[method.name]
    refusal: Exception | None = None
    answers: list[Message] = []
    try:
        answers = _run(db, method, asked, request)
    except (AmmeterError, sa.exc.ProgrammingError) as error:
        refusal = error
    if isinstance(refusal, AmmeterError):
        assert not leaks(refusal.message, request, alpha.words()), (method.name, refusal)
    elif refusal is not None:
        # What would be written under the other's number is refused by the policy.
        assert "row-level security" in str(refusal), (method.name, refusal)
    for answer in answers:
        assert not leaks(answer.SerializeToString(), request, alpha.words()), (method.name, answer)
        _assert_nothing_in(rpc, answer.SerializeToString())


def test_the_tenant_itself_finds_all_that_the_others_did_not(alpha: Alpha, engine: Engine) -> None:
    # Or the test above could pass by asking in vain.
    found = set()
    with closing(Crossed(alpha.url, alpha.tenant_id, alpha.tenant_id)) as db:
        for service in _services(db, engine, alpha.tenant_id):
            for method in service.methods():
                if method.run is not Run.READ:
                    continue
                *_, request = requests(BY_NAME[method.name], alpha.names)
                (answer,) = _run(db, method, alpha.tenant_id, request)
                text = answer.SerializeToString()
                if any(word.encode() in text for word in alpha.words()) or method.name == "ListKeys":
                    found.add(method.name)
    reads = {rpc.name for rpc in RPCS if rpc.name.startswith(("Get", "List"))}
    assert found == reads - {
        "ListEvents",
        "ListAccess",
        "GetEntitlementHistory",
        "GetCreditBalance",
    }  # plain, or from memory


# The schema


@pytest.fixture(scope="module")
def conn(alpha: Alpha) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(alpha.url, autocommit=True) as connection:
        yield connection


def test_every_table_has_row_level_security_forced_and_a_policy(conn: psycopg.Connection[Any]) -> None:
    query = """
        SELECT relname FROM pg_class c
        WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace
          AND NOT (relrowsecurity AND relforcerowsecurity
                   AND EXISTS (SELECT FROM pg_policy WHERE polrelid = c.oid))
    """
    assert {name for (name,) in conn.execute(query)} == {"alembic_version"}


def test_every_policy_of_the_application_is_about_its_tenant(conn: psycopg.Connection[Any]) -> None:
    query = "SELECT tablename, qual, with_check FROM pg_policies WHERE 'ammeter_app' = ANY (roles)"
    rows = conn.execute(query).fetchall()
    assert len(rows) >= 19
    for table, reading, writing in rows:
        for condition in (reading, writing):
            assert "tenant_id = (NULLIF(current_setting('ammeter.tenant'" in condition, table


def test_the_roles_own_nothing_and_cannot_step_around_a_policy(conn: psycopg.Connection[Any]) -> None:
    flags = "rolsuper, rolbypassrls, rolcanlogin, rolcreaterole, rolcreatedb"
    for role in ("ammeter_app", "ammeter_engine"):
        query = f"SELECT {flags} FROM pg_roles WHERE rolname = '{role}'"
        assert conn.execute(query.encode()).fetchone() == (False,) * 5
        query = f"SELECT count(*) FROM pg_class WHERE relowner = '{role}'::regrole"
        assert conn.execute(query.encode()).fetchone() == (0,)
        query = f"SELECT count(*) FROM pg_auth_members WHERE member = '{role}'::regrole"
        assert conn.execute(query.encode()).fetchone() == (0,)


@pytest.mark.parametrize("tenant", [None, "", "0", "2147483647"])
def test_the_application_without_a_tenant_sees_nothing(
    tenant: str | None, conn: psycopg.Connection[Any]
) -> None:
    seen = 0
    for table in _tables(conn) - {"alembic_version"}:
        with conn.transaction():
            conn.execute("SET LOCAL ROLE ammeter_app")
            if tenant is not None:
                conn.execute("SELECT set_config('ammeter.tenant', %s, true)", [tenant])
            try:
                with conn.transaction():
                    rows = conn.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
            except psycopg.errors.InsufficientPrivilege:
                assert table in {"writer", "server_state", "alembic_version"}
                continue
            assert rows == (0,), table
            seen += 1
    assert seen >= 19


def test_the_application_cannot_write_for_another_tenant_nor_rewrite_history(
    alpha: Alpha, beta_id: int, conn: psycopg.Connection[Any]
) -> None:
    statements = [
        f"INSERT INTO invoice_numbers VALUES ({alpha.tenant_id}, 9)",
        f"INSERT INTO requests VALUES ({alpha.tenant_id}, 'x', '', '', '')",
        "DELETE FROM segments",
        "UPDATE segments SET event_count = 1",
        "INSERT INTO segments SELECT * FROM segments",
        "UPDATE heads SET position = 0",
        "DELETE FROM invoices",
        "DELETE FROM api_keys",
        "TRUNCATE customers",
        "SELECT * FROM server_state",
        "CREATE TABLE mine (x int)",
    ]
    for statement in statements:
        with conn.transaction(force_rollback=True):
            conn.execute("SET LOCAL ROLE ammeter_app")
            conn.execute("SELECT set_config('ammeter.tenant', %s, true)", [str(beta_id)])
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(statement.encode())


def test_two_tenants_at_once_never_see_each_others_numbers(
    alpha: Alpha, stranger: tuple[grpc.Channel, str]
) -> None:
    # Pooled connections change hands: the tenant must not stay behind on one.
    channel, secret = stranger
    rpc = BY_NAME["ListCustomers"]
    wrong: list[object] = []

    def look(key: str, *, own: bool) -> None:
        for _ in range(60):
            (answer,) = call(channel, rpc, secret=key)
            if (MARK.encode() in answer) is not own:
                wrong.append(answer)

    threads = [
        threading.Thread(target=look, args=(key,), kwargs={"own": own})
        for key, own in ((alpha.secret, True), (secret, False)) * 3
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
