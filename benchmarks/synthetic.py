"""Made-up corpora and caches for the benchmarks: lengths as in speech, noise as hidden states."""

import lsmprobe  # noqa: F401  before torch, which reads once how its threads are to wait

# isort: split
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from lsmprobe.cache.plan import CachePlan
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.cache.writer import CacheWriter
from lsmprobe.probing.batches import FrameFeatures
from lsmprobe.probing.heads import MultiLayerHead, Probe
from lsmprobe.probing.trainer import Member, Recipe
from lsmprobe.probing.training import fit

EMOTIONS = ("anger", "disgust", "fear", "happiness", "neutrality", "sadness", "surprise")
FRAME_S = 0.02


def clip_seconds(n: int, mean_s: float = 2.8) -> np.ndarray:
    """Lengths of acted clips: half to four times the mean, skewed as EmoDB's are."""
    rng = np.random.default_rng(0)
    return np.clip(rng.gamma(6, mean_s / 6, n), 0.4 * mean_s, 4 * mean_s)


def utterance_table(seconds: Sequence[float] | np.ndarray, n_speakers: int) -> pd.DataFrame:
    """Utterances without audio; every speaker says every emotion in turn."""
    n = len(seconds)
    keys = [f"{i:06d}.wav" for i in range(n)]
    frames = np.maximum(np.asarray(seconds) / FRAME_S, 1).astype(int)
    return pd.DataFrame(
        {
            "key": keys,
            "path": [f"nowhere/{key}" for key in keys],
            "emotion": [EMOTIONS[i // n_speakers % len(EMOTIONS)] for i in range(n)],
            "speaker": [f"s{i % n_speakers:03d}" for i in range(n)],
            "gender": ["female" if i % n_speakers % 2 else "male" for i in range(n)],
            "sentence": "",
            "start_s": np.nan,
            "end_s": np.nan,
            "split": "",
            "samples": frames * 320,
            "seconds": frames * FRAME_S,
            "frames": frames,
        }
    )


def write_cache(
    path: Path, table: pd.DataFrame, n_layers: int, dim: int, *, means_checksum: bool = True
) -> Path:
    """A finished cache of noise, as lsmprobe extract writes it, or as before it had that column."""
    identity = {"model": path.parent.name, "random_init": None}
    plan = CachePlan(table, n_layers, dim, "frames", "float16", identity, means_checksum)
    noise = torch.randn(n_layers, int(table.frames.max()), dim)
    with CacheWriter.open(path, plan) as writer:
        for row, n_frames in enumerate(table.frames):
            writer.write(row, noise[:, :n_frames] + row % 7, f"{row:064x}")
    return path


def train_an_epoch(
    cache: FeatureCache,
    fold: tuple[np.ndarray, np.ndarray, np.ndarray],
    features: FrameFeatures,
    *,
    hidden: int = 256,
) -> None:
    """One epoch of the Multi-Layer head, reading the frames, validation and test included."""
    torch.manual_seed(0)
    layers = tuple(cache.layers[1:])
    head = MultiLayerHead(len(layers), cache.dim, len(EMOTIONS), hidden=hidden)
    fit(
        [Member("multilayer", Probe(nn.Identity(), head), layers, 0, Recipe(epochs=1))],
        features,
        np.array([EMOTIONS.index(emotion) for emotion in cache.utterances.emotion]),
        fold,
        len(EMOTIONS),
    )
