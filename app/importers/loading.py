"""Imports tickets of another system by the commands that clients send, with true times and actors.

What is here already is found by its id, so a file may be imported again, and a later one that holds
more adds just that. Services may use the database meanwhile.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO, Final
from uuid import NAMESPACE_URL, UUID, uuid5

from app.activity.actors import ActorUpdate
from app.activity.commands import CreateActivity, CreateTicket, MergeTickets
from app.activity.outcomes import Outcome
from app.auth import Scope, Viewer
from app.errors import IdTaken, InvalidInput, NotFound, ServiceError, TicketMerged, UserError
from app.importers.records import ForeignTicket, Item
from app.main import create_timeline, running
from app.settings import Settings
from app.store.actors import load_actors
from app.store.copying import Told
from app.store.importing import LineWrong, Refused
from app.store.queries import load_activities, load_tickets
from app.timeline import Timeline

MAX_RECORD_BYTES: Final = 64 * 1024 * 1024
_BATCH: Final = 256

Convert = Callable[[bytes], ForeignTicket]
"""Reads one line of the file. Raises InvalidInput."""


@dataclass(slots=True)
class Tally:
    """What became of the records. `removed` ones were deleted, redacted or unmerged here."""

    added: Counter[str] = field(default_factory=Counter)
    known: int = 0
    removed: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


async def load(
    settings: Settings,
    convert: Convert,
    address: str,
    file: BinaryIO,
    size: int,
    refuse: Refused,
    tell: Told,
) -> Tally:
    """Import a file of another system, whose address is given, one ticket a line.

    Raises LineWrong if `refuse` does, and ServiceError where the database takes nothing; what came
    before is stored then.
    """
    timeline = create_timeline(settings)
    loading = Loading(timeline, convert, address, refuse, tell)
    failure: LineWrong | ServiceError | None = None
    async with running(timeline):
        try:
            await loading.read(file, size)
        except (LineWrong, ServiceError) as error:
            failure = error  # the tasks of the service would put it into a group
    if failure:
        raise failure
    return loading.tally


Numbered = tuple[int, Item]


@dataclass(slots=True)
class Loading:
    """Imports one file. Merges come last: both of their tickets must be here."""

    timeline: Timeline
    convert: Convert
    address: str
    refuse: Refused
    tell: Told
    tally: Tally = field(default_factory=Tally)
    _items: list[Numbered] = field(default_factory=list)
    _merges: dict[tuple[UUID, UUID], Numbered] = field(default_factory=dict)
    _actors: dict[UUID, ActorUpdate] = field(default_factory=dict)
    _namespace: UUID = field(init=False)
    _viewer: Viewer = field(init=False)

    def __post_init__(self) -> None:
        """Take an actor of its own, who stands in the history as the one who wrote it."""
        self._namespace = uuid5(NAMESPACE_URL, self.address)
        id_ = uuid5(self._namespace, "import")
        self._viewer = Viewer(id_, "import", frozenset(Scope), "import")
        self._actors[id_] = ActorUpdate(id_, f"Import from {self.address}")

    async def read(self, file: BinaryIO, size: int) -> None:
        try:
            for number, text in _lines(file):
                self._take(number, text)
                if max(len(self._items), len(self._actors)) >= _BATCH:
                    await self._flush()
                    self.tell("read", file.tell(), size)
        finally:
            await self._flush()
        self.tell("read", size, size)
        for some in _slices(sorted(self._merges.values(), key=lambda merge: merge[1].at)):
            await self._submit(some)

    def _take(self, number: int, text: bytes) -> None:
        """Take a ticket, whole or not at all."""
        try:
            if len(text) > MAX_RECORD_BYTES:
                raise InvalidInput(f"it is longer than {MAX_RECORD_BYTES} bytes")
            ticket = self.convert(text)
            created = [self._checked(item) for item in ticket.creations(self._namespace)]
            merged = [self._checked(item) for item in ticket.mergers(self._namespace)]
        except InvalidInput as error:
            self.refuse(_wrong(number, error.message))
            return
        self._items += [(number, item) for item in created]
        for item in merged:
            if isinstance(merge := item.command, MergeTickets):
                self._merges.setdefault((merge.source_id, merge.target_id), (number, item))
        updates = (person.update(self._namespace) for person in ticket.people)
        self._actors |= {update.id: update for update in updates if update.name}
        self.tally.left_out += ticket.left_out

    def _checked(self, item: Item) -> Item:
        try:
            item.command.check(self.timeline.limits)
        except InvalidInput as error:
            raise InvalidInput(f"{item.name}: {error.message}") from None
        return item

    async def _flush(self) -> None:
        items, self._items = self._items, []
        await self._name_actors()
        for some in _slices(items):
            await self._submit(some)

    async def _name_actors(self) -> None:
        """Name those actors who have no name here yet."""
        named, self._actors = self._actors, {}
        finding = partial(load_actors, ids=[*named])
        known = await self.timeline.reader.database.read(finding) if named else {}
        new = [one for id_, one in named.items() if id_ not in known or known[id_].name is None]
        if new:
            await self.timeline.upsert_actors(self._viewer, new)

    async def _submit(self, items: Sequence[Numbered]) -> None:
        """Carry out commands as one unit of work, then refuse those that are wrong."""
        commands = [item.command for _, item in items]
        verdicts = await self.timeline.submit_all(self._viewer, commands)
        for (number, item), verdict in zip(items, verdicts, strict=True):
            if not isinstance(verdict, Outcome):
                await self._settle(number, item, verdict)
            elif verdict.changes:
                self.tally.added.update(
                    change.activity.activity_type.value for change in verdict.changes
                )
            else:
                self.tally.known += 1

    async def _settle(self, number: int, item: Item, error: UserError) -> None:
        """Find out whether a command failed because of what was done here. Else refuse it."""
        command = item.command
        if isinstance(command, MergeTickets):
            reason = await self._settle_merge(command, error)
        elif isinstance(error, IdTaken):
            reason = await self._settle_creation(command)
        else:
            reason = error.message
        if reason:
            self.refuse(_wrong(number, f"{item.name}: {reason}"))

    async def _settle_creation(self, command: CreateTicket | CreateActivity) -> str | None:
        """Return what is wrong with a creation whose id is in use, None if nothing is."""
        entry = command.entry if isinstance(command, CreateTicket) else command
        finding = partial(load_activities, ids=[entry.activity_id])
        found = (await self.timeline.reader.database.read(finding)).get(entry.activity_id)
        if found and found.ticket_id != entry.ticket_id:
            self.tally.left_out["entries that are here on another ticket"] += 1
        elif found and (found.deleted_at or found.redacted_version):
            self.tally.removed += 1
        else:
            return "it is here already with other content"
        return None

    async def _settle_merge(self, merge: MergeTickets, error: UserError) -> str | None:
        finding = partial(load_tickets, ids=[merge.source_id])
        source = (await self.timeline.reader.database.read(finding)).get(merge.source_id)
        if isinstance(error, NotFound):
            self.tally.left_out["merges with a ticket that is not here"] += 1
        elif isinstance(error, IdTaken):
            self.tally.removed += 1
        elif (
            isinstance(error, TicketMerged) and source and source.merged_into_id == merge.target_id
        ):
            self.tally.known += 1
        else:
            return error.message
        return None


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that hold something, with their numbers; of one too long, its beginning."""
    number = 0
    while text := file.readline(MAX_RECORD_BYTES + 1):
        number += 1
        if len(text) > MAX_RECORD_BYTES or text.strip():
            yield number, text
        while not text.endswith(b"\n") and text:
            text = file.readline(MAX_RECORD_BYTES)


def _wrong(number: int, message: str) -> LineWrong:
    return LineWrong(number, message.removesuffix("."))


def _slices(items: Sequence[Numbered]) -> Iterator[Sequence[Numbered]]:
    return (items[begin : begin + _BATCH] for begin in range(0, len(items), _BATCH))
