"""Writes documents to files."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ammeter.cli.session import Session
from ammeter.v1 import invoice_pb2 as pb


class Format(StrEnum):
    """The words of ammeter.v1.DocumentFormat."""

    PDF = "pdf"
    HTML = "html"
    CSV = "csv"
    JSON = "json"

    @property
    def number(self) -> pb.DocumentFormat.ValueType:
        """The number of the word in messages."""
        return pb.DocumentFormat.Value(f"DOCUMENT_FORMAT_{self.name}")


Form = Annotated[Format, typer.Option("--format", help="What to make.")]
Locale = Annotated[
    str, typer.Option(help="Language, and place if it matters: en, de-CH; en, de, fr, es, it, nl.")
]
Output = Annotated[
    Path | None,
    typer.Option(dir_okay=True, help='File or directory; "-" is stdout. Left out: here, by its number.'),
]


def write(session: Session, document: pb.Document, output: Path | None) -> None:
    """Write a document and say where."""
    if output == Path("-"):
        sys.stdout.buffer.write(document.content)
        return
    # The server names the file: only its last part counts, or it could choose the directory.
    name = Path(document.file_name).name
    path = Path(name) if output is None else output / name if output.is_dir() else output
    path.write_bytes(document.content)
    facts = {"file": str(path), "content_type": document.content_type, "bytes": len(document.content)}
    session.show(facts, lambda: f"{path} ({len(document.content):,} bytes)")
