"""The rules of graphql-transport-ws, each named after the section of PROTOCOL.md that has it.

https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md
"""

import json
from typing import Any

import pytest

from app.graphql_server.transport_ws import (
    Authenticate,
    Close,
    Operation,
    Send,
    Start,
    Stop,
    TransportWS,
)

pytestmark = pytest.mark.any_engine

PAYLOAD = {"query": "subscription { ticks }"}


def receive(connection: TransportWS, **message: Any) -> Any:
    return connection.receive(json.dumps(message))


def acknowledged(max_operations: int = 100) -> TransportWS:
    connection = TransportWS(max_operations)
    receive(connection, type="connection_init")
    connection.acknowledge()
    return connection


def subscribed(connection: TransportWS, id_: str = "1") -> Operation:
    action = receive(connection, type="subscribe", id=id_, payload=PAYLOAD)
    assert isinstance(action, Start)
    return action.operation


def sent(action: Any) -> Any:
    assert isinstance(action, Send)
    return json.loads(action.text)


def said(text: str | None) -> Any:
    assert text is not None
    return json.loads(text)


def code(action: Any) -> int:
    assert isinstance(action, Close)
    return action.code


# ConnectionInit and ConnectionAck


@pytest.mark.parametrize("payload", [{"Authorization": "Bearer x"}, {}])
def test_connection_init_carries_a_payload_to_authenticate_by(payload: dict[str, Any]) -> None:
    action = receive(TransportWS(1), type="connection_init", payload=payload)

    assert action == Authenticate(payload)


@pytest.mark.parametrize(
    "message", ['{"type":"connection_init"}', '{"type":"connection_init","payload":null}']
)
def test_connection_init_may_have_no_payload(message: str) -> None:
    assert TransportWS(1).receive(message) == Authenticate({})


def test_connection_ack_answers_connection_init() -> None:
    connection = TransportWS(1)
    receive(connection, type="connection_init")

    assert said(connection.acknowledge()) == {"type": "connection_ack"}


@pytest.mark.parametrize("is_acknowledged", [False, True])
def test_connection_init_more_than_once_closes_with_4429(is_acknowledged: bool) -> None:
    connection = TransportWS(1)
    receive(connection, type="connection_init")
    if is_acknowledged:
        connection.acknowledge()

    action = receive(connection, type="connection_init")

    assert action == Close(4429, "Too many initialisation requests")


# Ping and Pong


@pytest.mark.parametrize("is_acknowledged", [False, True])
def test_ping_may_be_sent_at_any_time_and_is_answered_by_pong(is_acknowledged: bool) -> None:
    connection = acknowledged() if is_acknowledged else TransportWS(1)

    assert sent(receive(connection, type="ping")) == {"type": "pong"}
    answer = sent(receive(connection, type="ping", payload={"at": 1}))
    assert answer == {"type": "pong", "payload": {"at": 1}}


@pytest.mark.parametrize("is_acknowledged", [False, True])
def test_pong_may_be_sent_at_any_time_and_needs_no_answer(is_acknowledged: bool) -> None:
    connection = acknowledged() if is_acknowledged else TransportWS(1)

    assert receive(connection, type="pong") is None


# Subscribe


def test_subscribe_starts_an_operation() -> None:
    operation = subscribed(acknowledged(), "a")

    assert (operation.id, operation.payload) == ("a", PAYLOAD)


@pytest.mark.parametrize("is_initialised", [False, True])
def test_subscribe_before_the_acknowledgement_closes_with_4401(is_initialised: bool) -> None:
    connection = TransportWS(1)
    if is_initialised:
        receive(connection, type="connection_init")

    assert code(receive(connection, type="subscribe", id="1", payload=PAYLOAD)) == 4401


def test_subscribe_with_the_id_of_an_open_operation_closes_with_4409() -> None:
    connection = acknowledged()
    subscribed(connection, "a")

    action = receive(connection, type="subscribe", id="a", payload=PAYLOAD)

    assert action == Close(4409, "Subscriber for a already exists")


def test_an_id_may_be_used_again_once_its_operation_is_complete() -> None:
    connection = acknowledged()
    first = subscribed(connection, "a")
    connection.complete(first)
    second = subscribed(connection, "a")

    assert second != first
    assert connection.next(first, b"{}") is None
    assert said(connection.next(second, b"{}")) == {"id": "a", "type": "next", "payload": {}}


def test_one_more_operation_than_the_limit_is_an_error_of_that_operation() -> None:
    connection = acknowledged(max_operations=2)
    subscribed(connection, "a")
    open_ = subscribed(connection, "b")

    answer = sent(receive(connection, type="subscribe", id="c", payload=PAYLOAD))

    assert (answer["id"], answer["type"]) == ("c", "error")
    [error] = answer["payload"]
    assert error["extensions"] == {"code": "TOO_MANY_SUBSCRIPTIONS"}
    assert "2 operations, which is the limit" in error["message"]
    connection.complete(open_)
    subscribed(connection, "c")


# Next, Error and Complete


def test_next_carries_a_result_of_the_operation() -> None:
    connection = acknowledged()
    operation = subscribed(connection, 'a"\u2028')

    message = said(connection.next(operation, b'{"data":{"ticks":1}}'))

    assert message == {"id": 'a"\u2028', "type": "next", "payload": {"data": {"ticks": 1}}}


def test_error_ends_the_operation_and_no_message_follows() -> None:
    connection = acknowledged()
    operation = subscribed(connection, "a")

    message = said(connection.fail(operation, [{"message": "no"}]))

    assert message == {"id": "a", "type": "error", "payload": [{"message": "no"}]}
    assert connection.next(operation, b"{}") is None
    assert connection.fail(operation, []) is None
    assert connection.complete(operation) is None


def test_complete_of_the_server_ends_the_operation_and_no_message_follows() -> None:
    connection = acknowledged()
    operation = subscribed(connection, "a")

    assert said(connection.complete(operation)) == {"id": "a", "type": "complete"}
    assert connection.next(operation, b"{}") is None
    assert connection.complete(operation) is None


def test_complete_of_the_client_stops_the_operation_and_no_message_follows() -> None:
    connection = acknowledged()
    operation = subscribed(connection, "a")

    action = receive(connection, type="complete", id="a")

    assert action == Stop(operation)
    assert connection.next(operation, b"{}") is None
    assert connection.complete(operation) is None


def test_complete_that_crosses_the_end_of_its_operation_is_ignored() -> None:
    connection = acknowledged()
    connection.complete(subscribed(connection, "a"))

    assert receive(connection, type="complete", id="a") is None
    assert receive(connection, type="complete", id="never") is None


# Invalid message


@pytest.mark.parametrize("is_acknowledged", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "not JSON",
        "[]",
        "null",
        "{}",
        '{"type":1}',
        '{"type":"unknown"}',
        '{"type":"start"}',
        '{"type":"next","id":"1","payload":{}}',
        '{"type":"error","id":"1","payload":[]}',
        '{"type":"connection_ack"}',
        '{"type":"ping","payload":1}',
        '{"type":"pong","payload":[]}',
        '{"type":"complete"}',
        '{"type":"complete","id":1}',
        '{"type":"ping","payload":NaN}',
        "[" * 100_000,
    ],
)
def test_an_invalid_message_closes_with_4400(is_acknowledged: bool, text: str | None) -> None:
    connection = acknowledged() if is_acknowledged else TransportWS(1)

    assert code(connection.receive(text)) == 4400


@pytest.mark.parametrize(
    "message",
    [
        {"payload": PAYLOAD},
        {"id": "", "payload": PAYLOAD},
        {"id": 1, "payload": PAYLOAD},
        {"id": "x" * 257, "payload": PAYLOAD},
        {"id": "1"},
        {"id": "1", "payload": None},
        {"id": "1", "payload": "{}"},
    ],
)
def test_a_subscribe_of_another_format_closes_with_4400(message: dict[str, Any]) -> None:
    assert code(receive(acknowledged(), type="subscribe", **message)) == 4400


def test_a_connection_init_of_another_format_closes_with_4400() -> None:
    assert code(receive(TransportWS(1), type="connection_init", payload="Bearer x")) == 4400


def test_after_the_close_nothing_is_sent_or_started() -> None:
    connection = acknowledged()
    operation = subscribed(connection)
    connection.receive("not JSON")

    assert receive(connection, type="ping") is None
    assert receive(connection, type="subscribe", id="2", payload=PAYLOAD) is None
    assert connection.next(operation, b"{}") is None
    assert connection.complete(operation) is None
