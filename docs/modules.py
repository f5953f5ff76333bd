"""Write the table of modules into docs/design.md, from the docstrings: `python docs/modules.py`."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "design.md"
BEGIN, END = "<!-- modules: python docs/modules.py -->\n", "<!-- end of modules -->\n"


def summary(path: Path) -> str:
    """The first sentence of a module's docstring."""
    said = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return " ".join(said.partition("\n\n")[0].split()).replace("|", "\\|")


def table() -> str:
    """One row per module, package by package, the frame first."""
    package = ROOT / "lsmprobe"
    rows = ["| module | what it holds |", "|---|---|"]
    for folder in [package, *sorted(p.parent for p in package.glob("*/__init__.py"))]:
        for path in sorted(folder.glob("*.py"), key=lambda p: (p.stem != "__init__", p.stem)):
            name = path.relative_to(package).as_posix()
            shown = f"**`{folder.name}/`**" if path.stem == "__init__" else f"`{name}`"
            rows.append(f"| {shown} | {summary(path)} |")
    return "\n".join(rows) + "\n"


def page() -> str:
    """docs/design.md with the table as the docstrings have it now."""
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table()}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
