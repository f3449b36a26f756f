"""NUL characters: protobuf's texts may hold them, Postgres' may not."""

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from ammeter.errors import InvalidInputError, Violation


def refuse_nul(request: Message, body: bytes) -> None:
    """Raise InvalidInputError if a text in a request holds NUL; `body` are the bytes it was read from."""
    if b"\0" not in body:
        return
    violations = [
        Violation(path, "must not contain NUL (U+0000): remove it") for path in _with_nul(request, "")
    ]
    if violations:
        raise InvalidInputError(violations)


def _with_nul(message: Message, prefix: str) -> Iterator[str]:
    for field, value in message.ListFields():
        path = prefix + field.name
        if field.message_type and field.message_type.GetOptions().map_entry:
            for key in value:
                yield from _in_value(field.message_type.fields[0], key, f"{path}[{_visible(key)}]")
                inner = field.message_type.fields[1]
                yield from _in_value(inner, value[key], f"{path}[{_visible(key)}]")
        elif field.is_repeated:
            for index, one in enumerate(value):
                yield from _in_value(field, one, f"{path}[{index}]")
        else:
            yield from _in_value(field, value, path)


def _in_value(field: FieldDescriptor, value: Any, path: str) -> Iterator[str]:  # noqa: ANN401 - of any type of field
    if field.type == FieldDescriptor.TYPE_STRING and "\0" in value:
        yield path
    elif field.message_type:
        yield from _with_nul(value, f"{path}.")


def _visible(key: object) -> str:
    return str(key).replace("\0", "\\x00")
