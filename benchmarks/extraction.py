"""What stage 1 costs, compared with the forward pass alone and with what people do today.

wav2vec2-base's architecture with random weights over clips of EmoDB (from
$LSMPROBE_DATA/emodb or ../shared/emodb; else noise of similar lengths), written at 48 kHz as in
most corpora. Five ways take turns, several times:
- the forward pass alone, of decoded clips, one by one and in lsmprobe's batches;
- all of lsmprobe extract except loading the model: headers, layout, decoding, resampling,
  normalising, the forward pass, pooling, rounding, checksums, writing, flushing;
- one clip at a time through transformers, every layer into a .npy file;
- padded batches of 16 through transformers, with an attention mask, into the same files.
Then it measures how far the states of a batch are from those of each clip alone, what bounds the
run, and the peak memory over a short and a long corpus (a tiny model, a process for each).

    python benchmarks/extraction.py [--quick] [--json FILE]
"""

import lsmprobe  # noqa: F401  before torch, which reads once how its threads are to wait

# isort: split
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import soundfile
import soxr
import torch
import tyro
from limits import Config as Limits
from limits import disk
from machine import machine, medians, peak_memory, write_json
from synthetic import clip_seconds
from torch import Tensor
from transformers import Wav2Vec2Config

from lsmprobe import ExtractConfig, extract
from lsmprobe.corpora.audio import SAMPLE_RATE, read_audio
from lsmprobe.extraction import plan
from lsmprobe.extraction.ahead import batches
from lsmprobe.extraction.encoder import Encoder, full_float32
from lsmprobe.extraction.exactness import largest_difference
from lsmprobe.extraction.load import load_encoder
from lsmprobe.extraction.stage import _batch_seconds
from lsmprobe.machine import keep_freed_memory

PADDED = 16  # clips of a padded batch
TINY = {
    "conv_dim": [16] * 7,
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}


@dataclass(frozen=True)
class Config:
    """Time the ways to extract."""

    clips: int = 48
    """How many clips of the corpus to take."""
    sample_rate: int = 48_000
    """Sampling rate of the files in Hz; at 16000 nothing is resampled."""
    repeats: int = 3
    """Rounds; the median counts."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where the model runs."""
    batch_seconds: float | None = None
    """As for lsmprobe extract."""
    corpora: tuple[int, int] = (500, 5_000)
    """Clips of the short and the long corpus whose peak memory is compared."""
    quick: bool = False
    """Tiny sizes, to see that it runs."""
    json: Path | None = None
    """Write the figures here too."""


def spoken_clips(count: int) -> list[np.ndarray]:
    """Clips at 16 kHz: a sample of EmoDB, or noise where there is none."""
    homes = [Path(os.environ.get("LSMPROBE_DATA", "data")), Path(__file__).parents[2] / "shared"]
    paths = sorted(path for home in homes for path in (home / "emodb" / "wav").glob("*.wav"))
    rng = np.random.default_rng(0)
    if len(paths) >= count:
        return [read_audio(paths[i]).waveform for i in rng.permutation(len(paths))[:count]]
    lengths = (clip_seconds(count) * SAMPLE_RATE).astype(int)
    return [rng.normal(0, 0.1, n).astype(np.float32) for n in lengths]


def write_corpus(folder: Path, clips: Sequence[np.ndarray], sample_rate: int) -> Path:
    """A manifest and its files."""
    folder.mkdir()
    lines = ["path,emotion,speaker"]
    for number, clip in enumerate(clips):
        samples = soxr.resample(clip, SAMPLE_RATE, sample_rate)
        soundfile.write(folder / f"{number:05d}.wav", samples, sample_rate, subtype="PCM_16")
        lines.append(f"{number:05d}.wav,anger,s{number % 10}")
    manifest = folder / "clips.csv"
    manifest.write_text("\n".join(lines))
    return manifest


@dataclass(frozen=True)
class Work:
    """The clips and the model that all ways share."""

    encoder: Encoder
    config: ExtractConfig
    paths: list[Path]
    clips: list[np.ndarray]  # decoded
    folder: Path

    @property
    def network(self) -> Any:
        """The model as transformers has it."""
        return self.encoder.backbone.network

    @property
    def batches(self) -> list[list[int]]:
        """Those of lsmprobe extract."""
        order = sorted(range(len(self.clips)), key=lambda i: -len(self.clips[i]))
        costs = [self.encoder.cost_s(len(clip)) for clip in self.clips]
        return list(batches(costs, order, _batch_seconds(self.config)))

    @torch.no_grad()
    def forward(self, batches: Sequence[Sequence[int]]) -> None:
        """The model and nothing else: all layers, which stay where they are made."""
        backbone = self.encoder.backbone
        with full_float32():
            for batch in batches:
                waveforms = [torch.from_numpy(self.clips[i]) for i in batch]
                pieces = [piece for w in waveforms for piece in backbone.features(w)]
                padded = torch.nn.utils.rnn.pad_sequence(pieces, batch_first=True)
                ends = torch.tensor([len(piece) for piece in pieces], device=padded.device)
                real = torch.arange(padded.shape[1], device=padded.device) < ends[:, None]
                backbone.states(padded, None if real.all() else real)

    def extract(self) -> None:
        """All of stage 1, with the model that is loaded."""
        shutil.rmtree(self.config.cache_dir, ignore_errors=True)
        with mock.patch.object(plan, "load_encoder", return_value=self.encoder):
            extract(self.config)

    def waveform(self, path: Path) -> Tensor:
        """Decoded and normalised."""
        samples = read_audio(path).waveform
        return torch.from_numpy((samples - samples.mean()) / samples.std())

    @torch.no_grad()
    def padded(self, size: int) -> Iterator[Tensor]:
        """(layers, frames, dim) per clip; `size` clips at a time, in order, padded with zeros."""
        for start in range(0, len(self.paths), size):
            some = [self.waveform(path) for path in self.paths[start : start + size]]
            batch = torch.nn.utils.rnn.pad_sequence(some, batch_first=True)
            ends = torch.tensor([len(clip) for clip in some])
            mask = (torch.arange(batch.shape[1]) < ends[:, None]).long()
            out = self.network(
                batch.to(self.network.device),
                attention_mask=mask.to(self.network.device) if size > 1 else None,
                output_hidden_states=True,
            )
            states = torch.stack(out.hidden_states).cpu()
            for row, clip in enumerate(some):
                yield states[:, row, : self.encoder.n_frames(len(clip))]

    def npy_files(self, size: int) -> None:
        """A .npy file per clip."""
        for number, states in enumerate(self.padded(size)):
            np.save(self.folder / f"{number}.npy", states.numpy())


def prepared(config: Config, folder: Path) -> Work:
    """The clips on disk, the model loaded, freed memory kept for all ways alike."""
    keep_freed_memory()
    manifest = write_corpus(folder / "corpus", spoken_clips(config.clips), config.sample_rate)
    Wav2Vec2Config(**(TINY if config.quick else {})).save_pretrained(folder / "model")
    chosen = ExtractConfig(
        model=str(folder / "model"),
        dataset=str(manifest),
        cache_dir=folder / "cache",
        random_init=0,
        input_norm="zscore",
        device=config.device,
        batch_seconds=config.batch_seconds,
    )
    encoder = load_encoder(
        chosen.model, random_init=0, input_norm=chosen.input_norm, device=config.device
    )
    paths = sorted((folder / "corpus").glob("*.wav"))
    return Work(encoder, chosen, paths, [read_audio(p).waveform for p in paths], folder)


def differences(work: Work) -> tuple[float, float]:
    """Largest distance of padded batches, and of lsmprobe's, from each clip alone.

    As a part of the layer's root mean square.
    """
    together, alone = (torch.cat(list(work.padded(size)), 1) for size in (PADDED, 1))
    scale = alone.square().mean((1, 2)).sqrt()
    padded = ((together - alone).abs().amax((1, 2)) / scale).max()
    batches = [[work.clips[i] for i in batch] for batch in work.batches]
    return float(padded), max(max(largest_difference(work.encoder, batch)) for batch in batches)


def peak_mib(folder: Path, n_clips: int) -> float:
    """Peak memory in MiB of extracting `n_clips` clips with the model `toy`, in a new process."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(8_000, 24_000, 20)
    manifest = write_corpus(folder, [rng.normal(0, 0.1, n) for n in lengths], SAMPLE_RATE)
    lines = ["path,emotion,speaker"]
    for number in range(n_clips):
        (folder / f"clip{number:05d}.wav").hardlink_to(folder / f"{number % 20:05d}.wav")
        lines.append(f"clip{number:05d}.wav,anger,s{number % 10}")
    manifest.write_text("\n".join(lines))
    script = (Path(__file__), "--peak-of", manifest)
    done = subprocess.run([sys.executable, *script], check=True, capture_output=True, text=True)
    return float(done.stdout)


def print_peak(manifest: Path) -> None:
    """In a process of its own: extract, and print the peak memory in MiB."""
    extract(
        ExtractConfig(
            model="toy", dataset=str(manifest), cache_dir=manifest.parent / "cache", device="cpu"
        )
    )
    print(peak_memory() / 2**20)


def main(config: Config) -> None:
    """Measure and print."""
    if config.quick:
        config = replace(config, clips=4, repeats=1, corpora=(4, 8))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        work = prepared(config, folder)
        alone = [[i] for i in range(len(work.clips))]
        ways: dict[str, Callable[[], object]] = {
            "forward, one by one": lambda: work.forward(alone),
            "forward, batches": lambda: work.forward(work.batches),
            "lsmprobe extract": work.extract,
            "one by one, .npy files": lambda: work.npy_files(1),
            "padded batches of 16, .npy files": lambda: work.npy_files(PADDED),
        }
        work.forward(alone[:2])
        took = medians(ways, config.repeats, config.device)
        audio_s = sum(map(len, work.clips)) / SAMPLE_RATE
        print(
            f"{machine(config.device)}\n{len(work.clips)} clips, {audio_s:.0f} s of audio at "
            f"{config.sample_rate} Hz"
        )
        for way, seconds in took.items():
            speed = took["forward, batches"] / seconds
            print(f"{way:34} {speed:5.2f} x the speed of the forward pass,", end="")
            print(f" {audio_s / seconds:6.1f} x real time")
        overhead = took["lsmprobe extract"] / took["forward, batches"] - 1
        padded_off, off = differences(work)
        print(f"lsmprobe extract takes {100 * overhead:.1f}% longer than the forward pass")
        print(
            "largest difference from the states of each clip alone, as a part of the layer's root "
            f"mean square: padded batches {padded_off:.1e}, lsmprobe's batches {off:.1e}"
        )

        gigabytes = work.config.cache_path.stat().st_size / 1e9
        megabytes = max(16, round(gigabytes * 1e3))
        disk_s = gigabytes / disk(Limits(megabytes=megabytes, repeats=config.repeats), folder)[0]
        bound, bound_s = max(
            ("the forward pass", took["forward, batches"]), ("the disk", disk_s), key=lambda b: b[1]
        )
        reached = bound_s / took["lsmprobe extract"]
        print(f"{gigabytes:.3f} GB; bound by {bound}: {100 * reached:.0f}% of its speed is reached")

        short, long = (peak_mib(folder / f"memory{n}", n) for n in config.corpora)
        few, many = config.corpora
        print(f"peak memory: {few} clips {short:.0f} MiB, {many} clips {long:.0f} MiB", end="")
        print(f", {long / short:.3f} x")
    figures = {
        "seconds": took,
        "overhead": overhead,
        "off": off,
        "padded_off": padded_off,
        "bound_by": bound,
        "reached": reached,
        "peak_memory_ratio": long / short,
    }
    write_json(config.json, figures, config.device)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak-of"]:
        print_peak(Path(sys.argv[2]))
    else:
        main(tyro.cli(Config))
