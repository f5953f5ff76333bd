"""Make the golden cache of the current format version, beside this file: run once per version.

test_cache.py knows its numbers by the formula in `hidden_states`. Files of earlier versions stay.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lsmprobe.cache.layout import VERSION
from lsmprobe.cache.plan import CachePlan
from lsmprobe.cache.writer import CacheWriter

FRAMES = [3, 1, 0, 2]


def hidden_states(index: int) -> torch.Tensor:
    """Utterance + layer / 4 + frame / 16 + dimension / 64, which float16 holds exactly."""
    layer, frame, dim = torch.meshgrid(*map(torch.arange, (2, FRAMES[index], 4)), indexing="ij")
    return index + layer / 4 + frame / 16 + dim / 64


def main() -> None:
    n = len(FRAMES)
    table = pd.DataFrame(
        {
            "key": ["a.wav", "für Elise/b\n'2'.wav", "c.wav", "d.wav#1.5-1.54"],
            "path": [
                "clips/a.wav",
                "clips/für Elise/b\n'2'.wav",
                "clips/c.wav",
                "clips/d\udce9.wav",
            ],
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
    plan = CachePlan(table, 2, 4, "frames", "float16", {"model": {"name": "golden"}, "norm": None})
    with CacheWriter.open(Path(__file__).with_name(f"cache-v{VERSION}.h5"), plan) as writer:
        for index in (0, 1, 3):
            writer.write(index, hidden_states(index), f"{index:064x}")
        writer.skip(2)


if __name__ == "__main__":
    main()
