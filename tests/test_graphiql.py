"""GraphiQL: what a browser gets without a token, and that nothing comes from elsewhere."""

import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from importlib.resources import files
from posixpath import basename, dirname
from urllib.parse import urljoin, urlsplit

import httpx2
import pytest

from app.settings import Settings
from tests.support.service import Service, start

pytestmark = pytest.mark.any_engine

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8"}
POLICY = (
    "default-src 'none'; script-src 'self'; "
    "style-src 'self' 'sha256-Y/huXlwoYkVyQlxwSVcCi1RCDGDCSVBzDt0hYP9qlTc='; "
    "font-src data:; img-src data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
CONTENT_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
}
WHEEL = "graphene_django_graphiql_static"
FOR_GOOD = "public, max-age=31536000, immutable"
ADDRESS_ATTRIBUTES = {"href", "src", "action", "formaction", "data", "poster", "srcset"}


class Page(HTMLParser):
    """Collects what a page loads, and what runs or styles inside it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.inline: list[str] = []
        self._open = ""
        self.feed(text)
        self.close()

    @property
    def assets(self) -> list[str]:
        """The paths of the files it names, as a browser at /graphql finds them."""
        return [urljoin("/graphql", one) for one in self.addresses if not one.startswith("data:")]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open = tag
        self.addresses += [value or "" for name, value in attrs if name in ADDRESS_ATTRIBUTES]
        self.inline += [name for name, _ in attrs if name == "style" or name.startswith("on")]
        if tag == "style":
            self.inline.append(tag)

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open in {"script", "style"} and data.strip():
            self.inline.append(data)


async def get_page(service: Service) -> httpx2.Response:
    return await service.http.get("/graphql", headers=BROWSER)


async def load(service: Service) -> Page:
    return Page((await get_page(service)).text)


async def asset_named(service: Service, name: str) -> httpx2.Response:
    [path] = [path for path in (await load(service)).assets if basename(path) == name]
    return await service.http.get(path)


@pytest.fixture
async def without_graphiql(settings: Settings) -> AsyncIterator[Service]:
    async with start(settings.model_copy(update={"graphiql": False})) as running:
        yield running


async def test_a_browser_gets_the_page_without_a_token(service: Service) -> None:
    response = await get_page(service)

    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "GraphiQL" in response.text
    assert "{own}" not in response.text
    assert "{vendor}" not in response.text


async def test_the_page_has_its_headers(service: Service) -> None:
    headers = (await get_page(service)).headers

    assert headers.get_list("Content-Security-Policy") == [POLICY]
    assert "unsafe-" not in POLICY
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-cache"
    assert "Accept" in headers["Vary"]
    assert "Set-Cookie" not in headers


async def test_the_page_is_the_same_for_everybody(service: Service) -> None:
    client = await service.client()
    known = await client.request("GET", "/graphql", headers=BROWSER)

    assert known.text == (await get_page(service)).text
    assert client.token not in known.text


async def test_head_has_the_headers_and_no_body(service: Service) -> None:
    response = await service.http.head("/graphql", headers=BROWSER)

    assert response.status_code == 200
    assert response.headers["Content-Security-Policy"] == POLICY
    assert response.content == b""


@pytest.mark.parametrize("accept", ["application/json", "application/graphql-response+json", "*/*"])
async def test_who_does_not_ask_for_html_gets_no_page(service: Service, accept: str) -> None:
    response = await service.http.get("/graphql", headers={"Accept": accept})

    assert 400 <= response.status_code < 500
    assert "html" not in response.headers["Content-Type"]


async def test_the_page_loads_its_own_origin_only(service: Service) -> None:
    page = await load(service)

    assert page.assets
    for address in page.addresses:
        parts = urlsplit(address)
        assert parts.netloc == ""
        assert parts.scheme in {"", "data"}
        # Relative, so that it also works behind a path prefix.
        assert not address.startswith("/")


async def test_the_page_has_nothing_inline(service: Service) -> None:
    page = await load(service)

    assert page.inline == []


async def test_our_files_name_no_other_host(service: Service) -> None:
    texts = [(await get_page(service)).text]
    texts += [(await asset_named(service, name)).text for name in ("page.js", "page.css")]

    for text in texts:
        assert "http://" not in text
        assert "https://" not in text
    script, style = texts[1:]
    assert "import(" not in script
    assert "eval(" not in script
    assert "@import" not in style
    assert "url(" not in style


async def test_the_examples_fit_the_editor_of_a_window_of_1400_pixels(service: Service) -> None:
    script = (await asset_named(service, "page.js")).text
    examples = re.findall(r"^const [A-Z]+ = `([^`]*)`;$", script, re.MULTILINE)

    assert len(examples) == 3
    assert max(len(line) for example in examples for line in example.splitlines()) <= 58


async def test_every_file_the_page_names_is_served(service: Service) -> None:
    paths = (await load(service)).assets

    assert {basename(path) for path in paths} == {
        "graphiql.min.css",
        "graphiql.min.js",
        "page.css",
        "page.js",
        "react-dom.production.min.js",
        "react.production.min.js",
    }
    for path in paths:
        response = await service.http.get(path)
        is_ours = basename(path).startswith("page.")
        assert response.status_code == 200, path
        assert response.content, path
        assert response.headers["Content-Type"] == CONTENT_TYPES[path[path.rindex(".") :]], path
        assert response.headers["X-Content-Type-Options"] == "nosniff", path
        assert response.headers["Cache-Control"] == ("no-cache" if is_ours else FOR_GOOD), path


async def test_a_file_that_has_not_changed_is_not_sent_again(service: Service) -> None:
    first = await asset_named(service, "page.js")
    again = await service.http.get(first.url, headers={"If-None-Match": first.headers["ETag"]})

    assert again.status_code == 304
    assert again.content == b""
    assert again.headers["Cache-Control"] == "no-cache"


async def test_other_files_of_the_folders_are_not_served(service: Service) -> None:
    paths = set((await load(service)).assets)
    [vendor] = {dirname(path) for path in paths if basename(path) == "graphiql.min.js"}
    [own] = {dirname(path) for path in paths if basename(path) == "page.js"}
    folders = {
        vendor: files(WHEEL) / "static" / WHEEL,
        own: files("app.graphql_server") / "static",
    }
    others = {
        f"{path}/{file.name}" for path, folder in folders.items() for file in folder.iterdir()
    } - paths

    assert f"{own}/graphiql.html" in others
    assert len(others) > 1
    for path in (*others, f"{own}/", f"{vendor}/", f"{own}/..%2fgraphiql.py"):
        assert (await service.http.get(path)).status_code == 404, path


async def test_switched_off_there_is_no_page_and_no_file(
    service: Service, without_graphiql: Service
) -> None:
    response = await get_page(without_graphiql)

    assert 400 <= response.status_code < 500
    assert "html" not in response.headers["Content-Type"]
    assert "errors" in response.json()
    for path in (await load(service)).assets:
        assert (await without_graphiql.http.get(path)).status_code == 404, path


async def test_switched_off_queries_are_answered(without_graphiql: Service) -> None:
    client = await without_graphiql.client()

    document = await client.graphql("{ viewer { name } }")

    assert document == {"data": {"viewer": {"name": "test"}}}
