"""Who may import whom (CONTRIBUTING.md says why), read from the source; and what importing a function costs."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "layers" / "core" / "edda"
FUNCTIONS = sorted((ROOT / "functions").glob("*/app.py"))
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

VERBS = {
    "edda.ingesting",
    "edda.embedding",
    "edda.metering",
    "edda.delivering",
    "edda.sweeping",
    "edda.documents",
    "edda.reporting",
    "edda.searching",
    "edda.answering",
    "edda.indexing",
    "edda.observing",
    "edda.operating",
}
# The outer ring: what knows the environment and builds real things.
OUTER = {
    "edda.services",
    "edda.owner",
    "edda.conninfo",
    "edda.providers",
    "edda.runtime",
    "edda.observability",
    "edda.settings",
    "edda.admin",
    "edda.gateway",
    "edda.preloading",
}
PLATFORM = {"boto3", "botocore", "aioboto3", "aiobotocore", "aws_lambda_powertools", "aiohttp", "httpx"}
HEAVY = {"aioboto3", "aiobotocore", "boto3", "kreuzberg", "onnxruntime", "numpy", "httpx", "aiohttp"}


def imports(path: Path, *, at_import_time: bool = False) -> set[str]:
    """The full names of what a file imports; of `from a import b` both `a` and `a.b`, for b may be a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = set()
    for node in _top_level(tree) if at_import_time else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _top_level(tree: ast.Module) -> Iterator[ast.AST]:
    """What runs when the module is imported; not what is for type checkers alone."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        waiting += ast.iter_child_nodes(node)


def roots(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("name", sorted(VERBS))
def test_a_verb_knows_no_sdk_no_environment_and_no_adapter(name: str) -> None:
    imported = imports(MODULES[name])
    assert not roots(imported) & (PLATFORM | {"os", "psycopg"})
    assert not imported & OUTER
    assert not {one for one in imported if one.startswith("edda.adapters")}


@pytest.mark.parametrize("name", sorted(name for name in MODULES if name.startswith("edda.store")))
def test_the_store_knows_neither_adapters_nor_verbs_nor_the_environment(name: str) -> None:
    imported = imports(MODULES[name])
    assert not imported & (OUTER | VERBS)
    assert not roots(imported) & (PLATFORM | {"os"})
    assert not {one for one in imported if one.startswith("edda.adapters")}


@pytest.mark.parametrize("name", sorted(name for name in MODULES if name.startswith("edda.adapters.")))
def test_an_adapter_knows_ports_and_not_who_uses_them(name: str) -> None:
    imported = imports(MODULES[name])
    assert not imported & (OUTER - {"edda.settings"} | VERBS)
    assert not {one for one in imported if one.startswith("edda.store")}


@pytest.mark.parametrize("name", ["edda.models", "edda.errors", "edda.messages", "edda.identity", "edda.s3_events"])
def test_the_innermost_modules_know_the_standard_library_and_pydantic_only(name: str) -> None:
    outside = roots(imports(MODULES[name])) - set(sys.stdlib_module_names) - {"edda", "pydantic"}
    assert outside == set()


@pytest.mark.parametrize("name", ["edda.models", "edda.errors"])
def test_models_and_errors_know_nothing_of_ours(name: str) -> None:
    assert "edda" not in roots(imports(MODULES[name]))


@pytest.mark.parametrize("name", sorted(MODULES))
def test_nobody_imports_a_function_or_a_test(name: str) -> None:
    assert not roots(imports(MODULES[name])) & {"functions", "app", "tests", "local"}


@pytest.mark.parametrize("path", FUNCTIONS, ids=lambda path: path.parent.name)
def test_a_function_imports_no_other_function_and_no_adapter_and_no_store(path: Path) -> None:
    imported = imports(path)
    assert not roots(imported) & {"functions", "app", "tests"}
    assert not roots(imported) & (PLATFORM - {"aws_lambda_powertools"})
    assert not {one for one in imported if one.startswith(("edda.adapters", "edda.store"))}


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"edda.settings", "edda.adapters.parser_process"}))
def test_the_environment_is_read_in_one_place(name: str) -> None:
    """The parser's process inherits a part of it, unread."""
    text = MODULES[name].read_text(encoding="utf-8")
    assert "os.environ" not in text
    assert "getenv" not in text


@pytest.mark.parametrize("name", sorted(name for name in MODULES if not name.startswith("edda.adapters.")))
def test_what_is_heavy_is_imported_where_it_is_used(name: str) -> None:
    """A function loads only what it needs: the composition root imports adapters inside its builders."""
    assert not roots(imports(MODULES[name], at_import_time=True)) & HEAVY


@pytest.mark.parametrize("path", FUNCTIONS, ids=lambda path: path.parent.name)
def test_importing_a_function_needs_no_environment_opens_nothing_and_loads_nothing_heavy(
    path: Path,
) -> None:
    """Its time is printed (-s shows it), not asserted: that would fail on a busy machine."""
    script = (
        "import sys, time, runpy\n"
        "began = time.perf_counter()\n"
        f"runpy.run_path({str(path)!r})\n"
        "print(round((time.perf_counter() - began) * 1000), *sorted(set(sys.modules) & set(sys.argv[1:])))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script, *sorted(HEAVY), "edda.answering"],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    milliseconds, *heavy = done.stdout.split()
    print(f"\nimport of {path.parent.name}: {milliseconds} ms")
    assert heavy == []


def test_every_named_query_is_used() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in MODULES.values())
    for file in (PACKAGE / "sql").glob("*.sql"):
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.startswith("-- name: "):
                name = line.removeprefix("-- name: ").strip()
                assert f'"{name}"' in code, f"{file.name}: {name}"
