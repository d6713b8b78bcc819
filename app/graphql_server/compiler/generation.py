"""Generates Python code for selection sets whose fields are executed concurrently.

In generated code a leaf that is an attribute needs no call, which halves the time for a page of
objects. No text of the client gets into the code: response names become numbered variables. Only
names of attributes do, which are Python identifiers.
"""

from collections.abc import Iterable
from functools import lru_cache
from types import CodeType, CoroutineType
from typing import Any, TypeAlias

from app.graphql_server.compiler.execution import Execution
from app.graphql_server.compiler.plan import Select
from app.graphql_server.compiler.selections import Field, LeafAttribute, Typename
from app.graphql_server.compiler.waiting import gather
from app.graphql_server.response_size import field_size, value_size

AnyField: TypeAlias = Field | LeafAttribute | Typename

# The most that a value takes in the answer, beside the characters of a text.
_TEXT_BYTES = 2
_NUMBER_BYTES = 24


def at_once(fields: Iterable[AnyField]) -> Select:
    """Return the function that executes the fields in order, then awaits the awaitable ones."""
    fields = tuple(fields)
    values: dict[str, Any] = {}
    parts = []
    for index, field in enumerate(fields):
        values |= {f"{name}{index}": value for name, value in _values(field).items()}
        parts.append(_part(field, index))
    leaves = [field.name for field in fields if not isinstance(field, Field)]
    size = sum(map(field_size, leaves))
    estimate = size + sum(map(_fixed_bytes, fields))
    source = _FUNCTION.format(
        parameters=", ".join(["leaves", "size", "estimate", *values]),
        parts="".join(parts) or _NOTHING,
        count=_COUNT if leaves else "",
    )
    namespace: dict[str, Any] = dict(_GLOBALS)
    exec(_compile(source), namespace)  # noqa: S102
    select: Select = namespace["make"](leaves, size, estimate, **values)
    return select


@lru_cache(maxsize=512)
def _compile(source: str) -> CodeType:
    """Compile the code of a selection set, cached: those of the same shape share it."""
    return compile(source, "<selection set>", "exec")


def _values(field: AnyField) -> dict[str, Any]:
    """Return what the generated part of the field takes."""
    if not isinstance(field, LeafAttribute):
        return field._asdict()
    values = {"name": field.name, "complete": field.complete, "fail": field.fail}
    if field.leaf.unchanged is None:
        values |= {"plain": field.leaf.plain, "coerce": field.leaf.coerce, "check": field.check}
    return values


def _part(field: AnyField, index: int) -> str:
    if isinstance(field, Field):
        return _FIELD.format(i=index)
    if isinstance(field, Typename):
        return _TYPENAME.format(i=index)
    assert field.attribute.isidentifier()  # noqa: S101
    may_be_null = field.leaf.null_message is None
    unchanged = field.leaf.unchanged
    template = _UNCHANGED[unchanged] if unchanged else _COERCED
    null = "value is not None" if may_be_null else "True"
    return template.format(i=index, attribute=field.attribute, is_other=null)


def _fixed_bytes(field: AnyField) -> int:
    if isinstance(field, Field):
        return 0
    if isinstance(field, Typename):
        return len(field.typename) + _TEXT_BYTES
    return _TEXT_BYTES if field.leaf.unchanged is str else _NUMBER_BYTES


def _settle(results: dict[str, Any], pending: list[str], execution: Execution) -> None:
    execution.core.settle_in_background([results[name] for name in pending])


async def _wait(results: dict[str, Any], pending: list[str]) -> dict[str, Any]:
    if len(pending) == 1:
        [name] = pending
        results[name] = await results[name]
    else:
        values = await gather(results[name] for name in pending)
        results.update(zip(pending, values, strict=True))
    return results


_GLOBALS = {
    "CoroutineType": CoroutineType,
    "containers": frozenset({dict, list}),
    "numbers": frozenset({int, float, bool}),
    "settle": _settle,
    "value_size": value_size,
    "wait": _wait,
}

_FUNCTION = """\
def make({parameters}):
    def select(source, path, execution):
        results = {{}}
        pending = []
        characters = other = 0
        is_usual = True
        try:
{parts}{count}\
        except Exception:
            if pending:
                settle(results, pending, execution)
            raise
        return wait(results, pending) if pending else results

    return select
"""

_FIELD = """\
            value = results[name{i}] = execute{i}(source, path, execution)
            if type(value) is CoroutineType:
                pending.append(name{i})
"""

_TYPENAME = """\
            results[name{i}] = typename{i}
"""

_NOTHING = """\
            pass
"""

_OTHER = """\
                elif {is_other}:
                    is_usual = False
                    value = complete{i}(value, path, execution)
                    if type(value) is CoroutineType:
                        pending.append(name{i})
            except Exception as error:
                value = fail{i}(error, path, execution)
            results[name{i}] = value
"""

_TEXT = f"""\
            try:
                value = source.{{attribute}}
                if type(value) is str:
                    characters += len(value)
{_OTHER}"""

_BOOLEAN = f"""\
            try:
                value = source.{{attribute}}
                if type(value) is bool:
                    pass
{_OTHER}"""

_COERCED = f"""\
            try:
                value = source.{{attribute}}
                if type(value) in plain{{i}}:
                    coerced = coerce{{i}}(value)
                    if type(coerced) is str:
                        characters += len(coerced)
                    elif type(coerced) in containers:
                        other += value_size(coerced)
                    elif type(coerced) not in numbers:
                        is_usual = False
                        coerced = check{{i}}(value, coerced, path, execution)
                        if type(coerced) is CoroutineType:
                            pending.append(name{{i}})
                    value = coerced
{_OTHER}"""

_UNCHANGED = {str: _TEXT, bool: _BOOLEAN}

_COUNT = """\
            if is_usual:
                execution.size.add_object(estimate + 6 * characters + other, size, results, leaves)
            else:
                execution.size.add_leaves(size, [results[name] for name in leaves])
"""
