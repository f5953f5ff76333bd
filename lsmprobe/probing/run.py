"""A run: one head with one seed on one split. Its name and its split.

Every stage that trains something names its runs here, so that results of different stages are one
table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsmprobe.errors import SplitError
from lsmprobe.probing.task import Task
from lsmprobe.results.records import record_path, run_id
from lsmprobe.splits.file import Split, save_split, split_hash
from lsmprobe.splits.kinds import make_split

METHOD = 3
"""Raised whenever the same settings come to give other numbers, so that old runs are not taken for
new ones. 2: an epoch goes through the training set in pools that all seeds share. 3: draws depend
on run, fold and step, also on a CPU; where memory holds the training set, each seed goes through it
in an order of its own."""


@dataclass(frozen=True, eq=False)
class Run:
    """One run that is to be made, and where its record goes."""

    head: str
    layer: int | None  # None: the head reads more than one, or none
    seed: int
    split: Split
    split_hash: str
    settings: Mapping[str, Any]
    experiment: str  # the same for runs that differ in their seed alone
    path: Path

    @property
    def name(self) -> str:
        """For messages."""
        on = "" if self.layer is None else f" on layer {self.layer}"
        return f"{self.head}{on}, seed {self.seed}"


def name_runs(
    task: Task,
    heads: Sequence[tuple[str, int | None, Mapping[str, Any]]],
    splits: Mapping[int, Split],
    results_dir: Path,
    *,
    resplit: int | None = None,
) -> list[Run]:
    """Every head with every seed, each named by everything that decides its numbers.

    Args:
        task: what is learned.
        heads: (head, layer, settings) of each: the layer that it reads, if it is one, and what
            else decides the numbers, as plain values, `feature_norm` among them.
        splits: by the seed of initialisation, dropout and order of batches.
        results_dir: the records go in there.
        resplit: where every seed has a split of its own, the split's seed less the run's.
    """
    distinct = {id(split): split for split in splits.values()}
    hashes = {key: split_hash(split, task.keys) for key, split in distinct.items()}
    learned = {
        "cache": task.cache.identity_hash,
        **task.learned,
        "method": METHOD,
    }
    runs = []
    for head, layer, settings in heads:
        for seed, split in splits.items():
            digest = hashes[id(split)]
            experiment = {
                **learned,
                "head": head,
                "layer": layer,
                "split": digest if resplit is None else [split.kind, resplit],
                "settings": dict(settings),
            }
            run = run_id({**experiment, "seed": seed, "split": digest})
            path = record_path(results_dir, task.model, task.corpus, head, layer, seed, run)
            runs.append(Run(head, layer, seed, split, digest, settings, run_id(experiment), path))
    return runs


def make_task_split(spec: str, task: Task, *, seed: int, results_dir: Path) -> Split:
    """The split, saved so that it can be given back with --split FILE.

    Args:
        spec: as `--split` has it.
        task: whose utterances are split.
        seed: which one of the near-best splits.
        results_dir: it is saved in its folder `splits`.

    Raises:
        SplitError: the corpus cannot be split so, or the split cannot be saved.
    """
    split = make_split(spec, task.balanced, seed=seed)
    digest = split_hash(split, task.keys)[:12]
    kind = split.kind.replace(":", "")
    path = results_dir / "splits" / f"{task.corpus}-{kind}-{digest}.json"
    if not path.exists():
        try:
            save_split(path, split, task.keys)
        except OSError as error:
            raise SplitError(
                f"{path}: the split cannot be written ({error.strerror}); choose another "
                "--results-dir."
            ) from error
    return split
