"""graphql-core's execution, ended as soon as the response is too large."""

from collections.abc import Sized
from typing import Any

from graphql import GraphQLError, OperationType, located_error
from graphql.pyutils import Path
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

from app.errors import ResponseTooLarge
from app.graphql_server.errors import cause_of
from app.graphql_server.response_size import ResponseSize


class BoundedExecution(StrawberryGraphQLCoreExecutionContext):
    """graphql-core's execution of one operation, which ends when its response is too large.

    It overrides methods that graphql-core does not promise to keep.
    """

    def __init__(self, *args: Any, size: ResponseSize, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._size = size

    def execute_field(
        self, parent_type: Any, source: Any, details: Any, path: Path, position: Any
    ) -> Any:
        try:
            self._size.add_field(str(path.key))
        except ResponseTooLarge as error:
            raise self._end(error, details, path) from None
        return super().execute_field(parent_type, source, details, path, position)

    def complete_list_value(self, return_type: Any, *args: Any) -> Any:
        *_, result, _position = args
        if isinstance(result, Sized):
            self._size.add_list(len(result))
        return super().complete_list_value(return_type, *args)

    def complete_leaf_value(self, return_type: Any, result: Any) -> Any:  # type: ignore[override]
        completed = super().complete_leaf_value(return_type, result)
        self._size.add_leaf(completed)
        return completed

    def handle_field_error(
        self, raw_error: Exception, return_type: Any, details: Any, path: Path
    ) -> None:
        if isinstance(cause := cause_of(raw_error), ResponseTooLarge):
            if cause is raw_error:
                raise self._end(cause, details, path)
            raise raw_error  # not caught at nullable fields, so it ends the operation
        super().handle_field_error(raw_error, return_type, details, path)

    def _end(self, error: ResponseTooLarge, details: Any, path: Path) -> GraphQLError:
        """Return the error that ends the operation. That of a mutation says what is stored."""
        keys = path.as_list()
        if self.operation.operation is OperationType.MUTATION:
            error = ResponseTooLarge(
                f"{error.message} What `{keys[0]}` wrote stands, and so does what the mutations "
                "before it wrote; those after it were not begun."
            )
        return located_error(error, [detail.node for detail in details], keys)
