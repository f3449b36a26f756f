"""Measure usage for invoices: many questions at once, as few surveys of meters as answer them."""

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import NamedTuple

from ammeter.domain.money import add
from ammeter.domain.pricing import NO_USAGE, Usage
from ammeter.domain.quantity import from_scaled
from ammeter.store.db import Database
from ammeter.usecases.billing import Billing, Measured, Question
from ammeter.usecases.engine import Engine
from ammeter.usecases.query import Form, survey_usage

# The values of what is grouped by, a quantity, and how many events that are.
_Cell = tuple[tuple[str, ...], Decimal, int]


class Columns(NamedTuple):
    """What a survey found, in columns: of which question, in which window, of which values of its dimensions.

    values are scaled by 10**12; position is what all of it reflects. Between
    processes columns cost a tenth of what an object for each line would.
    """

    questions: list[int]
    windows: list[int]
    groups: list[list[str]]
    values: list[int]
    event_counts: list[int]
    position: int


# Of a tenant's meter, by revision: what is asked, and of which customers, each with a form's place.
Survey = Callable[[int, int, Sequence[Form], Sequence[tuple[int, int]]], Columns]


def engine_survey(db: Database, engine: Engine) -> Survey:
    """Survey meters with the engine."""

    def survey(
        tenant_id: int, revision_id: int, forms: Sequence[Form], asked: Sequence[tuple[int, int]]
    ) -> Columns:
        found = survey_usage(db, engine, tenant_id, revision_id, forms, asked)
        return Columns(
            found.questions, found.windows, found.groups, found.values, found.event_counts, found.position
        )

    return survey


def measuring(survey: Survey) -> Callable[[Sequence[Question]], list[Measured]]:
    """Answer questions by surveys."""

    def measure(questions: Sequence[Question]) -> list[Measured]:
        found: dict[int, Measured] = {}
        for places in _together(questions):
            asked = [questions[place] for place in places]
            found.update(zip(places, _read(survey, asked), strict=True))
        return [found[place] for place in range(len(questions))]

    return measure


def engine_billing(db: Database, engine: Engine, horizon: timedelta) -> Billing:
    """Make what billing needs; `horizon` is how old an event may be when it is accepted."""
    return Billing(db, measuring(engine_survey(db, engine)), horizon)


def _together(questions: Sequence[Question]) -> Iterator[list[int]]:
    """Put questions together that one pass over a meter answers, by their places.

    Those of other lengths stay apart, so that a year of one customer is not
    read of all.
    """
    groups: dict[tuple[int, int, int], list[int]] = {}
    for place, one in enumerate(questions):
        length = (one.minutes[-1] - one.minutes[0]).bit_length()
        groups.setdefault((one.tenant_id, one.revision_id, length), []).append(place)
    for places in groups.values():
        places.sort(key=lambda place: questions[place].minutes[0])
        run, end = [places[0]], questions[places[0]].minutes[-1]
        for place in places[1:]:
            if questions[place].minutes[0] > end:
                yield run
                run = []
            run.append(place)
            end = max(end, questions[place].minutes[-1])
        yield run


def _read(survey: Survey, questions: Sequence[Question]) -> list[Measured]:
    """Answer questions about one meter."""
    forms: dict[Form, int] = {}
    asked = [
        (one.customer_id, forms.setdefault(Form(one.minutes, one.dimensions, one.filters), len(forms)))
        for one in questions
    ]
    first = questions[0]
    answers = survey(first.tenant_id, first.revision_id, list(forms), asked)
    found = [[NO_USAGE] * (len(one.minutes) - 1) for one in questions]
    groups: dict[tuple[int, int], list[_Cell]] = {}
    columns = (answers.questions, answers.windows, answers.groups, answers.values, answers.event_counts)
    for number, window, values, value, event_count in zip(*columns, strict=True):
        if questions[number].dimensions:
            cell = tuple(values), from_scaled(value), event_count
            groups.setdefault((number, window), []).append(cell)
        else:
            found[number][window] = Usage(from_scaled(value), event_count)
    for (number, window), cells in groups.items():
        found[number][window] = _added_up(cells)
    return [Measured(usages, answers.position) for usages in found]


def _added_up(cells: Sequence[_Cell]) -> Usage:
    return Usage(
        quantity=add(quantity for _, quantity, _ in cells),
        event_count=sum(event_count for _, _, event_count in cells),
        groups={values: quantity for values, quantity, _ in cells},
    )
