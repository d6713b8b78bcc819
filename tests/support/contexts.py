"""Contexts of a schema that reads no database."""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from starlette.types import Scope

T = TypeVar("T")
ViewerT = TypeVar("ViewerT")


@dataclass(frozen=True)
class PlainContexts(Generic[ViewerT]):
    """Gives every operation the context that `make` returns for its viewer."""

    make: Callable[[ViewerT], object]

    async def turn(self, _viewer: ViewerT, work: Coroutine[Any, Any, T]) -> T:
        return await work

    def charge(self, _viewer: ViewerT, _seconds: float) -> None: ...

    async def query(
        self,
        _scope: Scope,
        viewer: ViewerT,
        execute: Callable[[object], Awaitable[T]],
    ) -> T:
        return await execute(self.make(viewer))

    mutation = query

    async def mutation_once(
        self,
        scope: Scope,
        viewer: ViewerT,
        _key: str,
        _request: Sequence[object],
        execute: Callable[[object], Awaitable[T]],
    ) -> T:
        return await self.query(scope, viewer, execute)

    def subscription(self, _scope: Scope, viewer: ViewerT) -> object:
        return self.make(viewer)

    async def event(self, _context: object, execute: Callable[[], Awaitable[T]]) -> T:
        return await execute()
