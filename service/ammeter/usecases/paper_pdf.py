"""A paper as PDF, set by typst with its own fonts: the same bytes for the same paper, on any machine."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files

import typst

from ammeter.domain.paper.paper import Paper

# A paper says its own dates; the file says none that changes.
_NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)


def to_pdf(paper: Paper) -> bytes:
    """Set a paper as PDF."""
    document = asdict(paper) | {
        "lang": paper.language.partition("-")[0],
        "number": paper.facts[0].text if paper.facts else "",
        "annex": [section._asdict() for section in paper.annex],
    }
    made = typst.compile(
        _template(),
        format="pdf",
        sys_inputs={"paper": json.dumps(document)},
        ignore_system_fonts=True,
        timestamp=_NO_TIME,
    )
    if not isinstance(made, bytes):
        raise TypeError("typst made no single file")
    return made


@cache
def _template() -> bytes:
    return files("ammeter.usecases").joinpath("paper.typ").read_bytes()
