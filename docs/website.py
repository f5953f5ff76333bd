"""The site: every page in reading order, and the API beside them: `python docs/website.py FOLDER`.

Nothing is fetched. A link, an anchor or a picture that leads nowhere ends the build.
"""

import io
import json
import os.path
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import jinja2
from markdown_it import MarkdownIt
from markdown_it.token import Token
from matplotlib import rc_context
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import math_to_image

ROOT = Path(__file__).parents[1]
TEMPLATES = Path(__file__).parent / "templates"
ORDER = {  # section -> pages and how the navigation calls them; a pattern's pages name themselves
    "Begin": {
        "README.md": "What lsmprobe is",
        "docs/first-steps.md": "First steps",
        "docs/your-own-corpus.md": "Your own corpus",
        "docs/corpora.md": "Corpora",
        "docs/checkpoints.md": "Checkpoints",
    },
    "Ask": {
        "docs/questions.md": "What can be asked",
        "docs/splits.md": "Splits",
        "docs/statistics.md": "Statistics",
        "docs/analysis.md": "Layer analysis",
        "docs/report.md": "Report and page",
        "docs/transfer.md": "Transfer and prediction",
        "docs/baselines.md": "Baselines",
    },
    "Notebooks": {"notebooks/*.ipynb": ""},
    "Run": {
        "docs/cluster.md": "Cluster",
        "docs/scale.md": "Scale",
        "docs/performance.md": "Performance",
        "docs/reliability.md": "Reliability",
        "docs/cache-format.md": "Formats",
    },
    "Behind it": {
        "docs/trials.md": "Measured results",
        "docs/design.md": "Design",
        "CONTRIBUTING.md": "Contributing",
        "CHANGELOG.md": "Changes",
    },
    "Lab notes": {"docs/lab/*.md": ""},
}
API = "api/lsmprobe.html"
RENDERED = (".md", ".ipynb")
MARKDOWN = MarkdownIt("commonmark").enable("table")


def place(source: str) -> str:
    """Where a file of the repository stands in the site."""
    if source == "README.md":
        return "index.html"
    path = PurePosixPath(source.removeprefix("docs/"))
    return str(path.with_suffix(".html")).lower() if path.suffix in RENDERED else str(path)


def relative(target: str, page: "Page") -> str:
    """A place in the site as the links of a page name it."""
    return os.path.relpath(target, PurePosixPath(place(page.source)).parent)


@dataclass(frozen=True)
class Page:
    """A page by its path in the repository and its name in the navigation, if it is given one."""

    source: str
    given_name: str = ""
    root: Path = ROOT

    @cached_property
    def tokens(self) -> list[Token]:
        """The page as markdown-it reads it; links still lead to files of the repository."""
        text = (self.root / self.source).read_text("utf-8")
        if self.source.endswith(".ipynb"):
            text = "\n\n".join(map(_cell, json.loads(text)["cells"]))
        return MARKDOWN.parse(text)

    @cached_property
    def headings(self) -> list[tuple[Token, Token]]:
        """The opening and the text of each heading."""
        tokens = self.tokens
        return [
            (token, tokens[place + 1])
            for place, token in enumerate(tokens)
            if token.type == "heading_open"
        ]

    @cached_property
    def anchors(self) -> list[str]:
        """What a link calls each heading, as on GitHub; a repeated one has a number."""
        found: list[str] = []
        for _, text in self.headings:
            name = re.sub(r"[^\w\- ]", "", _plain(text).lower()).strip().replace(" ", "-")
            before = found.count(name)
            found.append(f"{name}-{before}" if before else name)
        return found

    @property
    def name(self) -> str:
        """In the navigation; that of a note begins with its day."""
        day = re.match(r"\d{4}-\d\d-\d\d", PurePosixPath(self.source).name)
        heading = self.given_name or _plain(self.headings[0][1])
        return f"{day[0]}: {heading}" if day else heading

    def links(self) -> Iterator[tuple[Token, str, Token]]:
        """Each link and picture within the repository, the attribute that names it, its text."""
        for children in (token.children for token in self.tokens if token.children):
            for child, shown in zip(children, [*children[1:], children[-1]], strict=True):
                for attribute in ("href", "src"):
                    if not re.match(r"https?:|mailto:", str(child.attrGet(attribute) or "https:")):
                        yield child, attribute, shown


def _cell(cell: dict[str, object]) -> str:
    text = "".join(cell["source"])  # type: ignore[call-overload]
    return text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```"


def _plain(inline: Token) -> str:
    return "".join(child.content for child in inline.children or ())


def read_pages(root: Path = ROOT) -> dict[str, list[Page]]:
    """The pages of each section, in reading order."""
    return {
        section: [
            Page(path.relative_to(root).as_posix(), name, root)
            for pattern, name in pages.items()
            for path in sorted(root.glob(pattern))
        ]
        for section, pages in ORDER.items()
    }


def lead_within_the_site(pages: list[Page]) -> tuple[set[str], list[str]]:
    """Turn every link to a file of the repository into one to where it stands in the site.

    A page that is shown by its file is shown by its name.

    Returns:
        The files that are no pages and are linked to; and what leads nowhere, a line each.
    """
    by_source = {page.source: page for page in pages}
    files, broken = set(), []
    for page in pages:
        for token, attribute, shown in page.links():
            link = str(token.attrGet(attribute))
            path, _, anchor = link.partition("#")
            folder = PurePosixPath(page.source).parent
            source = os.path.normpath(folder / path) if path else page.source
            other = by_source.get(source)
            if other is None and not (page.root / source).is_file():
                broken.append(
                    f"{page.source}: ({link}) leads to {source}, which is no file of the "
                    "repository; correct the link."
                )
            elif anchor and (other is None or anchor not in other.anchors):
                broken.append(
                    f"{page.source}: ({link}) leads to a heading that {source} does not have; "
                    "correct the link or the heading."
                )
            if other is None:
                files.add(source)
            elif shown.content == path:
                shown.content = other.name
            target = relative(place(source), page)
            token.attrSet(attribute, f"{target}#{anchor}" if anchor else target)
    return files, broken


def html(page: Page) -> str:
    """A page's own part of its HTML: headings with anchors, wide tables that scroll, formulas."""
    for (heading, _), anchor in zip(page.headings, page.anchors, strict=True):
        heading.attrSet("id", anchor)
    for token in page.tokens:
        if token.type == "inline" and re.fullmatch(r"\$\$.*\$\$", token.content):
            token.type, token.content = "html_block", _formula(token.content[1:-1])
    text = MARKDOWN.renderer.render(page.tokens, MARKDOWN.options, {})
    return text.replace("<table>", '<div class="wide"><table>').replace(
        "</table>", "</table></div>"
    )


def _formula(text: str) -> str:
    drawn = io.BytesIO()
    with rc_context({"savefig.transparent": True}):
        math_to_image(text, drawn, prop=FontProperties(size=15), format="svg")
    svg = drawn.getvalue().decode()
    return re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.S)


def build(out: Path, root: Path = ROOT) -> None:
    """Write the pages and what they show; ends the process where something leads nowhere."""
    sections = read_pages(root)
    pages = [page for own in sections.values() for page in own]
    files, broken = lead_within_the_site(pages)
    if broken:
        sys.exit("\n".join(broken))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True
    )
    template = environment.get_template("page.html.jinja2")
    for before, page, after in zip([None, *pages], pages, [*pages[1:], None], strict=False):
        target = out / place(page.source)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = template.render(
            page=page,
            content=html(page),
            contents=[
                (anchor, _plain(text))
                for (heading, text), anchor in zip(page.headings, page.anchors, strict=True)
                if heading.tag == "h2"
            ],
            sections=sections,
            before=before,
            after=after,
            link=lambda source, page=page: relative(place(source), page),
            api=relative(API, page),
        )
        target.write_text(text, "utf-8")
    for source in files:
        target = out / place(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / source, target)


if __name__ == "__main__":
    import api

    folder = Path(sys.argv[1])
    shutil.rmtree(folder, ignore_errors=True)
    build(folder)
    api.build(folder / "api")
    print(folder / "index.html")
