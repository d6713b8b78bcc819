"""Generate operations of a schema, and values for their variables: right ones and wrong ones."""

import json
from dataclasses import dataclass, field
from random import Random
from typing import Any

from graphql import (
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLUnionType,
    get_named_type,
    is_leaf_type,
    is_required_argument,
    is_required_input_field,
)

Samples = dict[str, list[Any]]  # of scalars, by name: what may be written for one, as JSON

_JUNK: list[Any] = [None, "junk", 3, "yesterday", -1, 2**31, 1.25, True, [], [None], {}, {"x": 1}]


@dataclass
class Generator:
    """Writes one operation. `ids` and the like come from the samples."""

    schema: GraphQLSchema
    samples: Samples
    random: Random
    depth: int = 3
    _definitions: dict[str, str] = field(default_factory=dict)
    _types: dict[str, Any] = field(default_factory=dict)
    _wrong: float = 0
    _fragments: dict[str, tuple[str, str]] = field(default_factory=dict)
    _calls: dict[str, str] = field(default_factory=dict)  # response name -> what it stands for

    def operation(self, kind: str, root: GraphQLObjectType) -> str:
        if kind == "subscription":
            body = f"{{ {self._field(root, self.depth, is_sole=True)} }}"
        else:
            body = self._selections(root, self.depth)
        definitions = ", ".join(f"${name}: {text}" for name, text in self._definitions.items())
        head = f"{kind} Generated({definitions})" if definitions else f"{kind} Generated"
        fragments = [
            f"fragment {name} on {on} {text}" for name, (on, text) in self._fragments.items()
        ]
        return "\n".join([f"{head} {body}", *fragments])

    def _selections(self, type_: Any, depth: int) -> str:
        count = self.random.choice((1, 1, 2, 2, 3, 4))
        chosen = [self._selection(type_, depth) for _ in range(count)]
        return f"{{ {' '.join(text for text in chosen if text) or '__typename'} }}"

    def _selection(self, type_: Any, depth: int) -> str:
        roll = self.random.random()
        if isinstance(type_, GraphQLUnionType) or roll < 0.12:
            if roll < 0.05:
                return f"__typename{self._directives()}"
            return self._inline(type_, depth)
        if roll < 0.22 and depth > 0:
            return self._spread(type_, depth)
        return self._field(type_, depth)

    def _inline(self, type_: Any, depth: int) -> str:
        on = self._possible(type_)
        head = f"... on {on.name}" if on is not type_ or self.random.random() < 0.5 else "..."
        return f"{head}{self._directives()} {self._selections(on, depth)}"

    def _spread(self, type_: Any, depth: int) -> str:
        known = [name for name, (on, _) in self._fragments.items() if on == type_.name]
        if known and self.random.random() < 0.4:
            return f"...{self.random.choice(known)}{self._directives()}"
        on = self._possible(type_)
        text = self._selections(on, depth - 1)
        name = f"F{len(self._fragments)}"
        self._fragments[name] = on.name, text
        return f"...{name}{self._directives()}"

    def _possible(self, type_: Any) -> Any:
        if isinstance(type_, GraphQLInterfaceType | GraphQLUnionType):
            return self.random.choice([type_, *self.schema.get_possible_types(type_)])
        if isinstance(type_, GraphQLObjectType) and type_.interfaces:
            return self.random.choice([type_, *type_.interfaces])
        return type_

    def _field(self, type_: Any, depth: int, *, is_sole: bool = False) -> str:
        fields = {
            name: definition
            for name, definition in type_.fields.items()
            if depth > 0 or is_leaf_type(get_named_type(definition.type))
        }
        if not fields:
            return "__typename"
        name = self.random.choice(list(fields))
        definition = fields[name]
        alias = self.random.choice(("", "", "", f"{name}A", f"{name}B"))
        response_name = alias or name
        if response_name not in self._calls:
            self._calls[response_name] = f"{name}{self._arguments(definition)}"
        head = f"{alias}: " if alias else ""
        named = get_named_type(definition.type)
        below = "" if is_leaf_type(named) else f" {self._selections(named, depth - 1)}"
        directives = "" if is_sole else self._directives()
        return f"{head}{self._calls[response_name]}{directives}{below}"

    def _directives(self) -> str:
        if self.random.random() > 0.12:
            return ""
        names = self.random.choice((("skip",), ("include",), ("skip", "include")))
        return "".join(f" @{name}(if: {self._condition()})" for name in names)

    def _condition(self) -> str:
        if self.random.random() < 0.5:
            return self.random.choice(("true", "false"))
        return self._variable("Boolean!", GraphQLNonNull(self.schema.type_map["Boolean"]))

    # Arguments and variables

    def _arguments(self, definition: GraphQLField) -> str:
        given = [
            f"{name}: {self._value(argument.type)}"
            for name, argument in definition.args.items()
            if is_required_argument(argument) or self.random.random() < 0.5
        ]
        return f"({', '.join(given)})" if given else ""

    def _value(self, type_: Any) -> str:
        if self.random.random() < 0.45:
            return self._variable(str(type_), type_)
        return self._literal(type_)

    def _variable(self, written: str, type_: Any) -> str:
        """Use a variable of the type, a new one or one that is there."""
        known = [name for name, text in self._definitions.items() if text.split(" =")[0] == written]
        if known and self.random.random() < 0.3:
            return f"${self.random.choice(known)}"
        name = f"v{len(self._definitions)}"
        self._types[name] = type_
        if self.random.random() < 0.25:
            nullable = type_.of_type if isinstance(type_, GraphQLNonNull) else type_
            self._types[name] = nullable
            self._definitions[name] = f"{nullable} = {self._literal_of(nullable, is_constant=True)}"
        else:
            self._definitions[name] = written
        return f"${name}"

    def variables(self, wrong: float) -> dict[str, Any]:
        """Make values of the variables, or leave them out. `wrong`: how often one does not fit."""
        self._wrong = wrong
        return {
            name: self.json(type_) for name, type_ in self._types.items() if self._is_given(type_)
        }

    def _is_given(self, type_: Any) -> bool:
        may_be_absent = not isinstance(type_, GraphQLNonNull) or self.random.random() < self._wrong
        return not may_be_absent or self.random.random() < 0.7

    def json(self, type_: Any) -> Any:
        """Make a value of a variable."""
        if self.random.random() < self._wrong:
            return self.random.choice(_JUNK)
        if isinstance(type_, GraphQLNonNull):
            return self.json_of(type_.of_type)
        return None if self.random.random() < 0.15 else self.json_of(type_)

    def json_of(self, type_: Any) -> Any:
        if isinstance(type_, GraphQLList):
            if self.random.random() < 0.15:
                return self.json(type_.of_type)
            return [self.json(type_.of_type) for _ in range(self.random.randrange(3))]
        if isinstance(type_, GraphQLEnumType):
            return self.random.choice(list(type_.values))
        if isinstance(type_, GraphQLInputObjectType):
            return {name: self.json(type_.fields[name].type) for name in self._members(type_)}
        return self.random.choice(self.samples[type_.name])

    def _members(self, type_: GraphQLInputObjectType) -> list[str]:
        if type_.is_one_of or type_.name == "Pick":
            return [self.random.choice(list(type_.fields))]
        return [
            name
            for name, member in type_.fields.items()
            if is_required_input_field(member) or self.random.random() < 0.3
        ]

    def _literal(self, type_: Any, *, is_constant: bool = False) -> str:
        if isinstance(type_, GraphQLNonNull):
            return self._literal_of(type_.of_type, is_constant=is_constant)
        if self.random.random() < 0.15:
            return "null"
        return self._literal_of(type_, is_constant=is_constant)

    def _literal_of(self, type_: Any, *, is_constant: bool) -> str:
        def inner(member: Any) -> str:
            if is_constant or self.random.random() < 0.8:
                return self._literal(member, is_constant=is_constant)
            return self._variable(str(member), member)

        if isinstance(type_, GraphQLList):
            items = [inner(type_.of_type) for _ in range(self.random.randrange(3))]
            return f"[{', '.join(items)}]"
        if isinstance(type_, GraphQLEnumType):
            return str(self.random.choice(list(type_.values)))
        if isinstance(type_, GraphQLInputObjectType):
            members = [f"{name}: {inner(type_.fields[name].type)}" for name in self._members(type_)]
            return f"{{{', '.join(members)}}}"
        sample = self.random.choice(self.samples[type_.name])
        return _write(sample)


def _write(value: Any) -> str:
    """Write JSON as a literal of GraphQL: names of members have no quotes."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name}: {_write(member)}' for name, member in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_write, value))}]"
    return json.dumps(value)
