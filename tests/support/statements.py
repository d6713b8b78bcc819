"""The statements that the engines of this process execute."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event


@contextmanager
def statements() -> Iterator[list[tuple[str, Any]]]:
    """Collect what any engine executes meanwhile."""
    seen: list[tuple[str, Any]] = []

    def note(_1: Any, _2: Any, statement: str, parameters: Any, *_more: Any) -> None:
        seen.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def scans(plan: list[str]) -> list[str]:
    """Return the steps of a plan that read a whole table or index."""
    return [step for step in plan if step.startswith("SCAN") and "VIRTUAL TABLE" not in step]
