"""Whatever two processes write, a list that is kept by the changes of a feed stays the list that a
query shows, also across cuts, and its owner is told nothing that they may not see.
"""

import asyncio
from collections.abc import Coroutine
from contextlib import ExitStack
from datetime import timedelta
from random import Random
from typing import Any, TypeVar
from uuid import UUID

from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from app.activity.commands import Command, RedactActivity, UpdateActivity
from app.activity.outcomes import Outcome
from app.auth import Scope, Viewer
from app.commands.retain import retain
from app.settings import Settings
from tests.support.cursors import seq_of
from tests.support.live import STATE, listening, receive, subscribe, web_socket
from tests.support.service import JSON, Client, Clock, Service, start
from tests.test_delete import DELETE

T = TypeVar("T")

_STEPS = [
    *("create", "update", "race", "hide", "delete", "redact", "batch", "batch"),
    *("cut", "resume", "compare", "remove"),
]


class Follower:
    """A client that keeps a list as README.md says: it queries once, then follows from there."""

    def __init__(self, service: Service, client: Client, ticket_id: str) -> None:
        self.service, self.client, self.ticket_id = service, client, ticket_id
        self.sees_private = False
        self.entries: dict[str, JSON] = {}
        self.withheld: set[str] = set()
        self.cursor = ""
        self.seq = 0
        self.socket: Any = None

    async def read(self) -> dict[str, JSON]:
        document = await self.client.graphql(STATE, id=self.ticket_id)
        ticket = document["data"]["ticket"]
        self.read_cursor = ticket["changesCursor"]
        return {node["id"]: node for node in ticket["activities"]["nodes"]}

    async def begin(self) -> None:
        self.entries = await self.read()
        self.cursor = self.read_cursor
        self.seq = seq_of(self.service, self.ticket_id, self.cursor)

    async def resume(self, origin: str) -> None:
        """Follow after the last cursor, by any process. Begin anew where it has expired."""
        await self.cut()
        self.socket = web_socket(origin, self.client.token)
        self.messages = await self.socket.__aenter__()
        await subscribe(self.messages, ticketId=self.ticket_id, after=self.cursor)
        if not await self.take():
            await self.begin()
            await self.resume(origin)

    async def cut(self) -> None:
        if self.socket:
            await self.socket.__aexit__(None, None, None)
            self.socket = None

    async def take(self) -> bool:
        """Take one event; return whether it is one, and not that the cursor has expired."""
        payload = (await receive(self.messages))["payload"]
        if isinstance(payload, list) or "errors" in payload:
            [error] = payload if isinstance(payload, list) else payload["errors"]
            assert error["extensions"]["code"] == "CURSOR_EXPIRED"
            return False
        event = payload["data"]["ticketActivityChanges"]
        self.cursor = event["cursor"]
        if change := event["change"]:
            seq = seq_of(self.service, self.ticket_id, self.cursor)
            assert seq > self.seq, "each once and in order"
            self.seq = seq
            self.apply(change)
        return True

    def apply(self, change: JSON) -> None:
        id_, entry = change["activityId"], change["ticketActivity"]
        assert (change["changeType"] == "REMOVED") is (entry is None)
        assert (change["changeType"] == "ADDED") is (entry is not None and id_ not in self.entries)
        if entry:
            assert self.sees_private or not entry["isPrivate"]
            assert entry["message"] not in self.withheld
            self.entries[id_] = {name: entry[name] for name in _SHOWN}
        else:
            assert change["changedById"] is None
            self.entries.pop(id_, None)  # what was not there may be gone too


_SHOWN = ("id", "message", "isPrivate", "version")


class FeedMachine(RuleBasedStateMachine):
    portal: BlockingPortal
    services: list[Service]
    origins: list[str]
    authors: list[Client]
    strangers: list[Client]

    @initialize()
    def open_ticket(self) -> None:
        self.number = 0
        self.clock = self.services[0].clock
        self.ticket_id = self.run(self.authors[0].create_ticket(message="opened"))
        self.followers = [
            Follower(self.services[0], client, self.ticket_id)
            for client in (self.authors[0], self.strangers[0])
        ]
        self.followers[0].sees_private = True
        for process, follower in enumerate(self.followers):
            self.run(follower.begin())
            self.run(follower.resume(self.origins[process]))

    # What a step does depends on its number too: hypothesis likes to repeat the simplest choice.
    @rule(choice=st.integers(0, 10**6))
    def do(self, choice: int) -> None:
        self.number += 1
        dice = Random(f"{self.number} {choice}")
        do, process, is_private = dice.choice(_STEPS), dice.randrange(2), dice.random() < 1 / 2
        author, other = self.authors[process], dice.choice(self.followers)
        standing = sorted(self.run(Follower(*self.reader).read()))
        id_ = dice.choice(standing) if standing else None
        match do:
            case "create":
                self.create(author, f"{self.number}", is_private)
            case "cut":
                self.run(other.cut())
            case "resume":
                self.run(other.resume(self.origins[process]))
            case "compare":
                self.compare()
            case "remove":
                self.remove_what_is_too_old()
            case _ if id_:
                self.change(do, process, id_, is_private)

    @property
    def reader(self) -> tuple[Service, Client, str]:
        return self.services[0], self.authors[0], self.ticket_id

    def create(self, author: Client, message: str, is_private: bool) -> JSON:
        work = author.create_activity(self.ticket_id, message=message, isPrivate=is_private)
        return self.run(work)

    def change(self, do: str, process: int, id_: str, is_private: bool) -> None:
        author, key = self.authors[process], (UUID(self.ticket_id), UUID(id_))
        update = UpdateActivity(*key, message=f"{self.number}")
        redact = RedactActivity(*key, reason="asked")
        match do:
            case "delete":
                ids = {"ticketId": self.ticket_id, "activityId": id_}
                self.run(author.mutate(DELETE, **ids))
            case "update":
                self.submit(process, [update])
            case "race":
                self.race(id_)
            case "hide":
                self.submit(process, [UpdateActivity(*key, is_private=is_private)])
            case "redact":
                self.submit(process, [redact])
            case "batch":
                hide = UpdateActivity(*key, is_private=True)
                again = UpdateActivity(*key, message=f"{self.number} again")
                if self.submit(process, [update, redact if is_private else hide, again]):
                    for follower in self.followers:
                        if is_private or not follower.sees_private:
                            follower.withheld.add(f"{self.number}")

    def submit(self, process: int, commands: list[Command]) -> bool:
        """Carry out commands in one unit of work. Some are refused, such as to hide a fact."""
        author, timeline = self.authors[process], self.services[process].app.state.timeline
        viewer = Viewer(author.actor_id, "test", frozenset(Scope), "test")
        found = self.run(timeline.submit_all(viewer, commands))
        return all(isinstance(one, Outcome) for one in found)

    def race(self, id_: str) -> None:
        """Update an entry in both processes at once."""

        async def update() -> None:
            body = {"message": f"{self.number}"}
            await asyncio.gather(*(one.put(self.ticket_id, id_, body) for one in self.authors))

        self.run(update())

    def remove_what_is_too_old(self) -> None:
        """Nobody is told. What is gone from the query is gone from the lists then."""
        self.compare()
        self.clock.advance(days=1)
        before = self.clock() - timedelta(hours=1)
        self.run(retain(self.services[0].database, before, lambda *_: None, applies=True))
        for follower in self.followers:
            shown = self.run(follower.read())
            follower.entries = {k: v for k, v in follower.entries.items() if k in shown}

    def compare(self) -> None:
        """What was committed is delivered: nothing is lost, and nothing is shown too much."""
        marker = self.create(self.authors[0], "marker", is_private=False)["id"]
        for process, follower in enumerate(self.followers):
            if not follower.socket:
                self.run(follower.resume(self.origins[process]))
            while marker not in follower.entries:
                assert self.run(follower.take())
            assert follower.entries == self.run(follower.read())

    def teardown(self) -> None:
        if getattr(self, "followers", None):
            try:
                self.compare()
            finally:
                for follower in self.followers:
                    self.run(follower.cut())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        async def awaited() -> T:
            return await work

        return self.portal.call(awaited)


def test_a_list_kept_by_the_feed_stays_the_list_that_is_shown(blank: Settings) -> None:
    clock = Clock()
    with ExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal())
        enter = stack.enter_context
        services = [enter(portal.wrap_async_context_manager(start(blank, clock))) for _ in "12"]
        origins = [enter(portal.wrap_async_context_manager(listening(one))) for one in services]

        class Machine(FeedMachine):
            pass

        Machine.portal, Machine.services, Machine.origins = portal, services, origins
        for name, scopes in ("authors", tuple(Scope)), ("strangers", (Scope.READ,)):
            here = portal.call(services[0].client, *scopes)
            there = Client(services[1].http, here.actor_id, here.token)
            setattr(Machine, name, [here, there])
        bounds = examples(
            max_examples=5,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        run_state_machine_as_test(Machine, settings=bounds)
