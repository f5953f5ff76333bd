"""lsmprobe: what a frozen large speech model knows about emotion, layer by layer.

The names below are imported on first use, so that `import lsmprobe` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from lsmprobe.analysis import layer_weights as layer_weights
    from lsmprobe.cache import FeatureCache as FeatureCache
    from lsmprobe.config import ExtractConfig as ExtractConfig
    from lsmprobe.config import ProbeConfig as ProbeConfig
    from lsmprobe.corpora import read_corpus as read_corpus
    from lsmprobe.errors import LsmprobeError as LsmprobeError
    from lsmprobe.extraction import extract as extract
    from lsmprobe.figures import draw_layer_weights as draw_layer_weights
    from lsmprobe.probing import probe as probe
    from lsmprobe.report import score_table as score_table
    from lsmprobe.results import load_results as load_results

_HOME = {
    "ExtractConfig": "config",
    "FeatureCache": "cache",
    "LsmprobeError": "errors",
    "ProbeConfig": "config",
    "draw_layer_weights": "figures",
    "extract": "extraction",
    "layer_weights": "analysis",
    "load_results": "results",
    "probe": "probing",
    "read_corpus": "corpora",
    "score_table": "report",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lsmprobe' has no attribute {name!r}")
    return getattr(import_module(f"lsmprobe.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
