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
from lsmprobe.splits.file import Split, save_split, split_hash, training_hash
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
    split: Split  # with one test set
    split_hash: str
    training: str  # equal for runs of one cache that differ in what they are tested on alone
    training_hash: str  # of the split's train and validation
    whole_hash: str  # of the split with all of its test sets, as it was saved
    settings: Mapping[str, Any]
    experiment: str  # the same for runs that differ in their seed alone
    path: Path

    @property
    def name(self) -> str:
        """For messages."""
        on = "" if self.layer is None else f" on layer {self.layer}"
        tested = f", {self.split.test_set}" if self.split.test_set else ""
        return f"{self.head}{on}, seed {self.seed}{tested}"


def name_runs(
    task: Task,
    heads: Sequence[tuple[str, int | None, Mapping[str, Any]]],
    splits: Mapping[int, Split],
    results_dir: Path,
    *,
    resplit: int | None = None,
) -> list[Run]:
    """Every head with every seed and test set, each named by everything that decides its numbers.

    Args:
        task: what is learned.
        heads: (head, layer, settings) of each: the layer that it reads, if it is one, and what
            else decides the numbers, as plain values, `feature_norm` among them.
        splits: by the seed of initialisation, dropout and order of batches.
        results_dir: the records go in there.
        resplit: where every seed has a split of its own, the split's seed less the run's.
    """
    distinct = {id(split): split for split in splits.values()}
    apart = {
        key: [(own, split_hash(own, task.keys)) for own in split.apart()]
        for key, split in distinct.items()
    }
    whole = {
        key: (training_hash(split, task.keys), split_hash(split, task.keys))
        for key, split in distinct.items()
    }
    learned = {
        "cache": task.cache.identity_hash,
        **task.learned,
        "method": METHOD,
    }
    runs = []
    for head, layer, settings in heads:
        tests = [
            (seed, own, digest, *whole[id(split)])
            for seed, split in splits.items()
            for own, digest in apart[id(split)]
        ]
        for seed, own, digest, trained, saved in tests:
            experiment = {
                **learned,
                "head": head,
                "layer": layer,
                "split": digest if resplit is None else [own.kind, resplit],
                "settings": dict(settings),
            }
            if resplit is not None and own.test_set:
                experiment["test_set"] = own.test_set
            run = run_id({**experiment, "seed": seed, "split": digest})
            training = run_id({**experiment, "seed": seed, "split": trained, "test_set": ""})
            path = record_path(results_dir, task.model, task.corpus, head, layer, seed, run)
            runs.append(
                Run(
                    head,
                    layer,
                    seed,
                    own,
                    split_hash=digest,
                    training=training,
                    training_hash=trained,
                    whole_hash=saved,
                    settings=settings,
                    experiment=run_id(experiment),
                    path=path,
                )
            )
    return runs


def one_test_set(runs: Sequence[Run], what: str) -> None:
    """Refuse runs on several test sets where what is done with them needs one.

    Raises:
        SplitError: there are several.
    """
    names = sorted({run.split.test_set for run in runs})
    if len(names) > 1:
        kind = runs[0].split.kind
        raise SplitError(
            f"{what} needs one test set, and this split has {', '.join(names)}; take one of them: "
            f"--split {kind}/{names[0]}, or FILE/{names[0]} of a split file."
        )


def saved_split(results_dir: Path, corpus: str, kind: str, digest: str) -> Path:
    """Where a split that runs were made on lies; `digest` is its hash."""
    return results_dir / "splits" / f"{corpus}-{kind.replace(':', '')}-{digest[:12]}.json"


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
    path = saved_split(results_dir, task.corpus, split.kind, split_hash(split, task.keys))
    if not path.exists():
        try:
            save_split(path, split, task.keys)
        except OSError as error:
            raise SplitError(
                f"{path}: the split cannot be written ({error.strerror}); choose another "
                "--results-dir."
            ) from error
    return split
