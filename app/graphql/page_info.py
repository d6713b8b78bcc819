"""PageInfo, which all connections share."""

from collections.abc import Awaitable, Callable

import strawberry


@strawberry.type(description="Where a page is in its list.")
class PageInfo:
    start_cursor: str | None = strawberry.field(
        description="The cursor of the first item; null on an empty page."
    )
    end_cursor: str | None = strawberry.field(
        description="The cursor of the last item; null on an empty page."
    )
    has_next: strawberry.Private[Callable[[], Awaitable[bool]]]
    has_previous: strawberry.Private[Callable[[], Awaitable[bool]]]

    @strawberry.field(description="Whether there are items after this page.")
    async def has_next_page(self) -> bool:
        return await self.has_next()

    @strawberry.field(description="Whether there are items before this page.")
    async def has_previous_page(self) -> bool:
        return await self.has_previous()


def constant(value: bool) -> Callable[[], Awaitable[bool]]:  # noqa: FBT001, RUF100
    """Return a function of the kind `PageInfo` asks, for an answer that is known already."""

    async def known() -> bool:
        return value

    return known
