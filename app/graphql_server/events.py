"""The events of subscriptions, and a cache in which subscribers share them."""

import asyncio
from collections.abc import Hashable, Sequence
from typing import Any, Final, NamedTuple, Protocol

from graphql import GraphQLError

_MAX_BYTES: Final = 16 * 1024 * 1024
_PERIOD_SECONDS: Final = 2
_BYTES_BESIDE_DOCUMENT: Final = 1024  # the key and the bookkeeping, rounded up


class Payload(Protocol):
    """An item of the source of a subscription.

    Payloads of the same key give the same results to one audience. A client resumes a stream after
    an `event_id`.
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
    """Caches events for other subscribers of the same audience, who are about to need them.

    There are two generations. Every period, and when the new one takes half of the bytes, the old
    one is dropped and the new one becomes the old one. So the memory is bounded, and empty when
    there were no events for two periods.
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
