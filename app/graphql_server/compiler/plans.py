"""Compile an operation of a document, for one outcome of its @skip and @include directives."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from graphql import (
    DirectiveNode,
    DocumentNode,
    FragmentDefinitionNode,
    GraphQLIncludeDirective,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLSkipDirective,
    Node,
    OperationDefinitionNode,
    OperationType,
    VariableNode,
    Visitor,
    visit,
)
from graphql.execution.collect_fields import (
    FieldDetailsList,
    FragmentDetails,
    GroupedFieldSet,
    collect_fields,
    collect_subfields,
)
from graphql.execution.values import VariableValues

from app.graphql_server.compiler.completion import Subfields, compile_type
from app.graphql_server.compiler.fields import compile_field, compile_simple_field
from app.graphql_server.compiler.generation import at_once
from app.graphql_server.compiler.input_classes import InputClasses
from app.graphql_server.compiler.plan import FieldPlan, NotCompilable, Select
from app.graphql_server.compiler.selections import Field, LeafAttribute, Typename, one_by_one

Conditions: TypeAlias = tuple[str, ...]  # the variables that @skip and @include depend on

MAX_FIELDS = 1000

_SKIP_AND_INCLUDE = frozenset({GraphQLSkipDirective.name, GraphQLIncludeDirective.name})


@dataclass(slots=True, frozen=True)
class Source:
    """An operation as the document has it."""

    schema: GraphQLSchema
    operation: OperationDefinitionNode
    fragment_definitions: dict[str, FragmentDefinitionNode]
    fragments: dict[str, FragmentDetails]
    hide_suggestions: bool

    @classmethod
    def of(
        cls, schema: GraphQLSchema, document: DocumentNode, name: str | None, hide: bool
    ) -> "Source":
        [operation] = [
            definition
            for definition in document.definitions
            if isinstance(definition, OperationDefinitionNode)
            and (definition.name.value if definition.name else None) == name
        ]
        definitions = {
            definition.name.value: definition
            for definition in document.definitions
            if isinstance(definition, FragmentDefinitionNode)
        }
        fragments = {name: FragmentDetails(fragment) for name, fragment in definitions.items()}
        return cls(schema, operation, definitions, fragments, hide)

    def conditions(self) -> Conditions:
        """Return the variables to compile for. Raises NotCompilable."""
        nodes = (self.operation, *self.fragment_definitions.values())
        return tuple(sorted({name for node in nodes for name in _conditions(node)}))


def _conditions(definition: Node) -> Iterator[str]:
    if isinstance(definition, FragmentDefinitionNode) and definition.variable_definitions:
        raise NotCompilable("Fragments have variables.")
    directives: list[DirectiveNode] = []

    class Collector(Visitor):
        def enter_directive(self, node: DirectiveNode, *_: Any) -> None:
            directives.append(node)

    visit(definition, Collector())
    for directive in directives:
        if directive.name.value not in _SKIP_AND_INCLUDE:
            raise NotCompilable(f"There is a directive @{directive.name.value}.")
        for argument in directive.arguments or ():
            if isinstance(argument.value, VariableNode):
                yield argument.value.name.value


def compile_plan(
    source: Source, conditions: dict[str, bool], inputs: InputClasses
) -> tuple[Select, int]:
    """Return the plan and the number of its fields. Raises NotCompilable."""
    builder = _Builder(source, VariableValues({}, dict(conditions)), inputs)
    try:
        return builder.root(), builder.fields
    except RecursionError:
        raise NotCompilable("The selections are nested too deeply.") from None


_Either: TypeAlias = tuple[Field, LeafAttribute | Typename | None]


@dataclass(slots=True)
class _Builder:
    source: Source
    variables: VariableValues
    inputs: InputClasses
    fields: int = 0

    def root(self) -> Select:
        source, kind = self.source, self.source.operation.operation
        type_ = source.schema.get_root_type(kind)
        if type_ is None:
            raise NotCompilable(f"The schema has no {kind.value}.")
        fields = collect_fields(
            source.schema, source.fragments, self.variables, type_, source.operation
        ).grouped_field_set
        in_turn = one_by_one if kind is OperationType.MUTATION else at_once
        return in_turn(field for field, _ in self._fields(type_, fields))

    def select(self, type_: GraphQLObjectType, field: FieldPlan) -> Select:
        source = self.source
        fields = collect_subfields(
            source.schema,
            source.fragments,
            self.variables,
            source.operation,
            type_,
            field.details,
        ).grouped_field_set
        return at_once(simple or field for field, simple in self._fields(type_, fields))

    def _fields(self, parent: GraphQLObjectType, fields: GroupedFieldSet) -> list[_Either]:
        return [self._field(parent, name, details) for name, details in fields.items()]

    def _field(self, parent: GraphQLObjectType, name: str, details: FieldDetailsList) -> _Either:
        self.fields += 1
        if self.fields > MAX_FIELDS:
            raise NotCompilable("The operation has too many fields.")
        schema, hide = self.source.schema, self.source.hide_suggestions
        definition = schema.get_field(parent, details[0].node.name.value)
        if definition is None:
            raise NotCompilable(f"{parent.name} has no such field.")
        plan = FieldPlan(name, definition, parent, details)
        subfields = Subfields(self.select, schema.get_possible_types)
        complete = compile_type(definition.type, plan, subfields)
        field = compile_field(plan, complete, self.inputs, hide)
        return field, compile_simple_field(plan, complete)
