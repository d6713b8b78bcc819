"""One execution of a compiled operation."""

from collections.abc import Awaitable, Callable, Sequence
from inspect import isawaitable
from types import CoroutineType
from typing import Any, NamedTuple

from graphql import GraphQLError, located_error

from app.errors import ResponseTooLarge
from app.graphql_server.bounded_execution import BoundedExecution
from app.graphql_server.response_size import ResponseSize


class Result(NamedTuple):
    """The result of an executed operation. `data` is None where an error reached the root."""

    data: dict[str, Any] | None
    errors: Sequence[GraphQLError]


class Execution:
    """The state of one execution of a plan.

    Rare things are left to graphql-core's own executor of the same operation, which is built when
    it is first needed: it records errors, builds infos, settles abandoned awaitables, and completes
    unusual values. Without a plan it executes everything.
    """

    __slots__ = ("_core", "_make_core", "context", "plan", "root_value", "size", "variables")

    def __init__(
        self,
        plan: Callable[..., Any] | None,
        variables: dict[str, Any],
        context: object,
        size: ResponseSize,
        make_core: "Callable[[Execution], BoundedExecution]",
    ) -> None:
        self.plan = plan
        self.variables = variables
        self.context = context
        self.size = size
        self.root_value: object = None
        self._make_core = make_core
        self._core: BoundedExecution | None = None

    @property
    def core(self) -> BoundedExecution:
        if self._core is None:
            self._core = self._make_core(self)
        return self._core

    def new_core(self) -> BoundedExecution:
        """Return an executor of graphql-core that this execution does not keep."""
        return self._make_core(self)

    def of_event(self, payload: object, size: ResponseSize) -> "Execution":
        """Return the execution of one event of a subscription."""
        event = Execution(self.plan, self.variables, self.context, size, self._make_core)
        event.root_value = payload
        return event

    def run(self) -> Any:
        """Return the Result, or a coroutine object of it."""
        if self.plan is None:
            executed = self.core.execute_operation()
            return _wait_for_core(executed) if isawaitable(executed) else _of_core(executed)
        data = None
        try:
            data = self.plan(self.root_value, None, self)
        except (GraphQLError, ResponseTooLarge) as error:
            self._fail(error)
        return self._wait(data) if type(data) is CoroutineType else self._result(data)

    async def _wait(self, pending: Any) -> Result:
        data = None
        try:
            data = await pending
        except (GraphQLError, ResponseTooLarge) as error:
            self._fail(error)
        return self._result(data)

    def _fail(self, error: GraphQLError | ResponseTooLarge) -> None:
        located = located_error(error, [self.core.operation])
        self.core.collected_errors.add(located, None)

    def _result(self, data: dict[str, Any] | None) -> Result:
        return Result(data, self._core.collected_errors.errors if self._core else ())


async def _wait_for_core(pending: Awaitable[Any]) -> Result:
    return _of_core(await pending)


def _of_core(result: Any) -> Result:
    return Result(result.data, result.errors or ())
