"""The verb `verify`: history is what was written, and everything derived from it is right."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Annotated

import typer

from ammeter.cli.record import progress_bar
from ammeter.cli.session import messages, session_of
from ammeter.cli.view import fields
from ammeter.config import Settings, load

_SHOWN = 100


def verify(
    ctx: typer.Context,
    *,
    tenant: Annotated[str, typer.Option(help="Only this tenant; all without it.")] = "",
) -> None:
    """Reread every segment and the ledger of credits, recompute digests and windows.

    Exit code 1 if any row was edited, lost or moved. Works on the database
    itself, whether a server runs or not.
    """
    from ammeter.errors import NotFoundError  # noqa: PLC0415 - the other verbs start without a driver
    from ammeter.store.db import Database  # noqa: PLC0415
    from ammeter.store.keys import tenant_ids  # noqa: PLC0415
    from ammeter.usecases.verify import verify as run  # noqa: PLC0415

    session = session_of(ctx)
    with _database_url(load()) as url, closing(Database(url)) as db, progress_bar() as bar:
        tenant_id = None
        if tenant:
            with db.engine() as conn:
                tenant_id = tenant_ids(conn).get(tenant)
            if tenant_id is None:
                raise NotFoundError("tenant", tenant)
        task = bar.add_task("verifying", total=None)
        report = run(db, tenant_id, lambda done, total: bar.update(task, completed=done, total=total))
    for fault in report.faults[:_SHOWN]:
        messages().print(str(fault), markup=False, style="red")
    if len(report.faults) > _SHOWN:
        messages().print(f"and {len(report.faults) - _SHOWN:,} more")
    figures = {
        "tenants": report.tenants,
        "segments": report.segments,
        "rows": report.rows,
        "events": report.events,
        "blocks": report.blocks,
        "credit transactions": report.credit_transactions,
        "faults": len(report.faults),
        "seconds": round(report.seconds, 3),
    }
    session.show(
        figures | {"found": [str(fault) for fault in report.faults[:_SHOWN]]}, lambda: fields(figures)
    )
    if report.faults:
        raise typer.Exit(1)


@contextmanager
def _database_url(settings: Settings) -> Iterator[str]:
    """Find the configured database, or wake the embedded one; its schema is left as it is."""
    from ammeter.store.embedded import EmbeddedPostgres  # noqa: PLC0415

    if settings.database_url:
        yield settings.database_url
        return
    with EmbeddedPostgres(settings.data_dir) as postgres:
        yield postgres.url
