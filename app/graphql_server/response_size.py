"""Counts the size of a response while it is built, and ends it when it is too large.

Limits on a document bound its fields, not the length of their values: a short query with 95 aliases
of a text of 64 KiB on a hundred entries has a response of 587 MB. An executor counts each field,
list and leaf value here as it completes it, before the next one is resolved.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from types import CoroutineType

from app.errors import ResponseTooLarge
from app.json_text import encode_json

# `"key":` and a comma, and a null in the place of a value.
_FIELD_BYTES = 4 + 4
# A comma, and a null in the place of an item; the brackets of the list count as two more items.
_ITEM_BYTES = 5
# What a character takes at most: six as an escaped control character, fewer in UTF-8.
_CHARACTER_BYTES = 6


def field_size(response_key: str) -> int:
    return len(response_key) + _FIELD_BYTES


class ResponseSize:
    """Counts the bytes of one response, as JSON in UTF-8. It never counts too few.

    One for each operation, and for each event of a subscription. Every executor calls `add_field`
    for each field, `add_list` for each list and `add_leaf` for each value of a scalar or an enum,
    as it is sent, or `add_leaves` or `add_object` for many fields with their values. All raise
    ResponseTooLarge, which must end the operation rather than one field of it.
    """

    __slots__ = ("_bytes", "_limit", "_objects", "_texts")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        # Texts, counted as if each character took the most bytes. They are measured only if that
        # exceeds the limit, so that a response of the usual size is encoded only once.
        self._texts: list[str] = []
        self._objects: list[tuple[int, Mapping[str, object], Sequence[str]]] = []

    def add(self, size: int) -> None:
        self._bytes += size
        if self._bytes > self._limit:
            self._measure()

    def add_field(self, response_key: str) -> None:
        self.add(field_size(response_key))

    def add_list(self, length: int) -> None:
        self.add((length + 2) * _ITEM_BYTES)

    def add_leaf(self, value: object) -> None:
        if isinstance(value, str):
            self._texts.append(value)
            self.add(_most(value))
        else:
            self.add(value_size(value))

    def add_leaves(self, size: int, values: Iterable[object]) -> None:
        """Add fields that take `size` bytes with their values. Awaitable values are added later."""
        self.add(size)
        for value in values:
            if value is not None and type(value) is not CoroutineType:
                self.add_leaf(value)

    def add_object(
        self, estimate: int, size: int, fields: Mapping[str, object], names: Sequence[str]
    ) -> None:
        """Add some fields of an object: at most `estimate` bytes, `size` of them for the fields."""
        self._objects.append((estimate - size, fields, names))
        self.add(estimate)

    def _measure(self) -> None:
        self._bytes -= sum(map(_most, self._texts)) + sum(most for most, *_ in self._objects)
        values = chain(
            self._texts, (fields[name] for _, fields, names in self._objects for name in names)
        )
        for value in values:
            self._bytes += value_size(value)
            if self._bytes > self._limit:
                break
        self._texts.clear()
        self._objects.clear()
        if self._bytes > self._limit:
            raise ResponseTooLarge(f"The answer is larger than {self._limit} bytes; ask for less.")


def value_size(value: object) -> int:
    """Return the bytes of a leaf value, beside the null that counts for it in any case."""
    if isinstance(value, str | dict | list):
        return len(encode_json(value))
    return 0 if value is None else len(str(value))


def _most(text: str) -> int:
    return len(text) * _CHARACTER_BYTES + 2
