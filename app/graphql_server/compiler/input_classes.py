"""Convert coerced arguments to those of a resolver: Python names and instances of input classes.

The result is that of Strawberry's `convert_arguments`, which looks up each name and type again for
each request.
"""

from collections.abc import Callable
from dataclasses import MISSING
from typing import Any, TypeAlias

from strawberry.relay.types import GlobalID
from strawberry.schema.compat import is_scalar
from strawberry.schema.schema_converter import GraphQLCoreConverter
from strawberry.types.base import (
    StrawberryList,
    StrawberryMaybe,
    StrawberryOptional,
    has_object_definition,
)
from strawberry.types.enum import StrawberryEnumDefinition, has_enum_definition
from strawberry.types.field import StrawberryField
from strawberry.types.info import Info
from strawberry.types.lazy_type import LazyType
from strawberry.types.unset import UNSET

from app.graphql_server.compiler.arguments import Arguments
from app.graphql_server.compiler.plan import NotCompilable

Convert: TypeAlias = Callable[[Any], Any]


class InputClasses:
    """The conversions of a schema, each made when first asked for.

    `calls_plainly`: no extension of the schema wraps the function of a field.
    """

    def __init__(self, converter: GraphQLCoreConverter) -> None:
        self._config = converter.config
        self.calls_plainly = not converter.exception_handlers and self._config.info_class is Info
        self._scalars = converter.scalar_registry
        self._classes: dict[type, Convert] = {}

    def names(self, field: StrawberryField) -> dict[str, str]:
        """Return the Python names of a field's arguments by their names in the schema."""
        to_graphql = self._config.name_converter.from_argument
        return {to_graphql(argument): argument.python_name for argument in field.arguments}

    def arguments(self, field: StrawberryField) -> Callable[[Arguments], Arguments] | None:
        """Make the conversion; None where only names change. Raises NotCompilable."""
        converters = [self._convert(argument.type) for argument in field.arguments]
        if not any(converters):
            return None
        entries = [
            (name, python_name, converter)
            for (name, python_name), converter in zip(
                self.names(field).items(), converters, strict=True
            )
        ]

        def convert(values: Arguments) -> Arguments:
            return {
                python_name: convert_value(values[name]) if convert_value else values[name]
                for name, python_name, convert_value in entries
                if name in values
            }

        return convert

    def _convert(self, type_: Any) -> Convert | None:
        """Make the conversion of a type; None where a value stays what it is."""
        if isinstance(type_, StrawberryMaybe):
            raise NotCompilable("Strawberry converts a Maybe.")
        if isinstance(type_, StrawberryOptional):
            return self._convert(type_.of_type)
        if isinstance(type_, StrawberryList):
            return self._list(type_.of_type)
        if type_ is GlobalID:
            raise NotCompilable("Strawberry converts a GlobalID.")
        if is_scalar(type_, self._scalars) or isinstance(type_, StrawberryEnumDefinition):
            return None
        if isinstance(type_, LazyType):
            return self._convert(type_.resolve_type())
        if has_enum_definition(type_):
            return None
        if has_object_definition(type_):
            return self._class(type_)
        raise NotCompilable(f"Strawberry does not convert {type_}.")

    def _list(self, item_type: Any) -> Convert:
        convert_item = self._convert(item_type)

        def convert(value: Any) -> Any:
            if value is None or value is UNSET:
                return value
            if convert_item is None:
                return list(value)
            return [convert_item(item) for item in value]

        return convert

    def _class(self, cls: Any) -> Convert:
        if cls not in self._classes:
            before = dict(self._classes)
            # A class may hold itself: what is made meanwhile finds it here when it is called.
            made: list[Convert] = []
            self._classes[cls] = lambda value: made[0](value)  # noqa: PLW0108
            try:
                made.append(self._make_class(cls))
            except NotCompilable:
                self._classes = before
                raise
            self._classes[cls] = made[0]
        return self._classes[cls]

    def _make_class(self, cls: Any) -> Convert:
        definition = cls.__strawberry_definition__
        if definition.from_input is not None or not definition.is_input:
            raise NotCompilable(f"{definition.name} builds itself.")
        absent = {
            field.python_name: None
            for field in definition.fields
            if field.default_value is MISSING and field.default_factory is MISSING
        }
        fields = [
            (
                self._config.name_converter.from_field(field),
                field.python_name,
                self._convert(field.resolve_type(type_definition=definition)),
            )
            for field in definition.fields
        ]

        def convert(value: Any) -> Any:
            if value is None or value is UNSET:
                return value
            attributes = dict(absent)
            for name, python_name, convert_value in fields:
                if name in value:
                    given = value[name]
                    attributes[python_name] = convert_value(given) if convert_value else given
            return cls(**attributes)

        return convert
