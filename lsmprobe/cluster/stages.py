"""Both stages in pieces: what a piece of each command is, and how it is done."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lsmprobe.cache.file import remove_leftovers
from lsmprobe.cache.labels import labels_path
from lsmprobe.cache.lock import sole_writer
from lsmprobe.cache.parts import cache_files
from lsmprobe.cluster.engines import opened
from lsmprobe.cluster.pieces import Piece, pieces_of_extraction, read_table, write_table
from lsmprobe.cluster.runner import run_pieces, shared_by_all
from lsmprobe.config import (
    BaselineConfig,
    ClusterFlags,
    Config,
    ExtractConfig,
    ProbeConfig,
    SensitivityConfig,
    TransferConfig,
)
from lsmprobe.errors import LsmprobeError, SettingsError
from lsmprobe.experiments.baseline import baseline_all, planned_baseline
from lsmprobe.experiments.sensitivity import flipped_jobs, planned_flips, train_flips
from lsmprobe.experiments.transfers import planned_legs, planned_pairs, train_leg
from lsmprobe.extraction.grid import named, read_once, reading
from lsmprobe.extraction.stage import Summary, extract, store_labels, together
from lsmprobe.probing.stage import (
    Job,
    n_epochs,
    named_failures,
    plan_grid,
    probe_all,
    reading_alike,
    todo,
    unit_of,
)
from lsmprobe.probing.table import HEADS, what_is_read
from lsmprobe.probing.task import find_caches, read_task
from lsmprobe.progress import Progress, automatic

PARTS_PER_WORKER = 4  # so that no worker waits long for the last one
Failures = dict[str, Exception]
log = logging.getLogger(__name__)


def extract_on(
    where: Any,
    configs: Sequence[ExtractConfig],
    *,
    parts: int | None = None,
    flags: ClusterFlags | None = None,
    progress: Progress = automatic,
) -> tuple[list[Summary], Failures]:
    """Stage 1 on many processes or machines; what fails does not stop the rest.

    Args:
        where: `"local:N"`, a batch system, the address or scheduler file of a Dask cluster, an
            `Executor` of concurrent.futures, or a Dask client.
        configs: what is extracted, such as `ExtractGridConfig(...).cells`.
        parts: into how many parts each new cache is cut; by default four for each worker.
        flags: what a batch system is asked for.
        progress: how it is shown: one bar for all of the audio.

    Returns:
        A summary of each model on each corpus, and by what failed its error.

    Raises:
        SettingsError: there is no such cluster, or `part` is asked for too.
    """
    if any(config.part for config in configs):
        raise SettingsError("--part does not go with --cluster, which cuts the parts; drop one.")
    corpora, failures = read_once(configs)
    cells = [config for config in configs if named(config) not in failures]
    if not cells:
        return [], failures
    with opened(where, flags or ClusterFlags(), cells[0].device) as engine:
        n_parts = parts or PARTS_PER_WORKER * engine.n_workers
        planned: dict[str, list[Piece]] = {}
        for config in cells:
            utterances = corpora[reading(config)]
            samples = utterances.samples.to_numpy(np.int64)
            there = cache_files(config.cache_path)
            try:
                config.cache_path.parent.mkdir(parents=True, exist_ok=True)
                with sole_writer(config.cache_path):
                    remove_leftovers(labels_path(config.cache_path))
                    store_labels(config.cache_path, utterances)
            except LsmprobeError as error:
                failures[named(config)] = error
                continue
            planned[named(config)] = pieces_of_extraction(config, samples, there, n_parts)
        folders = [config.cache_dir for config in cells]
        with shared_by_all(folders[0], folders) as shared:
            tables = {
                read: Path(shared["logs"]) / f"{number:04d}.npz"
                for number, read in enumerate(corpora)
            }
            for read, table in tables.items():
                write_table(table, corpora[read])
            shared["tables"] = {str(c.cache_path): str(tables[reading(c)]) for c in cells}
            pieces = [piece for of_cell in planned.values() for piece in of_cell]
            answers, failed = run_pieces(
                pieces, engine, shared, progress=progress, bar_format=_BAR, unit="sample"
            )
    summaries = []
    for config in cells:
        done = [answers[p.name] for p in planned.get(named(config), ()) if p.name in answers]
        if done:
            summaries.append(together(config.cache_path, map(Summary.from_json, done)))
    return summaries, failures | _alike(failed)


def train_on(
    where: Any,
    config: ProbeConfig | BaselineConfig,
    *,
    flags: ClusterFlags | None = None,
    progress: Progress = automatic,
) -> Failures:
    """Stage 2 on many processes or machines: make the records that are not there yet.

    A piece is what one read serves: of a cache and a split, the heads and seeds that read alike.
    Afterwards the command itself finds every record and has nothing to train.

    Args:
        where: as for `extract_on`.
        config: of `probe`, or of transfer, sensitivity or the baseline.
        flags: what a batch system is asked for.
        progress: how it is shown: one bar for all epochs.

    Returns:
        By what failed its error; it does not stop the rest.

    Raises:
        LsmprobeError: there is no such cluster, or nothing can be planned.
    """
    pieces, failures = STAGES[type(config)].plan(config, progress)
    if not pieces:
        return failures
    with (
        opened(where, flags or ClusterFlags(), config.device) as engine,
        shared_by_all(config.results_dir, [config.cache_dir, config.results_dir]) as shared,
    ):
        # The longest first: one that begins last would keep a single worker busy at the end.
        pieces.sort(key=lambda piece: -piece.cost)
        _, failed = run_pieces(pieces, engine, shared, progress=progress, unit="epoch")
    return failures | _alike(failed)


_BAR = "{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"


def _alike(failures: Failures) -> Failures:
    """What failed for one reason as one failure: a model that cannot be loaded fails in each part.

    >>> {k: str(v) for k, v in _alike({"a": OSError("x"), "b": OSError("y")}).items()}
    {'a': 'x', 'b': 'y'}
    """
    by_reason: dict[str, list[str]] = {}
    for name, error in failures.items():
        by_reason.setdefault(str(error).partition(" Log: ")[0], []).append(name)
    return {
        names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else ""): failures[names[0]]
        for names in by_reason.values()
    }


class Stage(NamedTuple):
    """What a command is in pieces."""

    plan: Callable[[Any, Progress], tuple[list[Piece], Failures]]
    work: Callable[[Piece, dict[str, Any], Progress], dict[str, Any]]


def _extract_piece(piece: Piece, order: dict[str, Any], progress: Progress) -> dict[str, Any]:
    config = piece.config
    assert isinstance(config, ExtractConfig)
    utterances = read_table(Path(order["tables"][str(config.cache_path)]))
    done = extract(config, progress=progress, utterances=utterances, lease=order["lease"])
    log.info("%s", done)
    return done.to_json()


def _probe_pieces(config: ProbeConfig, progress: Progress) -> tuple[list[Piece], Failures]:
    cells, failures = plan_grid(config, progress=progress)
    pieces = []
    for cell in cells:
        own = replace(config, model=(cell.model,), dataset=(cell.corpus,))
        nbytes = sum(file.stat().st_size for file in cache_files(cell.path))
        pieces += _of_jobs(own, cell.name, cell.jobs, nbytes)
    return pieces, failures


def _probe_piece(piece: Piece, _: dict[str, Any], progress: Progress) -> dict[str, Any]:
    assert isinstance(piece.config, ProbeConfig)
    return _told(probe_all(piece.config, progress=progress, only=_records(piece))[1])


def _sensitivity_pieces(
    config: SensitivityConfig, progress: Progress
) -> tuple[list[Piece], Failures]:
    pieces: list[Piece] = []
    reads = what_is_read(config.head)
    for model, corpus, path in find_caches(config):
        task = read_task(config, model, corpus, path, reads=reads, progress=progress)
        jobs = flipped_jobs(planned_flips(config, task), force=config.force)
        own = replace(config, model=(model,), dataset=(corpus,))
        pieces += _of_jobs(own, f"{model} on {corpus}", jobs)
    return pieces, {}


def _sensitivity_piece(piece: Piece, _: dict[str, Any], progress: Progress) -> dict[str, Any]:
    config = piece.config
    assert isinstance(config, SensitivityConfig)
    [(model, corpus, path)] = find_caches(config)
    task = read_task(config, model, corpus, path, reads=what_is_read(config.head))
    jobs = flipped_jobs(planned_flips(config, task), force=config.force, only=_records(piece))
    with progress(total=n_epochs(jobs), unit=unit_of(jobs)) as bar:
        failed = train_flips(jobs, task, bar)
    return _told({group[0][1].name: error for group, error in failed})


def _transfer_pieces(config: TransferConfig, progress: Progress) -> tuple[list[Piece], Failures]:
    pairs, failures = planned_pairs(config)
    planned: set[Path] = set()  # several pairs have one target, and runs within it in common
    pieces: list[Piece] = []
    for pair in progress(pairs, unit="pair"):
        try:
            legs = planned_legs(config, pair)
        except LsmprobeError as error:
            failures[pair.name] = error
            continue
        for leg in legs:
            runs = [run for run in todo(leg.runs, config.force) if run.path not in planned]
            planned |= {run.path for run in runs}
            name = f"{leg.task.model} on {leg.task.corpus}, {', '.join(pair.classes)}"
            pieces += _of_jobs(config, name, [(leg.config, run) for run in runs])
    return pieces, failures


def _transfer_piece(piece: Piece, _: dict[str, Any], progress: Progress) -> dict[str, Any]:
    config, records = piece.config, _records(piece)
    assert isinstance(config, TransferConfig)
    folders = {(path.parent.parent.name, path.parent.name) for path in records}
    failed: Failures = {}
    with progress(total=piece.size, unit="epoch") as bar:
        for pair in planned_pairs(config)[0]:
            across = f"{pair.source}-to-{pair.target}"
            if folders & {(pair.model, across), (pair.model, pair.target)}:
                for leg in planned_legs(config, pair):
                    failed |= named_failures(leg.task.corpus, train_leg(leg, records, bar))
                    records -= {run.path for run in leg.runs}  # of another pair's target too
    return _told(failed)


def _baseline_pieces(config: BaselineConfig, _: Progress) -> tuple[list[Piece], Failures]:
    task, runs = planned_baseline(config)
    return [
        Piece(
            f"{config.size} on {task.corpus}, seed {run.seed}",
            config,
            len(run.split.folds) * config.epochs,
            (str(run.path),),
        )
        for run in todo(runs, config.force)
    ], {}


def _baseline_piece(piece: Piece, _: dict[str, Any], progress: Progress) -> dict[str, Any]:
    assert isinstance(piece.config, BaselineConfig)
    return _told(baseline_all(piece.config, progress=progress, only=_records(piece))[1])


STAGES: dict[type[Config], Stage] = {
    ExtractConfig: Stage(lambda config, progress: ([], {}), _extract_piece),  # see extract_on
    ProbeConfig: Stage(_probe_pieces, _probe_piece),
    SensitivityConfig: Stage(_sensitivity_pieces, _sensitivity_piece),
    TransferConfig: Stage(_transfer_pieces, _transfer_piece),
    BaselineConfig: Stage(_baseline_pieces, _baseline_piece),
}


def _of_jobs(config: ProbeConfig, name: str, jobs: Sequence[Job], nbytes: int = 0) -> list[Piece]:
    """A piece for the runs that one read serves; `nbytes` are those of the cache."""
    pieces = []
    for number, group in enumerate(reading_alike(jobs)):
        reads, epochs = HEADS[group[0][1].head].reads, n_epochs(group)
        records = tuple(str(run.path) for _, run in group)
        cost = epochs * nbytes if reads == "frames" else 0
        pieces.append(Piece(f"{name}, {reads} {number}", config, epochs, records, cost))
    return pieces


def _records(piece: Piece) -> set[Path]:
    return {Path(record) for record in piece.records}


def _told(failures: Failures) -> dict[str, Any]:
    """Failures within a piece, whose other runs are made: as one error.

    Raises:
        LsmprobeError: there are some.
    """
    if failures:
        raise LsmprobeError("; ".join(f"{what}: {error}" for what, error in failures.items()))
    return {}
