"""Make the golden caches beside this file, one per version of the format: run once per version.

Their tests know the numbers by the formula in `hidden_states`. Files that are there stay.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lsmprobe.cache.plan import CachePlan
from lsmprobe.cache.writer import CacheWriter

FRAMES = [3, 1, 0, 2]
N_LAYERS = 2
OF_SOME = {  # version 2: layer 1 of 2, as int8, a mean for every two frames
    "stored_layers": [1],
    "model_layers": 2,
    "frame_step": {"ms": 40.0, "frames": 2.0},
}


def hidden_states(index: int) -> torch.Tensor:
    """Utterance + layer / 4 + frame / 16 + dimension / 64, which float16 holds exactly."""
    shape = N_LAYERS, FRAMES[index], 4
    layer, frame, dim = torch.meshgrid(*map(torch.arange, shape), indexing="ij")
    return index + layer / 4 + frame / 16 + dim / 64


def main() -> None:
    n = len(FRAMES)
    table = pd.DataFrame(
        {
            "key": ["a.wav", "für Elise/b\n'2'.wav", "c.wav", "d.wav#1.5-1.54"],
            "path": pd.Series(  # Arrow's strings refuse surrogates
                [
                    "clips/a.wav",
                    "clips/für Elise/b\n'2'.wav",
                    "clips/c.wav",
                    "clips/d\udce9.wav",
                ],
                dtype=object,
            ),
            "emotion": ["anger", "sadness", "anger", "sadness"],
            "speaker": ["s1", "s2", "s2", "s1"],
            "gender": ["female", "male", "male", ""],
            "sentence": ["b1", "Für wen?", "b1", ""],
            "start_s": [np.nan] * 3 + [1.5],
            "end_s": [np.nan] * 3 + [1.54],
            "split": [""] * n,
            "samples": [960, 320, 0, 640],
            "seconds": [0.06, 0.02, 0.0, 0.04],
            "frames": FRAMES,
        }
    )
    identity = {"model": {"name": "golden"}, "norm": None}
    plan = CachePlan(table, N_LAYERS, 4, "frames", "float16", identity)
    some = table.assign(frames=[2, 1, 0, 1])
    of_some = CachePlan(some, 1, 4, "frames", "int8", identity | OF_SOME)
    before = [replace(each, means_checksum=False) for each in (plan, of_some)]
    for version, each in enumerate([*before, plan], start=1):
        path = Path(__file__).with_name(f"cache-v{version}.h5")
        if path.exists():
            continue
        with CacheWriter.open(path, each) as writer:
            for index in (0, 1, 3):
                writer.write(index, hidden_states(index), f"{index:064x}")
            writer.skip(2)


if __name__ == "__main__":
    main()
