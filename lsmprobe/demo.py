"""Both stages on the embedded corpus and the embedded model: what `make demo` runs."""

import pandas as pd

from lsmprobe.config import DemoConfig, ExtractConfig, ProbeConfig
from lsmprobe.extraction.stage import extract
from lsmprobe.layers.weights import layer_weights
from lsmprobe.probing.stage import probe
from lsmprobe.progress import terminal
from lsmprobe.report.figures import draw_layer_weights, save_figure
from lsmprobe.report.score_lines import format_scores

WARNING = """\
The model `toy` has random weights and the corpus `toy` is synthetic: these scores show that the
code runs, not what speech models know. A real run is two lines:
  lsmprobe extract --model whisper-small --dataset emodb --data-dir FOLDER
  lsmprobe probe --model whisper-small --dataset emodb --head all"""


def run_demo(config: DemoConfig) -> pd.DataFrame:
    """Extract, probe with three heads and three runs each, print the scores, draw the weights."""
    summary = extract(
        ExtractConfig(
            model="toy",
            dataset="toy",
            data_dir=config.folder / "data" / "toy",
            cache_dir=config.folder / "cache",
        ),
        progress=terminal,
    )
    print(summary)
    results = probe(
        ProbeConfig(
            model=("toy",),
            dataset=("toy",),
            hidden=64,  # a quarter of the paper's width, to be quick
            cache_dir=config.folder / "cache",
            results_dir=config.folder / "results",
        ),
        progress=terminal,
    )
    print(f"\n{format_scores(results)}\n")
    weights = layer_weights(results)
    listed = ", ".join(f"layer {w.layer}: {w.weight:.3f}" for w in weights.itertuples())
    print(f"Multi-Layer's weights (random encoder): {listed}")
    figure = config.folder / "results" / "toy" / "layer-weights.png"
    save_figure(draw_layer_weights(weights), figure)
    print(f"Figure: {figure}\n\n{WARNING}")
    return results
