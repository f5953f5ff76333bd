"""Build the API documentation from the docstrings: `python docs/api.py FOLDER`."""

import sys
from pathlib import Path

import pdoc

import lsmprobe

for name in lsmprobe.__all__:  # the public names are lazy, and pdoc looks for them in the module
    setattr(lsmprobe, name, getattr(lsmprobe, name))

package = Path(lsmprobe.__file__).parent
modules = sorted(
    ".".join(path.relative_to(package).with_suffix("").parts).removesuffix(".__init__")
    for path in [*package.rglob("[!_]*.py"), *package.glob("*/__init__.py")]
)
pdoc.render.configure(docformat="google", show_source=False)
pdoc.pdoc(
    "lsmprobe", *(f"lsmprobe.{module}" for module in modules), output_directory=Path(sys.argv[1])
)
