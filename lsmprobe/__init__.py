"""lsmprobe: what a frozen large speech model knows about emotion, layer by layer.

The names below are imported on first use, so that `import lsmprobe` costs nothing.
"""

import os
from typing import TYPE_CHECKING

import lazy_loader

from lsmprobe.threads import wait_briefly
from lsmprobe.version import __version__ as __version__

wait_briefly(os.environ)  # every command, worker and notebook passes here, and torch comes later

if TYPE_CHECKING:
    from lsmprobe.cache.reader import FeatureCache as FeatureCache
    from lsmprobe.cluster.stages import extract_on as extract_on
    from lsmprobe.cluster.stages import train_on as train_on
    from lsmprobe.config import ExtractConfig as ExtractConfig
    from lsmprobe.config import ExtractGridConfig as ExtractGridConfig
    from lsmprobe.config import ProbeConfig as ProbeConfig
    from lsmprobe.config import SensitivityConfig as SensitivityConfig
    from lsmprobe.config import TransferConfig as TransferConfig
    from lsmprobe.corpora.read import read_corpus as read_corpus
    from lsmprobe.errors import LsmprobeError as LsmprobeError
    from lsmprobe.experiments.learning_curves import learning_curve as learning_curve
    from lsmprobe.experiments.prediction import predict as predict
    from lsmprobe.experiments.sensitivity import flip_choices as flip_choices
    from lsmprobe.experiments.transfers import transfer as transfer
    from lsmprobe.extraction.grid import extract_all as extract_all
    from lsmprobe.extraction.stage import extract as extract
    from lsmprobe.layers.answers import best_layer as best_layer
    from lsmprobe.layers.ceiling import noise_ceiling as noise_ceiling
    from lsmprobe.layers.dissimilarity import layer_geometry as layer_geometry
    from lsmprobe.layers.dissimilarity import (
        representational_similarity as representational_similarity,
    )
    from lsmprobe.layers.health import layer_health as layer_health
    from lsmprobe.layers.knowledge import knowledge_sentences as knowledge_sentences
    from lsmprobe.layers.knowledge import knowledge_table as knowledge_table
    from lsmprobe.layers.knowledge import what_layers_know as what_layers_know
    from lsmprobe.layers.probes import layer_answers as layer_answers
    from lsmprobe.layers.probes import probe_layers as probe_layers
    from lsmprobe.layers.probes import sweep_layers as sweep_layers
    from lsmprobe.layers.projection import project_layer as project_layer
    from lsmprobe.layers.similarity import layer_similarity as layer_similarity
    from lsmprobe.layers.weights import average_weights as average_weights
    from lsmprobe.layers.weights import layer_drops as layer_drops
    from lsmprobe.layers.weights import layer_shares as layer_shares
    from lsmprobe.layers.weights import layer_weights as layer_weights
    from lsmprobe.layers.weights import rank_agreement as rank_agreement
    from lsmprobe.probing.stage import probe as probe
    from lsmprobe.probing.table import register_head as register_head
    from lsmprobe.report.figures import draw_confusion as draw_confusion
    from lsmprobe.report.figures import draw_groups as draw_groups
    from lsmprobe.report.figures import draw_health as draw_health
    from lsmprobe.report.figures import draw_knowledge as draw_knowledge
    from lsmprobe.report.figures import draw_layer_curve as draw_layer_curve
    from lsmprobe.report.figures import draw_layer_weights as draw_layer_weights
    from lsmprobe.report.figures import draw_learning_curve as draw_learning_curve
    from lsmprobe.report.figures import draw_projection as draw_projection
    from lsmprobe.report.figures import (
        draw_representational_similarity as draw_representational_similarity,
    )
    from lsmprobe.report.figures import draw_similarity as draw_similarity
    from lsmprobe.report.figures import draw_transfer as draw_transfer
    from lsmprobe.report.figures import draw_transfer_layers as draw_transfer_layers
    from lsmprobe.report.figures import draw_weight_lines as draw_weight_lines
    from lsmprobe.report.page import show as show
    from lsmprobe.report.transfer import transfer_layers as transfer_layers
    from lsmprobe.report.transfer import transfer_matrix as transfer_matrix
    from lsmprobe.results.breakdown import confusion_of as confusion_of
    from lsmprobe.results.breakdown import largest_errors as largest_errors
    from lsmprobe.results.breakdown import scores_by_group as scores_by_group
    from lsmprobe.results.breakdown import scores_by_output as scores_by_output
    from lsmprobe.results.comparison import compare_records as compare_records
    from lsmprobe.results.comparison import compare_runs as compare_runs
    from lsmprobe.results.records import load_predictions as load_predictions
    from lsmprobe.results.records import load_results as load_results
    from lsmprobe.results.score_table import score_table as score_table

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cache.reader": ["FeatureCache"],
        "cluster.stages": ["extract_on", "train_on"],
        "config": [
            "ExtractConfig",
            "ExtractGridConfig",
            "ProbeConfig",
            "SensitivityConfig",
            "TransferConfig",
        ],
        "corpora.read": ["read_corpus"],
        "errors": ["LsmprobeError"],
        "experiments.learning_curves": ["learning_curve"],
        "experiments.prediction": ["predict"],
        "experiments.sensitivity": ["flip_choices"],
        "experiments.transfers": ["transfer"],
        "extraction.grid": ["extract_all"],
        "extraction.stage": ["extract"],
        "layers.answers": ["best_layer"],
        "layers.ceiling": ["noise_ceiling"],
        "layers.dissimilarity": ["layer_geometry", "representational_similarity"],
        "layers.health": ["layer_health"],
        "layers.knowledge": ["knowledge_sentences", "knowledge_table", "what_layers_know"],
        "layers.probes": ["layer_answers", "probe_layers", "sweep_layers"],
        "layers.projection": ["project_layer"],
        "layers.similarity": ["layer_similarity"],
        "layers.weights": [
            "average_weights",
            "layer_drops",
            "layer_shares",
            "layer_weights",
            "rank_agreement",
        ],
        "probing.stage": ["probe"],
        "probing.table": ["register_head"],
        "report.figures": [
            "draw_confusion",
            "draw_groups",
            "draw_health",
            "draw_knowledge",
            "draw_layer_curve",
            "draw_layer_weights",
            "draw_learning_curve",
            "draw_projection",
            "draw_representational_similarity",
            "draw_similarity",
            "draw_transfer",
            "draw_transfer_layers",
            "draw_weight_lines",
        ],
        "report.page": ["show"],
        "report.transfer": ["transfer_layers", "transfer_matrix"],
        "results.breakdown": [
            "confusion_of",
            "largest_errors",
            "scores_by_group",
            "scores_by_output",
        ],
        "results.comparison": ["compare_records", "compare_runs"],
        "results.records": ["load_predictions", "load_results"],
        "results.score_table": ["score_table"],
    },
)
