"""A compiled operation does what graphql-core does with it: data, errors, calls and their order.

The operations are generated, with right and wrong variables, on a schema that has everything; what
its resolvers meet is different in each case.
"""

import asyncio
import gc
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from inspect import isawaitable
from random import Random
from typing import Any

import pytest
import strawberry
from graphql import DocumentNode, ExecutionResult, create_source_event_stream, parse, validate
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from strawberry.execution import optimized_is_awaitable
from strawberry.schema.config import StrawberryConfig

from app.graphql_server.bounded_execution import BoundedExecution
from app.graphql_server.compiler import Compiler, Execution
from app.graphql_server.response_size import ResponseSize
from tests.support import synthetic
from tests.support.operations import Generator
from tests.support.synthetic import Script

CORE = synthetic.schema._schema
EXTENSIONS = {"extension": 1}
MAX_ERRORS = 3

SAMPLES: dict[str, list[Any]] = {
    "String": ["", "text", "ünï"],
    "ID": ["id", 7, "9"],
    "Int": [0, 1, -5, 3],
    "Float": [0, 1.5, -2.25],
    "Boolean": [True, False],
    "Even": [2, 4],
    "Anything": ["any", 5, [1, "a"], {"a": {"b": None}}],
    "UUID": ["00000000-0000-0000-0000-000000000001"],
    "DateTime": ["2026-11-24T12:00:00Z"],
}

DOCUMENTS = 600
CASES = 10  # of each document

GENERATED = settings(
    max_examples=DOCUMENTS,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # a smaller seed is not a smaller operation
)


@pytest.fixture
def collected_by_hand() -> Iterator[None]:
    """Free coroutines where Python can warn of them, and not within any function whatever."""
    gc.disable()
    yield
    gc.collect()
    gc.enable()


# graphql-core leaves its coroutines, and those of resolvers, for the items of a list that it was
# still reading when it was cancelled beside a field that failed. It executes what is not compiled.
@pytest.mark.filterwarnings("ignore:coroutine '(Executor|GraphQLCoreConverter).* was never awaited")
def test_generated_operations_are_answered_as_graphql_core_answers_them(
    collected_by_hand: None,
) -> None:
    seen: Counter[str] = Counter()

    with asyncio.Runner() as runner:

        @given(seed=st.integers(0, 2**64))
        @GENERATED
        def compare(seed: int) -> None:
            runner.run(compare_document(seed, seen))
            if seed % 20 == 0:
                gc.collect()

        compare()

    assert seen["cases"] >= 5000
    assert seen["with data"] > 4000
    assert seen["with errors"] > 1500
    assert seen["with wrong variables"] > 200
    assert seen["of mutations"] > 300
    assert seen["of subscriptions"] > 300
    assert seen["compiled"] > 0.95 * (seen["compiled"] + seen["interpreted"])


async def compare_document(seed: int, seen: Counter[str]) -> None:
    random = Random(seed)
    generator = Generator(CORE, SAMPLES, random)
    kind = random.choice(["query"] * 4 + ["mutation", "subscription"])
    text = generator.operation(kind, getattr(CORE, f"{kind}_type"))
    note(text)
    document = parse(text)
    assert validate(CORE, document) == []
    hides = seed % 2 == 0
    compiler = compile_with(hide_suggestions=hides)
    for number in range(CASES):
        variables = generator.variables(wrong=random.choice((0, 0, 0, 0.1)))
        note(f"{variables}, script {seed + number}")
        expected = await outcome(seed + number, interpret, document, variables, hides)
        actual = await outcome(seed + number, begin, compiler, document, variables)
        assert actual == expected
        count(seen, kind, expected)
    seen["compiled"] += compiler.compiled_count
    seen["interpreted"] += compiler.interpreted_count


def count(seen: Counter[str], kind: str, outcome: tuple[list[Any], list[Any]]) -> None:
    answers, _ = outcome
    seen["cases"] += 1
    seen[f"of {kind}s"] += 1
    seen["with wrong variables"] += any(data == "refused" for data, _ in answers)
    seen["with data"] += any('"' in data for data, _ in answers if data)
    seen["with errors"] += any(errors for _, errors in answers)


async def outcome(number: int, make: Any, *arguments: Any) -> tuple[list[Any], list[Any]]:
    """Return what was answered, and which resolvers were called with what."""
    script = Script(number)
    execution = make(*arguments, script)
    if isinstance(execution, list):
        return [("refused", written(execution))], script.log
    answers = [answer async for answer in answers_of(execution)]
    for _ in range(30):  # what was abandoned comes to its end
        await asyncio.sleep(0)
    return answers, script.log


async def answers_of(execution: Any) -> AsyncIterator[Any]:
    core = execution.core if isinstance(execution, Execution) else execution
    if core.operation.operation.value != "subscription":
        yield answer(await result(execution))
        return
    stream = create_source_event_stream(core)
    stream = await stream if isawaitable(stream) else stream
    if isinstance(stream, ExecutionResult):
        yield answer(stream)
        return
    async for payload in stream:
        if isinstance(execution, Execution):
            yield answer(await result(execution.of_event(payload, ResponseSize(2**30))))
        else:
            yield answer(await result(execution.build_per_event_executor(payload)))


async def result(execution: Any) -> ExecutionResult:
    run = execution.run if isinstance(execution, Execution) else execution.execute_operation
    executed = run()
    answered: ExecutionResult = await executed if isawaitable(executed) else executed
    return answered


def answer(result: ExecutionResult) -> tuple[str, list[Any]]:
    return json.dumps(result.data, default=repr), written(result.errors or [])


def written(errors: list[Any]) -> list[Any]:
    return [
        (
            error.message,
            error.path,
            [location.formatted for location in error.locations or ()],
            error.extensions,
            repr(error.original_error),
            [node.kind for node in error.nodes or ()],
        )
        for error in errors
    ]


def interpret(document: DocumentNode, variables: Any, hides: bool, script: Script) -> Any:
    return BoundedExecution.build(
        CORE,
        document,
        context_value=script,
        raw_variable_values=variables,
        max_coercion_errors=MAX_ERRORS,
        is_awaitable=optimized_is_awaitable,  # type: ignore[arg-type]
        hide_suggestions=hides,
        operation_extensions=EXTENSIONS,
        size=ResponseSize(2**30),
    )


def begin(compiler: Compiler, document: DocumentNode, variables: Any, script: Script) -> Any:
    [definition, *_] = document.definitions
    name = definition.name.value if definition.name else None  # type: ignore[attr-defined]
    return compiler.begin(document, name, 0, variables, script, EXTENSIONS, ResponseSize(2**30))


# Around a compiled operation


def compile_with(
    schema: strawberry.Schema = synthetic.schema, interpreted_first: int = 0, **options: Any
) -> Compiler:
    return Compiler(schema, max_errors=MAX_ERRORS, interpreted_first=interpreted_first, **options)


async def test_one_compiled_operation_runs_many_times_at_once() -> None:
    document = parse("""
        query ($depth: Int) {
          later { text inside(depth: $depth) { id count animal { name } } creatures { __typename } }
        }
    """)
    compiler = compile_with()
    alone = [await outcome(n, begin, compiler, document, {"depth": n}) for n in range(50)]

    together = await asyncio.gather(
        *(outcome(n, begin, compiler, document, {"depth": n}) for n in range(50))
    )

    assert list(together) == alone


@pytest.mark.parametrize("interpreted_first", [0, 1])
async def test_a_cancelled_operation_cancels_what_it_waits_for(interpreted_first: int) -> None:
    events: list[str] = []
    begun = asyncio.Event()

    async def wait(name: str) -> int:
        events.append(f"{name} begins")
        if len(events) == 2:
            begun.set()
        try:
            return await asyncio.Future()
        finally:
            events.append(f"{name} ends")

    @strawberry.type
    class Query:
        @strawberry.field
        async def first(self) -> int:
            return await wait("first")

        @strawberry.field
        async def second(self) -> list[int]:
            return [await wait("second")]

    schema = strawberry.Schema(Query)
    compiler = compile_with(schema, interpreted_first=interpreted_first)
    execution = begin(compiler, parse("{ first second }"), {}, Script(0))
    task = asyncio.create_task(result(execution))
    await begun.wait()

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert events == ["first begins", "second begins", "first ends", "second ends"]


@pytest.mark.parametrize("turns", range(8))
async def test_a_compiled_operation_cancelled_at_any_time_leaves_nothing_unawaited(
    turns: int, recwarn: pytest.WarningsRecorder
) -> None:
    @strawberry.type
    class Leaf:
        @strawberry.field
        async def name(self) -> str:
            await asyncio.sleep(0)
            return "name"

        @strawberry.field
        async def other(self) -> str:
            await asyncio.sleep(0)
            return "other"

    @strawberry.type
    class Branch:
        @strawberry.field
        def leaves(self) -> list[Leaf]:
            return [Leaf(), Leaf()]

        @strawberry.field
        def leaf(self) -> Leaf:
            return Leaf()

    @strawberry.type
    class Query:
        @strawberry.field
        async def branches(self) -> list[Branch]:
            await asyncio.sleep(0)
            return [Branch(), Branch()]

    text = (
        "{ a: branches { leaves { name other } leaf { name other } } b: branches { __typename } }"
    )
    execution = begin(compile_with(strawberry.Schema(Query)), parse(text), {}, Script(0))
    task = asyncio.create_task(result(execution))
    for _ in range(turns):
        await asyncio.sleep(0)

    task.cancel()
    await asyncio.wait([task])
    del execution
    gc.collect()

    assert task.cancelled()
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize("interpreted_first", [0, 1])
async def test_what_waits_beside_a_field_that_fails_at_once_comes_to_its_end(
    interpreted_first: int,
) -> None:
    ended = asyncio.Event()

    @strawberry.type
    class Query:
        @strawberry.field
        async def slow(self) -> int:
            await asyncio.sleep(0)
            ended.set()
            raise ValueError("nobody asks any more")

        @strawberry.field
        def fails(self) -> int:
            raise ValueError("at once")

    compiler = compile_with(strawberry.Schema(Query), interpreted_first=interpreted_first)

    answered = await result(begin(compiler, parse("{ slow fails }"), {}, Script(0)))

    assert answered.data is None
    assert [error.message for error in answered.errors or ()] == ["at once"]
    await ended.wait()


async def test_what_the_compiler_does_not_know_is_left_to_graphql_core() -> None:
    text = "query @experimental_disableErrorPropagation { now { text } }"
    conditions = " ".join(f"a{n}: now @include(if: $v{n}) {{ plain }}" for n in range(4))
    definitions = ", ".join(f"$v{n}: Boolean! = true" for n in range(4))
    wide = " ".join(f"a{n}: plain" for n in range(1200))
    documents: dict[str, tuple[str, list[dict[str, Any]]]] = {
        "another directive": (text, [{}]),
        "null for a condition": (
            "query ($v: Boolean = true) { now { text @skip(if: $v) plain } }",
            [{"v": None}],
        ),
        "more outcomes than are kept": (
            f"query ({definitions}) {{ {conditions} }}",
            [{f"v{n}": bool(outcome >> n & 1) for n in range(4)} for outcome in range(12)],
        ),
        "many fields": (f"{{ now {{ {wide} }} }}", [{}]),
    }
    for number, (what, (text, inputs)) in enumerate(documents.items()):
        document = parse(text)
        compiler = compile_with()
        for variables in inputs:
            expected = await outcome(number, interpret, document, variables, False)
            assert await outcome(number, begin, compiler, document, variables) == expected, what
        assert compiler.interpreted_count == (4 if len(inputs) > 1 else 1), what


async def test_the_operations_used_last_are_kept_within_the_bound() -> None:
    compiler = compile_with(max_fields=100)
    documents = [parse(f"{{ now {{ a{n}: plain text id }} }}") for n in range(50)]

    for document in documents:
        await outcome(1, begin, compiler, document, {})

    kept = [kept.document for kept in compiler._operations.values()]
    assert kept == documents[-len(kept) :]
    assert 5 <= len(kept) <= 10


async def test_an_argument_in_the_document_is_a_new_object_for_each_execution() -> None:
    given: list[Any] = []

    @strawberry.type
    class Query:
        @strawberry.field
        def take(self, value: synthetic.Anything, items: list[int]) -> int:
            given.append((value, items))
            items.append(9)
            return len(items)

    schema = strawberry.Schema(Query, config=StrawberryConfig(scalar_map=synthetic.SCALARS))
    compiler = compile_with(schema)
    text = (
        "query ($v: [Int!]! = [1]) { take(value: {a: [1]}, items: $v) b: take(value: 1, items: 2) }"
    )
    document = parse(text)

    for _ in range(2):
        answered = await result(begin(compiler, document, {}, Script(0)))
        assert answered.data == {"take": 2, "b": 2}

    assert given[0][0] is not given[2][0]


async def test_an_operation_that_comes_once_is_not_compiled() -> None:
    compiler = Compiler(synthetic.schema, max_errors=MAX_ERRORS)
    document = parse("{ now { plain } }")

    answers = [await outcome(1, begin, compiler, document, {}) for _ in range(3)]

    assert answers == answers[:1] * 3
    assert (compiler.interpreted_count, compiler.compiled_count) == (1, 2)
