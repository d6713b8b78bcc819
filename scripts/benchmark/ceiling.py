"""The ceiling: what the server and the framework cost without any work behind them."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

METHODS = ["GET", "POST", "PUT"]


async def answer(request: Request) -> Response:
    await request.body()
    return Response(b'{"data":{"ok":true}}', media_type="application/json")


app = Starlette(routes=[Route("/{path:path}", answer, methods=METHODS)])
