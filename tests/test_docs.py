"""The documentation: what docstrings promise, that their examples run, that it can be built."""

import ast
import inspect
import re
import subprocess
import sys
import textwrap
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

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


@pytest.fixture(scope="module")
def website():
    """docs/website.py, which is no part of the package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "docs")
        import website

        yield website


def test_the_reading_order_lists_each_page_once(website):
    listed = [page.source for pages in website.read_pages().values() for page in pages]
    notebooks = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("notebooks/*.ipynb")}
    assert len(listed) == len(set(listed))
    assert set(listed) == notebooks | {page.relative_to(ROOT).as_posix() for page in PAGES}


def test_every_link_and_anchor_within_the_pages_leads_somewhere(website):
    pages = [page for own in website.read_pages().values() for page in own]
    files, broken = website.lead_within_the_site(pages)
    assert broken == []
    assert "docs/figures/page.png" in files


def test_what_leads_nowhere_ends_the_build_with_a_line_each(website, tmp_path):
    (tmp_path / "README.md").write_text("# A\n\n[b](docs/b.md), ![c](c.png), [a](#a), [d](#d)\n")
    with pytest.raises(SystemExit) as left:
        website.build(tmp_path / "site", tmp_path)
    assert str(left.value).splitlines() == [
        "README.md: (docs/b.md) leads to docs/b.md, which is no file of the repository; correct "
        "the link.",
        "README.md: (c.png) leads to c.png, which is no file of the repository; correct the link.",
        "README.md: (#d) leads to a heading that README.md does not have; correct the link or the "
        "heading.",
    ]


class Links(HTMLParser):
    """The anchors of a page, what it links to, and what a browser loads with it."""

    def __init__(self, page):
        super().__init__()
        self.ids, self.hrefs, self.loaded = set(), set(), set()
        self.feed(page.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        said = dict(attrs)
        self.ids.add(said.get("id"))
        if tag == "a":
            self.hrefs.add(said.get("href"))
        else:
            self.loaded |= {said.get("src"), said.get("href") if tag == "link" else None} - {None}


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_leads_nowhere_else(tmp_path):
    pytest.importorskip("pdoc", reason="pdoc is a part of the extra dev")
    command = [sys.executable, "-W", "error", str(ROOT / "docs" / "website.py"), str(tmp_path)]
    built = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (built.returncode, built.stderr) == (0, "")
    pages = {page: Links(page) for page in tmp_path.rglob("*.html")}
    own = [page for page in pages if tmp_path / "api" not in page.parents]
    for page in own:
        links = pages[page]
        assert not any(":" in loaded for loaded in links.loaded)
        for link in filter(lambda link: not link.startswith("https:"), links.hrefs | links.loaded):
            path, _, anchor = unquote(link).partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), (page, link)
            assert not anchor or anchor in pages[target].ids, (page, link)
        reached = {(page.parent / link.partition("#")[0]).resolve() for link in links.hrefs}
        assert reached >= {*own, tmp_path / "api" / "lsmprobe.html"} - {page}
    api = tmp_path / "api" / "lsmprobe.html"
    assert {*lsmprobe.__all__} <= pages[api].ids
    assert "../index.html" in pages[api].hrefs
    documented = {
        page.relative_to(tmp_path / "api" / "lsmprobe")
        for page in pages
        if api.with_suffix("") in page.parents
    }
    names = {".".join(path.with_suffix("").parts) for path in documented}
    assert names == set(SOURCES) | {name.partition(".")[0] for name in SOURCES}


def test_the_table_of_modules_is_what_the_docstrings_say(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    import modules

    assert modules.page() == modules.PAGE.read_text("utf-8"), "run `python docs/modules.py`"


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
