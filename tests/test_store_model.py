"""Any sequence of reads and writes, of callers that give up and of loads that fail, does to a real
database what it does to a dictionary.
"""

import asyncio
from collections.abc import Coroutine
from contextlib import ExitStack
from typing import Any, NoReturn, TypeVar
from uuid import uuid4

import pytest
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
from sqlmodel import Session

from app.settings import Settings
from tests.support.service import CREATE_ACTIVITY, UPDATE, Client, Service, start

T = TypeVar("T")

PAGE = """
query Page($id: ID!) { ticket(id: $id) {
  before: activities(first: 1, filter: {types: COMMENT}) { filteredCount }
  activities(first: 100, filter: {types: COMMENT}) { filteredCount nodes { id message version } }
  after: activities(last: 1, filter: {types: COMMENT}) { filteredCount }
} }
"""

turns = st.integers(0, 30)
messages = st.text("ab", max_size=2)

Entries = dict[str, tuple[str, int]]
"""The message and the version of each entry, by its id."""


class LoadFailed(Exception):
    pass


def fail(_session: Session) -> NoReturn:
    raise LoadFailed


class StoreMachine(RuleBasedStateMachine):
    portal: BlockingPortal
    service: Service
    client: Client

    def __init__(self) -> None:
        super().__init__()
        self.entries: Entries = {}

    @initialize()
    def open_ticket(self) -> None:
        self.ticket_id = self.run(self.client.create_ticket())

    @rule(message=messages)
    def create(self, message: str) -> None:
        self.run(self._create(str(uuid4()), message))

    @rule(texts=st.lists(messages, min_size=2, max_size=5))
    def create_at_once(self, texts: list[str]) -> None:
        self.run(together(*(self._create(str(uuid4()), text) for text in texts)))

    @rule(data=st.data(), message=messages)
    def update(self, data: st.DataObject, message: str) -> None:
        if self.entries:
            id_ = data.draw(st.sampled_from(sorted(self.entries)))
            self.run(self._update(id_, message))

    @rule(message=messages, after=turns)
    def give_up_a_write(self, message: str, after: int) -> None:
        """It is carried out, or it is not: that is settled once a later write is acknowledged."""
        id_ = str(uuid4())
        self.run(given_up(self._send_creation(id_, message), after))
        self.run(self._create(str(uuid4()), message))
        if self.run(self.client.find(self.ticket_id, id_)) is not None:
            self.entries[id_] = message, 1

    @rule(after=turns)
    def give_up_a_read(self, after: int) -> None:
        self.run(together(given_up(self._page(), after), self._check_page(self.entries)))

    @rule()
    def fail_a_load_beside_others(self) -> None:
        async def failing() -> None:
            with pytest.raises(LoadFailed):
                await self.service.app.state.timeline.reader.load("test", fail)

        self.run(together(failing(), self._check_page(self.entries), failing()))

    @rule(texts=st.lists(messages, min_size=1, max_size=4), reads=st.integers(1, 4))
    def read_while_others_write(self, texts: list[str], reads: int) -> None:
        """Each operation sees one state: all it reads is as old as the rest."""
        before = dict(self.entries)
        writes = [self._create(str(uuid4()), text) for text in texts]

        async def read() -> None:
            found = await self._page()
            assert before.items() <= found.items()
            assert len(found) <= len(before) + len(texts)

        self.run(together(*writes, *(read() for _ in range(reads))))

    @invariant()
    def holds_what_was_acknowledged(self) -> None:
        if hasattr(self, "ticket_id"):
            self.run(self._check_page(self.entries))

    async def _send_creation(self, id_: str, message: str) -> None:
        given = {"id": id_, "ticketId": self.ticket_id, "activityType": "COMMENT"}
        await self.client.mutate(CREATE_ACTIVITY, **given, message=message)

    async def _create(self, id_: str, message: str) -> None:
        await self._send_creation(id_, message)
        self.entries[id_] = message, 1
        await self._check_entry(id_)

    async def _update(self, id_: str, message: str) -> None:
        old, version = self.entries[id_]
        await self.client.mutate(UPDATE, ticketId=self.ticket_id, activityId=id_, message=message)
        self.entries[id_] = message, version + (message != old)
        await self._check_entry(id_)

    async def _check_entry(self, id_: str) -> None:
        found = await self.client.find(self.ticket_id, id_)
        assert found is not None
        assert (found["message"], found["version"]) == self.entries[id_]

    async def _check_page(self, expected: Entries) -> None:
        assert await self._page() == expected

    async def _page(self) -> Entries:
        ticket = (await self.client.graphql(PAGE, id=self.ticket_id))["data"]["ticket"]
        nodes = ticket["activities"]["nodes"]
        counts = {ticket[name]["filteredCount"] for name in ("before", "activities", "after")}
        assert counts == {len(nodes)}
        return {node["id"]: (node["message"], node["version"]) for node in nodes}

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(20):
                return await work

        return self.portal.call(bounded)


async def together(*works: Coroutine[Any, Any, None]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for work in works:
            tasks.create_task(work)


async def given_up(work: Coroutine[Any, Any, object], after: int) -> None:
    """Begin something, and cancel it after so many turns of the event loop."""
    task = asyncio.create_task(work)
    for _ in range(after):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        await task


# With --interpreted, graphql-core leaves coroutines of fields that had not begun when a request is
# given up.
@pytest.mark.filterwarnings("ignore:coroutine '(Executor|GraphQLCoreConverter).* was never awaited")
def test_reads_and_writes_do_what_they_do_to_a_dictionary(blank: Settings) -> None:
    with ExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal())
        service: Service = stack.enter_context(portal.wrap_async_context_manager(start(blank)))

        class Machine(StoreMachine):
            pass

        Machine.portal, Machine.service = portal, service
        Machine.client = portal.call(service.client)
        bounds = examples(
            max_examples=8,
            stateful_step_count=10,
            suppress_health_check=list(HealthCheck),
        )
        run_state_machine_as_test(Machine, settings=bounds)
