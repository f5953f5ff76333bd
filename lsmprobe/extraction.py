"""Stage 1: a corpus through a frozen speech model, once, into a cache file.

Reads aloud in `extract`: utterances, encoder, plan, then batches of waveforms whose hidden states
are written one utterance at a time. A run that is stopped continues at the next utterance.
"""

import itertools
import logging
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from tqdm import tqdm

from lsmprobe import __version__
from lsmprobe.audio import SAMPLE_RATE, Audio, n_samples, read_audio, read_header
from lsmprobe.cache import CacheWriter, Outgoing, outgoing, put_in_place
from lsmprobe.cache_format import CachePlan
from lsmprobe.cache_parts import plan_part, replacement_path
from lsmprobe.config import ExtractConfig, dataset_name, label_map
from lsmprobe.continuation import planned_files
from lsmprobe.corpora import corpus_folder, read_corpus
from lsmprobe.device import choose_device
from lsmprobe.encoders import Encoder, largest_difference, load_encoder, precision_deviation
from lsmprobe.errors import AudioError, CorpusError
from lsmprobe.memory import keep_freed_memory
from lsmprobe.toy import write_toy_corpus

DECODERS = 2  # threads that decode ahead of the model
BATCHES_AHEAD = 4

log = logging.getLogger(__name__)
Item = TypeVar("Item")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Summary:
    """What a run of stage 1 left behind; its text is the line printed at the end."""

    path: Path
    n_utterances: int
    n_done: int
    skipped: tuple[str, ...]
    n_tried: int  # clips that were left to do
    hours: float  # of audio, extracted in this run
    gigabytes: float  # of the file
    seconds: float

    def __str__(self) -> str:
        what = f"{self.path}: {self.n_done} of {self.n_utterances} clips, {self.gigabytes:.3f} GB"
        if self.n_tried:
            speed = self.hours * 3600 / self.seconds
            what += f"; {self.hours:.3f} h of audio in {_duration(self.seconds)}"
            what += f", {speed:.1f} x real time"
        else:
            what += "; nothing was left to do"
        if self.skipped:
            names = ", ".join(
                repr(key)[1:-1] for key in self.skipped
            )  # a newline stays in its line
            what += f"; {len(self.skipped)} unreadable and skipped: {names}"
        return what


def extract(config: ExtractConfig) -> Summary:
    """Run the model over the corpus and store what it says; continue where an earlier run stopped.

    Raises:
        LsmprobeError: bad input of any kind; utterances extracted so far are kept.
    """
    started = time.monotonic()
    keep_freed_memory()
    encoder, plan = _planned(config)
    with _Files(planned_files(config.cache_path, plan, config.part_of_n, config.replace)) as files:
        table = files.table
        for unreadable in np.flatnonzero(table.samples == 0):
            files.skip(int(unreadable))
        # Clips that an earlier run skipped are tried again: they may have been mended.
        todo = np.flatnonzero(~files.done & (table.samples > 0)).tolist()
        todo.sort(key=lambda row: -table.samples[row])
        if todo and config.precision != "float32":
            log.info(_precision_told(config, encoder, table.iloc[todo]))
        hours = 0.0
        with (
            _Progress(table, todo) as progress,
            ThreadPoolExecutor(DECODERS) as pool,
            OneBehind() as behind,
        ):
            costs = [encoder.cost_s(n) for n in table.samples]
            groups = batches(costs, todo, _batch_seconds(config))
            for group, audios in made_ahead(pool, lambda g: _read(config, table, g), groups):
                readable = [(row, audio) for row, audio in zip(group, audios, strict=True) if audio]
                states = encoder.hidden_states([audio.waveform for _, audio in readable])
                done = [
                    (row, outgoing(hidden, files.plan), audio.sha256)
                    for (row, audio), hidden in zip(readable, states, strict=True)
                ]
                behind.call(files.store, done, set(group) - {row for row, _ in readable})
                hours += sum(len(audio.waveform) for _, audio in readable) / SAMPLE_RATE / 3600
                progress.add(group)
        if not files.done.any():
            raise CorpusError(f"none of the {len(table)} clips of {config.dataset} can be read.")
    paths = files.paths
    if paths == [replacement_path(config.cache_path)]:
        put_in_place(paths[0], config.cache_path)
        paths = [config.cache_path]
    return Summary(
        path=paths[0] if config.part else config.cache_path,
        n_utterances=len(table),
        n_done=int(files.done.sum()),
        skipped=tuple(table.key[files.skipped]),
        n_tried=len(todo),
        hours=hours,
        gigabytes=sum(path.stat().st_size for path in paths) / 1e9,
        seconds=time.monotonic() - started,
    )


def dry_run(config: ExtractConfig) -> str:
    """What `extract` would do: clips, hours, gigabytes, and the time it would take."""
    encoder, plan = _planned(config)
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
            f"  layers     0 to {encoder.n_layers}, {encoder.dim} dimensions",
            f"  frames     {int(table.frames.sum())}",
            f"  --store frames  {(plan.frames_nbytes + plan.pooled_nbytes) / 1e9:.4f} GB"
            f" as {config.store_dtype}",
            f"  --store pooled  {plan.pooled_nbytes / 1e9:.4f} GB",
            f"  free disk  {free / 1e9:.1f} GB",
            f"  time       about {_duration(seconds)} on {choose_device(config.device)}, "
            "from a few timed clips",
        ]
    )


def selftest(config: ExtractConfig) -> str:
    """Extract a few clips alone and batched, and say how far they differ at the worst layer."""
    encoder, plan = _planned(config)
    waveforms = _some_waveforms(config, plan.utterances, 6)
    differences = largest_difference(encoder, waveforms)
    worst = int(np.argmax(differences))
    versions = f"transformers {version('transformers')}, torch {version('torch')}"
    how = "batched" if encoder.batches_exactly else "one by one, since batching is not exact for it"
    if encoder.batches_exactly and config.precision != "float32":
        how += f", exactly so in float32; what differs is the rounding of {config.precision}"
    return (
        f"{config.model} on {choose_device(config.device)}, {config.precision}, {versions}: "
        f"{len(waveforms)} clips alone and batched differ by at most {differences[worst]:.1e} of "
        f"the layer's root mean square (layer {worst}); this model runs {how}."
    )


def planned_utterances(config: ExtractConfig) -> pd.DataFrame:
    """The corpus' utterances, with the samples (at 16 kHz) and seconds that their headers promise.

    Raises:
        CorpusError: the corpus cannot be read, or some clips cannot and that is not allowed.
    """
    if config.dataset == "toy":
        write_toy_corpus(corpus_folder("toy", config.data_dir))
    table = read_corpus(
        config.dataset,
        config.data_dir,
        emotions=config.emotions,
        merge=label_map(config.map),
        speaker_pattern=config.speaker_pattern,
    )

    def promised(row: Any) -> int | AudioError:
        try:
            header = read_header(row.path)
            return n_samples(header, row.start_s, row.end_s, config.max_seconds)
        except AudioError as error:
            return error

    with ThreadPoolExecutor(DECODERS) as pool:
        found = list(pool.map(promised, table.itertuples()))
    unreadable = [what for what in found if isinstance(what, AudioError)]
    if unreadable and not config.skip_unreadable:
        count = f"{len(unreadable)} of {len(table)} clips cannot be read; the first: "
        raise CorpusError(f"{count}{unreadable[0]} --skip-unreadable leaves them out.")
    if len(unreadable) == len(table):
        raise CorpusError(f"none of the {len(table)} clips can be read; the first: {unreadable[0]}")
    for error in unreadable:
        log.warning("left out: %s", error)
    samples = [0 if isinstance(what, AudioError) else what for what in found]
    log.info("%s: %d clips, %.3g h", config.dataset, len(table), sum(samples) / SAMPLE_RATE / 3600)
    return table.assign(samples=samples, seconds=np.array(samples) / SAMPLE_RATE)


def batches(
    costs: Sequence[float], order: Iterable[int], max_seconds: float
) -> Iterator[list[int]]:
    """Cut `order` into batches of at most `max_seconds`, every utterance counted as the longest.

    Given from long to short, little is padded. An utterance above the bound goes alone.

    >>> list(batches([3.0, 2.0, 2.0, 9.0], [3, 0, 1, 2], max_seconds=6.0))
    [[3], [0, 1], [2]]
    """
    batch: list[int] = []
    for index in order:
        longest = max(costs[i] for i in [*batch, index])
        if batch and longest * (len(batch) + 1) > max_seconds:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def made_ahead(
    pool: ThreadPoolExecutor, make: Callable[[Item], Made], items: Iterable[Item]
) -> Iterator[tuple[Item, Made]]:
    """Each item with what `make` makes of it in a thread, a few items ahead of the consumer."""
    waiting: list[tuple[Item, Future[Made]]] = []
    rest = iter(items)
    while True:
        ahead = itertools.islice(rest, BATCHES_AHEAD - len(waiting))
        waiting += [(item, pool.submit(make, item)) for item in ahead]
        if not waiting:
            return
        item, future = waiting.pop(0)
        yield item, future.result()


class OneBehind:
    """Makes calls in a thread, one at a time, while the caller goes on with what comes next.

    An error comes out of the following call, or of the end of the `with` block, which waits.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._last: Future[None] | None = None

    def call(self, function: Callable[..., None], *args: Any) -> None:
        """Wait for the last call, then begin this one."""
        if self._last:
            self._last.result()
        self._last = self._thread.submit(function, *args)

    def __enter__(self) -> "OneBehind":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._thread.shutdown()
        if self._last and kind is None:
            self._last.result()


def _encoder(config: ExtractConfig) -> Encoder:
    return load_encoder(
        config.model,
        device=choose_device(config.device),
        precision=config.precision,
        random_init=config.random_init,
        revision=config.revision,
        input_norm=config.input_norm,
        whisper_context=config.whisper_context,
    )


def _planned(config: ExtractConfig) -> tuple[Encoder, CachePlan]:
    """The model, and everything that decides what the cache looks like."""
    utterances = planned_utterances(config)
    encoder = _encoder(config)
    utterances = _long_enough(config, utterances, encoder)
    frames = [encoder.n_frames(n) if n else 0 for n in utterances.samples]
    return encoder, CachePlan(
        utterances=utterances.assign(frames=frames),
        n_layers=encoder.n_layers + 1,
        dim=encoder.dim,
        store=config.store,
        dtype=config.store_dtype,
        identity={
            **{name: value for name, value in encoder.identity.items() if name != "versions"},
            "corpus": dataset_name(config.dataset),
            "audio": "mean of the channels, 16 kHz, soxr_hq",
            "max_seconds": config.max_seconds,
            "versions": {
                **encoder.identity["versions"],
                "lsmprobe": __version__,
                "librosa": version("librosa"),
                "soxr": version("soxr"),
            },
        },
    )


def _long_enough(config: ExtractConfig, table: pd.DataFrame, encoder: Encoder) -> pd.DataFrame:
    """Clips that are too short for one frame of this model count as unreadable."""
    short = (table.samples > 0) & (table.samples < encoder.min_samples)
    if short.any():
        found = (
            f"{int(short.sum())} of {len(table)} clips are shorter than one frame of "
            f"{config.model}, {encoder.min_samples} samples at 16 kHz; the first: "
            f"{table.key[short].iloc[0]!r}"
        )
        if not config.skip_unreadable:
            raise CorpusError(f"{found}. --skip-unreadable leaves them out.")
        log.warning("left out: %s", found)
    return _unreadable(table, short)


def _unreadable(table: pd.DataFrame, rows: pd.Series) -> pd.DataFrame:
    """The table with some clips counted as unreadable: they have no samples."""
    samples = table.samples.mask(rows, 0)
    return table.assign(samples=samples, seconds=samples / SAMPLE_RATE)


def _duration(seconds: float) -> str:
    """For people: 42 s, 12 min 30 s, or 3 h 5 min."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def _batch_seconds(config: ExtractConfig) -> float:
    """On two cores small batches of like length are fastest; a GPU wants to be filled."""
    return config.batch_seconds or (12.0 if choose_device(config.device) == "cpu" else 240.0)


def _read(config: ExtractConfig, table: pd.DataFrame, group: Sequence[int]) -> list[Audio | None]:
    """The audio of a batch; None where a clip turns out unreadable and that is allowed."""
    audios: list[Audio | None] = []
    for row in table.iloc[list(group)].itertuples():
        try:
            audio = read_audio(
                row.path, start_s=row.start_s, end_s=row.end_s, max_s=config.max_seconds
            )
        except AudioError as error:
            if not config.skip_unreadable:
                raise AudioError(
                    f"{error} Or leave such clips out with --skip-unreadable. What was done is "
                    "kept."
                ) from error
            log.warning("left out: %s", error)
            audios.append(None)
            continue
        audios.append(audio)
    return audios


def _precision_told(config: ExtractConfig, encoder: Encoder, table: pd.DataFrame) -> str:
    """How far half precision moves the states of a few of the clips from float32."""
    waveforms = _some_waveforms(config, table, 3)
    reference = _encoder(replace(config, precision="float32"))
    deviations = precision_deviation(encoder, reference, waveforms)
    worst = int(np.argmax(deviations))
    return (
        f"{config.precision} moves the states of {len(waveforms)} clips by at most "
        f"{deviations[worst]:.1e} of the layer's root mean square (layer {worst}) from float32"
    )


def _some_waveforms(config: ExtractConfig, table: pd.DataFrame, count: int) -> list[np.ndarray]:
    """A few clips to try, from the shortest to the longest."""
    readable = table[table.samples > 0].reset_index(drop=True)
    audios = _read(config, readable, _spread(readable, count))
    waveforms = [audio.waveform for audio in audios if audio]
    if not waveforms:
        raise CorpusError(f"none of the {len(audios)} clips that were tried can be read.")
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


class _Files:
    """The files that a run writes, as one: `table` holds the utterances of all of them."""

    def __init__(self, planned: Sequence[tuple[Path, CachePlan]]) -> None:
        with ExitStack() as held:
            self.writers = [held.enter_context(CacheWriter.open(*file)) for file in planned]
            self.held = held.pop_all()
        self.paths = [writer.path for writer in self.writers]
        self.table = pd.concat([w.plan.utterances for w in self.writers], ignore_index=True)
        self.places = [(w, i) for w in self.writers for i in range(len(w.plan.utterances))]

    def __enter__(self) -> "_Files":
        return self

    def __exit__(self, *error: Any) -> None:
        self.held.__exit__(*error)

    @property
    def done(self) -> np.ndarray:
        """Which utterances of the table are written."""
        return np.concatenate([writer.done for writer in self.writers])

    @property
    def skipped(self) -> np.ndarray:
        """Which are left out on purpose."""
        return np.concatenate([writer.skipped for writer in self.writers])

    @property
    def plan(self) -> CachePlan:
        """Of any of the files: all store alike."""
        return self.writers[0].plan

    def store(self, done: Sequence[tuple[int, Outgoing, str]], left_out: Iterable[int]) -> None:
        """Write some utterances of the table, and leave others out."""
        for row in left_out:
            self.skip(row)
        for row, hidden, sha256 in done:
            writer, index = self.places[row]
            writer.write(index, hidden, sha256)

    def skip(self, row: int) -> None:
        """Leave it out."""
        writer, index = self.places[row]
        writer.skip(index)


class _Progress:
    """A bar over samples of audio: the time left is right although long clips come first."""

    def __init__(self, table: pd.DataFrame, todo: Sequence[int]) -> None:
        self.samples = table.samples.to_numpy()
        self.n_done = len(table) - len(todo)
        self.n_all = len(table)
        self.n_now = 0
        self.bar = tqdm(
            total=int(self.samples[list(todo)].sum()),
            bar_format="{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}",
            mininterval=0.2 if sys.stderr.isatty() else 30,
            disable=not todo,
        )

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def add(self, group: Sequence[int]) -> None:
        self.n_now += len(group)
        rate = self.n_now / max(self.bar.format_dict["elapsed"], 1e-9)
        samples = int(self.samples[list(group)].sum())
        self.bar.set_postfix_str(
            f"{self.n_done + self.n_now}/{self.n_all} clips, {rate:.3g} clips/s, "
            f"{(self.bar.n + samples) / SAMPLE_RATE / 3600:.3f} h",
            refresh=False,
        )
        self.bar.update(samples)
