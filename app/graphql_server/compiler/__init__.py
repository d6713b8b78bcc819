"""Operations compiled once, into Python that does what graphql-core would do each time.

graphql-core interprets: for each request it builds the types of the variables, collects the fields
of each object, coerces each argument, and for each field looks up its definition, builds an info
and asks by chains of questions what kind of type completes the value. None of that depends on the
request, but for the variables in @skip and @include. So it is done once for an operation that comes
again (and for each outcome of those), and what is left is a *plan*, a tree of functions:

    plans        collects the fields, with graphql-core's own functions, and builds the tree
    generation   a selection set: Python generated for it, in which a plain attribute takes no call
    fields       one field: resolve it, complete the value, settle errors
    resolvers    the attribute or the function that Strawberry would reach through its wrappers
    arguments    what the document says, with variables in their places
    completion   the value by its type: leaves, lists, objects (null propagation is here)
    variables    the variables of a request, by functions made from their types (input_types)

A plan holds nothing of a request. That is an `Execution`, and with it goes graphql-core's own
executor of the same operation, built when it is first needed. It does what is rare: it records and
locates errors, builds infos, settles what is abandoned, completes iterators; and it executes what
cannot be compiled (other directives, very many fields). `Compiler` counts both and bounds what is
kept.

The plan calls resolvers in the same order and waits for them in the same groups as graphql-core, so
that data, errors and their order are the same. tests/test_compiler.py holds it to that, and notices
when the code that is followed here changes in a new version of graphql-core or Strawberry.
"""

from app.graphql_server.compiler.compiler import Compiler
from app.graphql_server.compiler.execution import Execution, Result

__all__ = ["Compiler", "Execution", "Result"]
