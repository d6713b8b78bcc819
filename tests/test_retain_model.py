"""Any sequence of writes and removals of what is too old leaves what a model of them says, and each
cursor of the feed either has expired or leads to every change after it.
"""

from collections.abc import Coroutine
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from app.activity.values import format_datetime
from app.auth import Scope
from app.commands.retain import retain
from app.settings import Settings
from tests.support.cursors import seq_of
from tests.support.live import FEED, STATE
from tests.support.service import JSON, Client, Service, start
from tests.test_delete import DELETE

T = TypeVar("T")

LOOK = """
query Look($id: ID!) {
  ticket(id: $id) {
    activities(first: 20) {
      totalCount
      nodes { id message revisions(first: 20) { totalCount nodes { version message } } }
    }
  }
}
"""

messages = st.text("ab", min_size=1, max_size=3)
pauses = st.sampled_from([0, 100])
ages = st.sampled_from([0, 30, 250])
choices = st.integers(0, 10**6)


@dataclass(frozen=True)
class Written:
    """A change: `changed_at` says how old what it wrote is, `recorded_at` when it was written."""

    seq: int
    id: str
    version: int
    message: str | None  # None: deleted
    is_private: bool
    changed_at: datetime
    recorded_at: datetime


class RetainMachine(RuleBasedStateMachine):
    portal: BlockingPortal
    service: Service
    client: Client
    stranger: Client  # who sees no private entries
    valid_since: ClassVar[datetime] = datetime.min.replace(tzinfo=UTC)  # of the whole database

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Written] = []
        self.current: dict[str, Written] = {}
        self.cursors: list[tuple[str, int, datetime]] = []
        self.seq = 0
        self.gone: list[Written] = []

    @initialize(message=messages)
    def open_ticket(self, message: str) -> None:
        self.ticket_id = self.run(self.client.create_ticket(message=message))
        [node] = self.run(self.feed(None))["nodes"]
        self.write(node["activityId"], 1, message)

    def write(
        self,
        id_: str,
        version: int,
        message: str | None,
        changed_at: datetime | None = None,
        *,
        is_private: bool = False,
    ) -> None:
        self.seq += 1
        now = self.service.clock()
        at = changed_at or now
        self.current[id_] = Written(self.seq, id_, version, message, is_private, at, now)
        self.kept.append(self.current[id_])

    # One rule: hypothesis leaves some rules out of each example, and few examples have all.
    @rule(
        do=st.sampled_from(["create", "update", "update", "delete", "cursor", "change", "remove"]),
        choice=choices,
        message=messages,
        pause=pauses,
        age=ages,
    )
    def do(self, do: str, choice: int, message: str, pause: int, age: int) -> None:
        if do in {"create", "update"}:
            self.service.clock.advance(days=pause)
        match do:
            case "create":
                self.create(message, age, is_private=choice % 2 == 0)
            case "update":
                self.update(self.choose(choice), message)
            case "delete":
                self.delete(self.choose(choice))
            case "cursor":
                self.take_a_cursor()
            case "change":
                self.take_the_cursor_of_a_change(choice)
            case "remove":
                self.remove_what_is_too_old(age)

    def create(self, message: str, age: int, *, is_private: bool) -> None:
        """Write an entry, or import one with an old time."""
        at = self.service.clock() - timedelta(days=age)
        given: JSON = {"message": message, "isPrivate": is_private}
        given |= {"createdAt": format_datetime(at)} if age else {}
        entry = self.run(self.client.create_activity(self.ticket_id, **given))
        self.write(entry["id"], 1, message, at, is_private=is_private)

    def choose(self, choice: int) -> Written | None:
        standing = [entry for entry in self.current.values() if entry.message is not None]
        return standing[choice % len(standing)] if standing else None

    def update(self, entry: Written | None, message: str) -> None:
        if entry and entry.message != message:
            body = {"message": message}
            response = self.run(self.client.put(self.ticket_id, entry.id, body))
            assert response.status_code == 200
            self.write(entry.id, entry.version + 1, message, is_private=entry.is_private)

    def delete(self, entry: Written | None) -> None:
        if entry:
            ids = {"ticketId": self.ticket_id, "activityId": entry.id}
            assert self.run(self.client.mutate(DELETE, **ids))["userErrors"] == []
            self.write(entry.id, entry.version + 1, None, is_private=entry.is_private)

    def take_a_cursor(self) -> None:
        document = self.run(self.client.graphql(STATE, id=self.ticket_id))
        cursor = document["data"]["ticket"]["changesCursor"]
        self.cursors.append((cursor, self.seq, self.service.clock()))

    def take_the_cursor_of_a_change(self, choice: int) -> None:
        nodes = self.run(self.feed(None))["nodes"]
        if nodes:
            cursor = nodes[choice % len(nodes)]["cursor"]
            seq = seq_of(self.service, self.ticket_id, cursor)
            [at] = [change.recorded_at for change in self.kept if change.seq == seq]
            self.cursors.append((cursor, seq, at))

    def remove_what_is_too_old(self, age: int) -> None:
        before = self.service.clock() - timedelta(days=age)
        self.run(retain(self.service.database, before, lambda *_: None, applies=True))
        self.gone += [change for change in self.kept if change.changed_at < before]
        self.kept = [change for change in self.kept if change.changed_at >= before]
        self.current = {
            id_: entry for id_, entry in self.current.items() if entry.changed_at >= before
        }
        RetainMachine.valid_since = max(RetainMachine.valid_since, before)

    @invariant()
    def shows_what_is_kept(self) -> None:
        if not self.seq:
            return
        document = self.run(self.client.graphql(LOOK, id=self.ticket_id))
        activities = document["data"]["ticket"]["activities"]
        standing = {
            id_: entry.message for id_, entry in self.current.items() if entry.message is not None
        }
        assert activities["totalCount"] == len(standing)
        assert {node["id"]: node["message"] for node in activities["nodes"]} == standing
        for node in activities["nodes"]:
            found = node["revisions"]
            versions = [(one["version"], one["message"]) for one in found["nodes"]]
            kept = [(c.version, c.message) for c in self.kept if c.id == node["id"]]
            assert versions == kept
            assert found["totalCount"] == len(kept)

    @invariant()
    def leaves_no_gap_in_the_feed(self) -> None:
        if not self.seq:
            return
        for client, sees_private in ((self.client, True), (self.stranger, False)):
            gone = [change.seq for change in self.gone if sees_private or not change.is_private]
            forgotten = max(gone, default=0)
            page = self.run(self.feed(None, client))
            assert self.seqs(page) == self.told_after(forgotten, sees_private=sees_private)
            for cursor, seq, at in self.cursors[-4:]:
                asking = client.graphql(FEED, ticketId=self.ticket_id, after=cursor, first=100)
                document = self.run(asking)
                if seq < forgotten or at < RetainMachine.valid_since:
                    [error] = document["errors"]
                    assert error["extensions"]["code"] == "CURSOR_EXPIRED"
                else:
                    page = document["data"]["ticketActivityChanges"]
                    assert self.seqs(page) == self.told_after(seq, sees_private=sees_private)

    def told_after(self, seq: int, *, sees_private: bool) -> list[int]:
        """Of what was deleted since, the feed tells that alone."""
        return [
            change.seq
            for change in self.kept
            if change.seq > seq
            and (sees_private or not change.is_private)
            and (change.message is None or self.current[change.id].message is not None)
        ]

    def seqs(self, page: JSON) -> list[int]:
        return [seq_of(self.service, self.ticket_id, node["cursor"]) for node in page["nodes"]]

    async def feed(self, after: str | None, client: Client | None = None) -> Any:
        document = await (client or self.client).graphql(
            FEED, ticketId=self.ticket_id, after=after, first=100
        )
        assert "errors" not in document, document
        return document["data"]["ticketActivityChanges"]

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        async def awaited() -> T:
            return await work

        return self.portal.call(awaited)


def test_what_is_kept_and_every_cursor_are_as_a_model_says(blank: Settings) -> None:
    with ExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal())
        service: Service = stack.enter_context(portal.wrap_async_context_manager(start(blank)))

        class Machine(RetainMachine):
            pass

        Machine.portal, Machine.service = portal, service
        Machine.client = portal.call(service.client, *Scope)
        Machine.stranger = portal.call(service.client)
        RetainMachine.valid_since = datetime.min.replace(tzinfo=UTC)
        bounds = examples(
            max_examples=6,
            stateful_step_count=15,
            suppress_health_check=list(HealthCheck),
        )
        run_state_machine_as_test(Machine, settings=bounds)
