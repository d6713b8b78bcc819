# mypy: disable-error-code="no-any-return, untyped-decorator"
"""A schema with every feature of the type system, whose resolvers do what a script says.

The script is a number: with it and the place of a field, every execution meets the same values,
errors and waits, in the same order.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, StrEnum
from typing import Annotated, Any, NewType, TypeAlias, Union
from uuid import UUID
from zlib import crc32

import strawberry
from graphql import GraphQLError
from strawberry.extensions.field_extension import FieldExtension
from strawberry.permission import BasePermission
from strawberry.schema.config import StrawberryConfig

Even = NewType("Even", int)
Strange = NewType("Strange", str)
Anything = NewType("Anything", object)


@dataclass
class Script:
    """What happens at each place; `log` is what did happen."""

    number: int
    log: list[Any] = field(default_factory=list)

    def choose(self, *place: object) -> int:
        return crc32(repr((self.number, place)).encode())

    def record(self, info: Any, **arguments: Any) -> int:
        raw = info._raw_info
        self.log.append(
            (
                raw.field_name,
                raw.path.as_list(),
                [path.typename for path in _up(raw.path)],
                str(raw.return_type),
                raw.parent_type.name,
                len(raw.field_nodes),
                repr(raw.variable_values),
                repr(raw.operation_extensions),
                sorted(raw.fragments),
                raw.operation.operation,
                type(raw.root_value).__name__,
                [selection.name for selection in info.selected_fields],
                info.python_name,
                repr(arguments),
            )
        )
        return self.choose(raw.path.as_list())


def _up(path: Any) -> Iterator[Any]:
    while path:
        yield path
        path = path.prev


Info: TypeAlias = strawberry.Info[Script, Any]


class Later:
    """An awaitable that is no coroutine, and needs not be awaited."""

    def __init__(self, value: Any, ticks: int) -> None:
        self.value, self.ticks = value, ticks

    def __await__(self) -> Any:
        for _ in range(self.ticks):
            yield from asyncio.sleep(0).__await__()
        if isinstance(self.value, Failure):
            raise self.value
        return self.value


class Failure(Exception):
    pass


class Located(GraphQLError):
    pass


def _failure(number: int) -> Exception:
    if number % 5 == 0:
        return GraphQLError("refused", extensions={"code": f"C{number % 7}"})
    if number % 5 == 1:
        return GraphQLError("elsewhere", path=["not", "here"])
    return Failure(f"failed {number % 9}")


def happen(script: Script, number: int, value: Any) -> Any:
    """Make an outcome out of a value: itself, mostly."""
    match number % 24:
        case 0 | 1:
            return None
        case 2:
            return _failure(number)
        case 3:
            raise _failure(number)
        case 4 | 5:
            return Later(value, number % 3)
        case 6:
            return Later(_failure(number), number % 3)
        case 7:
            return Anything
    return value


@strawberry.enum
class Color(Enum):
    RED = "red"
    GREEN = "green"
    BLUE = strawberry.enum_value(3, name="AZURE")


@strawberry.enum
class Size(StrEnum):
    SMALL = "s"
    LARGE = "l"


def _parse_even(value: Any) -> int:
    if not isinstance(value, int) or value % 2:
        raise ValueError(f"{value!r} is not even")
    return value


def _serialize_even(value: Any) -> Any:
    if value % 3 == 0:
        raise ValueError(f"{value} is not shown")
    return None if value % 7 == 0 else value


def _serialize_strange(value: Any) -> Any:
    kinds = {"a": Later("awaited", 1), "b": b"bytes", "c": (1, 2)}
    return kinds.get(value, value)


SCALARS: dict[object, Any] = {
    Even: strawberry.scalar(name="Even", parse_value=_parse_even, serialize=_serialize_even),
    Strange: strawberry.scalar(name="Strange", serialize=_serialize_strange),
    Anything: strawberry.scalar(
        name="Anything", serialize=lambda value: value, parse_value=lambda value: value
    ),
}


@strawberry.input
class Inner:
    color: Color = Color.GREEN
    numbers: list[int | None] | None = strawberry.field(default_factory=lambda: [1, None])
    when: datetime | None = None
    anything: Anything | None = strawberry.UNSET


@strawberry.input
class Tree:
    name: str
    size: Size | None = Size.SMALL
    children: list["Tree"] | None = strawberry.UNSET
    inner: Inner | None = strawberry.UNSET


@strawberry.input
class Query_:  # noqa: N801
    text: str | None = strawberry.UNSET
    id: strawberry.ID | None = None
    even: Even | None = Even(4)
    factor: float = 1.5
    is_on: bool = True
    inner: Inner = strawberry.field(default_factory=Inner)
    inners: list[Inner] | None = strawberry.UNSET
    key: UUID | None = strawberry.UNSET


@strawberry.input(one_of=True)
class Pick:
    number: int | None = strawberry.UNSET
    text: str | None = strawberry.UNSET
    inner: Inner | None = strawberry.UNSET


@strawberry.input
class Perhaps:
    name: strawberry.Maybe[str]
    count: strawberry.Maybe[int | None]


class Shouts(FieldExtension):
    def resolve(self, next_: Any, source: Any, info: Any, **kwargs: Any) -> Any:
        value = next_(source, info, **kwargs)
        return value.upper() if isinstance(value, str) else value


class MaySee(BasePermission):
    message = "not yours"

    def has_permission(self, source: Any, info: Any, **kwargs: Any) -> bool:  # noqa: ARG002
        return info.context.choose("may see", info.path.as_list()) % 2 == 0


@strawberry.interface
class Animal:
    name: str
    owner: str | None = None

    @strawberry.field
    def weight(self, info: Info, factor: float = 2.0, size: Size | None = None) -> float | None:
        number = info.context.record(info, factor=factor, size=size)
        return happen(info.context, number, factor * 2)


@strawberry.type
class Cat(Animal):
    lives: int = 9

    @strawberry.field
    async def friends(self, info: Info, first: int = 2) -> list["Creature"]:
        return await later_list(info, _creatures(info, info.context.record(info, first=first)))


@strawberry.type
class Dog(Animal):
    script: strawberry.Private[Any] = None

    @strawberry.field
    def barks(self, info: Info) -> bool:
        return happen(info.context, info.context.record(info), True)

    @classmethod
    def is_type_of(cls, value: Any, info: Any) -> Any:
        script = info.context
        number = script.choose("dog", info.path.as_list())
        is_dog = isinstance(value, Dog)
        return Later(is_dog, 1) if number % 5 == 0 else is_dog


class Puppy(Dog):
    """A value of a class that the schema does not have."""


@strawberry.type
class Stone:
    color: Color | None = None
    name: str = "stone"


Creature: TypeAlias = Annotated[Union[Cat, Dog, Stone], strawberry.union("Creature")]  # noqa: UP007


def _creatures(info: Any, number: int) -> list[Any]:
    kinds: list[Any] = [
        Cat(name="Tom"),
        Dog(name="Rex"),
        Stone(color=Color.RED),
        Puppy(name="Pup"),
        None,
        strawberry.cast(Cat, Stone(name="cast")),
        Later(Cat(name="Late", owner="me", lives=3), 1),
        17,
        _failure(number),
        Later(_failure(number), 2),
    ]
    count = number % 4
    usual = 3 if number % 3 else len(kinds)
    return [kinds[info.context.choose(number, index) % usual] for index in range(count)]


async def later_list(info: Any, value: Any) -> Any:
    for _ in range(info.context.choose("ticks", info.path.as_list()) % 3):
        await asyncio.sleep(0)
    return value


@strawberry.type
class Box:
    """Leaves that are attributes, of every kind, now and then not what they should be."""

    text: str | None
    must: str
    count: int
    ratio: float | None
    is_open: bool
    id: strawberry.ID
    key: UUID
    made_at: datetime | None
    color: Color
    size: Size | None
    even: Even | None
    strange: Strange | None
    anything: Anything | None
    tags: list[str]
    grid: list[list[int | None]] | None
    lid: "Box | None"
    seed: strawberry.Private[int]

    @strawberry.field
    def plain(self) -> str:
        return f"plain {self.seed}"

    @strawberry.field
    def box(self, info: Info) -> "Box":
        number = info.context.record(info)
        return happen(info.context, number, make_box(info.context, number))

    @strawberry.field
    async def inside(self, info: Info, depth: int | None = 1) -> "Box | None":
        number = info.context.record(info, depth=depth)
        await later_list(info, None)
        value = happen(info.context, number, make_box(info.context, number))
        return await value if isinstance(value, Later) else value

    @strawberry.field
    def boxes(self, info: Info, count: int = 3) -> "list[Box | None] | None":
        number = info.context.record(info, count=count)
        items = [happen_item(info.context, number, index) for index in range(min(abs(count), 4))]
        return happen(info.context, number, items)

    @strawberry.field
    def strict(self, info: Info) -> "list[Box]":
        number = info.context.record(info)
        return [happen_item(info.context, number, index) for index in range(number % 3)]

    @strawberry.field
    async def matrix(self, info: Info) -> "list[list[Box | None] | None]":
        number = info.context.record(info)
        row = [happen_item(info.context, number, index) for index in range(2)]
        return await later_list(info, [row, None, Later(row[:1], 1), tuple(row)])

    @strawberry.field
    def generated(self, info: Info) -> list[int]:
        number = info.context.record(info)
        return (index if index < 3 or number % 3 else None for index in range(4))  # type: ignore[return-value]

    @strawberry.field
    async def streamed(self, info: Info) -> list["Box | None"]:
        number = info.context.record(info)

        async def stream() -> AsyncIterator[Any]:
            for index in range(3):
                await asyncio.sleep(0)
                yield happen_item(info.context, number, index)
                if number % 11 == 0:
                    raise Failure("cut")

        return stream()  # type: ignore[return-value]

    @strawberry.field
    def animal(self, info: Info) -> Animal | None:
        number = info.context.record(info)
        return ([*_creatures(info, number), None])[0]

    @strawberry.field
    async def creatures(self, info: Info) -> list[Creature | None]:
        return await later_list(info, _creatures(info, info.context.record(info)))

    @strawberry.field(extensions=[Shouts()])
    def loud(self, info: Info, word: str = "hey") -> str | None:
        return happen(info.context, info.context.record(info, word=word), word)

    @strawberry.field(permission_classes=[MaySee])
    def secret(self, info: Info) -> str | None:
        return happen(info.context, info.context.record(info), "secret")

    @strawberry.field
    def search(
        self,
        info: Info,
        query: Query_ | None = None,
        pick: Pick | None = strawberry.UNSET,
        tree: Tree | None = None,
        numbers: list[int] | None = None,
        keys: list[list[UUID | None]] | None = strawberry.UNSET,
    ) -> str | None:
        arguments = {"query": query, "pick": pick, "tree": tree, "numbers": numbers, "keys": keys}
        number = info.context.record(info, **arguments)
        return happen(info.context, number, "found")

    @strawberry.field
    async def demand(
        self,
        info: Info,
        query: Query_,
        color: Color,
        even: Even,
        anything: Anything,
        colors: list[Color] | None = None,
    ) -> int:
        number = info.context.record(
            info, query=query, color=color, even=even, anything=anything, colors=colors
        )
        return await later_list(info, number % 1000)

    @strawberry.field
    def perhaps(self, info: Info, value: Perhaps | None = None) -> str:
        info.context.record(info, value=value)
        return repr(value)


_NOT_USUAL: list[Any] = [
    None,
    17,
    -4,
    2**40,
    1.5,
    float("nan"),
    True,
    "b",
    "c",
    b"bytes",
    [1, 2],
    {"a": 1},
    Failure("an error as a value"),
    GraphQLError("another", extensions={"code": "VALUE"}),
    Later("late", 0),
    Later(5, 2),
    Later(Failure("late failure"), 1),
    UUID(int=7),
    Color.BLUE,
    Size.LARGE,
    Anything,
]


def make_box(script: Script, number: int) -> Box:
    """Make a box; one attribute in ten is not what its type says."""

    def attribute(name: str, usual: Any) -> Any:
        choice = script.choose(number, name)
        if choice % 10 == 0:
            return _NOT_USUAL[choice // 10 % len(_NOT_USUAL)]
        return None if choice % 13 == 0 else usual

    usual: dict[str, Any] = {
        "text": "text",
        "must": "must",
        "count": number % 100,
        "ratio": 0.5,
        "is_open": number % 2 == 0,
        "id": strawberry.ID(f"box {number % 100}"),
        "key": UUID(int=number),
        "made_at": datetime(2026, 11, 24, number % 24, tzinfo=UTC),
        "color": list(Color)[number % 3],
        "size": list(Size)[number % 2],
        "even": Even(number % 20),
        "strange": Strange("abcdef"[number % 6]),
        "anything": {"number": number},
        "tags": ["a", "b"],
        "grid": [[1, None], [number % 9]],
        "lid": None,
    }
    attributes = {name: attribute(name, value) for name, value in usual.items()}
    if number % 4 == 0:
        attributes["lid"] = make_box(script, number // 5 + 1)
    return Box(**attributes, seed=number)


def happen_item(script: Script, number: int, index: int) -> Any:
    choice = script.choose(number, index)
    box = make_box(script, choice)
    match choice % 12:
        case 0:
            return None
        case 1:
            return _failure(choice)
        case 2:
            return Later(box, choice % 3)
        case 3:
            return Later(_failure(choice), choice % 3)
        case 4:
            return "no box"
    return box


@strawberry.type
class Query:
    @strawberry.field
    def now(self, info: Info) -> Box:
        number = info.context.record(info)
        return make_box(info.context, number)

    @strawberry.field
    async def later(self, info: Info, ticks: int = 1) -> Box | None:
        number = info.context.record(info, ticks=ticks)
        return await later_list(info, make_box(info.context, number))

    @strawberry.field
    def several(root: Any, info: Info, count: int = 2) -> list[Box | None] | None:  # noqa: N805
        number = info.context.record(info, count=count, root=root)
        return [happen_item(info.context, number, index) for index in range(min(abs(count), 3))]

    @strawberry.field
    def creature(self, info: Info) -> Creature | None:
        number = info.context.record(info)
        return [*_creatures(info, number), None][0]

    @strawberry.field
    def parent(self, above: strawberry.Parent[Any], info: Info) -> str:
        return f"{info.context.record(info)} below {above}"


@strawberry.type
class Change:
    box: Box | None
    problems: list[str]


@strawberry.type
class Mutation:
    @strawberry.mutation
    async def change(self, info: Info, query: Query_) -> Change:
        number = info.context.record(info, query=query)
        box = happen(info.context, number, make_box(info.context, number))
        return await later_list(info, Change(box=box, problems=["none"]))

    @strawberry.mutation
    def change_now(self, info: Info, tree: Tree, pick: Pick | None = None) -> Change | None:
        number = info.context.record(info, tree=tree, pick=pick)
        return happen(info.context, number, Change(box=None, problems=[tree.name]))

    @strawberry.mutation
    def must_change(self, info: Info) -> Box:
        number = info.context.record(info)
        return happen(info.context, number, make_box(info.context, number))


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def boxes(self, info: Info, count: int = 2) -> AsyncIterator[Box | None]:
        number = info.context.record(info, count=count)
        for index in range(min(abs(count), 4)):
            yield happen_item(info.context, number, index)

    @strawberry.subscription
    async def creatures(self, info: Info) -> AsyncIterator[list[Creature]]:
        number = info.context.record(info)
        yield _creatures(info, number)
        yield _creatures(info, number // 2)


schema = strawberry.Schema(
    query=Query,
    mutation=Mutation,
    subscription=Subscription,
    types=[Cat, Dog],
    config=StrawberryConfig(scalar_map=SCALARS),
)
