"""The figures of README and notebooks: `make figures RESULTS=results CACHES=cache`.

Made from EmoDB with whisper-tiny.en, with the same network's random weights, and descriptors:

    lsmprobe extract --model whisper-tiny-en logmel egemaps --dataset emodb --store pooled
    lsmprobe extract --model whisper-tiny-en --dataset emodb --store pooled --random-init 0
    lsmprobe probe --model whisper-tiny-en --head linear --layer all --split loso --runs 5
    lsmprobe probe --model whisper-tiny-en --head linear --layer all --split loso --runs 5 \
        --feature-norm zscore

and by notebook 5, with LSMPROBE_CACHE and LSMPROBE_PROJECT, which leaves its scores in RESULTS.
"""

import io
import sys
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from PIL import Image

import lsmprobe as lp
from lsmprobe.layers.recorded import recorded_curves

MODEL = "whisper-tiny?en"  # `-` by its name in the table, `.` by that of a checkpoint's folder
MEASURED = ("duration", "energy", "pitch")
COLOURS = 64  # of a picture: figures are flat, so that few are enough
MOST_BYTES = 60_000


def sweeps(results: Path, score: str = "macro_f1") -> pd.DataFrame:
    """The Linear head on every layer, every speaker tested once, with and without zscore."""
    runs = lp.load_results(results)
    runs = runs[(runs["head"] == "linear") & (runs["split"] == "loso")]
    return recorded_curves(runs, score=score)


def layer_curve(results: Path, caches: Path) -> Axes:
    """Which layer holds the emotion?"""
    curves = sweeps(results)
    return lp.draw_layer_curve(curves[curves["feature_norm"] == "zscore"])


def scale_decides(results: Path, caches: Path) -> Axes:
    """The same layers with and without normalisation."""
    return lp.draw_layer_curve(sweeps(results, "uar"))


def what_else(results: Path, caches: Path) -> Axes:
    """Everything that a layer may know, and what random weights know of it."""
    [cache] = caches.glob(f"{MODEL}/emodb.h5")
    return lp.draw_knowledge(lp.what_layers_know(cache, results_dir=results))


def models(results: Path, caches: Path) -> Axes:
    """A trained network, the same one untrained, and descriptors that were never learned."""
    curves = [
        lp.probe_layers(cache, split="loso", results_dir=results)
        for name in (MODEL, f"{MODEL}-random0", "logmel", "egemaps")
        for cache in caches.glob(f"{name}/emodb.h5")
    ]
    return lp.draw_layer_curve(pd.concat(curves))


def numbers(results: Path, caches: Path) -> Axes:
    """The scores of emotions' names, and what can be measured, by the layers that know them."""
    [cache] = caches.glob(f"{MODEL}/emodb.h5")
    own = {"labels": results / "arousal-and-valence.csv", "results_dir": results}
    targets = ("arousal", "valence", *MEASURED)
    curves = [lp.probe_layers(cache, target, score="ccc", **own) for target in targets]
    return lp.draw_layer_curve(pd.concat(curves))


FIGURES = {
    "layer-curve.png": layer_curve,
    "scale-decides.png": scale_decides,
    "what-else.png": what_else,
    "models.png": models,
    "numbers.png": numbers,
}


def write_small(png: bytes, path: Path, *, colours: int, most_bytes: int) -> None:
    """Write a flat picture with few colours; exit status 1 if it is too large to be kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.quantize(colours, dither=Image.Dither.NONE).save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path}: {size} bytes")
    if size > most_bytes:
        sys.exit(f"more than {most_bytes} bytes; show less, or take fewer colours")


def main(results: Path, caches: Path, out: Path) -> None:
    """Draw each figure into `out`."""
    for name, draw in FIGURES.items():
        drawn = io.BytesIO()
        draw(results, caches).figure.savefig(drawn, bbox_inches="tight", dpi=110)
        write_small(drawn.getvalue(), out / name, colours=COLOURS, most_bytes=MOST_BYTES)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
