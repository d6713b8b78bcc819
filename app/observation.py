"""Counts every request, and writes its line in the log."""

from collections.abc import Callable
from time import perf_counter
from typing import Any, Final

from starlette.types import Scope

from app.auth import Viewer
from app.errors import RateLimited
from app.log import events, now
from app.measures import Requests

Observe = Callable[[Scope, int, int, float], None]
"""Takes an ended request, its status, the bytes sent, and when it began by `perf_counter`."""

_DOORS: Final = {"/graphql": "graphql", "/healthz": "health", "/readyz": "health"}
_MAX_NAME: Final = 100

_LARGE_BYTES: Final = 64 * 1024
_SECONDS_PER_BYTE: Final = 1e-9
"""Processor time that sending takes: 14 ms for 13 MB were measured."""


def observer(requests: Requests, charge: Callable[[str, float], None]) -> Observe:
    """Return a function that is told of each ended request.

    `charge` is called with a token and the processor time, in seconds, that sending it a large
    response has taken outside its turn.
    """

    def observe(scope: Scope, status: int, size: int, started_at: float) -> None:
        seconds = perf_counter() - started_at
        state = scope["state"]
        door = state.get("door") or _door(scope["path"])
        operation = state.get("operation") or ""
        requests.note((door, operation, status), seconds, size)
        if size > _LARGE_BYTES and door != "sse" and (viewer := state.get("viewer")):
            charge(viewer.token_id, size * _SECONDS_PER_BYTE)
        if status == RateLimited.status and state.get("code") == RateLimited.code:
            requests.limited[door] += 1
        if events.has_requests and door != "health":
            events.add(_line(state, door, operation, status, size, seconds))

    return observe


def _door(path: str) -> str:
    return _DOORS.get(path) or ("rest" if path.startswith("/v1/") else "other")


def _line(
    state: dict[str, Any], door: str, operation: str, status: int, size: int, seconds: float
) -> dict[str, Any]:
    viewer: Viewer | None = state.get("viewer")
    return {
        "time": now(),
        "level": "info",
        "event": "request",
        "request_id": state["request_id"],
        "door": door,
        "operation": operation[:_MAX_NAME] or None,
        "actor": viewer.actor_id if viewer else None,
        "status": status,
        "code": state.get("code"),
        "ms": round(seconds * 1000, 3),
        "bytes": size,
    }
