"""What stage 1 says before it runs: sizes, times, and how exact it is here."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import pandas as pd

from lsmprobe.cache.parts import plan_part
from lsmprobe.cache.selection import numbers
from lsmprobe.config import ExtractConfig
from lsmprobe.errors import CorpusError, counted
from lsmprobe.extraction.ahead import read_batch
from lsmprobe.extraction.encoder import Encoder
from lsmprobe.extraction.exactness import (
    frames_of_all,
    largest_difference,
    precision_deviation,
)
from lsmprobe.extraction.plan import chosen_encoder, plan_of, planned_cache
from lsmprobe.machine import choose_device

STEPS_MS = (100.0, 200.0)  # whose sizes a dry run names


def dry_run(config: ExtractConfig) -> str:
    """What `extract` would do: clips, hours, gigabytes, and the time it would take."""
    encoder, plan = planned_cache(config)
    if config.part_of_n:
        plan = plan_part(plan, *config.part_of_n)
    table = plan.utterances
    seconds = _estimated_seconds(config, table, encoder)
    there = next(p for p in (config.cache_path, *config.cache_path.parents) if p.exists())
    free = shutil.disk_usage(there).free
    return "\n".join(
        [
            f"{config.cache_path} (a dry run: nothing was extracted)",
            f"  clips      {len(table)}, {int((table.samples == 0).sum())} of them unreadable",
            f"  audio      {table.seconds.sum() / 3600:.3f} h",
            f"  layers     {numbers(plan.selection.layers)}, {encoder.dim} dimensions",
            f"  frames     {int(table.frames.sum())}",
            *_sizes(config, encoder, table),
            f"  free disk  {free / 1e9:.1f} GB",
            f"  time       about {duration(seconds)} on {choose_device(config.device)}, "
            "from a few timed clips",
        ]
    )


def _sizes(config: ExtractConfig, encoder: Encoder, table: pd.DataFrame) -> list[str]:
    """What the cache takes, as it is asked for and in every smaller way, and what that serves."""
    as_asked = replace(config, store="frames")
    is_all = plan_of(as_asked, encoder, table).is_all
    serves = "every head and analysis" if is_all else "every head, on what is asked for"
    ways = {
        "--store frames": (as_asked, f"as {config.store_dtype}; {serves}"),
        "--layers last": (replace(as_asked, layers="last"), "the heads that read one layer"),
        "--store-dtype int8": (replace(as_asked, store_dtype="int8"), "all of them, rounded"),
    }
    for ms in STEPS_MS if encoder.frame_ms else ():
        at_steps = replace(as_asked, frame_step=ms)
        ways[f"--frame-step {ms:g}"] = (at_steps, "all of them, on means of frames")
    only_means = replace(config, store="pooled", frame_step=None)
    ways["--store pooled"] = (only_means, "Linear and what else reads means: exact")
    lines = []
    for flag, (way, serves) in ways.items():
        plan = plan_of(way, encoder, table)
        nbytes = plan.pooled_nbytes + (plan.frames_nbytes if way.store == "frames" else 0)
        lines.append(f"  {flag}  {nbytes / 1e9:.4f} GB, {serves}")
    return lines


def selftest(config: ExtractConfig) -> str:
    """Extract a few clips alone and batched, and say how far they differ at the worst layer."""
    encoder, plan = planned_cache(config)
    waveforms = _some_waveforms(config, plan.utterances, 6)
    differences = largest_difference(encoder, waveforms)
    worst = int(np.argmax(differences))
    versions = f"transformers {version('transformers')}, torch {version('torch')}"
    how = "batched" if encoder.batches_exactly else "one by one, since batching is not exact for it"
    if encoder.batches_exactly and config.precision != "float32":
        how += f", exactly so in float32; what differs is the rounding of {config.precision}"
    return (
        f"{config.model} on {choose_device(config.device)}, {config.precision}, {versions}: "
        f"{counted(len(waveforms), 'clip')} alone and batched differ by at most "
        f"{differences[worst]:.1e} of the layer's root mean square (layer {worst}); this model "
        f"runs {how}."
    )


def duration(seconds: float) -> str:
    """For people: 42 s, 12 min 30 s, or 3 h 5 min."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def precision_told(config: ExtractConfig, encoder: Encoder, table: pd.DataFrame) -> str:
    """How far half precision moves the states of a few of the clips from float32, and how fast."""
    waveforms = _some_waveforms(config, table, 3)
    reference = chosen_encoder(replace(config, precision="float32"))
    deviations = precision_deviation(encoder, reference, waveforms)
    worst = int(np.argmax(deviations))
    times = _times_as_long(encoder, reference, waveforms[:1])
    return (
        f"{config.precision} moves the states of {counted(len(waveforms), 'clip')} by at most "
        f"{deviations[worst]:.1e} of the layer's root mean square (layer {worst}) from float32; "
        f"it takes {times:.2g} times as long here"
    )


def _times_as_long(encoder: Encoder, reference: Encoder, waveforms: Sequence[np.ndarray]) -> float:
    """The time of one encoder over that of the other: many times where no instruction serves it."""
    took = []
    for each in (encoder, reference):  # which have run before
        started = time.monotonic()
        frames_of_all(each, waveforms)
        took.append(time.monotonic() - started)
    return took[0] / max(took[1], 1e-9)


def _some_waveforms(config: ExtractConfig, table: pd.DataFrame, count: int) -> list[np.ndarray]:
    """A few clips to try, from the shortest to the longest."""
    readable = table[table.samples > 0].reset_index(drop=True)
    audios = read_batch(config, readable, _spread(readable, count))
    waveforms = [audio.waveform for audio in audios if audio]
    if not waveforms:
        raise CorpusError(f"none of {counted(len(audios), 'clip')} that were tried can be read.")
    return waveforms


def _spread(table: pd.DataFrame, count: int) -> list[int]:
    """A few utterances from the shortest to the longest."""
    order = np.argsort(table.samples.to_numpy(), kind="stable")
    return [
        int(order[i])
        for i in np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    ]


def _estimated_seconds(config: ExtractConfig, table: pd.DataFrame, encoder: Encoder) -> float:
    """The time a few clips took, scaled to the seconds of audio that the model really computes."""
    waveforms = _some_waveforms(config, table, 5)
    encoder.hidden_states(waveforms[:1])  # the first call pays for what later ones do not
    started = time.monotonic()
    for waveform in waveforms:
        encoder.hidden_states([waveform])
    took = time.monotonic() - started
    timed = sum(encoder.cost_s(len(waveform)) for waveform in waveforms)
    return took / timed * sum(encoder.cost_s(n) for n in table.samples if n)
