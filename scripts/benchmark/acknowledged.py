"""Looks up what was acknowledged in the file, after its server was killed."""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

from benchmark.dataset import read_only, uuid_of

_HISTORY: Final = "SELECT activity_id, message FROM ticket_activity_change"


@dataclass(frozen=True)
class LookUp:
    """How many acknowledged writes were looked up, and how many of them the file does not hold."""

    acknowledged: int
    missing: int


def look_up(file: Path, log: Path) -> LookUp:
    """Find each write of a log in the history, by the activity's id and its message.

    The bench writes no message twice.
    """
    wanted = list(_writes(log))
    with closing(read_only(file)) as connection:
        stored = {(uuid_of(id_), message) for id_, message in connection.execute(_HISTORY)}
    return LookUp(len(wanted), sum(write not in stored for write in wanted))


def _writes(log: Path) -> Iterator[tuple[UUID, str]]:
    with log.open() as lines:
        for line in lines:
            document = json.loads(line)
            for payload in (document.get("data") or {}).values():
                document = payload["ticketActivity"]
            yield UUID(document["id"]), document["message"]
