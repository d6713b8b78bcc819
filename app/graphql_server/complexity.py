"""Limits on a document, checked in one pass before validation.

Each fragment is measured once, however often it is spread, so the time grows only with the length
of the document.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    ListValueNode,
    OperationDefinitionNode,
    SelectionNode,
    SelectionSetNode,
    get_named_type,
    is_leaf_type,
    is_list_type,
)

from app.errors import QueryTooComplex

_SIZES = ("first", "last", "ids")

_OBJECT_COST = 5
"""The cost of a field that leads to objects: its resolver waits for the database."""


@dataclass(frozen=True, slots=True)
class ListSizes:
    """How many items a list has: the default where no size is asked for, and the maximum."""

    default: int = 20
    maximum: int = 100

    @property
    def cost_description(self) -> str:
        """Return how the cost is counted, as text for the schema's descriptions."""
        return (
            f"The cost of a query is limited. Each field costs 1, or {_OBJECT_COST} if it leads "
            "to objects. What is selected on the items of a list counts once for each item that "
            "there may be, and at least 1 for each: `first` or `last` (left out: "
            f"{self.default}), the number of `ids`, or that of the `items` of an input; a "
            f"variable in their place counts as {self.maximum}."
        )


@dataclass(frozen=True, slots=True)
class QueryLimits:
    """Limits on an operation, whose fragments are counted each time they are spread.

    `tokens` and `fragments` count what is written in the document, each fragment once, and `fields`
    counts both ways: validation compares what is written, and an operation is compiled as spread.
    """

    depth: int = 20
    root_fields: int = 20
    aliases: int = 100
    directives: int = 100
    cost: int = 10_000
    fields: int = 500
    fragments: int = 80
    tokens: int = 2000


@dataclass(slots=True)
class _Measure:
    """The measures of a selection set. `listed` is the cost below its lists, for one item each."""

    depth: int = 0
    root_fields: int = 0
    aliases: int = 0
    directives: int = 0
    fields: int = 0
    cost: int = 0
    listed: int = 0

    def include(self, other: "_Measure") -> None:
        self.depth = max(self.depth, other.depth)
        self.root_fields += other.root_fields
        self.aliases += other.aliases
        self.directives += other.directives
        self.fields += other.fields
        self.cost += other.cost
        self.listed += other.listed


def check_document(
    schema: GraphQLSchema, document: DocumentNode, limits: QueryLimits, sizes: ListSizes
) -> list[int]:
    """Return the cost of each operation; raise QueryTooComplex where one is beyond the limits.

    The document need not be valid: unknown fields count with the least cost.
    """
    survey = _Survey(schema, sizes, _fragments(document))
    operations = [
        survey.measure(definition.selection_set, schema.get_root_type(definition.operation))
        for definition in document.definitions
        if isinstance(definition, OperationDefinitionNode)
    ]
    for name in survey.fragments:
        survey.fragment(name)
    excesses = [
        f"its {limit.name.replace('_', ' ')} {'is' if limit.name in _SINGULAR else 'are'} "
        f"{found:,}, the limit is {allowed:,}"
        for limit in fields(limits)
        if (found := _found(limit.name, operations, survey))
        > (allowed := getattr(limits, limit.name))
    ]
    if excesses:
        raise QueryTooComplex(f"The document is too complex: {'; '.join(excesses)}.")
    return [measure.cost for measure in operations]


_SINGULAR = frozenset({"depth", "cost"})


def _found(name: str, operations: Iterable[_Measure], survey: "_Survey") -> int:
    if name == "tokens":  # counted by the parser
        return 0
    if name == "fragments":
        return len(survey.fragments)
    found = max((getattr(measure, name) for measure in operations), default=0)
    return max(found, survey.fields) if name == "fields" else found


def _fragments(document: DocumentNode) -> dict[str, FragmentDefinitionNode]:
    return {
        definition.name.value: definition
        for definition in document.definitions
        if isinstance(definition, FragmentDefinitionNode)
    }


@dataclass(slots=True)
class _Survey:
    schema: GraphQLSchema
    sizes: ListSizes
    fragments: dict[str, FragmentDefinitionNode]
    fields: int = 0
    _measured: dict[str, _Measure] = field(default_factory=dict)

    def measure(self, selections: SelectionSetNode, parent: GraphQLNamedType | None) -> _Measure:
        total = _Measure()
        for selection in selections.selections:
            total.include(self._selection(selection, parent))
        return total

    def fragment(self, name: str) -> _Measure:
        if name not in self._measured:
            self._measured[name] = _Measure()  # ends a circle of fragments; validation refuses it
            if definition := self.fragments.get(name):
                condition = self.schema.get_type(definition.type_condition.name.value)
                self._measured[name] = self.measure(definition.selection_set, condition)
                self._measured[name].directives += len(definition.directives or ())
        return self._measured[name]

    def _selection(self, selection: SelectionNode, parent: GraphQLNamedType | None) -> _Measure:
        measure = _Measure(directives=len(selection.directives or ()))
        if isinstance(selection, FragmentSpreadNode):
            measure.include(self.fragment(selection.name.value))
        elif isinstance(selection, InlineFragmentNode):
            if condition := selection.type_condition:
                parent = self.schema.get_type(condition.name.value)
            measure.include(self.measure(selection.selection_set, parent))
        elif isinstance(selection, FieldNode):
            measure.include(self._field(selection, parent))
        return measure

    def _field(self, node: FieldNode, parent: GraphQLNamedType | None) -> _Measure:
        self.fields += 1
        definition = self._definition(node, parent)
        below = _Measure()
        if node.selection_set:
            named = get_named_type(definition.type) if definition else None
            below = self.measure(node.selection_set, named)
        size = _size(node, definition, self.sizes)
        items = 1 if size is None else size
        # A page is read even if nothing is selected on its items.
        paged = below.listed if size is None else max(1, below.listed)
        own = _OBJECT_COST if node.selection_set else 1
        cost, listed = own + below.cost + items * paged, 0
        if definition and _is_list_of_objects(definition):
            each = below.cost + below.listed
            # `nodes` and `edges` take no size: they hold the items of the connection around them.
            cost, listed = (own, each) if size is None else (own + size * each, 0)
        return _Measure(
            depth=below.depth + 1,
            root_fields=1,
            aliases=below.aliases + (node.alias is not None),
            directives=below.directives,
            fields=below.fields + 1,
            cost=cost,
            listed=listed,
        )

    def _definition(self, node: FieldNode, parent: GraphQLNamedType | None) -> GraphQLField | None:
        if isinstance(parent, GraphQLObjectType | GraphQLInterfaceType):
            return self.schema.get_field(parent, node.name.value)
        return None


def _is_list_of_objects(definition: GraphQLField) -> bool:
    type_ = (
        definition.type.of_type if isinstance(definition.type, GraphQLNonNull) else definition.type
    )
    return is_list_type(type_) and not is_leaf_type(get_named_type(type_))


def _size(node: FieldNode, definition: GraphQLField | None, sizes: ListSizes) -> int | None:
    """Return how many items the field's arguments ask for, or None if it has no such argument."""
    if definition is None:
        return None
    if any(_holds_items(argument.type) for argument in definition.args.values()):
        return _written_items(node, sizes)
    if not any(name in definition.args for name in _SIZES):
        return None
    given = [argument.value for argument in node.arguments or () if argument.name.value in _SIZES]
    if not given:
        return sizes.default
    [value, *more] = given
    if more:
        return sizes.maximum
    if isinstance(value, IntValueNode):
        number = int(value.value[:9])
        return number if 0 <= number <= sizes.maximum else sizes.maximum
    if isinstance(value, ListValueNode):
        return len(value.values)
    return sizes.maximum


def _holds_items(type_: GraphQLInputType) -> bool:
    """Return whether an argument is an input object with the list `items`, answered one by one."""
    named = get_named_type(type_)
    return isinstance(named, GraphQLInputObjectType) and "items" in named.fields


def _written_items(node: FieldNode, sizes: ListSizes) -> int:
    """Return the number of the `items` in the document, or the most there may be in a variable."""
    for argument in node.arguments or ():
        for member in getattr(argument.value, "fields", ()):
            if member.name.value == "items" and isinstance(member.value, ListValueNode):
                return len(member.value.values)
    return sizes.maximum
