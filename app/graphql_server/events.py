"""What the events of a subscription are, and the memory in which subscribers share them."""

import asyncio
from collections.abc import Hashable, Sequence
from typing import Any, Final, NamedTuple, Protocol

from graphql import GraphQLError

_MAX_BYTES: Final = 16 * 1024 * 1024
_PERIOD_SECONDS: Final = 2
_BYTES_BESIDE_DOCUMENT: Final = 1024  # the key and the bookkeeping, measured generously


class Payload(Protocol):
    """What the source of a subscription yields.

    Payloads of one key look the same to one audience. A stream is resumed after an `event_id`.
    """

    @property
    def key(self) -> Hashable: ...

    @property
    def event_id(self) -> str: ...


class Event(NamedTuple):
    """One result of an operation that may have many, as a response document in JSON.

    `document` is None where there are errors: each request writes those with its own id.
    """

    document: bytes | None
    data: dict[str, Any] | None = None
    errors: Sequence[GraphQLError] = ()
    id: str | None = None


class SharedEvents:
    """Keeps events for the subscribers of the same audience that are about to ask for them too.

    There are two generations: what is new, and what was new before. Every period, or when the
    new ones take half of the bytes, the older are dropped. So the memory is bounded, and it is
    empty when no events have come for two periods.
    """

    def __init__(self, max_bytes: int = _MAX_BYTES, period: float = _PERIOD_SECONDS) -> None:
        self._max_bytes = max_bytes // 2
        self._period = period
        self._new: dict[Hashable, Event] = {}
        self._old: dict[Hashable, Event] = {}
        self._new_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._new) + len(self._old)

    def get(self, key: Hashable) -> Event | None:
        return self._new.get(key) or self._old.get(key)

    def put(self, key: Hashable, event: Event) -> None:
        """Keep an event that has no errors, unless it is too large."""
        if event.document is None:
            return
        size = len(event.document) + _BYTES_BESIDE_DOCUMENT
        if size > self._max_bytes:
            return
        if self._new_bytes + size > self._max_bytes:
            self._drop_old()
        self._new[key] = event
        self._new_bytes += size
        if self._timer is None:
            self._age_later()

    def _drop_old(self) -> None:
        self._old, self._new, self._new_bytes = self._new, {}, 0

    def _age_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._period, self._age)

    def _age(self) -> None:
        self._drop_old()
        self._timer = None
        if self._old:
            self._age_later()
