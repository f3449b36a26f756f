"""The verb `demo`: server, business, traffic, answers."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ammeter.cli import invoice
from ammeter.cli.demo import business, child, report, traffic
from ammeter.cli.record import Summary, progress_bar
from ammeter.cli.root import DEFAULT_ADDRESS
from ammeter.cli.sender import Batch, Sender
from ammeter.cli.session import console, session_of
from ammeter.client import Client
from ammeter.config import load
from ammeter.errors import UnavailableError
from ammeter.v1.usage_pb2 import StreamUsageResponse, UsageEvent


def demo(
    ctx: typer.Context,
    *,
    stay: Annotated[bool, typer.Option("--stay", help="Keep the server until Ctrl-C.")] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            file_okay=False,
            exists=True,
            help="Replay azure_llm_2023_*.csv from here.",
        ),
    ] = None,
) -> None:
    """Start a server and play a business on it: an LLM API that sells tokens.

    It serves at --address, on the database that AMMETER_* name or else on its own.
    Run it again and it goes on: the business stays, traffic that was counted adds nothing.
    """
    session, settings, screen = session_of(ctx), load(), console()
    if session.address == DEFAULT_ADDRESS:
        session.address = settings.listen
    if child.is_serving(session.address):
        raise UnavailableError(
            f"a server runs at {session.address} already: stop it, or set AMMETER_ADDRESS to another port"
        )
    log = settings.data_dir / "demo.log"
    screen.print("[bold]ammeter demo[/]: an LLM API sells tokens\n")
    with _ending_in_order(), child.server(session.address, log) as process:
        with screen.status("starting the server"):
            child.wait_until_serving(process, session.address, log)
        _say(screen, "server", f"{session.address}, log in {log}")
        _play(screen, session.client, data, settings.data_dir)
        _say_commands(screen, session.address)
        session.close()  # an idle connection would only be told to go away
        if stay:
            _stay(screen, process, log)


def _play(screen: Console, client: Client, data: Path | None, directory: Path) -> None:
    now = datetime.now(UTC)
    with screen.status("setting up the business"):
        business.set_up(client, now.date())
    _say(screen, "business", "3 meters, 3 features, plans payg and free, 8 customers")
    events = list(traffic.traced(data, now) if data else traffic.generated(now))
    began = time.monotonic()
    summary = _send(client, events)
    seconds = time.monotonic() - began
    _say(screen, "traffic", _outcome(summary, len(events), seconds))
    span = report.Span(now.date() - timedelta(traffic.DAYS), now.date() + timedelta(1))
    screen.print(f"\n[bold]Usage since {span.first}[/] (ammeter usage query)")
    screen.print(report.usage_table(client, span))
    screen.print("[bold]May they go on?[/]")
    screen.print(report.access_cards(client))
    made = report.bill(client)
    screen.print(f"[bold]The finished period of Acme Search[/] ({made} new invoices issued)")
    newest = report.last_invoice(client, "acme")
    if newest is None:
        screen.print("no period has ended yet")
        return
    screen.print(invoice.card(newest))
    screen.print(f"as PDF: {report.write_pdf(client, newest, directory)}\n", markup=False, soft_wrap=True)


def _send(client: Client, events: list[UsageEvent]) -> Summary:
    summary = Summary()
    with progress_bar() as bar:
        task = bar.add_task("replaying traffic", total=len(events))

        def answered(batch: Batch, answer: StreamUsageResponse) -> None:
            summary.add(batch, answer)
            bar.update(task, completed=batch.end)

        def waiting(why: str, seconds: float) -> None:
            bar.console.print(f"{why}: next try in {seconds:.1f} s", markup=False)

        Sender(client.usage, traffic.batches(events), answered=answered, waiting=waiting).run()
    return summary


def _outcome(summary: Summary, count: int, seconds: float) -> str:
    text = f"{count:,} requests in {seconds:.1f} s: {summary.accepted_count:,} new"
    if summary.duplicate_count:
        text += f", {summary.duplicate_count:,} counted by an earlier run and not again"
    if bad := summary.conflict_count + summary.rejected_count:
        text += f", {bad:,} not counted"
    return text


def _say(screen: Console, name: str, text: str) -> None:
    screen.print(f"[bold green]{name:9}[/]{text}")


def _say_commands(screen: Console, address: str) -> None:
    screen.print("[bold]Try it[/] (the first one twice: the second time it is a duplicate)")
    today = datetime.now(UTC).date()
    screen.print(report.commands(address, today), markup=False, soft_wrap=True)


def _stay(screen: Console, process: "subprocess.Popen[bytes]", log: Path) -> None:
    screen.print("\nThe server stays until Ctrl-C.")
    try:
        process.wait()
    except KeyboardInterrupt:
        screen.print("stopping: what was acknowledged is durable, `ammeter demo` goes on from here")
        return
    raise UnavailableError(f"the server stopped with exit code {process.returncode}; {child.last_words(log)}")


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end us as Ctrl-C does, and the server with us."""
    handler: Callable[..., None] = signal.default_int_handler
    before = {each: signal.signal(each, handler) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for each, old in before.items():
            signal.signal(each, old)
