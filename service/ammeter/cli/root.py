"""The root command: global options anywhere on the line, and every failure as a sentence."""

import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import grpc
import typer
from typer.core import TyperGroup

from ammeter.cli.failure import read_failure, sentence
from ammeter.cli.session import Session, messages
from ammeter.config import ConfigurationError
from ammeter.errors import AmmeterError

EPILOG = "--address, --key, --tls, --ca and --json may stand anywhere on the line: see `ammeter --help`."
DEFAULT_ADDRESS = "127.0.0.1:7117"

_VALUED = ("--address", "--key", "--ca")
_FLAGS = ("--tls", "--json")
_TOO_GREAT = "Value out of range: "  # what protobuf says of numbers
_STOPPED = 130  # what shells expect of a program that Ctrl-C ended


class Root(TyperGroup):
    """Accepts the global options after the verb, too, and turns errors into sentences and exit codes."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - typer's own click has no public name
        """Move the global options to the front, where click wants them."""
        return super().parse_args(ctx, hoist(args))

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401
        """Run the verb. Exit codes: 1 it failed, 2 wrong usage (click's own), 130 Ctrl-C."""
        try:
            return super().invoke(ctx)
        except grpc.RpcError as error:
            address = ctx.obj.address if isinstance(ctx.obj, Session) else DEFAULT_ADDRESS
            _say(sentence(read_failure(error), address))
        except (AmmeterError, ConfigurationError) as error:
            _say(str(error))
        except BrokenPipeError:  # the reader of our output has seen enough
            sys.stderr.close()
        except ValueError as error:
            _say(_refused(error))
        except OSError as error:
            _say(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        except KeyboardInterrupt:
            messages().print("stopped")
            raise typer.Exit(_STOPPED) from None
        finally:
            if isinstance(ctx.obj, Session):
                ctx.obj.close()
        raise typer.Exit(1)


def hoist(args: Iterable[str]) -> list[str]:
    """Put the global options first; what follows a bare -- stays as it is."""
    front: list[str] = []
    rest: list[str] = []
    line: Iterator[str] = iter(args)
    for arg in line:
        if arg == "--":
            rest += [arg, *line]
        elif arg in _VALUED:
            front += [arg, *islice(line, 1)]
        elif arg in _FLAGS or arg.startswith(tuple(f"{option}=" for option in _VALUED)):
            front.append(arg)
        else:
            rest.append(arg)
    return front + rest


def _refused(error: ValueError) -> str:
    """Say what of the line protobuf would not take; raises what is of another kind."""
    if isinstance(error, UnicodeEncodeError):
        return f"{error.object!r} is not UTF-8: type it again, or set the terminal's encoding"
    if not str(error).startswith(_TOO_GREAT):
        raise error
    return f"{str(error).removeprefix(_TOO_GREAT)} is too great a number"


def _say(text: str) -> None:
    messages().print(text, markup=False, style="red")


def group(name: str, text: str) -> typer.Typer:
    """Make a group of verbs."""
    return typer.Typer(name=name, help=text, no_args_is_help=True, epilog=EPILOG)


def open_session(
    ctx: typer.Context,
    *,
    address: Annotated[
        str, typer.Option(envvar="AMMETER_ADDRESS", help="The server, as host:port.")
    ] = DEFAULT_ADDRESS,
    key: Annotated[
        str,
        typer.Option(
            envvar="AMMETER_KEY", help="Secret of an API key. In the environment it stays out of ps."
        ),
    ] = "",
    tls: Annotated[bool, typer.Option("--tls", help="Connect with TLS.")] = False,
    ca: Annotated[
        Path | None,
        typer.Option(help="PEM file of the authority to trust; implies --tls.", dir_okay=False, exists=True),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Answers as JSON; streams as one line each.")] = False,
) -> None:
    """Exact usage metering, entitlements and invoices."""
    ctx.obj = Session(address, key, tls, ca, json)
