"""Parses, validates and executes GraphQL operations on a Strawberry schema, and caches them.

Strawberry's own `Schema.execute` costs half a millisecond a request and runs the first of two
operations when none is named. This module knows no HTTP.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Hashable,
    Iterable,
    Mapping,
    Sequence,
)
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial
from inspect import isawaitable
from typing import Any, NamedTuple, cast

from graphql import (
    DocumentNode,
    ExecutionResult,
    GraphQLError,
    NoSchemaIntrospectionCustomRule,
    OperationDefinitionNode,
    OperationType,
    VariableNode,
    Visitor,
    create_source_event_stream,
    parse,
    specified_rules,
    validate,
    visit,
)
from strawberry import Schema
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

from app.errors import Busy, InvalidInput, QueryTooComplex, Reconnect
from app.graphql_server.compiler import Compiler, Execution
from app.graphql_server.complexity import ListSizes, QueryLimits, check_document
from app.graphql_server.errors import (
    OPERATION_NOT_RESOLVED,
    PARSE_FAILED,
    VALIDATION_FAILED,
    RequestErrors,
    cause_of,
)
from app.graphql_server.events import Event, Payload, SharedEvents
from app.graphql_server.introspection import (
    AnswerCache,
    IntrospectionLimit,
    is_only_introspection,
)
from app.graphql_server.list_variables import ListVariable, check_lists, list_variables
from app.graphql_server.response_size import ResponseSize
from app.json_text import encode_json_to_keep

# The rules of the specification, and the two that Strawberry always adds to them.
_LANGUAGE_RULES = (*specified_rules, MaybeNullValidationRule, OneOfInputValidationRule)

_KEPT_INTROSPECTIONS = 8

_MAX_CHARACTERS_ON_LOOP = 500
"""Parsing and validating takes up to 50 µs for each character (measured by `scripts/loop`)."""


AroundEvent = Callable[[Callable[[], Awaitable[Event]]], Awaitable[Event]]
"""Runs the function that executes one event, perhaps twice."""


class Operation(NamedTuple):
    """One operation of a valid document, ready to be executed any number of times.

    `inner_variables` are those used below the root fields and in fragments.
    """

    document: DocumentNode
    name: str | None
    kind: OperationType
    cost: int
    inner_variables: tuple[str, ...]
    list_variables: tuple[ListVariable, ...]
    text: str
    is_introspection: bool


class Result(NamedTuple):
    """The result of an executed operation. `data` is None where an error reached the root."""

    data: dict[str, Any] | None
    errors: Sequence[GraphQLError]


def event_of(result: Result, id: str | None = None) -> Event:  # noqa: A002, its name in SSE
    """Return a result as an event. It is encoded here if it has no errors."""
    if result.errors:
        return Event(None, result.data, result.errors, id)
    return Event(encode_json_to_keep({"data": result.data}), id=id)


class Executor:
    """Executes operations on a schema.

    `limits` are checked before the validation rules of the specification, some of which take
    quadratic time on documents that the limits refuse.
    """

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
        self._schema = schema._schema  # Strawberry has no public name for it
        self._documents = _DocumentCache(cache_size)
        self.document_hits = 0
        self.document_misses = 0
        self._limits = limits
        self._introspection = IntrospectionLimit(self._schema)
        self._introspected = AnswerCache(_KEPT_INTROSPECTIONS)
        self._list_sizes = list_sizes or ListSizes()
        self._max_characters = max_characters
        self._max_errors = max_errors
        self._max_response_bytes = max_response_bytes
        self._rules = _LANGUAGE_RULES
        if not allow_introspection:
            self._rules += (NoSchemaIntrospectionCustomRule,)
        self._hide_suggestions = hide_suggestions
        self.compiler = Compiler(
            schema,
            max_errors=max_errors,
            hide_suggestions=hide_suggestions,
            interpreted_first=interpreted_first,
        )
        self._shared = SharedEvents()
        # One thread: more of them would only compete with the event loop for Python's lock.
        self._beside = ThreadPoolExecutor(1, "graphql")

    async def prepare(
        self, text: str, operation_name: str | None, charge: Callable[[float], None]
    ) -> Operation:
        """Return the operation to execute. `charge` is told the seconds that a thread has spent.

        Raises RequestErrors where the document is not valid or has no single such operation, and
        QueryTooComplex.
        """
        operations = self._documents.get(text)
        if operations is not None:
            self.document_hits += 1
        else:
            self.document_misses += 1
            # A wrong document is not cached: an attacker could vary it each time.
            operations = self._documents.put(text, await self._parse_in_time(text, charge))
        if operation_name is None and len(operations) == 1:
            return next(iter(operations.values()))
        if operation_name in operations:
            return operations[operation_name]
        raise RequestErrors([_not_resolved(operation_name, operations)], OPERATION_NOT_RESOLVED)

    async def execute(
        self,
        operation: Operation,
        variables: Mapping[str, Any] | None,
        context: object,
        extensions: Mapping[str, Any] | None = None,
    ) -> Result:
        """Execute a query or mutation; raise RequestErrors where the variables do not fit it."""
        if kept := self._introspected.get(operation.document, operation.name):
            return cast("Result", kept)
        execution = self._begin(operation, variables, context, extensions)
        if not operation.is_introspection:
            return await _result(execution.run())
        loop = asyncio.get_running_loop()
        result = await _result(await loop.run_in_executor(self._beside, execution.run))
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
        result = await _result(executed)
        if result.errors:
            _require_not_busy(result.errors)
        event = event_of(result, payload.event_id)
        if isinstance(executed, ExecutionResult):
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

    async def _parse_in_time(
        self, text: str, charge: Callable[[float], None]
    ) -> "OperationsByName":
        """Parse a document; in another thread if that may hold the event loop for long."""
        if len(text) <= _MAX_CHARACTERS_ON_LOOP:
            return self.parse_operations(text)
        taken = 0.0

        def parse_and_measure() -> OperationsByName:
            nonlocal taken
            began = time.thread_time()
            try:
                # Of many requests that come at once, most find here what the first one has parsed.
                return self._documents.peek(text) or self.parse_operations(text)
            finally:
                taken = time.thread_time() - began

        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._beside, parse_and_measure)
        finally:
            charge(taken)

    def parse_operations(self, text: str) -> "OperationsByName":
        """Return every operation of a document. Raises RequestErrors and QueryTooComplex."""
        try:
            document = self._parse(text)
            costs = iter(check_document(self._schema, document, self._limits, self._list_sizes))
            self._introspection.check(document)
            self._validate(document)
        except RecursionError:
            raise QueryTooComplex("The document is too complex: it is nested too deeply.") from None
        inner_variables = _inner_variables(document)
        return {
            name: Operation(
                document,
                name,
                definition.operation,
                next(costs),
                inner_variables,
                list_variables(self._schema, definition),
                text,
                is_only_introspection(document, definition),
            )
            for definition in document.definitions
            if isinstance(definition, OperationDefinitionNode)
            for name in [definition.name.value if definition.name else None]
        }

    def _parse(self, text: str) -> DocumentNode:
        try:
            return parse(
                text,
                max_lexical_tokens=self._limits.tokens,
                max_comments=self._limits.tokens,
                max_source_length=self._max_characters,
            )
        except GraphQLError as error:
            raise RequestErrors([error], PARSE_FAILED) from None

    def _validate(self, document: DocumentNode) -> None:
        errors = validate(
            self._schema,
            document,
            self._rules,
            max_errors=self._max_errors,
            hide_suggestions=self._hide_suggestions,
        )
        if errors:
            raise RequestErrors(errors, VALIDATION_FAILED)


def _require_not_busy(errors: Iterable[GraphQLError]) -> None:
    """Raise Reconnect where one of the errors is BUSY."""
    for error in errors:
        if isinstance(cause := cause_of(error), Busy):
            raise Reconnect(cause.message)


async def _result(executed: Any) -> Result:
    result = executed if isinstance(executed, ExecutionResult) else await executed
    return Result(result.data, result.errors or ())


OperationsByName = Mapping[str | None, Operation]


def _inner_variables(document: DocumentNode) -> tuple[str, ...]:
    names: set[str] = set()

    class Collector(Visitor):
        def enter_variable_definition(self, *_: Any) -> object:
            return self.SKIP

        def enter_variable(self, node: VariableNode, *_: Any) -> None:
            names.add(node.name.value)

    for definition in document.definitions:
        if isinstance(definition, OperationDefinitionNode):
            for selection in definition.selection_set.selections:
                inner = getattr(selection, "selection_set", None)
                visit(inner or selection, Collector())
        else:
            visit(definition, Collector())
    return tuple(sorted(names))


def _not_resolved(name: str | None, operations: OperationsByName) -> GraphQLError:
    """Return the error of GetOperation() of the specification."""
    if name is not None:
        return GraphQLError(f"The document has no operation named '{name}'.")
    if not operations:
        return GraphQLError("The document has no operation.")
    return GraphQLError("The document has several operations: operationName must name one.")


class _DocumentCache:
    """Caches the documents used last, bounded in number and in size.

    A document usually takes 60 bytes of memory for each character of its text, and 200 at most. So
    the bound below on characters means at most some 100 MiB.
    """

    max_characters = 512 * 1024
    max_document = 16 * 1024

    def __init__(self, max_documents: int) -> None:
        self._max_documents = max_documents
        self._entries: OrderedDict[str, OperationsByName] = OrderedDict()
        self._characters = 0

    def get(self, text: str) -> OperationsByName | None:
        operations = self._entries.get(text)
        if operations is not None:
            self._entries.move_to_end(text)
        return operations

    def peek(self, text: str) -> OperationsByName | None:
        """As `get`, but on any thread: it leaves the order as it is."""
        return self._entries.get(text)

    def put(self, text: str, operations: OperationsByName) -> OperationsByName:
        """Return the operations that are cached: those of another request, if it was sooner."""
        if (kept := self._entries.get(text)) is not None:
            return kept
        if len(text) > self.max_document:
            return operations
        self._entries[text] = operations
        self._characters += len(text)
        while len(self._entries) > self._max_documents or self._characters > self.max_characters:
            oldest, _ = self._entries.popitem(last=False)
            self._characters -= len(oldest)
        return operations
