"""What stage 2 costs, compared with what people do today.

Synthetic features of EmoDB's size (535 clips, 12 layers of 768 dimensions), and
- every layer x 3 seeds of the Linear head from pooled means, compared with the same heads one by
  one from padded frames (a DataLoader over a .npy file per utterance) and with scikit-learn's
  LogisticRegression;
- an epoch of the Multi-Layer head, compared with the DataLoader, and with the backbone in the loop
  (computed from a measured epoch and the speed of wav2vec2-base);
- the share of that epoch inside matrix products: their time in an epoch with torch.profiler, which
  makes everything else slower, divided by an epoch without it;
- three heads x three seeds from one read, compared with nine runs, where every read comes from the
  disk: the page cache is dropped after each pool; also with the disk slowed to --disk-mb-per-s.
Where the whole would take long, a part is measured and scaled up; the printed line says so.

    python benchmarks/probing.py [--quick] [--json FILE]
"""

import lsmprobe  # noqa: F401  before torch, which reads once how its threads are to wait

# isort: split
import mmap
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from machine import machine, medians, seconds, write_json
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader
from transformers import Wav2Vec2Config, Wav2Vec2Model

from lsmprobe.cache.reader import FeatureCache
from lsmprobe.probing.batches import Batches, FrameFeatures, PooledFeatures
from lsmprobe.probing.heads import LinearHead, MultiLayerHead, NonLinearHead, Probe
from lsmprobe.probing.trainer import Member, Recipe
from lsmprobe.probing.training import fit

CLASSES = 7
SEEDS = 3
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::mv", "aten::addmv")


@dataclass(frozen=True)
class Config:
    """Time the ways to train heads."""

    clips: int = 535
    """How many clips; four fifths of them are the training set."""
    layers: int = 12
    """How many layers, without layer 0."""
    dim: int = 768
    """Dimensions of a frame."""
    epochs: int = 30
    """Epochs of the Linear sweep."""
    repeats: int = 3
    """Rounds, or epochs; the median counts."""
    disk_mb_per_s: tuple[float, ...] = (400, 200, 100)
    """Limits in MB/s for reads from the disk, as a network filesystem would set them."""
    parts: tuple[Literal["linear", "multilayer", "reads"], ...] = ("linear", "multilayer", "reads")
    """What to measure."""
    cache: Path | None = None
    """Take the means for the Linear head and for LogisticRegression from this cache: how long the
    latter takes depends on the features."""
    device: str = "cpu"
    """Where heads are trained."""
    quick: bool = False
    """Tiny sizes, to see that it runs."""
    json: Path | None = None
    """Write the figures here too."""


@dataclass(frozen=True)
class Corpus:
    """Made-up features on disk, layer-major in one file and a .npy file per utterance."""

    folder: Path
    layers: int
    dim: int
    lengths: np.ndarray
    labels: np.ndarray
    means: torch.Tensor

    @classmethod
    def make(cls, config: Config, folder: Path) -> "Corpus":
        """Clips of 1.2 to 9 s, most of them near 2.8 s, as in EmoDB; float16."""
        rng = np.random.default_rng(0)
        lengths = (50 * np.clip(rng.gamma(6, 0.47, config.clips), 1.2, 9)).astype(int)
        labels = rng.integers(0, CLASSES, config.clips)
        # A few directions hold most of the variance, as in speech models.
        mixing = rng.normal(size=(config.dim, config.dim)) / np.arange(1, config.dim + 1)[:, None]
        centres = rng.normal(size=(CLASSES, config.dim))
        means = np.empty((config.clips, config.layers, config.dim), np.float32)
        shape = config.layers, int(lengths.sum()), config.dim
        packed = np.memmap(folder / "frames", np.float16, "w+", shape=shape)
        ends = np.cumsum(lengths)
        for row, (length, end) in enumerate(zip(lengths, ends, strict=True)):
            utterance = (
                rng.normal(size=(config.layers, config.dim)) + centres[labels[row]]
            ) @ mixing
            noise = rng.standard_normal((config.layers, length, config.dim), np.float32)
            states = (utterance[:, None] + noise).astype(np.float16)
            packed[:, end - length : end] = states
            np.save(folder / f"{row}.npy", states)
            means[row] = states.astype(np.float32).mean(1)
        packed.flush()
        return cls(folder, config.layers, config.dim, lengths, labels, torch.from_numpy(means))

    def with_means_of(self, cache: FeatureCache) -> "Corpus":
        """A real corpus's means and labels; the padded frames stay made up."""
        labels = np.unique(cache.utterances.emotion, return_inverse=True)[1]
        means = torch.from_numpy(np.array(cache.pooled))
        assert labels.max() < CLASSES
        return replace(self, means=means, labels=labels, layers=cache.n_layers, dim=cache.dim)

    @property
    def fold(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """80/10/10, in a random order."""
        order = np.random.default_rng(1).permutation(len(self.labels))
        first, second = len(order) * 8 // 10, len(order) * 9 // 10
        return order[:first], order[first:second], order[second:]

    @cached_property
    def mapped(self) -> np.memmap:
        """The layer-major file."""
        shape = self.layers, int(self.lengths.sum()), self.dim
        return np.memmap(self.folder / "frames", np.float16, "r", shape=shape)

    def frames(self, budget: int | None = None) -> FrameFeatures:
        """As a cache gives them."""
        starts = np.cumsum(self.lengths) - self.lengths

        def read(utterance: int, layer: int) -> np.ndarray:
            start = starts[utterance]
            return np.asarray(self.mapped[layer, start : start + self.lengths[utterance]])

        return FrameFeatures(read, self.lengths, budget)


@dataclass(frozen=True)
class FromDisk:
    """Frames that never stay in the page cache: every pool comes from the disk."""

    corpus: Corpus
    mb_per_s: float | None

    def all_of(self, utterances: np.ndarray, layers: Sequence[int], device: str) -> None:
        """Nothing, as if memory were too small for them."""

    def through(
        self, pools: Sequence[np.ndarray], layers: Sequence[int], device: str
    ) -> Iterator[Batches]:
        """One pool ahead, no faster than the limit."""
        frames = self.corpus.frames()

        def read(utterance: int, layer: int) -> np.ndarray:
            array = frames.read(utterance, layer)
            if self.mb_per_s:
                time.sleep(array.nbytes / 1e6 / self.mb_per_s)
            return array

        descriptor = os.open(self.corpus.folder / "frames", os.O_RDONLY)
        for at_hand in replace(frames, read=read, budget=0).through(pools, layers, device):
            self.corpus.mapped._mmap.madvise(mmap.MADV_DONTNEED)  # else it stays
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            yield at_hand
        os.close(descriptor)


def member(name: str, corpus: Corpus, layer: int, seed: int, epochs: int) -> Member:
    """An untrained head; layers count from 0 here."""
    torch.manual_seed(seed)
    head = {
        "linear": lambda: LinearHead(corpus.dim, CLASSES),
        "nonlinear": lambda: NonLinearHead(corpus.dim, CLASSES),
        "multilayer": lambda: MultiLayerHead(corpus.layers, corpus.dim, CLASSES),
    }[name]()
    layers = tuple(range(corpus.layers)) if name == "multilayer" else (layer,)
    probe = Probe(nn.Identity(), head)
    return Member(name, probe, layers, seed, Recipe(epochs=epochs), own_draws=True)


def train(
    members: Sequence[Member],
    corpus: Corpus,
    features: PooledFeatures | FrameFeatures | FromDisk,
    device: str,
    on_epoch: Callable[[], None] = lambda: None,
) -> None:
    """As lsmprobe probe does."""
    fit(
        members,
        features,
        corpus.labels,
        corpus.fold,
        CLASSES,
        device=device,
        on_epoch=on_epoch,
    )


def padded_epoch(name: str, corpus: Corpus, device: str, layer: int = 0) -> None:
    """The usual way: a DataLoader over .npy files, zero padding, a mask, Adam with its defaults."""
    probe = member(name, corpus, layer, 0, 1).probe.to(device)
    head = probe.head
    optimiser = torch.optim.Adam(head.parameters(), lr=5e-4, weight_decay=1e-4)

    def load(row: int) -> tuple[torch.Tensor, int]:
        states = np.load(corpus.folder / f"{row}.npy", mmap_mode="r")
        chosen = states if name == "multilayer" else states[layer]
        return torch.from_numpy(chosen.astype(np.float32)), int(corpus.labels[row])

    def collate(rows: list[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        states, labels = zip(*(load(row) for row in rows), strict=True)
        lengths = torch.tensor([s.shape[-2] for s in states])
        longest = int(lengths.max())
        padded = [nn.functional.pad(s, (0, 0, 0, longest - s.shape[-2])) for s in states]
        return torch.stack(padded), lengths, torch.tensor(labels)

    def logits(frames: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        mask = (torch.arange(frames.shape[-2]) < lengths[:, None]).to(device)[..., None]

        def average(hidden: torch.Tensor) -> torch.Tensor:
            return (hidden * mask).sum(1) / mask.sum(1)

        if isinstance(head, LinearHead):
            return head.classify(average(head.project(frames)))
        weights = head.layer_weights[:, None, None]
        hidden = (weights * frames).sum(1) if frames.ndim == 4 else frames
        inner = head.nonlinear
        return inner.classify(inner.per_utterance(average(inner.project(inner.per_frame(hidden)))))

    rows, validation, _ = corpus.fold
    for frames, lengths, labels in DataLoader(
        rows.tolist(), batch_size=32, shuffle=True, collate_fn=collate
    ):
        loss = nn.functional.cross_entropy(logits(frames.to(device), lengths), labels.to(device))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        for frames, lengths, _labels in DataLoader(
            validation.tolist(), batch_size=32, collate_fn=collate
        ):
            logits(frames.to(device), lengths)


def epoch_seconds(name: str, corpus: Corpus, config: Config, heads: int = 1) -> float:
    """Seconds of the second epoch of so many heads: the first one reads the frames into memory."""
    ends: list[float] = []
    members = [member(name, corpus, corpus.layers - 1, seed, 2) for seed in range(heads)]
    train(members, corpus, corpus.frames(), config.device, lambda: ends.append(time.perf_counter()))
    return ends[-1] - ends[heads - 1]


def products_seconds(corpus: Corpus) -> float:
    """Seconds of such an epoch of the Multi-Layer head inside matrix products."""
    profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])
    ends: list[float] = []

    def on_epoch() -> None:
        if ends:
            profiler.stop()
        ends.append(time.perf_counter())
        if len(ends) == 1:
            profiler.start()

    train([member("multilayer", corpus, 0, 0, 2)], corpus, corpus.frames(), "cpu", on_epoch)
    inside = sum(e.self_cpu_time_total for e in profiler.key_averages() if e.key in PRODUCTS)
    return inside / 1e6


def logistic_regressions(corpus: Corpus, *, standardised: bool) -> None:
    """scikit-learn's with its defaults, but for max_iter, on every layer."""
    train_rows, _, test_rows = corpus.fold
    steps = [StandardScaler()] if standardised else []
    for layer in range(corpus.layers):
        means = corpus.means[:, layer].numpy()
        model = make_pipeline(*steps, LogisticRegression(max_iter=1000))
        model.fit(means[train_rows], corpus.labels[train_rows]).predict(means[test_rows])


def real_time_factor(*, quick: bool) -> float:
    """Seconds of audio per second of wav2vec2-base with random weights, one clip at a time."""
    small = {"num_hidden_layers": 2, "hidden_size": 48}
    network = Wav2Vec2Model(Wav2Vec2Config(**(small if quick else {}))).eval()
    clips = [torch.randn(1, int(16_000 * s)) for s in (1.8, 2.8, 4.2)]
    with torch.no_grad():
        network(clips[0])
        return 8.8 / seconds(lambda: [network(clip) for clip in clips])


def linear_sweep(corpus: Corpus, config: Config) -> dict[str, float]:
    """Every layer x 3 seeds, compared with padded frames and scikit-learn."""
    made_up = corpus
    if config.cache:
        corpus = corpus.with_means_of(FeatureCache(config.cache))

    def sweep() -> None:
        members = [
            member("linear", corpus, layer, seed, config.epochs)
            for layer in range(corpus.layers)
            for seed in range(SEEDS)
        ]
        train(members, corpus, PooledFeatures(corpus.means.to(config.device)), config.device)

    ways = {
        "sweep": sweep,
        "padded": lambda: padded_epoch("linear", made_up, config.device),
        "standardised": lambda: logistic_regressions(corpus, standardised=True),
        "raw": lambda: logistic_regressions(corpus, standardised=False),
    }
    took = medians(ways, config.repeats, config.device)
    heads = corpus.layers * SEEDS
    padded = took["padded"] * config.epochs * heads
    figures = {"linear_sweep_s": took["sweep"], "linear_times_padded": padded / took["sweep"]}
    print(f"Linear, {heads} heads, {config.epochs} epochs: {took['sweep']:.1f} s")
    print(
        f"  one by one from padded frames (an epoch of one head, scaled up): {padded:.0f} s,",
        end="",
    )
    print(f" {padded / took['sweep']:.0f} x")
    for kind in ("standardised", "raw"):
        times = took[kind] / took["sweep"]
        figures[f"linear_times_logistic_{kind}"] = times
        print(
            f"  LogisticRegression, {kind}, once per layer: {took[kind]:.2f} s, {times:.2f} x;",
            end="",
        )
        print(f" per head {SEEDS * times:.2f} x")
    return figures


def multilayer_epoch(corpus: Corpus, config: Config) -> dict[str, float]:
    """An epoch, compared with padded frames and with the backbone in the loop."""
    epochs, padded_epochs, products = [], [], []
    for _ in range(config.repeats):  # in turn, since the load of the machine varies
        epochs.append(epoch_seconds("multilayer", corpus, config))
        products.append(products_seconds(corpus))
        padded_epochs.append(
            seconds(lambda: padded_epoch("multilayer", corpus, config.device), config.device)
        )
    epoch, padded = statistics.median(epochs), statistics.median(padded_epochs)
    share = statistics.median(p / e for p, e in zip(products, epochs, strict=True))
    audio = 0.02 * float(sum(corpus.lengths[rows].sum() for rows in corpus.fold[:2]))
    on_the_fly = audio / real_time_factor(quick=config.quick) + epoch
    print(f"Multi-Layer, an epoch: {epoch:.2f} s")
    print(f"  DataLoader, zero padding: {padded:.2f} s, {padded / epoch:.1f} x")
    print(f"  wav2vec2-base in the loop: {on_the_fly:.0f} s (computed), {on_the_fly / epoch:.0f} x")
    print(f"  inside matrix products on the CPU: {100 * share:.0f}%")
    return {
        "multilayer_epoch_s": epoch,
        "multilayer_times_padded": padded / epoch,
        "multilayer_times_on_the_fly": on_the_fly / epoch,
        "share_of_products": share,
    }


def one_read(corpus: Corpus, config: Config) -> dict[str, float]:
    """Three heads x three seeds, one epoch and the test, compared with nine runs."""
    means = PooledFeatures(corpus.means.to(config.device))
    runs = [(name, seed) for seed in range(SEEDS) for name in ("linear", "nonlinear", "multilayer")]

    def together(some: list[tuple[str, int]], disk: FromDisk) -> None:
        members = [member(name, corpus, 0, seed, 1) for name, seed in some]
        linear = [m for m in members if m.name == "linear"]
        of_frames = [m for m in members if m.name != "linear"]
        for group, features in ((linear, means), (of_frames, disk)):
            if group:
                train(group, corpus, features, config.device)

    figures = {}
    for speed in (None, *config.disk_mb_per_s):
        disk = FromDisk(corpus, speed)
        ways = {
            "one": lambda disk=disk: together(runs, disk),
            "nine": lambda disk=disk: [together([run], disk) for run in runs],
        }
        took = medians(ways, config.repeats, config.device)
        part = took["one"] / took["nine"]
        slowed = f" at {speed:.0f} MB/s" if speed else ""
        print(f"3 heads x 3 seeds from the disk{slowed}: one read {took['one']:.1f} s,", end="")
        print(f" nine runs {took['nine']:.1f} s: {part:.2f} of their time", flush=True)
        figures[f"one_read_of_nine_runs{slowed.replace(' ', '_')}"] = part
    return figures


def main(config: Config) -> None:
    """Measure and print."""
    if config.quick:
        config = replace(config, clips=60, layers=3, dim=24, epochs=2, repeats=1, disk_mb_per_s=())
    print(machine(config.device))
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        corpus = Corpus.make(config, Path(folder))
        measures = {"linear": linear_sweep, "multilayer": multilayer_epoch, "reads": one_read}
        for part in config.parts:
            figures |= measures[part](corpus, config)
    write_json(config.json, figures, config.device)


if __name__ == "__main__":
    main(tyro.cli(Config))
