"""CustomerService over the wire."""

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from ammeter.v1 import customer_pb2 as pb
from tests.rpc.wire import refusal
from tests.serving import Stubs


def create(
    stubs: Stubs, key: str, *subjects: str, name: str = "", email: str = "", time_zone: str = ""
) -> pb.Customer:
    customer = pb.Customer(customer_key=key, name=name, email=email, time_zone=time_zone)
    request = pb.CreateCustomerRequest(customer=customer, subjects=subjects)
    return stubs.customers.CreateCustomer(request).customer


def test_a_customer_is_read_back_as_created(stubs: Stubs) -> None:
    created = create(stubs, "read:back@1", "r1", "r2", name="Ä & Co", email="a@b.c", time_zone="Asia/Tokyo")
    assert stubs.customers.GetCustomer(pb.GetCustomerRequest(customer_key="read:back@1")).customer == created
    assert [span.subject for span in created.subjects] == ["r1", "r2"]
    assert not any(span.HasField("from_time") or span.HasField("to_time") for span in created.subjects)
    assert created.create_time == created.update_time
    assert (created.currency, created.time_zone) == ("USD", "Asia/Tokyo")


def test_the_same_request_id_gives_the_first_answer(stubs: Stubs) -> None:
    request = pb.CreateCustomerRequest(customer=pb.Customer(customer_key="once"), request_id="once-1")
    assert stubs.customers.CreateCustomer(request) == stubs.customers.CreateCustomer(request)
    request.customer.name = "other"
    assert refusal(stubs.customers.CreateCustomer, request).reason == "REQUEST_ID_CONFLICT"


def test_subjects_are_named_beside_the_customer_not_in_it(stubs: Stubs) -> None:
    request = pb.CreateCustomerRequest(
        customer=pb.Customer(customer_key="x", subjects=[pb.SubjectSpan(subject="s")])
    )
    assert list(refusal(stubs.customers.CreateCustomer, request).fields) == ["customer.subjects"]


def test_every_fault_has_its_field(stubs: Stubs) -> None:
    customer = pb.Customer(customer_key="", currency="usd", time_zone="nowhere")
    failure = refusal(
        stubs.customers.CreateCustomer, pb.CreateCustomerRequest(customer=customer, subjects=["", "a"])
    )
    assert failure.code == "INVALID_ARGUMENT"
    assert list(failure.fields) == [
        "customer.customer_key",
        "customer.currency",
        "customer.time_zone",
        "subjects[0]",
    ]


def test_an_update_follows_mask_and_etag(stubs: Stubs) -> None:
    created = create(stubs, "updated", name="old", email="old@b")
    change = pb.Customer(customer_key="updated", name="new", etag=created.etag)
    request = pb.UpdateCustomerRequest(customer=change, update_mask=FieldMask(paths=["name", "email"]))
    updated = stubs.customers.UpdateCustomer(request).customer
    assert (updated.name, updated.email) == ("new", "")
    assert updated.etag != created.etag
    stale = refusal(stubs.customers.UpdateCustomer, request)
    assert (stale.code, stale.reason) == ("ABORTED", "ETAG_MISMATCH")
    request.update_mask.paths[:] = ["subjects"]
    assert list(refusal(stubs.customers.UpdateCustomer, request).fields) == ["update_mask"]


def test_subjects_move_and_are_released_at_whole_minutes(stubs: Stubs) -> None:
    create(stubs, "mover-a", "moving")
    create(stubs, "mover-b")
    assigned = stubs.customers.AssignSubject(
        pb.AssignSubjectRequest(
            customer_key="mover-b", subject="moving", from_time=Timestamp(seconds=1_700_000_059)
        )
    ).customer
    assert [span.from_time.seconds for span in assigned.subjects] == [1_700_000_040]
    before = stubs.customers.GetCustomer(pb.GetCustomerRequest(customer_key="mover-a")).customer
    assert [span.to_time.seconds for span in before.subjects] == [1_700_000_040]
    too_early = pb.AssignSubjectRequest(
        customer_key="mover-a", subject="moving", from_time=Timestamp(seconds=1_700_000_039)
    )
    assert refusal(stubs.customers.AssignSubject, too_early).code == "FAILED_PRECONDITION"
    released = stubs.customers.ReleaseSubject(
        pb.ReleaseSubjectRequest(
            customer_key="mover-b", subject="moving", to_time=Timestamp(seconds=1_700_000_101)
        )
    ).customer
    assert released.subjects[0].to_time.seconds == 1_700_000_100


def test_a_list_is_paged_by_key_and_its_token_is_of_that_list(stubs: Stubs) -> None:
    for number in range(5):
        create(stubs, f"list-{number}")
    found: list[str] = []
    request = pb.ListCustomersRequest(page_size=2)
    while True:
        page = stubs.customers.ListCustomers(request)
        assert len(page.customers) <= 2
        found += [customer.customer_key for customer in page.customers]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert {f"list-{number}" for number in range(5)} <= set(found)
    assert len(found) == len(set(found))
    bad = refusal(stubs.customers.ListCustomers, pb.ListCustomersRequest(page_token="AAAA"))  # noqa: S106 - no secret
    assert bad.reason == "INVALID_PAGE_TOKEN"
    assert list(refusal(stubs.customers.ListCustomers, pb.ListCustomersRequest(page_size=1001)).fields) == [
        "page_size"
    ]
