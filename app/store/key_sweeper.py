"""Removes idempotency keys that are old enough, and finds the tokens that have too many."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from app.errors import TooManyIdempotencyKeys
from app.store.idempotency import (
    count_answers,
    delete_expired,
    find_full_owners,
    forget_some_answers,
)
from app.store.reader import Reader
from app.store.writer import Writer

_log = logging.getLogger(__name__)

SWEEP_SECONDS: Final = 60
_PASSES: Final = 3
_OWNER: Final = ""  # of reads without a token
_BATCH: Final = 200
"""How many keys one unit of work changes: the commands beside it wait some milliseconds."""


@dataclass(slots=True, eq=False)
class KeySweeper:
    """Keeps the table of keys within bounds. A task must run `run`."""

    writer: Writer
    reader: Reader
    clock: Callable[[], datetime]
    lifetime: timedelta
    max_per_token: int
    _full: frozenset[str] = frozenset()
    _forgetting: "asyncio.Task[None] | None" = None

    def refusal(self, owner: str) -> TooManyIdempotencyKeys | None:
        """Return why the token may use no new key: it had too many at the last sweep."""
        if owner not in self._full:
            return None
        return TooManyIdempotencyKeys(
            f"The token has used {self.max_per_token} idempotency keys within "
            f"{self.lifetime.total_seconds() / 3600:g} hours, which is the limit."
        )

    async def forget_answers(self) -> None:
        """Remove the answers that are kept, a little at a time. All who ask meanwhile share it.

        This comes before a redaction, which removes all of them in its own transaction: of hundreds
        of thousands it then finds only the newest, and no other write waits for long. It ends also
        where new keys come as quickly as it removes answers. Raises Busy.
        """
        if self._forgetting is None or self._forgetting.done():
            self._forgetting = asyncio.create_task(self._forget_answers())
        await asyncio.shield(self._forgetting)

    async def _forget_answers(self) -> None:
        forget = partial(forget_some_answers, size=_BATCH)
        for _ in range(_PASSES):
            count = await self.reader.load(_OWNER, count_answers)
            for _ in range(count // _BATCH):
                await self.writer.run_chore(forget)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            try:
                await self.sweep()
            except Exception as error:
                _log.warning("Old idempotency keys were not removed.", exc_info=error)

    async def sweep(self) -> None:
        """Remove what is too old, a little at a time; then look who has too many keys."""
        before = self.clock() - self.lifetime
        delete = partial(delete_expired, before=before, size=_BATCH)
        while await self.writer.run_chore(delete) == _BATCH:
            pass
        count = partial(find_full_owners, maximum=self.max_per_token)
        self._full = await self.reader.load(_OWNER, count)
