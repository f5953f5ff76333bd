"""lsmprobe: what a frozen large speech model knows about emotion, layer by layer.

The names below are imported on first use, so that `import lsmprobe` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from lsmprobe.analysis import layer_health as layer_health
    from lsmprobe.analysis import layer_similarity as layer_similarity
    from lsmprobe.analysis import project_layer as project_layer
    from lsmprobe.cache import FeatureCache as FeatureCache
    from lsmprobe.comparison import compare_records as compare_records
    from lsmprobe.comparison import compare_runs as compare_runs
    from lsmprobe.config import ExtractConfig as ExtractConfig
    from lsmprobe.config import ProbeConfig as ProbeConfig
    from lsmprobe.config import SensitivityConfig as SensitivityConfig
    from lsmprobe.config import TransferConfig as TransferConfig
    from lsmprobe.corpora import read_corpus as read_corpus
    from lsmprobe.errors import LsmprobeError as LsmprobeError
    from lsmprobe.extraction import extract as extract
    from lsmprobe.figures import draw_layer_weights as draw_layer_weights
    from lsmprobe.layer_figures import draw_health as draw_health
    from lsmprobe.layer_figures import draw_knowledge as draw_knowledge
    from lsmprobe.layer_figures import draw_layer_curve as draw_layer_curve
    from lsmprobe.layer_figures import draw_learning_curve as draw_learning_curve
    from lsmprobe.layer_figures import draw_projection as draw_projection
    from lsmprobe.layer_figures import draw_similarity as draw_similarity
    from lsmprobe.layer_figures import draw_transfer as draw_transfer
    from lsmprobe.layer_figures import draw_transfer_layers as draw_transfer_layers
    from lsmprobe.layer_figures import draw_weight_lines as draw_weight_lines
    from lsmprobe.layer_probes import best_layer as best_layer
    from lsmprobe.layer_probes import knowledge_sentences as knowledge_sentences
    from lsmprobe.layer_probes import knowledge_table as knowledge_table
    from lsmprobe.layer_probes import probe_layers as probe_layers
    from lsmprobe.layer_probes import what_layers_know as what_layers_know
    from lsmprobe.learning_curves import learning_curve as learning_curve
    from lsmprobe.prediction import predict as predict
    from lsmprobe.probing import probe as probe
    from lsmprobe.results import load_results as load_results
    from lsmprobe.scoreboard import score_table as score_table
    from lsmprobe.sensitivity import flip_choices as flip_choices
    from lsmprobe.transferring import transfer as transfer
    from lsmprobe.transferring import transfer_layers as transfer_layers
    from lsmprobe.transferring import transfer_matrix as transfer_matrix
    from lsmprobe.weights import average_weights as average_weights
    from lsmprobe.weights import layer_drops as layer_drops
    from lsmprobe.weights import layer_shares as layer_shares
    from lsmprobe.weights import layer_weights as layer_weights
    from lsmprobe.weights import rank_agreement as rank_agreement

_HOME = {
    "ExtractConfig": "config",
    "FeatureCache": "cache",
    "LsmprobeError": "errors",
    "ProbeConfig": "config",
    "SensitivityConfig": "config",
    "TransferConfig": "config",
    "average_weights": "weights",
    "best_layer": "layer_probes",
    "compare_records": "comparison",
    "compare_runs": "comparison",
    "draw_health": "layer_figures",
    "draw_knowledge": "layer_figures",
    "draw_layer_curve": "layer_figures",
    "draw_layer_weights": "figures",
    "draw_learning_curve": "layer_figures",
    "draw_projection": "layer_figures",
    "draw_similarity": "layer_figures",
    "draw_transfer": "layer_figures",
    "draw_transfer_layers": "layer_figures",
    "draw_weight_lines": "layer_figures",
    "extract": "extraction",
    "flip_choices": "sensitivity",
    "knowledge_sentences": "layer_probes",
    "knowledge_table": "layer_probes",
    "layer_drops": "weights",
    "layer_health": "analysis",
    "layer_shares": "weights",
    "layer_similarity": "analysis",
    "layer_weights": "weights",
    "learning_curve": "learning_curves",
    "load_results": "results",
    "predict": "prediction",
    "probe": "probing",
    "probe_layers": "layer_probes",
    "project_layer": "analysis",
    "rank_agreement": "weights",
    "read_corpus": "corpora",
    "score_table": "scoreboard",
    "transfer": "transferring",
    "transfer_layers": "transferring",
    "transfer_matrix": "transferring",
    "what_layers_know": "layer_probes",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lsmprobe' has no attribute {name!r}")
    return getattr(import_module(f"lsmprobe.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
