"""CustomerService: customers and their subjects."""

from datetime import datetime

from ammeter.domain.customer import Customer, CustomerDraft, Span
from ammeter.domain.minute import time_of
from ammeter.errors import invalid
from ammeter.rpc import paging
from ammeter.rpc.convert import from_timestamp, to_timestamp
from ammeter.rpc.method import ADMIN, READ, Method
from ammeter.store import customers as store
from ammeter.store.db import Tx
from ammeter.usecases import customers
from ammeter.usecases.live import Live
from ammeter.v1 import customer_pb2 as pb


class CustomerRpc:
    """The service."""

    service = "ammeter.v1.CustomerService"

    def __init__(self, live: Live) -> None:
        """Tell `live` what changes."""
        self._live = live

    def methods(self) -> list[Method]:
        """List the RPCs."""
        return [
            Method.write("CreateCustomer", ADMIN, self.create_customer),
            Method.read("GetCustomer", READ, self.get_customer),
            Method.read("ListCustomers", READ, self.list_customers),
            Method.write("UpdateCustomer", ADMIN, self.update_customer),
            Method.write("AssignSubject", ADMIN, self.assign_subject),
            Method.write("ReleaseSubject", ADMIN, self.release_subject),
        ]

    def create_customer(
        self, tx: Tx, request: pb.CreateCustomerRequest, now: datetime
    ) -> pb.CreateCustomerResponse:
        """Create a customer."""
        if request.customer.subjects:
            raise invalid("customer.subjects", "must be empty: name them in the request's own subjects")
        created = customers.create_customer(tx, self._live, _draft(request.customer), request.subjects, now)
        return pb.CreateCustomerResponse(customer=customer_message(created))

    def get_customer(self, tx: Tx, request: pb.GetCustomerRequest, now: datetime) -> pb.GetCustomerResponse:
        """Read a customer."""
        del now
        return pb.GetCustomerResponse(
            customer=customer_message(customers.get_customer(tx, request.customer_key))
        )

    def list_customers(
        self, tx: Tx, request: pb.ListCustomersRequest, now: datetime
    ) -> pb.ListCustomersResponse:
        """List customers."""
        del now
        size, query = paging.page_size(request.page_size), paging.fingerprint(request)
        after = paging.decode_token(request.page_token, query) or ("",)
        found = store.page(tx, str(after[0]), size + 1)
        token = paging.encode_token(query, (found[size - 1].customer_key,)) if len(found) > size else ""
        return pb.ListCustomersResponse(
            customers=[customer_message(one) for one in found[:size]], next_page_token=token
        )

    def update_customer(
        self, tx: Tx, request: pb.UpdateCustomerRequest, now: datetime
    ) -> pb.UpdateCustomerResponse:
        """Change a customer."""
        updated = customers.update_customer(
            tx, _draft(request.customer), request.update_mask.paths, request.customer.etag, now
        )
        return pb.UpdateCustomerResponse(customer=customer_message(updated))

    def assign_subject(
        self, tx: Tx, request: pb.AssignSubjectRequest, now: datetime
    ) -> pb.AssignSubjectResponse:
        """Give a subject to a customer."""
        time = from_timestamp(request.from_time, "from_time", present=request.HasField("from_time"))
        customer = customers.assign_subject(tx, self._live, request.customer_key, request.subject, time, now)
        return pb.AssignSubjectResponse(customer=customer_message(customer))

    def release_subject(
        self, tx: Tx, request: pb.ReleaseSubjectRequest, now: datetime
    ) -> pb.ReleaseSubjectResponse:
        """End the ownership of a subject."""
        time = from_timestamp(request.to_time, "to_time", present=request.HasField("to_time"))
        customer = customers.release_subject(tx, self._live, request.customer_key, request.subject, time, now)
        return pb.ReleaseSubjectResponse(customer=customer_message(customer))


def _draft(message: pb.Customer) -> CustomerDraft:
    return CustomerDraft(
        message.customer_key, message.name, message.email, message.currency, message.time_zone
    )


def customer_message(customer: Customer) -> pb.Customer:
    """Write a customer."""
    return pb.Customer(
        customer_key=customer.customer_key,
        name=customer.name,
        email=customer.email,
        currency=customer.currency,
        time_zone=customer.time_zone,
        subjects=[_span_message(span) for span in customer.subjects],
        create_time=to_timestamp(customer.create_time),
        update_time=to_timestamp(customer.update_time),
        etag=customer.etag,
    )


def _span_message(span: Span) -> pb.SubjectSpan:
    return pb.SubjectSpan(
        subject=span.subject,
        from_time=to_timestamp(time_of(span.from_minute)),
        to_time=to_timestamp(time_of(span.to_minute)),
    )
