"""What the compiler follows in graphql-core and Strawberry is what it was when it was written.

A test that fails here asks to read the function named, to follow it, and to note its new digest.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest
from graphql.execution import collect_fields, executor, get_variable_signature, values
from graphql.pyutils import gather_with_cancel
from graphql.type import scalars
from graphql.utilities.coerce_input_value import (
    coerce_default_value,
    coerce_input_literal,
    coerce_input_value,
)
from strawberry.execution import optimized_is_awaitable
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.schema.schema_converter import (
    CustomGraphQLEnumType,
    GraphQLCoreConverter,
    get_arguments,
)
from strawberry.types import arguments
from strawberry.types.cast import get_strawberry_type_cast
from strawberry.types.field import StrawberryField
from strawberry.types.fields.resolver import StrawberryResolver
from strawberry.types.info import Info

Executor = executor.Executor

FOLLOWED: dict[Any, str] = {
    Executor.execute_operation: "1b27878e82f534ef",
    Executor.execute_fields_serially: "f13bc3e209e03250",
    Executor.execute_fields: "d556060aad9046c0",
    Executor.execute_field: "e2020356cf6d78f0",
    Executor.build_resolve_info: "5f60a5b8a2ca2d63",
    Executor.handle_field_error: "6aeefd3f8886c9f6",
    Executor.complete_value: "b29b8bd94629894c",
    Executor.complete_awaitable_value: "90dde8bbba4bd660",
    Executor.complete_list_value: "3e902e252ef62627",
    Executor.complete_iterable_value: "fa8b92cd446c533d",
    Executor.complete_list_item_value: "42b78cb0dfb51023",
    Executor.complete_awaitable_list_item_value: "0da1744107e439ae",
    Executor.complete_leaf_value: "e50437583f096379",
    Executor.complete_abstract_value: "7a13e18dbfa2fb23",
    Executor.ensure_valid_runtime_type: "7f2722fc69708c98",
    Executor.complete_object_value: "f5ad880cb1b7b40e",
    Executor.collect_and_execute_subfields: "4a398934fc80a76d",
    Executor.settle_in_background: "736450bd9acca591",
    Executor.with_abort_signal: "13cb84d1039a26b0",
    executor.collect_iterator_awaitables: "a3a51f6013186b21",
    executor.invalid_return_type_error: "523fb01dfdd72390",
    executor.default_field_resolver: "cb07552f952661b5",
    collect_fields.collect_fields: "e8fc494ba05db0a1",
    collect_fields.collect_subfields: "3a406426ef8846bf",
    collect_fields.visit_selection_sets: "3e6d5de83ced76cd",
    collect_fields.should_include_node: "d8c24270bed5c68d",
    values.get_variable_values: "41619599374c7e0b",
    values.coerce_variable_values: "415112de6ff9513d",
    values.maybe_use_default_value: "8953ce7e839e1272",
    values.get_argument_values: "20922c15fb042908",
    values.coerce_argument: "7c987bf355c8fb90",
    get_variable_signature.get_variable_signature: "f982a54f4d449195",
    coerce_input_value: "b81fada1dcc3a300",
    coerce_input_literal: "9146162d565fefaa",
    coerce_default_value: "f668bade5e742df1",
    gather_with_cancel: "b4ac232148bff29e",
    scalars.serialize_string: "cdc3b059c7a94e24",
    scalars.serialize_id: "020c9c4aac3bd8e2",
    scalars.serialize_boolean: "b1d7d831c46a513e",
    StrawberryGraphQLCoreExecutionContext: "0a7b6314844973d9",
    CustomGraphQLEnumType: "82a3fa6a5f59163c",
    GraphQLCoreConverter.from_field: "636d40d25234f219",
    GraphQLCoreConverter.from_object: "0f61ab5da00edf83",
    GraphQLCoreConverter.from_resolver: "66aed7fc2f853a08",
    get_arguments: "bd51f13509c65656",
    arguments.convert_arguments: "f9642054d517b5ff",
    arguments.convert_argument: "6c0cb1d95c0af397",
    get_strawberry_type_cast: "6dc5296be191ef7b",
    StrawberryField.get_result: "5502bd3f4c4a0b48",
    StrawberryResolver.__call__: "ddb06883f4717e45",
    Info: "68a722eef244935f",
    optimized_is_awaitable: "06d7968d738e795c",
}


def digest(function: Any) -> str:
    """Return a digest of the code, whatever its comments and its documentation."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [one for one in node.body if not _is_text(one)] or [ast.Pass()]
    return sha256(ast.unparse(tree).encode()).hexdigest()[:16]


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


@pytest.mark.parametrize(
    ("followed", "known"), FOLLOWED.items(), ids=[one.__qualname__ for one in FOLLOWED]
)
def test_the_code_that_the_compiler_follows_has_not_changed(
    followed: Callable[..., Any], known: str
) -> None:
    assert digest(followed) == known
