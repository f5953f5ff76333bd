"""The documentation: what docstrings promise, that their examples run, that it can be built."""

import ast
import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import lsmprobe
from lsmprobe import errors

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lsmprobe"
SOURCES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("[!_]*.py"))
}
WITH_EXAMPLES = [name for name, path in SOURCES.items() if ">>>" in path.read_text()]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
ERRORS = {name for name, kind in vars(errors).items() if inspect.isclass(kind)}


def public_functions():
    """(name, function) of every public function, and every public method of a public class."""
    for name in lsmprobe.__all__:
        found = getattr(lsmprobe, name)
        if inspect.isfunction(found):
            yield name, inspect.unwrap(found)
        elif not issubclass(found, errors.LsmprobeError):
            for method, function in vars(found).items():
                if inspect.isfunction(function) and not method.startswith("_"):
                    yield f"{name}.{method}", inspect.unwrap(function)


FUNCTIONS = dict(public_functions())


@pytest.mark.parametrize("name", lsmprobe.__all__)
def test_every_public_name_says_what_it_is(name):
    summary = (inspect.getdoc(getattr(lsmprobe, name)) or "").partition("\n\n")[0]
    assert summary.endswith((".", "?"))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_says_what_goes_in_and_comes_out(name):
    function = FUNCTIONS[name]
    said = inspect.getdoc(function) or ""
    assert said
    signature = inspect.signature(function)
    parameters = [parameter for parameter in signature.parameters if parameter != "self"]
    if len(parameters) > 2:
        listed = said.partition("Args:")[2]
        assert [parameter for parameter in parameters if f"{parameter}:" not in listed] == []
    if "DataFrame" in str(signature.return_annotation):
        assert "row" in said.lower() or "column" in said.lower()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_names_the_errors_it_raises(name):
    function = FUNCTIONS[name]
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    calls = (node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise))
    raised = {getattr(getattr(call, "func", None), "id", "") for call in calls} & ERRORS
    listed = (inspect.getdoc(function) or "").partition("Raises:")[2]
    assert "LsmprobeError" in listed or {error for error in raised if error not in listed} == set()


def test_the_examples_give_what_they_say():
    """In a process of its own, where nobody checks types, as for a reader who tries them."""
    code = (
        "import doctest, importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    found = doctest.testmod(importlib.import_module(f'lsmprobe.{name}'))\n"
        "    assert found.attempted and not found.failed, name\n"
    )
    command = [sys.executable, "-W", "error", "-c", code, *WITH_EXAMPLES]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_public_name_is_not_that_of_a_package():
    """Else `lsmprobe.NAME` would be the one or the other, by what was imported first."""
    assert not {*lsmprobe.__all__} & {name.partition(".")[0] for name in SOURCES}


@pytest.mark.slow
def test_the_documentation_is_built_without_a_warning(tmp_path):
    pytest.importorskip("pdoc", reason="pdoc is a part of the extra dev")
    command = [sys.executable, "-W", "error", str(ROOT / "docs" / "api.py"), str(tmp_path)]
    built = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (built.returncode, built.stderr) == (0, "")
    page = (tmp_path / "lsmprobe.html").read_text()
    assert [name for name in lsmprobe.__all__ if f'id="{name}"' not in page] == []
    built = {
        path.relative_to(tmp_path / "lsmprobe") for path in tmp_path.rglob("lsmprobe/**/*.html")
    }
    names = {".".join(path.with_suffix("").parts) for path in built}
    assert names == set(SOURCES) | {name.partition(".")[0] for name in SOURCES}


def test_the_table_of_modules_is_what_the_docstrings_say(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    import modules

    assert modules.page() == modules.PAGE.read_text("utf-8"), "run `python docs/modules.py`"


def prose(page):
    """A page of Markdown without its blocks of code."""
    return re.sub(r"^```.*?^```[ ]*$", "", page.read_text("utf-8"), flags=re.M | re.S)


def anchors(page):
    """What a heading is called by in a link, as GitHub does it; a repeated one gets a number."""
    found = []
    for heading in re.findall(r"^#+ (.*)$", prose(page), re.M):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        found.append(re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-"))
    return {
        name if not (before := found[:place].count(name)) else f"{name}-{before}"
        for place, name in enumerate(found)
    }


def test_every_relative_link_and_anchor_of_the_pages_resolves():
    broken = []
    for page in PAGES:
        links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(page)))
        for link in (link for link in links if not re.match(r"[a-z]+:", link)):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            if not target.exists() or (anchor and anchor not in anchors(target)):
                broken.append(f"{page.relative_to(ROOT)}: {link}")
    assert broken == []


def test_a_module_that_the_documentation_names_is_there():
    there = [f"/{path.relative_to(ROOT).as_posix()}" for path in ROOT.glob("*.py")]
    for folder in ("lsmprobe", "docs", "tests", "benchmarks"):
        there += [f"/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / folder).rglob("*.py")]
    missing = [
        f"{page.name}: {name}"
        for page in PAGES
        for name in re.findall(r"`([\w/]+\.py)`", page.read_text("utf-8"))
        if not any(path.endswith(f"/{name}") for path in there)
    ]
    assert missing == []
