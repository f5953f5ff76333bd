"""Stage 1 for models of the usual sizes, compared with the bare forward pass and the disk.

Architectures of wav2vec2-base and -large, XLS-R, Whisper's small and medium encoders, with random
weights (their speed is the real one), in each precision, with frames stored and without. For each
run it prints how near it comes to its bound: the bare forward pass of the same batches, or the disk
where that is slower. For the models with convolutions also: clips one by one, as lsmprobe runs
them, compared with a batch of equally long ones; and how far each precision moves the states.

    python benchmarks/sizes.py [--quick] [--models NAME ...] [--precisions P ...] [--json FILE]
"""

import lsmprobe  # noqa: F401  before torch, which reads once how its threads are to wait

# isort: split
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from extraction import TINY, Work, spoken_clips, write_corpus
from limits import Config as Limits
from limits import disk
from machine import machine, medians, write_json
from transformers import PretrainedConfig, Wav2Vec2Config, WhisperConfig, WhisperFeatureExtractor

from lsmprobe import ExtractConfig
from lsmprobe.corpora.audio import SAMPLE_RATE, read_audio
from lsmprobe.extraction.backbones import ConvolutionBackbone
from lsmprobe.extraction.encoder import Encoder, full_float32
from lsmprobe.extraction.exactness import precision_deviation
from lsmprobe.extraction.load import load_encoder
from lsmprobe.machine import keep_freed_memory

LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
LAYER_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}


def whisper(dim: int, layers: int) -> WhisperConfig:
    """An encoder of that size; the decoder is never run."""
    return WhisperConfig(
        d_model=dim,
        encoder_layers=layers,
        encoder_attention_heads=dim // 64,
        encoder_ffn_dim=4 * dim,
        decoder_layers=1,
        decoder_ffn_dim=64,
    )


MODELS: dict[str, Callable[[], PretrainedConfig]] = {
    "wav2vec2-base": Wav2Vec2Config,
    "wav2vec2-large": lambda: Wav2Vec2Config(**LARGE),
    "xls-r": lambda: Wav2Vec2Config(**LARGE, **LAYER_NORM),
    "whisper-small": lambda: whisper(768, 12),
    "whisper-medium": lambda: whisper(1024, 24),
    "tiny": lambda: Wav2Vec2Config(**TINY),
}


@dataclass(frozen=True)
class Config:
    """Time models of several sizes."""

    models: tuple[str, ...] = tuple(name for name in MODELS if name != "tiny")
    """Which of wav2vec2-base, wav2vec2-large, xls-r, whisper-small, whisper-medium, tiny."""
    precisions: tuple[Literal["float32", "bfloat16", "float16"], ...] = ("float32", "bfloat16")
    """The precisions to compute in."""
    clips: int = 48
    """A sample of the corpus."""
    repeats: int = 3
    """Rounds; the median counts."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where the models run."""
    quick: bool = False
    """A tiny model, to see that it runs."""
    json: Path | None = None
    """Write the figures here too."""


def saved_model(name: str, folder: Path) -> Path:
    """The config of a model, and what prepares its input; no weights."""
    config, place = MODELS[name](), folder / name
    config.save_pretrained(place)
    if isinstance(config, WhisperConfig):
        WhisperFeatureExtractor(feature_size=config.num_mel_bins).save_pretrained(place)
    return place


def timed(work: Work, config: Config) -> dict[str, float]:
    """Seconds of the bare forward pass, and of extraction with frames stored and without."""
    only_means = replace(work, config=replace(work.config, store="pooled"))
    work.forward(work.batches[:1])
    ways: dict[str, Callable[[], object]] = {
        "forward_s": lambda: work.forward(work.batches),
        "frames_s": work.extract,
        "pooled_s": only_means.extract,
    }
    return medians(ways, config.repeats, config.device)


def one_by_one(encoder: Encoder, config: Config, seconds: float = 3.0) -> float:
    """How many times as long convolutions take clip by clip as in one batch of equal clips."""
    network = encoder.backbone.network
    clips = torch.randn(8, int(seconds * SAMPLE_RATE)).to(network.device, network.dtype)

    @torch.no_grad()
    def run(batches: list[torch.Tensor]) -> None:
        with full_float32():
            for batch in batches:
                network.feature_extractor(batch)

    run([clips])
    ways = {"alone": lambda: run(list(clips.split(1))), "together": lambda: run([clips])}
    took = medians(ways, config.repeats, config.device)
    return took["alone"] / took["together"]


def measured(config: Config, folder: Path) -> Iterator[dict[str, Any]]:
    """A row for each model and precision."""
    keep_freed_memory()
    manifest = write_corpus(folder / "corpus", spoken_clips(config.clips), SAMPLE_RATE)
    paths = sorted((folder / "corpus").glob("*.wav"))
    clips = [read_audio(path).waveform for path in paths]
    audio_s = sum(map(len, clips)) / SAMPLE_RATE
    written = disk(Limits(megabytes=256, repeats=config.repeats), folder)[0]
    for name in config.models:
        place, forward_s = saved_model(name, folder), 0.0
        asked = ExtractConfig(
            model=str(place),
            dataset=str(manifest),
            cache_dir=folder / "cache",
            random_init=0,
            input_norm="zscore" if "whisper" not in name else "none",
            device=config.device,
        )
        how = {"random_init": 0, "input_norm": asked.input_norm, "device": config.device}
        for precision in config.precisions:
            encoder = load_encoder(asked.model, precision=precision, **how)
            work = Work(encoder, replace(asked, precision=precision), paths, clips, folder)
            took = timed(work, config)
            forward_s = forward_s or took["forward_s"]
            work.extract()
            gigabytes = asked.cache_path.stat().st_size / 1e9
            bound_s = max(took["forward_s"], gigabytes / written)
            row = {
                "model": name,
                "precision": precision,
                **took,
                "real_time": audio_s / took["frames_s"],
                "reached": bound_s / took["frames_s"],
                "forward_faster": forward_s / took["forward_s"],
            }
            if isinstance(encoder.backbone, ConvolutionBackbone):
                row["convolutions_one_by_one"] = one_by_one(encoder, config)
            if precision != "float32":
                reference = load_encoder(asked.model, precision="float32", **how)
                row["deviation"] = max(precision_deviation(encoder, reference, clips[:3]))
                del reference
            yield row
            del encoder, work


def main(config: Config) -> None:
    """Measure and print."""
    if config.quick:
        config = replace(config, models=("tiny",), clips=4, repeats=1)
    print(machine(config.device))
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for row in measured(config, Path(name)):
            rows.append(row)
            told = ", ".join(f"{k} {v:.3g}" for k, v in row.items() if isinstance(v, float))
            print(f"{row['model']}, {row['precision']}: {told}", flush=True)
            write_json(config.json, {"rows": rows}, config.device)


if __name__ == "__main__":
    main(tyro.cli(Config))
