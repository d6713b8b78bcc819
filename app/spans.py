"""Where the store makes spans of traces, for whoever records them (`app.tracing`)."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Protocol

Origin = Any
"""The span of who asks for work, so that the span of the batch can be linked with it."""

Work = Callable[..., Any]
Within = Callable[[Work], Work]
"""Makes a function that runs within the span of a batch, on whatever thread, of one that does not.
"""


class Spans(Protocol):
    def origin(self) -> Origin:
        """Return the span in which the caller runs."""

    def batch(self, name: str, origins: Iterable[Origin]) -> AbstractContextManager[Within]:
        """Run a block in a span, linked with those of the callers for whom it works."""


_NO_SPAN: Final[AbstractContextManager[Within]] = nullcontext(lambda work: work)


def span_of_batch(
    spans: Spans | None, name: str, origins: Iterable[Origin]
) -> AbstractContextManager[Within]:
    """Run a block in a span, if anybody records spans."""
    return spans.batch(name, origins) if spans else _NO_SPAN
