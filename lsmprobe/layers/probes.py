"""The same probe on every layer, for the emotion and for any other column.

A stage: it reads caches, trains probes on each layer and scores them on held-out utterances.

Features are standardised (`zscore`) unless asked otherwise: without it a layer's score depends on
the scale of its dims as much as on what it holds; with it every layer is read on the same terms.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
import pandas as pd
import torch

from lsmprobe.arguments import Within, checked
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.cache.verify import verify_once
from lsmprobe.config import ProbeConfig, Seed
from lsmprobe.errors import SettingsError, SplitError
from lsmprobe.layers.answers import Answers, curve_of
from lsmprobe.layers.curves import keep_curve
from lsmprobe.layers.recorded import leaks_of, recorded_answers
from lsmprobe.layers.regression import NormName, fit_and_answer
from lsmprobe.layers.targets import TARGETS, Target, find_target, labels_of
from lsmprobe.probing.stage import probe
from lsmprobe.probing.table import what_is_read
from lsmprobe.probing.task import labelled, read_task
from lsmprobe.progress import Progress, automatic
from lsmprobe.results.measures import CLASSES, NUMBERS
from lsmprobe.results.records import run_id
from lsmprobe.results.scores import score_of
from lsmprobe.splits.file import Split
from lsmprobe.splits.kinds import make_split
from lsmprobe.splits.voices import clips_in_train, voices_of

TargetName = Literal[TARGETS]  # type: ignore[valid-type]
ControlName = Literal["labels", "sentence", "speaker"]
KindName = Literal["auto", "classes", "numbers"]
OfClasses = Literal["macro_f1", "uar", "accuracy"]
OfNumbers = Literal["r2", "ccc", "pearson"]
CONTROLS = {  # what a control task is called in tables
    "labels": "shuffled labels",
    "sentence": "labels dealt by sentence",
    "speaker": "labels dealt by speaker",
}
MAX_LOSO = 10  # up to so many speakers, each is tested alone; more make ten groups
log = logging.getLogger(__name__)


@checked
def probe_layers(
    cache: FeatureCache | str | Path,
    target: TargetName | str = "emotion",
    *,
    feature_norm: NormName = "zscore",
    split: str = "auto",
    split_seed: Seed = 0,
    target_kind: KindName = "auto",
    labels: str | Path | None = None,
    score: OfClasses | OfNumbers | None = None,
    shuffles: Annotated[int, Within(0, 1000)] = 0,
    control: ControlName = "labels",
    results_dir: str | Path = "results",
    progress: Progress = automatic,
) -> pd.DataFrame:
    """The score of a regression on every layer. To report one layer take `best_layer`.

    Probes are logistic regressions of the utterance's mean for words, ridge regressions for
    numbers. Their penalty is fixed, so they need no validation and train on it too.

    Args:
        cache: whose layers.
        target: what is predicted, as `--target` of `lsmprobe probe`: any column of the table of
            utterances, words as classes and numbers as numbers, or several of numbers with commas,
            whose score is their mean. Of every cache there are emotion, speaker, gender and
            sentence, and, measured, duration, energy and pitch.
        feature_norm: zscore by default: without it a layer's score depends on the scale of its dims
            as much as on what it holds.
        split: as `--split` of `lsmprobe probe`, and for the emotion `auto` is as there. For the
            speaker `auto` is `random`: a voice can only be known again if it was heard in training.
            For the others every speaker is tested once (`loso`, or `kfold:10` beyond ten speakers),
            so that no single voice decides.
        split_seed: as `--split-seed`.
        target_kind: as `--target-kind`.
        labels: as `--labels`: a CSV file with the columns key and those that it replaces or adds.
        score: of classes macro_f1 (the default), uar or accuracy; of numbers r2 (the default), ccc
            or pearson.
        shuffles: how often the probe is also trained and tested on a control task.
        control: which one. `labels` shuffles the values over the utterances, so that nothing can be
            learned: `above_shuffled` is the score less the control's. `sentence` or `speaker` deals
            a random value to each of them, the same in training and test, so that whoever knows the
            sentence (or the voice) can learn it by heart: `selectivity` is the score less that.
        results_dir: where energy and pitch are kept, and if the folder is there, the curve, in
            RESULTS_DIR/curves, for `lsmprobe report`.
        progress: how progress is shown.

    Returns:
        One row per layer (and test set, if the split has several, which the column split then
        names), scores in percent, but for CCC and Pearson, -1 to 1: model, random_weights, corpus,
        cache_hash, labels and labels_hash (of what was learned, as records have it), target, head,
        feature_norm, split, metric, layer; score, low and high (95%
        interval), interval_over, constant (the best constant answer), shuffled and shuffled_95 (the
        probe's own answers
        shuffled against the truth: mean, and the point that 95% do not exceed), n_test, runs (1),
        validation (mean over folds); chosen (by validation, in how many folds) of choices, and the
        score of the layers chosen, best_score with its ends; control_task, control (its score),
        above_shuffled, selectivity; shared_speakers and shared_audio (whether test speakers, or
        the very files, are in train too);
        split_seed.

    Raises:
        LsmprobeError: no such target, one that is constant, missing or half empty, a score that it
            has not, a split that cannot be made, missing audio, damage.

    Source: Alain and Bengio 2016, arXiv:1610.01644; Hewitt and Liang 2019, arXiv:1909.03368, of
    selectivity.
    """
    cache = FeatureCache.of(cache)
    utterances, found = find_asked(cache, target, target_kind, labels, results_dir, progress)
    curve = curve_of_target(
        cache,
        utterances,
        found,
        told=labels_of({}, labels),
        metric=_own_score(found.name, score, of_numbers=found.is_number),
        feature_norm=feature_norm,
        split=split,
        split_seed=split_seed,
        shuffles=shuffles,
        control=control,
        progress=progress,
    )
    keep_curve(curve, results_dir)
    return curve


def curve_of_target(
    cache: FeatureCache,
    utterances: pd.DataFrame,
    target: Target,
    *,
    told: str,
    metric: str,
    feature_norm: NormName,
    split: str,
    split_seed: int,
    shuffles: int,
    control: ControlName,
    progress: Progress,
) -> pd.DataFrame:
    """What `probe_layers` returns, of a target that was found; `told` says with which labels."""
    made = target_split(target, utterances, split, seed=split_seed)
    speakers = utterances["speaker"].to_numpy(str)[target.rows]
    head = "ridge" if target.is_number else "logistic"
    curves = []
    for own in made.apart():
        learned = told, target.labels_hash
        about = _about(cache, target.name, head, feature_norm, own.name, metric, learned)
        regress = partial(_regress, cache, speakers=speakers, progress=progress)
        curve = curve_of(about, regress(target, own, feature_norm, metric))
        dealt = [
            regress(other, own, feature_norm, metric, validate=False)
            for other in control_targets(target, utterances, own, control, shuffles)
        ]
        curve["control_task"] = CONTROLS[control] if dealt else "none"
        curve["control"] = [
            np.mean([layers[layer][0].score(metric) for layers in dealt]) if dealt else np.nan
            for layer in curve["layer"]
        ]
        curve["shared_speakers"] = target.name != "speaker" and voices_of(own, speakers).shared > 0
        curve["shared_audio"] = clips_in_train(own, utterances.iloc[target.rows]) > 0
        curves.append(curve)
    curve = pd.concat(curves, ignore_index=True)
    above = curve["score"] - curve["control"]
    curve["above_shuffled"] = above if control == "labels" else np.nan
    curve["selectivity"] = np.nan if control == "labels" else above
    curve["split_seed"] = split_seed
    return curve


@checked
def sweep_layers(
    cache: FeatureCache | str | Path,
    head: str = "linear",
    *,
    feature_norm: NormName = "zscore",
    split: str = "auto",
    split_seed: Seed = 0,
    score: OfClasses | OfNumbers | None = None,
    results_dir: str | Path = "results",
    **settings: Any,
) -> pd.DataFrame:
    """The score of a trained head on every layer; its runs are kept as records.

    Args:
        cache: whose layers.
        head: one that reads a single layer: `linear`, `nonlinear`, or one that was registered.
        feature_norm: as in `probe_layers`.
        split: as `--split` of `lsmprobe probe`.
        split_seed: as `--split-seed`.
        score: of classes macro_f1 (the default), uar or accuracy; of numbers ccc (the default, by
            which heads choose their epoch), pearson or r2.
        results_dir: where records are kept.
        settings: as `ProbeConfig` names them: target, labels, runs, epochs, lr, ...

    Returns:
        One row per layer, as `probe_layers` without the columns of the control task; score and
        validation are means over runs, std is over runs (ddof 1), and the interval too.

    Raises:
        LsmprobeError: bad input of any kind; finished runs are kept.
    """
    cache = FeatureCache.of(cache)
    config = ProbeConfig(
        model=(cache.model,),
        dataset=(cache.corpus,),
        head=head,
        layer="all",
        split=split,
        split_seed=split_seed,
        feature_norm=feature_norm,
        cache_dir=cache.path.parents[1],
        results_dir=Path(results_dir),
        **settings,
    )
    task = read_task(config, cache.model, cache.corpus, cache.path, reads=what_is_read(head))
    name, measure = ",".join(task.target), task.objective.measure
    if measure not in (CLASSES, NUMBERS):
        raise SettingsError(
            f"curves over layers are of classes or numbers, and {name} is {measure.name}; compare "
            "the runs of lsmprobe probe --layer all in their table of scores."
        )
    metric = _own_score(name, score, of_numbers=measure is NUMBERS, default=measure.score)
    results = probe(config)
    learned = labels_of(results["settings"].iloc[0], task.labels_file), run_id(task.learned)
    curves = []
    for split_name, own in results.groupby("split", sort=True):
        about = _about(cache, name, config.head, config.feature_norm, split_name, metric, learned)
        curve = curve_of(about, recorded_answers(own))
        curves.append(curve.assign(**leaks_of(own)))
    return pd.concat(curves, ignore_index=True)


@checked
def layer_answers(
    cache: FeatureCache | str | Path,
    target: TargetName | str = "emotion",
    *,
    feature_norm: NormName = "zscore",
    split: str = "auto",
    split_seed: Seed = 0,
    target_kind: KindName = "auto",
    labels: str | Path | None = None,
    results_dir: str | Path = "results",
    progress: Progress = automatic,
) -> pd.DataFrame:
    """What the regressions of `probe_layers` answer on every layer.

    Those of trained heads stand in their records: `load_predictions`.

    Args:
        cache: as in `probe_layers`.
        target: as in `probe_layers`.
        feature_norm: as in `probe_layers`.
        split: as in `probe_layers`.
        split_seed: as in `probe_layers`.
        target_kind: as in `probe_layers`.
        labels: as in `probe_layers`.
        results_dir: as in `probe_layers`.
        progress: as in `probe_layers`.

    Returns:
        One row per layer and test utterance: layer, fold, key, speaker, truth and answer, which are
        names of classes or numbers in the target's unit; of several columns `truth_NAME` and
        `answer_NAME` of each.

    Raises:
        LsmprobeError: as `probe_layers`.
    """
    cache = FeatureCache.of(cache)
    utterances, found = find_asked(cache, target, target_kind, labels, results_dir, progress)
    made = target_split(found, utterances, split, seed=split_seed)
    metric = _own_score(found.name, None, of_numbers=found.is_number)
    speakers = utterances["speaker"].to_numpy(str)[found.rows]
    layers = _regress(
        *(cache, found, made, feature_norm, metric),
        speakers=speakers,
        progress=progress,
        validate=False,
    )
    fold = np.repeat(range(len(made.folds)), [len(each.test) for each in made.folds])
    tested = found.rows[np.concatenate([each.test for each in made.folds])]
    about = utterances.iloc[tested][["key", "speaker"]].reset_index(drop=True)
    tables = []
    for layer, [run] in layers.items():
        truth, answers, _ = run.together
        if found.classes:
            truth, answers = (np.array(found.classes)[each] for each in (truth, answers))
        table = about.assign(**_named("truth", truth, found), **_named("answer", answers, found))
        table.insert(0, "layer", layer)
        table.insert(1, "fold", fold)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def find_asked(
    cache: FeatureCache,
    target: str,
    kind: str,
    labels: str | Path | None,
    results_dir: str | Path,
    progress: Progress,
    *,
    together: Sequence[str] = (),
) -> tuple[pd.DataFrame, Target]:
    """The utterances of a cache with the labels that count, and the target; means are verified.

    `together` are all targets of one call: a table that has a column for one of them has labels.

    Raises:
        LsmprobeError: as `probe_layers`.
    """
    verify_once(cache, reads="means")
    columns = tuple(name.strip() for each in (target, *together) for name in each.split(","))
    utterances = labelled(cache, cache.corpus, Path(labels) if labels else None, columns)
    kept = acoustics_csv(cache, results_dir)
    return utterances, find_target(
        target, utterances, kept, progress, corpus=cache.corpus, kind=kind
    )


def _own_score(target: str, score: str | None, *, of_numbers: bool, default: str = "") -> str:
    """The score of a curve: the one asked for, or the first of its kind.

    Raises:
        SettingsError: it is a score of the other kind.
    """
    known = get_args(OfNumbers if of_numbers else OfClasses)
    if score is not None and score not in known:
        kind = "numbers" if of_numbers else "classes"
        raise SettingsError(
            f"score is {score!r}, and {target} is {kind}; expected {', '.join(known)}."
        )
    return score or default or known[0]


def _named(what: str, values: np.ndarray, target: Target) -> dict[str, np.ndarray]:
    """Columns of a table of answers."""
    if values.ndim == 1:
        return {what: values}
    return {f"{what}_{name}": values[:, at] for at, name in enumerate(target.columns)}


def _about(
    cache: FeatureCache,
    target: str,
    head: str,
    feature_norm: str,
    split: str,
    metric: str,
    labels: tuple[str, str],
) -> dict[str, Any]:
    """The columns that a curve begins with; `labels` are they in words, and their hash."""
    return {
        "model": cache.model,
        "random_weights": cache.identity.get("random_init") is not None,
        "corpus": cache.corpus,
        "cache_hash": cache.identity_hash,
        "labels": labels[0],
        "labels_hash": labels[1],
        "target": target,
        "head": head,
        "feature_norm": feature_norm,
        "split": split,
        "metric": metric,
    }


def control_targets(
    target: Target, utterances: pd.DataFrame, split: Split, control: ControlName, times: int
) -> Iterator[Target]:
    """The target with other values, as often as asked for; the i-th is drawn from seed i.

    Args:
        target: the real one.
        utterances: the table of the cache.
        split: on which it is learned.
        control: `labels`, `sentence` or `speaker`; see `probe_layers`.
        times: how many.

    Raises:
        SettingsError: sentences (or speakers) are not known, or are tested that no training set
            has.
    """
    types = None if control == "labels" else utterances[control].to_numpy(str)[target.rows]
    if times and types is not None:
        for fold in split.folds:
            heard = types[np.concatenate([fold.train, fold.validation])]
            if not np.isin(types[fold.test], heard).all() or (types == "").any():
                raise SettingsError(
                    f'control="{control}": split {split.kind} tests a {control} that is not known '
                    "or not in training, so that nothing dealt to it can be learned; take "
                    'split="random", or control="labels".'
                )
    for seed in range(times):
        rng = np.random.default_rng(seed)
        if types is None:
            yield replace(target, truth=rng.permutation(target.truth))
        else:
            yield replace(target, truth=_dealt(target.truth, types, split, rng))


def _dealt(
    truth: np.ndarray, types: np.ndarray, split: Split, rng: np.random.Generator
) -> np.ndarray:
    """A value for each type, drawn as often as it occurs; again until training has two of them.

    Raises:
        SettingsError: it never has.
    """
    names, type_of = np.unique(types, return_inverse=True)
    for _ in range(100):
        dealt = rng.choice(truth, size=len(names))[type_of]
        if all(len(np.unique(dealt[fold.train], axis=0)) > 1 for fold in split.folds):
            return dealt
    raise SettingsError(
        f"{len(names)} of a kind are too few to deal different values to; expected more. Take "
        'control="labels".'
    )


def acoustics_csv(cache: FeatureCache, results_dir: str | Path) -> Path:
    """Where the energy and pitch of a corpus are kept, for every model."""
    return Path(results_dir) / "acoustics" / f"{cache.corpus}.csv"


def whole_speakers(utterances: pd.DataFrame) -> str:
    """The split in which every speaker is tested once."""
    return "loso" if utterances["speaker"].nunique() <= MAX_LOSO else "kfold:10"


def target_split(target: Target, utterances: pd.DataFrame, spec: str, *, seed: int) -> Split:
    """The split that suits a target; its indices count the utterances whose value is known.

    Args:
        target: what is predicted; its classes take the emotion's place when these are spread.
        utterances: the table of the cache.
        spec: see `probe_layers`.
        seed: as `--split-seed`.

    Raises:
        SplitError: the utterances cannot be split so, or speakers are to be known unheard.
    """
    table = utterances.iloc[target.rows].reset_index(drop=True)
    if target.classes:
        table["emotion"] = np.array(target.classes, dtype=object)[target.truth]
    if spec == "auto" and target.name != "emotion":
        spec = "random" if target.name == "speaker" else whole_speakers(table)
    split = make_split(spec, table, seed=seed)
    # Folds are scored together, where nothing is missing; a split that shares the speakers leaks
    # what is asked for when the speaker is.
    if target.classes and target.name != "speaker" and len(split.folds) == 1:
        for note in split.notes:
            log.warning("%s: %s", target.name, note)
    for fold in split.folds:
        heard = np.unique(target.truth[fold.train], axis=0)
        if target.name == "speaker" and not np.isin(target.truth[fold.test], heard).any():
            raise SplitError(
                f"split {spec} tests speakers who are not in training, and nobody can name a voice "
                'never heard; for target speaker take split="random".'
            )
        if len(heard) < 2:
            raise SplitError(
                f"split {spec} leaves one {target.name} in training; expected two or more. Take "
                "another split."
            )
    return split


def _regress(
    cache: FeatureCache,
    target: Target,
    split: Split,
    feature_norm: NormName,
    metric: str,
    *,
    speakers: np.ndarray,
    progress: Progress,
    validate: bool = True,
) -> dict[int, list[Answers]]:
    """One run on every layer, from the means over frames.

    Validation chooses nothing but the layer (see `best_layer`), so the test set is answered by a
    fit to training and validation together.
    """
    means = torch.from_numpy(cache.means_of(target.rows, cache.layers))
    if target.name == "speaker":  # its interval is over utterances: these are all the speakers
        speakers = np.full_like(speakers, "")
    found: dict[int, list[Answers]] = {}
    for layer in progress(cache.layers, desc=target.name, unit="layer", delay=5):
        own = means[:, cache.place(layer)]
        validation, answers = [], []
        for fold in split.folds:
            fit = partial(fit_and_answer, own, target.truth, feature_norm=feature_norm)
            if validate:
                truth, answer = target.truth[fold.validation], fit(fold.train, fold.validation)
                validation.append(score_of(truth, answer, target.n_outputs, metric))
            answers.append(fit(np.concatenate([fold.train, fold.validation]), fold.test))
        tested = [fold.test for fold in split.folds]
        found[layer] = [
            Answers(
                n_outputs=target.n_outputs,
                validation=validation,
                truth=[target.truth[test] for test in tested],
                answers=answers,
                speakers=[speakers[test] for test in tested],
            )
        ]
    return found
