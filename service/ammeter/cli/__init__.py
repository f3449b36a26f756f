"""The command line: every verb is a thin call of the gRPC API.

One file per noun; root.py has the global options and what becomes of errors,
session.py the connection and the output, view.py the tables.
"""

import os

# We start programs and never go on in a fork. gRPC's handlers for that case can
# crash the child before it becomes the program: an embedded Postgres, say.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")


import sys
from io import TextIOWrapper

import typer

from ammeter.cli import (
    add_on,
    admin,
    billing,
    coupon,
    credit,
    credit_note,
    customer,
    entitlement,
    feature,
    grant,
    invoice,
    key,
    meter,
    notification,
    operation,
    plan,
    price_list,
    price_override,
    reservation,
    subscription,
    usage,
)
from ammeter.cli.checks import checks, watch
from ammeter.cli.demo.verb import demo
from ammeter.cli.doctor import doctor
from ammeter.cli.root import EPILOG, Root, open_session
from ammeter.cli.verify import verify

app = typer.Typer(
    cls=Root,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.callback()(open_session)
for verb in (
    admin.serve,
    demo,
    doctor,
    verify,
    admin.migrate,
    admin.version,
    entitlement.check,
    checks,
    watch,
    entitlement.access,
    entitlement.explain,
    usage.events,
    subscription.subscribe,
    subscription.cancel,
):
    app.command(epilog=EPILOG)(verb)
for group in (
    usage.group,
    meter.group,
    customer.group,
    feature.group,
    plan.group,
    price_list.group,
    price_override.group,
    coupon.group,
    add_on.group,
    subscription.group,
    entitlement.group,
    grant.group,
    notification.thresholds,
    notification.group,
    reservation.group,
    invoice.group,
    operation.group,
    credit.group,
    credit_note.group,
    billing.group,
    billing.tax_rates,
    key.group,
    admin.tenant,
):
    app.add_typer(group)


def main() -> None:
    """Run the program named `ammeter`."""
    if isinstance(sys.stdout, TextIOWrapper):  # a name that the terminal cannot show is no reason to fail
        sys.stdout.reconfigure(errors="backslashreplace")
    app(prog_name="ammeter")
