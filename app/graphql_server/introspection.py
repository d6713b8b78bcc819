"""Limits the cost of introspection queries, and caches their results.

The cost is about the number of fields in the result. It may not be much higher than that of the
standard introspection query, which GraphiQL, code generators and linters send.
"""

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
    OperationDefinitionNode,
    SelectionSetNode,
    get_introspection_query,
    parse,
)

from app.errors import QueryTooComplex

_ROOTS: Final = ("__schema", "__type")
_HEADROOM: Final = 1.25
_WRAPPED_SHARE: Final = 0.5
"""The share of type references that have an `ofType`, roughly."""


class _Cost(NamedTuple):
    """The cost of a selection on a type: the average over all types, and on the largest one."""

    average: float = 0
    largest: float = 0

    def __add__(self, other: tuple[float, ...]) -> "_Cost":  # type: ignore[override]
        return _Cost(self.average + other[0], self.largest + other[1])


class IntrospectionLimit:
    """The highest cost of the introspection in one document, for one schema."""

    def __init__(self, schema: GraphQLSchema) -> None:
        self._sizes = _list_sizes(schema)
        standard = get_introspection_query(
            specified_by_url=True,
            directive_is_repeatable=True,
            schema_description=True,
            input_value_deprecation=True,
            experimental_directive_deprecation=True,
            one_of=True,
        )
        self.maximum = math.ceil(_HEADROOM * self.cost(parse(standard)))

    def check(self, document: DocumentNode) -> None:
        """Raise QueryTooComplex if the introspection in the document costs more."""
        if (cost := self.cost(document)) > self.maximum:
            raise QueryTooComplex(
                f"The document is too complex: its introspection costs {cost:,}, the limit is "
                f"{self.maximum:,}, somewhat more than the standard introspection query."
            )

    def cost(self, document: DocumentNode) -> int:
        """Return the cost of the introspection in a document, which need not be valid."""
        survey = _Survey(self._sizes, _fragments(document))
        operations = [
            survey.roots(definition.selection_set)
            for definition in document.definitions
            if isinstance(definition, OperationDefinitionNode)
        ]
        return math.ceil(max(operations, default=0))


def _list_sizes(schema: GraphQLSchema) -> dict[str, _Cost]:
    """Return how many items each list of the introspection has, by the name of its field."""
    types = list(schema.type_map.values())
    objects = [one for one in types if isinstance(one, GraphQLObjectType | GraphQLInterfaceType)]
    arguments = [len(field_.args) for one in objects for field_ in one.fields.values()]
    lists: dict[str, tuple[int, list[int]]] = {
        "types": (1, [len(types)]),
        "directives": (1, [len(schema.directives)]),
        "fields": (len(types), [len(one.fields) for one in objects]),
        "args": (len(arguments), arguments),
        "inputFields": (
            len(types),
            [len(one.fields) for one in types if isinstance(one, GraphQLInputObjectType)],
        ),
        "enumValues": (
            len(types),
            [len(one.values) for one in types if isinstance(one, GraphQLEnumType)],
        ),
        "interfaces": (len(types), [len(one.interfaces) for one in objects]),
        "possibleTypes": (
            len(types),
            [
                len(schema.get_possible_types(one))
                for one in types
                if isinstance(one, GraphQLInterfaceType)
            ],
        ),
    }
    sizes = {
        name: _Cost(sum(found) / among, max(found, default=0))
        for name, (among, found) in lists.items()
    }
    return sizes | {"ofType": _Cost(_WRAPPED_SHARE, _WRAPPED_SHARE)}


def _fragments(document: DocumentNode) -> dict[str, SelectionSetNode]:
    return {
        definition.name.value: definition.selection_set
        for definition in document.definitions
        if isinstance(definition, FragmentDefinitionNode)
    }


@dataclass(slots=True)
class _Survey:
    """Measures each fragment once, however often it is spread."""

    sizes: Mapping[str, _Cost]
    fragments: Mapping[str, SelectionSetNode]
    _measured: dict[str, _Cost] = field(default_factory=dict)

    def roots(self, selections: SelectionSetNode) -> float:
        """Return the cost of the introspection at the root of an operation."""
        return sum(
            self._field(node).largest
            for node in _root_fields(selections, self.fragments, set())
            if node.name.value in _ROOTS
        )

    def _measure(self, selections: SelectionSetNode | None) -> _Cost:
        total = _Cost()
        for node in selections.selections if selections else ():
            if isinstance(node, FieldNode):
                total += self._field(node)
            elif isinstance(node, FragmentSpreadNode):
                total += self._fragment(node.name.value)
            else:
                total += self._measure(getattr(node, "selection_set", None))
        return total

    def _fragment(self, name: str) -> _Cost:
        if name not in self._measured:
            self._measured[name] = _Cost()  # ends a circle of fragments; validation refuses it
            self._measured[name] = self._measure(self.fragments.get(name))
        return self._measured[name]

    def _field(self, node: FieldNode) -> _Cost:
        below = self._measure(node.selection_set)
        name = node.name.value
        size = self.sizes.get(name, _Cost(1, 1))
        if name in ("types", "directives"):
            cost = 1 + size.largest * below.average
            return _Cost(cost, cost)
        # A type that others refer to is larger than the average type.
        refers = name in ("type", "ofType", "interfaces", "possibleTypes")
        average = below.largest if refers else below.average
        return _Cost(1 + size.average * average, 1 + size.largest * below.largest)


def _root_fields(
    selections: SelectionSetNode, fragments: Mapping[str, SelectionSetNode], seen: set[str]
) -> Iterable[FieldNode]:
    """Yield the fields at the root, those of each fragment once."""
    for node in selections.selections:
        if isinstance(node, FieldNode):
            yield node
        elif isinstance(node, FragmentSpreadNode):
            name = node.name.value
            if name not in seen and name in fragments:
                seen.add(name)
                yield from _root_fields(fragments[name], fragments, seen)
        elif inner := getattr(node, "selection_set", None):
            yield from _root_fields(inner, fragments, seen)


def is_only_introspection(document: DocumentNode, operation: OperationDefinitionNode) -> bool:
    """Return whether the result depends on the document alone: no data and no variables."""
    if operation.variable_definitions:
        return False
    fields = list(_root_fields(operation.selection_set, _fragments(document), set()))
    names = [node.name.value for node in fields]
    return not set(names).isdisjoint(_ROOTS) and all(name.startswith("__") for name in names)


class AnswerCache:
    """Caches results of introspection queries, by document and operation name."""

    def __init__(self, max_answers: int) -> None:
        self._max_answers = max_answers
        self._answers: OrderedDict[tuple[int, str | None], tuple[DocumentNode, Any]] = OrderedDict()

    def get(self, document: DocumentNode, name: str | None) -> Any | None:
        _, answer = self._answers.get((id(document), name), (None, None))
        return answer

    def put(self, document: DocumentNode, name: str | None, answer: object) -> None:
        # The document is kept too: while its id is a key, no other document may get that id.
        self._answers[id(document), name] = document, answer
        if len(self._answers) > self._max_answers:
            self._answers.popitem(last=False)
