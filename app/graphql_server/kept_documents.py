"""Bounds the documents that open subscriptions keep in memory."""

import weakref
from collections import Counter
from collections.abc import AsyncGenerator, Hashable
from dataclasses import dataclass, field
from typing import Any, Final

from app.errors import TooManyStreams

MAX_CHARACTERS: Final = 128 * 1024
"""Of the documents that differ. A parsed one may take 300 bytes a character, so this takes 40 MB;
and no program has so many."""


@dataclass(slots=True, eq=False)
class KeptDocuments:
    """The documents of each viewer's open subscriptions. The same document counts once."""

    _counts: dict[Hashable, Counter[str]] = field(default_factory=dict)

    def keep(self, viewer: Hashable, text: str, stream: AsyncGenerator[Any]) -> None:
        """Count a document for as long as the stream exists. Raises TooManyStreams."""
        counts = self._counts.get(viewer, Counter())
        size = sum(map(len, counts.keys() | {text}))
        if size > MAX_CHARACTERS and counts:
            raise TooManyStreams(
                f"The different documents of the token's open subscriptions would have {size} "
                f"characters; the limit is {MAX_CHARACTERS}. Use one document with variables."
            )
        counts[text] += 1
        self._counts[viewer] = counts
        weakref.finalize(stream, self._release, viewer, text).atexit = False

    def _release(self, viewer: Hashable, text: str) -> None:
        counts = self._counts[viewer]
        counts[text] -= 1
        if not counts[text]:
            del counts[text]
        if not counts:
            del self._counts[viewer]
