"""Parses and validates GraphQL documents, and caches them."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from graphql import (
    DocumentNode,
    GraphQLError,
    GraphQLSchema,
    NoSchemaIntrospectionCustomRule,
    OperationDefinitionNode,
    OperationType,
    VariableNode,
    Visitor,
    parse,
    specified_rules,
    validate,
    visit,
)
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

from app.errors import QueryTooComplex
from app.graphql_server.complexity import ListSizes, QueryLimits, check_document
from app.graphql_server.errors import (
    OPERATION_NOT_RESOLVED,
    PARSE_FAILED,
    VALIDATION_FAILED,
    RequestErrors,
)
from app.graphql_server.introspection import IntrospectionLimit, is_only_introspection
from app.graphql_server.list_variables import ListVariable, list_variables

# The rules of the specification, and the two that Strawberry always adds to them.
_LANGUAGE_RULES = (*specified_rules, MaybeNullValidationRule, OneOfInputValidationRule)

_MAX_CHARACTERS_ON_LOOP = 500
"""Parsing and validating takes up to 50 µs for each character (measured by `scripts/loop`)."""


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


OperationsByName = Mapping[str | None, Operation]


class Parser:
    """Prepares the operations of documents for one schema.

    `limits` are checked before the validation rules of the specification, some of which take
    quadratic time on documents that the limits refuse. `beside` runs what may hold the event loop
    for long.
    """

    def __init__(
        self,
        schema: GraphQLSchema,
        *,
        cache_size: int,
        limits: QueryLimits,
        list_sizes: ListSizes,
        max_characters: int,
        max_errors: int,
        allow_introspection: bool,
        hide_suggestions: bool,
    ) -> None:
        self._schema = schema
        self._documents = _DocumentCache(cache_size)
        self.hits = 0
        self.misses = 0
        self._limits = limits
        self._introspection = IntrospectionLimit(schema)
        self._list_sizes = list_sizes
        self._max_characters = max_characters
        self._max_errors = max_errors
        self._rules = _LANGUAGE_RULES
        if not allow_introspection:
            self._rules += (NoSchemaIntrospectionCustomRule,)
        self._hide_suggestions = hide_suggestions
        # One thread: more of them would only compete with the event loop for Python's lock.
        self.beside = ThreadPoolExecutor(1, "graphql")

    def known(self, text: str) -> OperationsByName | None:
        """Return the operations of a document that is cached, None where it is not."""
        operations = self._documents.get(text)
        if operations is None:
            self.misses += 1
        else:
            self.hits += 1
        return operations

    async def parse(self, text: str, charge: Callable[[float], None]) -> OperationsByName:
        """Return the operations of a document; `charge` is told the seconds a thread has spent.

        Raises RequestErrors where the document is not valid, and QueryTooComplex.
        """
        # A wrong document is not cached: an attacker could vary it each time.
        return self._documents.put(text, await self._parse_in_time(text, charge))

    async def _parse_in_time(self, text: str, charge: Callable[[float], None]) -> OperationsByName:
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
            return await loop.run_in_executor(self.beside, parse_and_measure)
        finally:
            charge(taken)

    def parse_operations(self, text: str) -> OperationsByName:
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


def select_operation(operations: OperationsByName, name: str | None) -> Operation:
    """Return the operation to execute. Raises RequestErrors where none or several could be."""
    if name is None and len(operations) == 1:
        return next(iter(operations.values()))
    if name in operations:
        return operations[name]
    raise RequestErrors([_not_resolved(name, operations)], OPERATION_NOT_RESOLVED)


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
