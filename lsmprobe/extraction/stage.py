"""Stage 1: a corpus through a frozen speech model, once, into a cache file.

Reads aloud in `extract`: utterances, encoder, plan, then batches of waveforms whose hidden states
are written one utterance at a time. A run that is stopped continues at the next utterance.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lsmprobe.cache.file import remove_leftovers
from lsmprobe.cache.labels import labels_path, labels_that_count, write_labels
from lsmprobe.cache.parts import cache_files, replacement_path
from lsmprobe.cache.plan import CachePlan
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.cache.writer import CacheWriter, Outgoing, outgoing, put_in_place
from lsmprobe.config import ExtractConfig
from lsmprobe.corpora.audio import SAMPLE_RATE
from lsmprobe.errors import CacheError, CorpusError, counted
from lsmprobe.extraction.ahead import DECODERS, AudioBar, OneBehind, batches, made_ahead, read_batch
from lsmprobe.extraction.plan import planned_cache
from lsmprobe.extraction.rehearsal import duration, precision_told
from lsmprobe.extraction.resume import planned_files
from lsmprobe.machine import choose_device, keep_freed_memory
from lsmprobe.progress import Progress, automatic

SHOWN = 3  # clips of one finding
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summary:
    """What a run of stage 1 left behind; its text is the line printed at the end."""

    path: Path
    n_utterances: int
    n_done: int
    skipped: tuple[str, ...]
    odd: dict[str, tuple[str, ...]]  # clipping, opposite phase, ... -> keys, of this run
    n_tried: int  # clips that were left to do
    hours: float  # of audio, extracted in this run
    gigabytes: float  # of the file
    seconds: float

    def __str__(self) -> str:
        what = counted(self.n_done, "clip", of=self.n_utterances)
        what = f"{self.path}: {what}, {self.gigabytes:.3f} GB"
        if self.n_tried:
            speed = self.hours * 3600 / self.seconds
            what += f"; {self.hours:.3f} h of audio in {duration(self.seconds)}"
            what += f", {speed:.1f} x real time"
        else:
            what += "; nothing was left to do"
        if self.skipped:
            names = ", ".join(
                repr(key)[1:-1] for key in self.skipped
            )  # a newline stays in its line
            what += f"; {len(self.skipped)} unreadable and skipped: {names}"
        for kind, keys in self.odd.items():
            shown = ", ".join(repr(key)[1:-1] for key in keys[:SHOWN])
            more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
            what += f"; {kind} in {len(keys)}: {shown}{more}"
        return what

    def to_json(self) -> dict[str, Any]:
        """Values that JSON can hold."""
        return {**asdict(self), "path": str(self.path)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Summary":
        """What `to_json` made."""
        odd = {kind: tuple(keys) for kind, keys in values["odd"].items()}
        tuples = {"skipped": tuple(values["skipped"]), "odd": odd}
        return cls(**{**values, **tuples, "path": Path(values["path"])})


def together(path: Path, summaries: Iterable[Summary]) -> Summary:
    """What was done of a cache in parts; the time is that of all parts, one after the other."""
    parts = list(summaries)
    kinds = sorted({kind for part in parts for kind in part.odd})

    def total(name: str) -> Any:
        return sum(getattr(part, name) for part in parts)

    return Summary(
        path=path,
        skipped=tuple(sorted(key for part in parts for key in part.skipped)),
        odd={k: tuple(sorted(key for part in parts for key in part.odd.get(k, ()))) for k in kinds},
        **{
            name: total(name)
            for name in ("n_utterances", "n_done", "n_tried", "hours", "gigabytes", "seconds")
        },
    )


def extract(
    config: ExtractConfig,
    *,
    progress: Progress = automatic,
    utterances: pd.DataFrame | None = None,
    lease: str = "",
) -> Summary:
    """Run the model over the corpus and store what it says; continue where an earlier run stopped.

    Args:
        config: what is extracted.
        progress: how it is shown: a notebook's bar, a terminal's, or `progress.silent`.
        utterances: the corpus, where `planned_utterances` has read it before.
        lease: of the command that hands out parts, see `CacheWriter.open`; that command has written
            the labels.

    Raises:
        LsmprobeError: bad input of any kind; utterances extracted so far are kept.
    """
    started = time.monotonic()
    keep_freed_memory()
    encoder, plan = planned_cache(config, utterances, progress)
    planned = planned_files(config.cache_path, plan, config.part_of_n, config.replace)

    def labels() -> None:
        if not config.part:  # whoever writes another part may be writing the labels too
            remove_leftovers(labels_path(config.cache_path))
        if not lease:
            store_labels(config.cache_path, plan.utterances)

    with _Files(planned, lease, labels) as files:
        table = files.table
        for unreadable in np.flatnonzero(table.samples == 0):
            files.skip(int(unreadable))
        # Clips that an earlier run skipped are tried again: they may have been repaired.
        todo = np.flatnonzero(~files.done & (table.samples > 0)).tolist()
        todo.sort(key=lambda row: -table.samples[row])
        if todo and config.precision != "float32":
            log.info(precision_told(config, encoder, table.iloc[todo]))
        hours = 0.0
        odd: dict[str, list[str]] = defaultdict(list)
        with (
            AudioBar(table, todo, progress) as bar,
            ThreadPoolExecutor(DECODERS) as pool,
            OneBehind() as behind,
        ):
            costs = [encoder.cost_s(n) for n in table.samples]
            groups = batches(costs, todo, _batch_seconds(config))
            for group, audios in made_ahead(pool, lambda g: read_batch(config, table, g), groups):
                readable = [(row, audio) for row, audio in zip(group, audios, strict=True) if audio]
                states = encoder.hidden_states([audio.waveform for _, audio in readable])
                done = [
                    (row, outgoing(hidden, files.plan), audio.sha256)
                    for (row, audio), hidden in zip(readable, states, strict=True)
                ]
                behind.call(files.store, done, set(group) - {row for row, _ in readable})
                hours += sum(len(audio.waveform) for _, audio in readable) / SAMPLE_RATE / 3600
                for row, audio in readable:
                    for finding in audio.findings:
                        odd[finding.partition(":")[0]].append(table.key[row])
                bar.add(group)
        if not files.done.any():
            raise CorpusError(
                f"none of {counted(len(table), 'clip')} of {config.dataset} can be read."
            )
    paths = files.paths
    if paths == [replacement_path(config.cache_path)]:
        put_in_place(paths[0], config.cache_path)
        paths = [config.cache_path]
    return Summary(
        path=paths[0] if config.part else config.cache_path,
        n_utterances=len(table),
        n_done=int(files.done.sum()),
        skipped=tuple(table.key[files.skipped]),
        odd={kind: tuple(sorted(odd[kind])) for kind in sorted(odd)},
        n_tried=len(todo),
        hours=hours,
        gigabytes=sum(path.stat().st_size for path in paths) / 1e9,
        seconds=time.monotonic() - started,
    )


def _batch_seconds(config: ExtractConfig) -> float:
    """On two cores small batches of like length are fastest; a GPU wants to be filled."""
    return config.batch_seconds or (12.0 if choose_device(config.device) == "cpu" else 240.0)


def store_labels(path: Path, utterances: pd.DataFrame) -> None:
    """Write the labels of a corpus beside its cache: before the cache, which relies on them."""
    known, mark = None, False
    if cache_files(path):
        try:
            stored = FeatureCache(path, allow_unfinished=True)
            mark = "labels" not in stored.identity
            known = labels_that_count(stored)
        except CacheError as error:
            log.warning("the labels are written again from the corpus: %s", error)
    relabelled = write_labels(path, utterances, known, mark=mark)
    if relabelled.keys or relabelled.columns:
        log.info("%s", relabelled)


class _Files:
    """The files that a run writes, as one: `table` holds the utterances of all of them.

    `locked` is called once no other run can write the first of them, before it is laid out.
    """

    def __init__(
        self, planned: Sequence[tuple[Path, CachePlan]], lease: str, locked: Callable[[], None]
    ) -> None:
        with ExitStack() as held:
            first, *others = planned
            opened = [CacheWriter.open(*first, lease, locked=locked)]
            held.enter_context(opened[0])
            opened += [held.enter_context(CacheWriter.open(*file, lease)) for file in others]
            self.writers = opened
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
