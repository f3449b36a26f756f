"""Verbs on customers and their subjects."""

from typing import Annotated

import typer
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Group, RenderableType

from ammeter.cli import root
from ammeter.cli.session import Session, list_all, session_of
from ammeter.cli.times import FORMS, parse_time, show_time
from ammeter.cli.view import fields, table
from ammeter.client import new_request_id
from ammeter.v1 import customer_pb2 as pb

group = root.group("customer", "Who pays, and which subjects are theirs.")

CustomerKey = Annotated[str, typer.Argument(metavar="CUSTOMER", help="The customer's key.")]
Subject = Annotated[str, typer.Argument(help="Who used it, in the producer's words.")]


@group.command("create", epilog=root.EPILOG)
def create(
    ctx: typer.Context,
    customer_key: CustomerKey,
    *,
    subject: Annotated[
        list[str] | None, typer.Option(help="Owned from the beginning. May be repeated.")
    ] = None,
    name: str = "",
    email: str = "",
    currency: Annotated[str, typer.Option(help="ISO 4217.")] = "USD",
    time_zone: Annotated[str, typer.Option(help="IANA zone that its periods follow.")] = "UTC",
) -> None:
    """Create a customer."""
    session = session_of(ctx)
    draft = pb.Customer(
        customer_key=customer_key, name=name, email=email, currency=currency, time_zone=time_zone
    )
    request = pb.CreateCustomerRequest(customer=draft, subjects=subject or [], request_id=new_request_id())
    _show(session, session.client.customers.CreateCustomer(request).customer)


@group.command("get", epilog=root.EPILOG)
def get(ctx: typer.Context, customer_key: CustomerKey) -> None:
    """Show one customer and all spans of its subjects."""
    session = session_of(ctx)
    request = pb.GetCustomerRequest(customer_key=customer_key)
    _show(session, session.client.customers.GetCustomer(request).customer)


@group.command("list", epilog=root.EPILOG)
def list_(ctx: typer.Context, *, limit: int = 1000) -> None:
    """List the customers by key."""
    session = session_of(ctx)
    request = pb.ListCustomersRequest(page_size=1000)
    answer = list_all(session.client.customers.ListCustomers, request, "customers", limit)
    rows = (
        (
            each.customer_key,
            each.name,
            each.currency,
            each.time_zone,
            [span.subject for span in each.subjects],
        )
        for each in answer.customers
    )
    session.show(answer, lambda: table(["customer", "name", "currency", "zone", "subjects"], rows))


@group.command("assign", epilog=root.EPILOG)
def assign(
    ctx: typer.Context,
    customer_key: CustomerKey,
    subject: Subject,
    *,
    start: Annotated[
        Timestamp | None,
        typer.Option("--from", parser=parse_time, metavar="TIME", help=f"When it moves: {FORMS}."),
    ] = None,
) -> None:
    """Give a subject to a customer: from the beginning if it had no owner, otherwise from a time on."""
    session = session_of(ctx)
    request = pb.AssignSubjectRequest(
        customer_key=customer_key, subject=subject, from_time=start, request_id=new_request_id()
    )
    _show(session, session.client.customers.AssignSubject(request).customer)


@group.command("release", epilog=root.EPILOG)
def release(
    ctx: typer.Context,
    customer_key: CustomerKey,
    subject: Subject,
    *,
    end: Annotated[
        Timestamp | None,
        typer.Option("--to", parser=parse_time, metavar="TIME", help=f"When it ends: {FORMS}."),
    ] = None,
) -> None:
    """End a customer's ownership of a subject."""
    session = session_of(ctx)
    request = pb.ReleaseSubjectRequest(
        customer_key=customer_key, subject=subject, to_time=end, request_id=new_request_id()
    )
    _show(session, session.client.customers.ReleaseSubject(request).customer)


def _show(session: Session, customer: pb.Customer) -> None:
    session.show(customer, lambda: _card(customer))


def _card(customer: pb.Customer) -> RenderableType:
    card = fields(
        {
            "customer": customer.customer_key,
            "name": customer.name,
            "email": customer.email,
            "currency": customer.currency,
            "zone": customer.time_zone,
            "created": show_time(customer.create_time),
            "etag": customer.etag,
        }
    )
    spans = (
        (span.subject, show_time(span.from_time) or "the beginning", show_time(span.to_time) or "open")
        for span in customer.subjects
    )
    return Group(card, table(["subject", "from", "to"], spans)) if customer.subjects else card
