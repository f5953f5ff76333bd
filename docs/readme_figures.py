"""The two figures of the README: `python docs/readme_figures.py RESULTS CACHE.h5 OUT`.

Made from EmoDB with whisper-tiny.en; the random-weights control lies beside the cache:

    lsmprobe extract --model whisper-tiny-en --dataset emodb --data-dir FOLDER
    lsmprobe extract --model whisper-tiny-en --dataset emodb --data-dir FOLDER --random-init 0
    lsmprobe probe --head linear --layer all --split loso --runs 5
    lsmprobe probe --head linear --layer all --split loso --runs 5 --feature-norm zscore
"""

import sys
from pathlib import Path

import lsmprobe as lp
from lsmprobe.layers.recorded import recorded_curves


def main(results_dir: Path, cache: Path, out: Path) -> None:
    """Draw scale-decides.png and what-else.png into `out`."""
    runs = lp.load_results(results_dir)
    runs = runs[(runs["head"] == "linear") & (runs["split"] == "loso")]
    curves = recorded_curves(runs, score="uar")
    lp.draw_layer_curve(curves).figure.savefig(out / "scale-decides.png", bbox_inches="tight")
    known = lp.what_layers_know(cache, results_dir=results_dir)
    lp.draw_knowledge(known).figure.savefig(out / "what-else.png", bbox_inches="tight")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
