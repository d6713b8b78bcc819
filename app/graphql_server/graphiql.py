"""Serves GraphiQL, the explorer for GraphQL in a browser, and the files that its page loads.

Third-party files come from an installed wheel, so the page loads nothing from other hosts and this
repository holds no copy. It knows nothing of the schema, tokens or tickets.
"""

import os
from importlib.metadata import version
from pathlib import Path

from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

_WHEEL = "graphene_django_graphiql_static"
_OWN_PATH = "/graphiql/page"
_VENDOR_PATH = f"/graphiql/{version(_WHEEL)}"

_TEMPLATE = Path(__file__).with_name("static") / "graphiql.html"

# The style element that GraphiQL's dialogs add (react-remove-scroll), always the same in a page
# without margins and scroll bars (page.css).
_DIALOG_STYLE = "'sha256-Y/huXlwoYkVyQlxwSVcCi1RCDGDCSVBzDt0hYP9qlTc='"

# The page may run and load its own origin's files, and nothing else; GraphiQL's style sheet
# carries its fonts and a few images in itself, as data.
_CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        f"style-src 'self' {_DIALOG_STYLE}",
        "font-src data:",
        "img-src data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)


def graphiql_page() -> Response:
    """Return the response to a browser's `GET /graphql`. It is the same for everybody."""
    # Relative addresses, so that the service also works behind a path prefix.
    page = _TEMPLATE.read_text("utf-8")
    page = page.replace("{own}", _OWN_PATH[1:]).replace("{vendor}", _VENDOR_PATH[1:])
    return HTMLResponse(
        page,
        headers={
            "Cache-Control": "no-cache",
            "Content-Security-Policy": _CONTENT_SECURITY_POLICY,
            "Referrer-Policy": "no-referrer",
            "Vary": "Accept",  # the same address responds to queries
        },
    )


class _Files(StaticFiles):
    """Serves the named files of a package's folder, and no others."""

    def __init__(self, package: str, folder: str, names: set[str], cache_control: str) -> None:
        super().__init__(packages=[(package, folder)])
        self._names = names
        self._headers = {"Cache-Control": cache_control}

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        return super().lookup_path(path) if path in self._names else ("", None)

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(self._headers)
        return response


def graphiql_routes() -> list[BaseRoute]:
    """Return the routes of the files that the page loads."""
    vendor = _Files(
        _WHEEL,
        f"static/{_WHEEL}",
        {
            "graphiql.min.css",
            "graphiql.min.js",
            "react-dom.production.min.js",
            "react.production.min.js",
        },
        # The address holds the version of the wheel, so the file behind it never changes.
        "public, max-age=31536000, immutable",
    )
    own = _Files("app.graphql_server", "static", {"page.css", "page.js"}, "no-cache")
    return [Mount(_VENDOR_PATH, vendor), Mount(_OWN_PATH, own)]
