"""Parse, validate and execute GraphQL on the schema's core, and write its errors.

Strawberry's own `Schema.execute` costs half a millisecond a request and runs the first of two
operations when none is named. This module knows no HTTP.
"""

import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Hashable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from inspect import isawaitable
from typing import Any, NamedTuple, cast

from graphql import (
    ArgumentNode,
    DocumentNode,
    ExecutionResult,
    GraphQLError,
    NoSchemaIntrospectionCustomRule,
    OperationDefinitionNode,
    OperationType,
    ValueNode,
    VariableNode,
    Visitor,
    create_source_event_stream,
    parse,
    specified_rules,
    validate,
    visit,
)
from strawberry import Schema
from strawberry.exceptions import StrawberryInputCoercionError
from strawberry.execution import optimized_is_awaitable
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

from app.errors import InternalError, InvalidInput, QueryTooComplex, ServiceError
from app.graphql_server.complexity import ListSizes, QueryLimits, check_document
from app.http import encode_json

logger = logging.getLogger("app")

PARSE_FAILED = "GRAPHQL_PARSE_FAILED"
VALIDATION_FAILED = "GRAPHQL_VALIDATION_FAILED"
OPERATION_NOT_RESOLVED = "OPERATION_RESOLUTION_FAILURE"

# The rules of the specification, and the two that Strawberry always adds to them.
_LANGUAGE_RULES = (*specified_rules, MaybeNullValidationRule, OneOfInputValidationRule)

_KEPT_RESULTS = 8  # of one payload, for audiences of many

FormattedError = dict[str, Any]


class RequestErrors(Exception):
    """The request errors of the specification: execution did not begin, there is no `data`.

    `code` is for those of the errors that have none of their own.
    """

    def __init__(self, errors: Sequence[GraphQLError], code: str) -> None:
        super().__init__(code)
        self.errors = errors
        self.code = code


class Operation(NamedTuple):
    """One operation of a valid document, ready to be executed any number of times.

    `inner_variables` are those used below the root fields and in fragments.
    """

    document: DocumentNode
    name: str | None
    kind: OperationType
    inner_variables: tuple[str, ...]


class Result(NamedTuple):
    """What an executed operation answers; `data` is None where an error reached the root."""

    data: dict[str, Any] | None
    errors: Sequence[GraphQLError]


@dataclass(slots=True)
class Event:
    """One result of an operation that may have many, and what it is the result of.

    `encoded` is for a door to keep the result as it is sent: others may get the same.
    """

    payload: object
    result: Result
    encoded: bytes | None = None


class Executor:
    """Executes operations on a schema.

    `limits` are checked before the rules of the specification, some of which take quadratic time
    on the very documents that the limits refuse.
    """

    def __init__(
        self,
        schema: Schema,
        *,
        cache_size: int,
        limits: QueryLimits,
        list_sizes: ListSizes | None = None,
        max_characters: int = 128 * 1024,
        max_errors: int = 20,
        allow_introspection: bool = True,
        hide_suggestions: bool = False,
    ) -> None:
        if schema.extensions or schema.directives:
            raise ValueError("Schema extensions and operation directives would not be run.")
        self._schema = schema._schema  # Strawberry has no public name for it
        self._documents = _DocumentCache(cache_size)
        self._limits = limits
        self._list_sizes = list_sizes or ListSizes()
        self._max_characters = max_characters
        self._max_errors = max_errors
        self._rules = _LANGUAGE_RULES
        if not allow_introspection:
            self._rules += (NoSchemaIntrospectionCustomRule,)
        self._hide_suggestions = hide_suggestions

    def prepare(self, text: str, operation_name: str | None) -> Operation:
        """Return the operation to execute.

        Raises RequestErrors where the document is not valid or has no single such operation, and
        QueryTooComplex.
        """
        operations = self._documents.get(text)
        if operations is None:
            # A document that fails is not kept: whoever sends one again can as well vary it.
            operations = self.operations(text)
            self._documents.put(text, operations)
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
        execution = self._build(operation, variables, context, extensions)
        return await _result(execution.execute_operation())

    async def subscribe(
        self,
        operation: Operation,
        variables: Mapping[str, Any] | None,
        context: object,
        audience: Hashable,
        extensions: Mapping[str, Any] | None = None,
    ) -> AsyncGenerator[Event]:
        """Return the events of a subscription.

        Those of one audience see the same result where they ask the same of the same payload.

        Raises RequestErrors where the variables do not fit or the field refuses to begin. The
        stream raises what its source raises.
        """
        execution = self._build(operation, variables, context, extensions)
        source = create_source_event_stream(execution)
        if isawaitable(source):
            source = await source
        if isinstance(source, ExecutionResult):
            raise RequestErrors(source.errors or (), InvalidInput.code)
        inner = {name: (variables or {}).get(name) for name in operation.inner_variables}
        key = id(operation.document), operation.name, encode_json(inner), audience
        return self._events(execution, key, operation.document, source)

    async def _events(
        self, execution: Any, key: Hashable, document: DocumentNode, source: Any
    ) -> AsyncGenerator[Event]:
        async with aclosing(source) as payloads:
            async for payload in payloads:
                # What was executed without a wait depends on nothing but the key and the payload,
                # which keeps it for the next subscriber.
                results: dict[Hashable, tuple[DocumentNode, Event]] = payload.results
                kept = results.get(key)
                if kept and kept[0] is document:
                    yield kept[1]
                    continue
                executed = execution.build_per_event_executor(payload).execute_operation(False)
                event = Event(payload, await _result(executed))
                if not isawaitable(executed) and len(results) < _KEPT_RESULTS:
                    results[key] = document, event
                yield event

    def _build(
        self,
        operation: Operation,
        variables: Mapping[str, Any] | None,
        context: object,
        extensions: Mapping[str, Any] | None,
    ) -> StrawberryGraphQLCoreExecutionContext:
        # Built here rather than by graphql-core's `execute`, which answers variables that do not
        # fit and an error that reached the root alike.
        execution = StrawberryGraphQLCoreExecutionContext.build(
            self._schema,
            operation.document,
            context_value=context,
            raw_variable_values=cast("dict[str, Any] | None", variables),
            operation_name=operation.name,
            max_coercion_errors=self._max_errors,
            is_awaitable=cast("Any", optimized_is_awaitable),
            hide_suggestions=self._hide_suggestions,
            operation_extensions=extensions,
        )
        if isinstance(execution, list):
            raise RequestErrors(execution, InvalidInput.code)
        return cast("StrawberryGraphQLCoreExecutionContext", execution)

    def operations(self, text: str) -> "Operations":
        """Return every operation of a document. Raises RequestErrors and QueryTooComplex."""
        try:
            document = self._parse(text)
            check_document(self._schema, document, self._limits, self._list_sizes)
            self._validate(document)
        except RecursionError:
            raise QueryTooComplex("The document is too complex: it is nested too deeply.") from None
        return {
            name: Operation(document, name, definition.operation, _inner_variables(document))
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


async def _result(executed: Any) -> Result:
    result = await executed if isawaitable(executed) else executed
    return Result(result.data, result.errors or ())


Operations = Mapping[str | None, Operation]


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


def _not_resolved(name: str | None, operations: Operations) -> GraphQLError:
    """Say why GetOperation() of the specification fails."""
    if name is not None:
        return GraphQLError(f"The document has no operation named '{name}'.")
    if not operations:
        return GraphQLError("The document has no operation.")
    return GraphQLError("The document has several operations: operationName must name one.")


class _DocumentCache:
    """The documents used last, bounded in number and in size.

    A document takes 60 (usually) to 200 (at worst) bytes of memory for a character of its text, so
    the text measures it: the bound below is worth some 100 MiB at the very most.
    """

    max_characters = 512 * 1024
    max_document = 16 * 1024

    def __init__(self, max_documents: int) -> None:
        self._max_documents = max_documents
        self._entries: OrderedDict[str, Operations] = OrderedDict()
        self._characters = 0

    def get(self, text: str) -> Operations | None:
        operations = self._entries.get(text)
        if operations is not None:
            self._entries.move_to_end(text)
        return operations

    def put(self, text: str, operations: Operations) -> None:
        if len(text) > self.max_document:
            return
        self._entries[text] = operations
        self._characters += len(text)
        while len(self._entries) > self._max_documents or self._characters > self.max_characters:
            oldest, _ = self._entries.popitem(last=False)
            self._characters -= len(oldest)


def format_errors(
    errors: Iterable[GraphQLError], request_id: str, code: str | None = None
) -> list[FormattedError]:
    """Write errors for the client, and log what is a fault: once, with its traceback.

    `code` is that of an error of the language itself. Without one the errors come from execution,
    where only an argument can still be the client's mistake.
    """
    logged: set[object] = set()
    return [_format(error, request_id, code, logged) for error in errors]


def _format(
    error: GraphQLError, request_id: str, code: str | None, logged: set[object]
) -> FormattedError:
    cause = _cause(error)
    if isinstance(cause, ServiceError):
        return _document(error, _message(error, cause), {"code": cause.code})
    if language_code := _language_code(cause, code):
        return _document(error, error.message, {"code": language_code})
    # One failed batch load fails many fields, and one faulty field fails in every item of a list.
    marks = {id(cause), tuple(key for key in error.path or () if isinstance(key, str))}
    if logged.isdisjoint(marks):
        log_fault(cause, request_id)
    logged |= marks
    extensions = {"code": InternalError.code, "requestId": request_id}
    return _document(error, "Internal error", extensions)


def _message(error: GraphQLError, cause: ServiceError) -> str:
    """Keep where a value did not fit, but say why in our words, without quoting the value."""
    where, wrapped, _ = error.message.partition("Expected value of type '")
    return where + cause.message if wrapped else cause.message


def _document(error: GraphQLError, message: str, extensions: dict[str, Any]) -> FormattedError:
    document: FormattedError = {"message": message}
    if error.locations:
        document["locations"] = [location.formatted for location in error.locations]
    if error.path:
        document["path"] = error.path
    document["extensions"] = extensions
    return document


def is_fault(error: FormattedError) -> bool:
    return bool(error["extensions"]["code"] == InternalError.code)


def log_fault(fault: Exception, request_id: str) -> None:
    logger.error("Internal error in request %s", request_id, exc_info=fault)


def _cause(error: GraphQLError) -> Exception:
    """Unwrap what graphql-core wrapped, some of it more than once."""
    cause: Exception = error
    while isinstance(cause, GraphQLError) and cause.original_error is not None:
        cause = cause.original_error
    return cause


def _language_code(cause: Exception, code: str | None) -> str | None:
    """Return the code of an error of the language, None for a fault.

    graphql-core reports a resolver that returned a wrong value, quoting that value, by the same
    class as a client's wrong argument; only the latter points at a value in the document.
    """
    if not isinstance(cause, GraphQLError):
        return None
    if code is not None:
        return code
    is_argument = any(isinstance(node, ValueNode | ArgumentNode) for node in cause.nodes or ())
    return (
        InvalidInput.code
        if is_argument or isinstance(cause, StrawberryInputCoercionError)
        else None
    )
