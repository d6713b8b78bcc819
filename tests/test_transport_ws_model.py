"""Any conversation over graphql-transport-ws, held against a simple model of the protocol."""

import json
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    precondition,
    rule,
)

from app.graphql_server.transport_ws import (
    Authenticate,
    Close,
    Operation,
    Send,
    Start,
    Stop,
    TransportWS,
)

LIMIT = 3
IDS = st.sampled_from(["a", "b", "c", "d", "e"])


class Conversation(RuleBasedStateMachine):
    """The model is the phase and, for each id, the operation that may speak under it."""

    started = Bundle("started")

    def __init__(self) -> None:
        super().__init__()
        self.connection = TransportWS(LIMIT)
        self.phase = "opened"
        self.open: dict[str, Operation] = {}
        self.ended: list[Operation] = []

    def receive(self, **message: Any) -> Any:
        return self.connection.receive(json.dumps(message))

    def expect_close(self, action: Any, code: int) -> None:
        if self.phase == "closed":
            assert action is None
            return
        assert isinstance(action, Close)
        assert action.code == code
        self.phase = "closed"
        self.ended += self.open.values()
        self.open.clear()

    @rule()
    def initialise(self) -> None:
        action = self.receive(type="connection_init", payload={})
        if self.phase == "opened":
            assert action == Authenticate({})
            self.phase = "initialised"
        else:
            self.expect_close(action, 4429)

    @precondition(lambda self: self.phase == "initialised")
    @rule()
    def acknowledge(self) -> None:
        assert json.loads(self.connection.acknowledge()) == {"type": "connection_ack"}
        self.phase = "acknowledged"

    @rule(kind=st.sampled_from(["ping", "pong"]))
    def keep_alive(self, kind: str) -> None:
        action = self.receive(type=kind)
        answered = kind == "ping" and self.phase != "closed"
        assert action == (Send('{"type":"pong"}') if answered else None)

    @rule(target=started, id_=IDS)
    def subscribe(self, id_: str) -> Any:
        action = self.receive(type="subscribe", id=id_, payload={})
        if self.phase != "acknowledged":
            self.expect_close(action, 4401)
        elif id_ in self.open:
            self.expect_close(action, 4409)
        elif len(self.open) == LIMIT:
            assert isinstance(action, Send)
            assert json.loads(action.text)["type"] == "error"
        else:
            assert isinstance(action, Start)
            self.open[id_] = action.operation
            return action.operation
        return multiple()

    @rule(id_=IDS)
    def complete_by_client(self, id_: str) -> None:
        action = self.receive(type="complete", id=id_)
        operation = self.open.pop(id_, None)
        assert action == (Stop(operation) if operation else None)
        self.ended += [operation] if operation else []

    @rule(operation=consumes(started), is_failed=st.booleans())
    def end(self, operation: Operation, is_failed: bool) -> None:
        if is_failed:
            text = self.connection.fail(operation, [])
        else:
            text = self.connection.complete(operation)
        assert (text is not None) is (self.open.get(operation.id) is operation)
        if text is not None:
            self.ended.append(self.open.pop(operation.id))

    @rule(text=st.sampled_from(["", "[]", '{"type":"next","id":"a"}']))
    def break_the_protocol(self, text: str) -> None:
        self.expect_close(self.connection.receive(text), 4400)

    @invariant()
    def open_operations_speak_and_ended_ones_are_silent(self) -> None:
        for id_, operation in self.open.items():
            text = self.connection.next(operation, b"{}")
            assert json.loads(text or "") == {"id": id_, "type": "next", "payload": {}}
        assert all(self.connection.next(operation, b"{}") is None for operation in self.ended)


TestConversation = Conversation.TestCase
TestConversation.settings = settings(max_examples=200, stateful_step_count=30, derandomize=True)
