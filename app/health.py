"""Whether the service is alive and ready, for load balancers and container checks.

/healthz says that the process answers. /readyz says that it may be sent requests: the database can
be read and has the tables of this release, and the writer takes commands. Neither needs a token.
"""

import asyncio
import logging
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.errors import Busy
from app.json_text import encode_json
from app.store.migrate import is_current
from app.timeline import Timeline

_log: Final = logging.getLogger(__name__)

_OWNER: Final = ""  # of reads without a token
_READ_SECONDS: Final = 2
_NO_STORE: Final = {"Cache-Control": "no-store"}


@dataclass(slots=True, eq=False)
class Health:
    """`is_ending` is set when the process is told to end."""

    timeline: Timeline
    is_ending: bool = False
    _look: "asyncio.Task[str | None] | None" = None

    def end(self) -> None:
        self.is_ending = True

    async def reasons(self) -> list[str]:
        """Return why the process should not be sent requests; nothing when it is ready."""
        found = [
            "The service is shutting down." if self.is_ending else None,
            self.timeline.writer.refusal,
            await self._fault_of_database(),
        ]
        return [*filter(None, found)]

    async def _fault_of_database(self) -> str | None:
        """Return what is wrong with the database. All who ask meanwhile share one look."""
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(self._look_at_database())
        return await asyncio.shield(self._look)

    async def _look_at_database(self) -> str | None:
        try:
            async with asyncio.timeout(_READ_SECONDS):
                is_migrated = await self.timeline.reader.load(_OWNER, is_current)
        except TimeoutError:
            return f"The database was not read within {_READ_SECONDS} seconds."
        except Busy as error:
            return error.message
        except Exception as error:
            _log.warning("The database could not be read.", exc_info=error)
            return "The database cannot be read; the log says why."
        return None if is_migrated else "The tables are not those of this release."


def health_routes(health: Health) -> list[Route]:
    async def get_health(_request: Request) -> Response:
        return _response({"status": "alive"}, 200)

    async def get_readiness(_request: Request) -> Response:
        if reasons := await health.reasons():
            return _response({"status": "not ready", "reasons": reasons}, 503)
        return _response({"status": "ready"}, 200)

    return [Route("/healthz", get_health), Route("/readyz", get_readiness)]


def _response(document: dict[str, object], status: int) -> Response:
    return Response(encode_json(document), status, _NO_STORE, "application/json")
