"""The floors of README.md: imports go down only, and one place commits."""

import ast
from pathlib import Path

import app

ROOT = Path(app.__file__).parent
FLOORS = [
    {"app.errors", "app.expiry", "app.line_writer", "app.measures", "app.numerals", "app.spans"},
    {"app.json_text", "app.log"},
    {"app.auth"},
    {"app.activity"},
    {"app.identity"},
    {"app.settings"},
    {"app.log_format"},
    {"app.models"},
    {"app.migrations"},
    {"app.store"},
    {"app.view"},
    {"app.turns", "app.timeline", "app.authentication", "app.http", "app.conditions"},
    {"app.rate_limits"},
    {"app.admission", "app.shared_counts"},
    {"app.problems", "app.observation"},
    {"app.middleware"},
    {"app.graphql_server", "app.openapi"},
    {"app.graphql"},
    {"app.rest", "app.health", "app.metrics"},
    {"app.tracing"},
    {"app.main"},
    {"app.demo", "app.environment", "app.importers", "app.server"},
    {"app.commands"},
    {"app.cli"},
    {"app.__main__"},
]
DOORS = ("app.graphql", "app.rest")
GRAPHQL_SERVER = "app.graphql_server"
MODULES = {
    ".".join(("app", *file.relative_to(ROOT).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): ast.parse(file.read_text())
    for file in ROOT.rglob("*.py")
}


def imports(tree: ast.Module) -> set[str]:
    """The modules of ours that a module imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            whole = f"{node.module}."
            names |= {
                whole + alias.name if whole + alias.name in MODULES else str(node.module)
                for alias in node.names
            }
    return {name for name in names if name == "app" or name.startswith("app.")}


def package(module: str) -> str:
    return ".".join(module.split(".")[:2])


def floor(module: str) -> int:
    [number] = [number for number, names in enumerate(FLOORS) if package(module) in names]
    return number


def test_every_module_has_a_floor() -> None:
    assert {package(module) for module in MODULES} - {"app"} == set().union(*FLOORS)


def test_imports_go_down() -> None:
    wrong = [
        (module, imported)
        for module, tree in MODULES.items()
        for imported in imports(tree)
        if package(module) != package(imported) and floor(imported) >= floor(module)
    ]

    assert wrong == []


def test_the_doors_do_not_know_each_other() -> None:
    wrong = [
        (module, imported)
        for module, tree in MODULES.items()
        for imported in imports(tree)
        if package(module) in DOORS and package(imported) in set(DOORS) - {package(module)}
    ]

    assert wrong == []


def test_the_graphql_server_serves_any_schema() -> None:
    allowed = {GRAPHQL_SERVER, "app.errors", "app.expiry", "app.http", "app.json_text"}

    wrong = [
        (module, imported)
        for module, tree in MODULES.items()
        for imported in imports(tree)
        if package(module) == GRAPHQL_SERVER and package(imported) not in allowed
    ]

    assert wrong == []


def test_there_is_no_import_circle() -> None:
    open_modules: list[str] = []
    done: set[str] = set()

    def visit(module: str) -> None:
        assert module not in open_modules, [*open_modules, module]
        if module in done or module not in MODULES:
            return
        open_modules.append(module)
        for imported in imports(MODULES[module]):
            visit(imported)
        done.add(open_modules.pop())

    for module in MODULES:
        visit(module)


def test_no_function_imports() -> None:
    wrong = [
        (module, node.lineno)
        for module, tree in MODULES.items()
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]

    assert wrong == []


def test_one_place_commits() -> None:
    commits = [
        module
        for module, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "commit"
    ]

    assert commits == ["app.store.engine"]
