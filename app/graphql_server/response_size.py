"""How large an answer grows while it is built, so that none is built that is too large.

Limits on a document bound its fields, not what a field holds: 95 aliases of a text of 64 KiB on a
hundred entries are a short query and an answer of 587 MB. An executor counts each field, list and
leaf value here as it completes it, before the next one is resolved.
"""

from app.errors import ResponseTooLarge
from app.http import encode_json

# `"key":` and a comma, and a null in the place of a value.
_FIELD_BYTES = 4 + 4
# A comma, and a null in the place of an item; the brackets of the list count as two more items.
_ITEM_BYTES = 5
# What a character takes at most: six as an escaped control character, fewer in UTF-8.
_CHARACTER_BYTES = 6


class ResponseSize:
    """Counts the bytes of one answer, as JSON in UTF-8, and never too few.

    One for each operation, and for each event of a subscription. Every executor calls `add_field`
    for each field (or `add` with the sum for a selection set), `add_list` for each list and
    `add_leaf` for each value of a scalar or an enum, as it is sent. All three raise
    ResponseTooLarge, which must end the operation rather than one field of it.
    """

    __slots__ = ("_bytes", "_limit", "_texts")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        # Texts counted as if each character took the most. They are measured only when that
        # would be too much, so that an answer of the usual size is encoded once and not twice.
        self._texts: list[str] = []

    def add(self, size: int) -> None:
        self._bytes += size
        if self._bytes > self._limit:
            self._measure()

    def add_field(self, response_key: str) -> None:
        self.add(len(response_key) + _FIELD_BYTES)

    def add_list(self, length: int) -> None:
        self.add((length + 2) * _ITEM_BYTES)

    def add_leaf(self, value: object) -> None:
        if isinstance(value, str):
            self._texts.append(value)
            self.add(_most(value))
        elif isinstance(value, dict | list):
            self.add(len(encode_json(value)))
        else:
            self.add(len(str(value)))

    def _measure(self) -> None:
        self._bytes -= sum(map(_most, self._texts))
        for text in self._texts:
            self._bytes += len(encode_json(text))
            if self._bytes > self._limit:
                break
        self._texts.clear()
        if self._bytes > self._limit:
            raise ResponseTooLarge(f"The answer is larger than {self._limit} bytes; ask for less.")


def _most(text: str) -> int:
    return len(text) * _CHARACTER_BYTES + 2
