"""Conditions as people type them: NAME=A, NAME=A,B, NAME!=A, NAME."""

import typer

from ammeter.v1 import meter_pb2, usage_pb2

_OPERATOR = meter_pb2.PropertyFilter.Operator


def property_filter(text: str) -> meter_pb2.PropertyFilter:
    """Read a condition on a property of the event."""
    name, negated, values = _split(text)
    if values is None:
        return meter_pb2.PropertyFilter(property=name, operator=_OPERATOR.OPERATOR_EXISTS)
    if negated:
        return meter_pb2.PropertyFilter(
            property=name, operator=_OPERATOR.OPERATOR_NOT_EQUALS, values=[values]
        )
    several = values.split(",")
    operator = _OPERATOR.OPERATOR_EQUALS if len(several) == 1 else _OPERATOR.OPERATOR_IN
    return meter_pb2.PropertyFilter(property=name, operator=operator, values=several)


def dimension_filter(text: str) -> usage_pb2.DimensionFilter:
    """Read the values of a dimension to keep."""
    name, negated, values = _split(text)
    if values is None or negated:
        raise typer.BadParameter(f"{text!r} is not a filter on a dimension: write NAME=A or NAME=A,B")
    return usage_pb2.DimensionFilter(dimension=name, values=values.split(","))


def _split(text: str) -> tuple[str, bool, str | None]:
    name, equals, values = text.partition("=")
    if not equals:
        return text, False, None
    return name.removesuffix("!"), name.endswith("!"), values
