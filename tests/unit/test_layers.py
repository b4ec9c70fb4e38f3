"""What a function imports, itself and by way of the package, is in a layer that it is deployed with.

Read from the sources: of the composition root, which imports where it builds, only what the function builds counts.
"""

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from samtranslator.yaml_helper import yaml_parse

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "layers" / "core"
FUNCTIONS = sorted(path.parent.name for path in (ROOT / "functions").glob("*/app.py"))
BUILDERS = {"edda.services", "edda.providers"}
# What is started in a process of its own.
STARTED = {"edda.adapters.parser_process": "edda.parser_child"}


Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
Import = tuple[str, str | None]  # a module, and the name that is taken from it


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def source_of(module: str) -> Path | None:
    base = PACKAGE.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.exists()), None)


def nodes(*parts: ast.AST) -> Iterator[ast.AST]:
    """All of them but what is for type checkers alone."""
    waiting = list(parts)
    while waiting:
        node = waiting.pop()
        if not (isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            yield node
            waiting += ast.iter_child_nodes(node)


def imported(*parts: ast.AST) -> Iterator[Import]:
    for node in nodes(*parts):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield (whole, None) if source_of(whole) else (str(node.module), alias.name)


@cache
def imported_by(path: Path) -> list[Import]:
    return list(imported(tree(path)))


def imported_for(path: Path, wanted: set[str]) -> list[Import]:
    """What a builder's module imports for these names: with all that they name, and at its top without the others."""
    body = tree(path).body
    definitions = {one.name: one for one in body if isinstance(one, Definition)}
    reached: set[str] = set()
    while waiting := (wanted & definitions.keys()) - reached:
        reached |= waiting
        wanted = wanted | {
            node.id for node in nodes(*(definitions[name] for name in waiting)) if isinstance(node, ast.Name)
        }
    at_the_top = imported(*(one for one in body if not isinstance(one, Definition)))
    return [
        *imported(*(definitions[name] for name in reached)),
        *((module, name) for module, name in at_the_top if module not in BUILDERS or name in wanted),
    ]


def needs(function: str) -> set[str]:
    """The packages of others that a function imports, sooner or later."""
    app = tree(ROOT / "functions" / function / "app.py")
    builders = {node.attr for node in nodes(app) if isinstance(node, ast.Attribute)}  # services.ingestion
    waiting = list(imported(app))
    seen: set[Import] = set()
    others: set[str] = set()
    while waiting:
        one = module, name = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        path = source_of(module)
        if path is None:
            others.add(module.partition(".")[0])
        elif module in BUILDERS:
            waiting += imported_for(path, {name} if name else builders)
        else:
            waiting += imported_by(path)
            waiting += [(STARTED[module], None)] if module in STARTED else []
    return others - {"edda"} - set(sys.stdlib_module_names)


@cache
def template() -> dict[str, Any]:
    parsed: dict[str, Any] = yaml_parse((ROOT / "template.yaml").read_text(encoding="utf-8"))
    return parsed


def layers_of(function: str) -> set[str]:
    """The folders of its layers, whichever condition holds."""
    found = [
        template()["Resources"][f"{function.capitalize()}Function"]["Properties"].get("Layers", []),
        template()["Globals"]["Function"]["Layers"],
    ]
    names: set[str] = set()
    while found:
        match found.pop():
            case {"Ref": str(name)}:
                names.add(name)
            case {"Fn::If": [_, *either]}:
                found += either
            case list(several):
                found += several
    return {name.removesuffix("Layer").lower() for name in names}


def carried_by(layer: str) -> set[str]:
    """The distributions that a layer installs."""
    lock = ROOT / "layers" / layer / "requirements.txt"
    text = lock.read_text(encoding="utf-8") if lock.exists() else ""
    return {_normal(name) for name in re.findall(r"^([A-Za-z0-9._-]+)==", text, re.M)}


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


@cache
def distributions() -> dict[str, set[str]]:
    """By the packages that they bring."""
    return {package: set(map(_normal, names)) for package, names in packages_distributions().items()}


def missing(needed: set[str], carried: set[str]) -> set[str]:
    return {package for package in needed if not distributions().get(package, set()) & carried}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_is_deployed_with_all_that_it_imports(function: str) -> None:
    carried = {name for layer in layers_of(function) for name in carried_by(layer)}
    assert missing(needs(function), carried) == set()


@pytest.mark.parametrize(
    ("function", "layer", "requirement"),
    [
        ("api", "dependencies", "pydantic"),
        ("search", "dependencies", "pystemmer"),
        ("answer", "dependencies", "aiohttp"),
        ("answer", "model", "onnxruntime"),
        ("chunk", "parsing", "regex"),
        ("chunk", "parsing", "kreuzberg"),
        ("embed", "dependencies", "numpy"),
        ("migrate", "dependencies", "psycopg"),
        ("sweep", "dependencies", "aioboto3"),
    ],
)
def test_a_requirement_less_is_noticed(function: str, layer: str, requirement: str) -> None:
    layers = layers_of(function)
    assert layer in layers
    carried = {name for layer in layers for name in carried_by(layer)}
    assert missing(needs(function), carried - {requirement})


def test_a_function_does_not_need_what_others_build() -> None:
    assert "kreuzberg" not in needs("search")
    assert "aiohttp" not in needs("migrate")
