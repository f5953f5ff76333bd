"""The documentation of every function, from the docstrings, as pages beside the others."""

from pathlib import Path

import pdoc

import lsmprobe

TEMPLATES = Path(__file__).parent / "templates"


def build(out: Path) -> None:
    """Write out/lsmprobe.html and a page for each module below it."""
    for name in lsmprobe.__all__:  # public names are lazy, and pdoc looks for them in the module
        setattr(lsmprobe, name, getattr(lsmprobe, name))
    package = Path(lsmprobe.__file__).parent
    modules = sorted(
        ".".join(path.relative_to(package).with_suffix("").parts).removesuffix(".__init__")
        for path in [*package.rglob("[!_]*.py"), *package.glob("*/__init__.py")]
    )
    pdoc.render.configure(
        docformat="google", show_source=False, template_directory=TEMPLATES / "api"
    )
    pdoc.pdoc("lsmprobe", *(f"lsmprobe.{module}" for module in modules), output_directory=out)
