"""What the phases of a plan must be like."""

from collections.abc import Iterator, Sequence

from ammeter.domain import keys
from ammeter.domain.catalog import Phase
from ammeter.domain.period import parse_cadence
from ammeter.errors import Violation

MAX_PHASES = 20


def check_phases(phases: Sequence[Phase]) -> Iterator[Violation]:
    """List what is wrong with the phases of a plan, apart from their rate cards."""
    if len(phases) > MAX_PHASES:
        yield Violation("plan.phases", f"must be at most {MAX_PHASES}")
        return
    seen: dict[str, int] = {}
    for number, phase in enumerate(phases):
        path = f"plan.phases[{number}]"
        yield from keys.catalog_key(f"{path}.phase_key", phase.phase_key)
        yield from keys.text(f"{path}.name", phase.name)
        if seen.setdefault(phase.phase_key, number) != number:
            why = f"is that of plan.phases[{seen[phase.phase_key]}], too: each may occur once in a plan"
            yield Violation(f"{path}.phase_key", why)
        last = number == len(phases) - 1
        yield from _check_duration(f"{path}.duration", phase.duration, last=last)


def _check_duration(field: str, duration: str, *, last: bool) -> Iterator[Violation]:
    if last:
        if duration:
            yield Violation(field, "must be empty in the last phase: it is open, put one behind it to end it")
        return
    if not duration:
        yield Violation(field, "is needed: only the last phase is open")
        return
    try:
        parse_cadence(duration)
    except ValueError:
        why = "is no duration: give 1 to 1000 days, weeks, months or years, such as P14D"
        yield Violation(field, why)
