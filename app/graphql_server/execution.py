"""Executes GraphQL operations on a Strawberry schema. It knows no HTTP.

Strawberry's own `Schema.execute` costs half a millisecond a request and runs the first of two
operations when none is named.
"""

import asyncio
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Hashable,
    Iterable,
    Mapping,
)
from contextlib import aclosing
from functools import partial
from inspect import isawaitable
from types import CoroutineType
from typing import Any

from graphql import ExecutionResult, GraphQLError, create_source_event_stream
from strawberry import Schema

from app.errors import Busy, InvalidInput, Reconnect
from app.graphql_server.compiler import Compiler, Execution, Result
from app.graphql_server.complexity import ListSizes, QueryLimits
from app.graphql_server.errors import RequestErrors, cause_of
from app.graphql_server.events import Event, Payload, SharedEvents
from app.graphql_server.introspection import AnswerCache
from app.graphql_server.list_variables import check_lists
from app.graphql_server.parser import Operation, Parser
from app.graphql_server.response_size import ResponseSize
from app.json_text import encode_json_to_keep

_KEPT_INTROSPECTIONS = 8

AroundEvent = Callable[[Callable[[], Awaitable[Event]]], Awaitable[Event]]
"""Runs the function that executes one event, perhaps twice."""


def event_of(result: Result, id: str | None = None) -> Event:  # noqa: A002, its name in SSE
    """Return a result as an event. It is encoded here if it has no errors."""
    if result.errors:
        return Event(None, result.data, result.errors, id)
    return Event(encode_json_to_keep({"data": result.data}), id=id)


class Executor:
    """Executes operations on a schema. `parser` prepares them."""

    def __init__(
        self,
        schema: Schema,
        *,
        cache_size: int,
        limits: QueryLimits,
        list_sizes: ListSizes | None = None,
        max_characters: int = 64 * 1024,
        max_errors: int = 20,
        max_response_bytes: int = 16 * 1024 * 1024,
        allow_introspection: bool = True,
        hide_suggestions: bool = False,
        interpreted_first: int = 1,
    ) -> None:
        if schema.extensions or schema.directives:
            raise ValueError("Schema extensions and operation directives would not be run.")
        self._list_sizes = list_sizes or ListSizes()
        self.parser = Parser(
            schema._schema,  # Strawberry has no public name for it
            cache_size=cache_size,
            limits=limits,
            list_sizes=self._list_sizes,
            max_characters=max_characters,
            max_errors=max_errors,
            allow_introspection=allow_introspection,
            hide_suggestions=hide_suggestions,
        )
        self._introspected = AnswerCache(_KEPT_INTROSPECTIONS)
        self._max_response_bytes = max_response_bytes
        self.compiler = Compiler(
            schema,
            max_errors=max_errors,
            hide_suggestions=hide_suggestions,
            interpreted_first=interpreted_first,
        )
        self._shared = SharedEvents()

    async def execute(
        self,
        operation: Operation,
        variables: Mapping[str, Any] | None,
        context: object,
        extensions: Mapping[str, Any] | None = None,
    ) -> Result:
        """Execute a query or mutation; raise RequestErrors where the variables do not fit it."""
        if operation.is_introspection:
            return await self._introspect(operation, variables, context, extensions)
        executed = self._begin(operation, variables, context, extensions).run()
        result: Result = await executed if type(executed) is CoroutineType else executed
        return result

    async def _introspect(
        self,
        operation: Operation,
        variables: Mapping[str, Any] | None,
        context: object,
        extensions: Mapping[str, Any] | None,
    ) -> Result:
        """Execute what reads nothing but the schema, in another thread; keep the result."""
        kept: Result | None = self._introspected.get(operation.document, operation.name)
        if kept:
            return kept
        execution = self._begin(operation, variables, context, extensions)
        executed = await asyncio.get_running_loop().run_in_executor(
            self.parser.beside, execution.run
        )
        result: Result = await executed if type(executed) is CoroutineType else executed
        self._introspected.put(operation.document, operation.name, result)
        return result

    async def subscribe(
        self,
        operation: Operation,
        variables: Mapping[str, Any] | None,
        context: object,
        audience: Hashable,
        extensions: Mapping[str, Any] | None = None,
        *,
        around_event: AroundEvent,
    ) -> AsyncGenerator[Event]:
        """Return the events of a subscription, each executed within `around_event`.

        The source yields payloads. Subscribers of one audience get the same result for the same
        selection of payloads of the same key.

        Raises RequestErrors if the variables do not fit or the field raises. The stream raises what
        its source raises. Instead of a BUSY error both raise Reconnect, so that the client resumes
        after the last event, and gets no event in part.
        """
        begin = partial(self._begin, operation, variables, context, extensions)
        execution = begin()
        source = create_source_event_stream(execution.new_core())
        if isawaitable(source):
            source = await source
        if isinstance(source, ExecutionResult):
            _require_not_busy(source.errors or ())
            raise RequestErrors(source.errors or (), InvalidInput.code)
        given = variables or {}
        # One left out may have a default, which null has not.
        inner = {name: given[name] for name in operation.inner_variables if name in given}
        key = operation.text, operation.name, encode_json_to_keep(inner), audience
        return self._events(execution, begin, key, source, around_event)

    async def _events(
        self,
        execution: Execution,
        begin_again: Callable[[], Execution],
        key: tuple[Hashable, ...],
        source: Any,
        around_event: AroundEvent,
    ) -> AsyncGenerator[Event]:
        async with aclosing(source) as payloads:
            try:
                is_first = True
                async for payload in payloads:
                    shared_key = (*key, payload.key)
                    event = self._shared.get(shared_key)
                    if event is None:
                        if execution.plan is None and not is_first:
                            execution = begin_again()  # each event is an operation that comes again
                        event = await around_event(
                            partial(self._execute_event, execution, shared_key, payload)
                        )
                    is_first = False
                    yield event
            except Busy as error:
                raise Reconnect(error.message) from None

    async def _execute_event(
        self, execution: Execution, shared_key: Hashable, payload: Payload
    ) -> Event:
        executed = execution.of_event(payload, ResponseSize(self._max_response_bytes)).run()
        has_waited = type(executed) is CoroutineType
        result = await executed if has_waited else executed
        if result.errors:
            _require_not_busy(result.errors)
        event = event_of(result, payload.event_id)
        if not has_waited:
            # An execution that did not wait has read nothing: its result depends on the key alone.
            self._shared.put(shared_key, event)
        return event

    def _begin(
        self,
        operation: Operation,
        variables: Mapping[str, Any] | None,
        context: object,
        extensions: Mapping[str, Any] | None,
    ) -> Execution:
        inputs = variables or {}
        if operation.list_variables:
            self._check_variables(operation, inputs)
        size = ResponseSize(self._max_response_bytes)
        execution = self.compiler.begin(
            operation.document, operation.name, operation.cost, inputs, context, extensions, size
        )
        if isinstance(execution, list):
            raise RequestErrors(execution, InvalidInput.code)
        return execution

    def _check_variables(self, operation: Operation, variables: Mapping[str, Any]) -> None:
        try:
            check_lists(variables, operation.list_variables, self._list_sizes.maximum)
        except InvalidInput as error:
            raise RequestErrors([GraphQLError(error.message)], error.code) from None


def _require_not_busy(errors: Iterable[GraphQLError]) -> None:
    """Raise Reconnect where one of the errors is BUSY."""
    for error in errors:
        if isinstance(cause := cause_of(error), Busy):
            raise Reconnect(cause.message)
