"""What batching does to speed and to the states: wav2vec2-base's architecture, random weights.

The same clips four ways, in turn, several times: one by one; in lsmprobe's batches; in padded
batches of 16 through transformers, as other tools run them; and one by one with a .npy file each.
Prints medians as ratios to one by one, and how far the states lie from those of each clip alone.

    python benchmarks/batching.py [--clips 48] [--repeats 3] [--json FILE]
"""

import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from transformers import Wav2Vec2Config

from lsmprobe.encoders import Encoder, load_encoder
from lsmprobe.extraction import batches


@dataclass(frozen=True)
class Config:
    """Time the ways to extract."""

    clips: int = 48
    """Clips of 1.2 to 9 s, most of them near 2.5 s, as in EmoDB."""
    repeats: int = 3
    """Rounds; the median counts."""
    device: str = "cpu"
    """Where the model runs."""
    batch_seconds: float = 12.0
    """As of extract.py."""
    json: Path | None = None
    """Write the figures here too."""


States = list[torch.Tensor]  # (layers, frames, dim) per clip


def one_by_one(encoder: Encoder, clips: list[np.ndarray]) -> States:
    """Each clip alone: what every other way is compared with."""
    return [encoder.hidden_states([clip])[0] for clip in clips]


def in_batches(encoder: Encoder, clips: list[np.ndarray], batch_seconds: float) -> States:
    """As extract.py does: longest first, bounded by seconds."""
    order = sorted(range(len(clips)), key=lambda i: -len(clips[i]))
    found: dict[int, torch.Tensor] = {}
    for batch in batches([len(clip) / 16_000 for clip in clips], order, batch_seconds):
        found |= dict(zip(batch, encoder.hidden_states([clips[i] for i in batch]), strict=True))
    return [found[i] for i in range(len(clips))]


@torch.no_grad()
def padded_batches(encoder: Encoder, clips: list[np.ndarray], size: int = 16) -> States:
    """Random batches padded with zeros, attention mask given, through the model as it comes."""
    network = encoder.backbone.network
    found = []
    for start in range(0, len(clips), size):
        some = [torch.from_numpy(clip) for clip in clips[start : start + size]]
        padded = torch.nn.utils.rnn.pad_sequence(some, batch_first=True).to(network.device)
        mask = torch.zeros(padded.shape, dtype=torch.long, device=network.device)
        for row, clip in enumerate(some):
            mask[row, : len(clip)] = 1
        out = network(padded, attention_mask=mask, output_hidden_states=True).hidden_states
        stack = torch.stack(out)
        found += [stack[:, row, : encoder.n_frames(len(c))] for row, c in enumerate(some)]
    return found


def npy_files(encoder: Encoder, clips: list[np.ndarray], folder: Path) -> States:
    """One by one, a file each."""
    states = one_by_one(encoder, clips)
    for number, hidden in enumerate(states):
        np.save(folder / f"{number}.npy", hidden.cpu().numpy())
    return states


def difference(states: States, alone: States) -> float:
    """The largest difference at any layer, as a part of that layer's root mean square."""
    ours, theirs = torch.cat(states, 1), torch.cat(alone, 1)
    scale = theirs.square().mean((1, 2)).sqrt()
    return float(((ours - theirs).abs().amax((1, 2)) / scale).max())


def main(config: Config) -> None:
    """Measure and print."""
    rng = np.random.default_rng(0)
    seconds = np.clip(rng.gamma(6, 0.45, config.clips), 1.2, 9)
    clips = [rng.normal(0, 0.1, int(s * 16_000)).astype(np.float32) for s in seconds]
    with tempfile.TemporaryDirectory() as folder:
        Wav2Vec2Config().save_pretrained(folder)
        encoder = load_encoder(folder, random_init=0, input_norm="none", device=config.device)
        ways: dict[str, Callable[[], States]] = {
            "one by one": lambda: one_by_one(encoder, clips),
            "lsmprobe's batches": lambda: in_batches(encoder, clips, config.batch_seconds),
            "padded batches of 16": lambda: padded_batches(encoder, clips),
            "one by one, .npy files": lambda: npy_files(encoder, clips, Path(folder)),
        }
        alone = one_by_one(encoder, clips)
        took: dict[str, list[float]] = {name: [] for name in ways}
        off = {}
        for _ in range(config.repeats):
            for name, way in ways.items():
                started = time.perf_counter()
                states = way()
                took[name].append(time.perf_counter() - started)
                off[name] = difference(states, alone)
    audio = sum(seconds)
    base = statistics.median(took["one by one"])
    print(
        f"{config.clips} clips, {audio:.0f} s of audio, {config.device}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, {platform.machine()}"
    )
    figures = {}
    for name, times in took.items():
        middle = statistics.median(times)
        figures[name] = {"speed": base / middle, "real_time": audio / middle, "off": off[name]}
        print(
            f"{name:24} {base / middle:5.2f} x the speed of one by one "
            f"({audio / middle:5.1f} x real time); states differ by {off[name]:.1e}"
        )
    if config.json:
        config.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Config))
