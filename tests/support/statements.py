"""The statements that the engines of this process execute."""

import re
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
    return [
        step
        for step in plan
        if "Seq Scan" in step or (step.startswith("SCAN") and not _is_own(step))
    ]


def _is_own(step: str) -> bool:
    """Return whether a step reads what the statement itself holds or has found."""
    return "VIRTUAL TABLE" in step or step == "SCAN merged"


def is_found_by(plan: list[str], index: str, *, alone: bool = False) -> bool:
    """Return whether a plan searches an index by ticket and sorts nothing.

    `alone`: and reads nothing but the index.
    """
    text = "\n".join(plan)
    if "Index Cond: " in text:
        scan = "Index Only Scan" if alone else "Index (Only )?Scan"
        step = rf"{scan}( Backward)? using {index} on .*\n +Index Cond: \(+ticket_id ="
        return re.search(step, text) is not None and "Sort" not in text
    covering = "COVERING " if alone else "(COVERING )?"
    step = rf"USING {covering}INDEX {index} \(ticket_id=\?"
    return re.search(step, text) is not None and "TEMP B-TREE" not in text
