"""Caches compiled operations, and begins their executions."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias, cast

from graphql import DocumentNode, GraphQLError, default_field_resolver, default_type_resolver
from strawberry import Schema

from app.graphql_server.bounded_execution import BoundedExecution
from app.graphql_server.compiler.execution import Execution
from app.graphql_server.compiler.input_classes import InputClasses
from app.graphql_server.compiler.input_types import InputTypes
from app.graphql_server.compiler.plan import NotCompilable, Select, is_awaitable
from app.graphql_server.compiler.plans import Conditions, Source, compile_plan
from app.graphql_server.compiler.variables import Variables
from app.graphql_server.response_size import ResponseSize

_MAX_PLANS = 8  # of one operation: one for each outcome of its @skip and @include
_COST_OF_AN_EXECUTION = 1000
_FIXED_COST = 10  # of an operation, in fields

Outcome: TypeAlias = tuple[bool, ...]


@dataclass(slots=True)
class _Compiled:
    """One operation. It holds the document, so that no other one can have the same id."""

    document: DocumentNode
    source: Source
    variables: Variables
    conditions: Conditions | None  # None: only graphql-core executes it
    plans: dict[Outcome, Select | None] = field(default_factory=dict)
    executions: int = 0
    cost: int = _FIXED_COST


class Compiler:
    """Compiles the operations of one schema when they come again.

    graphql-core executes an operation the first `interpreted_first` times: to compile one that
    comes once would cost more than it saves. An execution of a high cost counts as several, so that
    such an operation is compiled at once: graphql-core would hold the event loop for long.
    `max_fields` bounds what is kept, over all operations, at some 5 KB a field; those used last are
    kept.
    """

    def __init__(
        self,
        schema: Schema,
        *,
        max_errors: int,
        hide_suggestions: bool = False,
        max_fields: int = 8000,
        interpreted_first: int = 1,
    ) -> None:
        self.compiled_count = 0
        self.interpreted_count = 0
        self._schema = schema._schema  # Strawberry has no public name for it
        self._max_errors = max_errors
        self._hide_suggestions = hide_suggestions
        self._max_fields = max_fields
        self._interpreted_first = interpreted_first
        self._input_classes = InputClasses(schema.schema_converter)
        self._input_types = InputTypes()
        self._operations: OrderedDict[tuple[int, str | None], _Compiled] = OrderedDict()
        self._fields = 0

    def begin(
        self,
        document: DocumentNode,
        operation_name: str | None,
        cost: int,
        inputs: Mapping[str, Any],
        context: object,
        extensions: Mapping[str, Any] | None,
        size: ResponseSize,
    ) -> Execution | list[GraphQLError]:
        """Return an execution of an operation of a valid document.

        It is a list of errors where `inputs` do not fit its variables.
        """
        compiled = self._find(document, operation_name)
        variables = compiled.variables.coerce(inputs)
        if isinstance(variables, list):
            return variables
        compiled.executions += 1 + cost // _COST_OF_AN_EXECUTION
        plan = self._plan(compiled, variables)
        if plan is None:
            self.interpreted_count += 1
        else:
            self.compiled_count += 1
        make_core = partial(self._make_core, compiled, inputs, extensions)
        return Execution(plan, variables, context, size, make_core)

    def _make_core(
        self,
        compiled: _Compiled,
        inputs: Mapping[str, Any],
        extensions: Mapping[str, Any] | None,
        execution: Execution,
    ) -> BoundedExecution:
        source = compiled.source
        return BoundedExecution(
            self._schema,
            source.fragment_definitions,
            source.fragments,
            execution.root_value,
            execution.context,
            source.operation,
            compiled.variables.values(inputs, execution.variables),
            default_field_resolver,
            default_type_resolver,
            default_field_resolver,
            is_awaitable=cast("Any", is_awaitable),
            hide_suggestions=self._hide_suggestions,
            operation_extensions=extensions,
            size=execution.size,
        )

    def _find(self, document: DocumentNode, name: str | None) -> _Compiled:
        key = id(document), name
        compiled = self._operations.get(key)
        if compiled is None:
            compiled = self._operations[key] = self._compile(document, name)
            self._charge(compiled.cost)
        else:
            self._operations.move_to_end(key)
        return compiled

    def _compile(self, document: DocumentNode, name: str | None) -> _Compiled:
        source = Source.of(self._schema, document, name, self._hide_suggestions)
        variables = Variables(
            self._schema,
            source.operation.variable_definitions or (),
            self._input_types,
            max_errors=self._max_errors,
            hide_suggestions=self._hide_suggestions,
        )
        try:
            conditions = source.conditions()
        except NotCompilable:
            conditions = None
        return _Compiled(document, source, variables, conditions)

    def _plan(self, compiled: _Compiled, variables: dict[str, Any]) -> Select | None:
        if compiled.conditions is None or compiled.executions <= self._interpreted_first:
            return None
        outcome: Outcome = ()
        if compiled.conditions:
            given = [variables.get(name) for name in compiled.conditions]
            outcome = tuple(value for value in given if isinstance(value, bool))
            if len(outcome) < len(given):
                return None  # an error, which graphql-core reports
        if outcome not in compiled.plans:
            if len(compiled.plans) == _MAX_PLANS:
                return None
            conditions = dict(zip(compiled.conditions, outcome, strict=True))
            compiled.plans[outcome] = self._compile_plan(compiled, conditions)
        return compiled.plans[outcome]

    def _compile_plan(self, compiled: _Compiled, conditions: dict[str, bool]) -> Select | None:
        try:
            plan, fields = compile_plan(compiled.source, conditions, self._input_classes)
        except NotCompilable:
            return None
        compiled.cost += fields
        self._charge(fields)
        return plan

    def _charge(self, fields: int) -> None:
        self._fields += fields
        while self._fields > self._max_fields and len(self._operations) > 1:
            _, oldest = self._operations.popitem(last=False)
            self._fields -= oldest.cost
