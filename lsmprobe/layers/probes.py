"""What each layer knows: the same probe on every layer, for the emotion and for anything else.

A stage: it reads caches, trains probes on each layer and scores them on held-out utterances.

Features are standardised (`zscore`) unless asked otherwise: without it a layer's score depends on
the scale of its dims as much as on what it holds; with it every layer is read on the same terms.
"""

import glob
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from lsmprobe.cache.reader import FeatureCache
from lsmprobe.cache.verify import verify_once
from lsmprobe.config import ProbeConfig
from lsmprobe.errors import AudioError, SettingsError, SplitError
from lsmprobe.layers.regression import Norm, fit_and_answer, r2, r2_interval
from lsmprobe.layers.targets import TARGETS, WORDS, Target, find_target
from lsmprobe.probing.stage import probe
from lsmprobe.results.records import load_record
from lsmprobe.results.scores import Interval, ScoreName, bootstrap_interval, scores
from lsmprobe.splits.file import Split
from lsmprobe.splits.kinds import make_split

Head = Literal["regression", "linear", "nonlinear"]
Metric = Literal["macro_f1", "uar", "accuracy", "r2"]
MAX_LOSO = 10  # up to so many speakers, each is tested alone; more make ten groups
ABOUT = ["model", "random_weights", "corpus", "target", "head", "feature_norm", "split", "metric"]
log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, repr=False)
class Answers:
    """What one run on one layer says of the test utterances; lists have an entry per fold."""

    n_classes: int  # 0: numbers
    validation: list[float]  # the score on the fold's validation set, percent
    truth: list[np.ndarray]  # classes as 0 to k - 1, or numbers
    answers: list[np.ndarray]
    speakers: list[np.ndarray]

    def __repr__(self) -> str:
        return f"{sum(map(len, self.answers))} answers"


def probe_layers(
    cache: FeatureCache,
    target: str = "emotion",
    *,
    head: Head = "regression",
    feature_norm: Norm = "zscore",
    split: str = "auto",
    split_seed: int = 0,
    score: ScoreName = "macro_f1",
    shuffles: int = 0,
    results_dir: str | Path = "results",
    **settings: Any,
) -> pd.DataFrame:
    """The score of every layer. To report one layer take `best_layer`, never the highest of these.

    Args:
        cache: whose layers.
        target: what is predicted: emotion, speaker, gender, sentence (words), duration, energy or
            pitch (numbers).
        head: `regression` of the utterance's mean, logistic for words and ridge for numbers; or the
            paper's `linear` or `nonlinear`, for the emotion alone: their runs are kept as records.
            The regressions have a fixed penalty, so they need no validation and train on it too.
        feature_norm: zscore by default: without it a layer's score depends on the scale of its dims
            as much as on what it holds.
        split: as `--split` of probe.py, and for the emotion `auto` is as there. For the speaker
            `auto` is `random`: a voice can only be known again if it was heard in training. For the
            others every speaker is tested once (`loso`, or `kfold:10` beyond ten speakers), so that
            no single voice decides.
        split_seed: as `--split-seed`.
        score: of words; numbers have R^2.
        shuffles: how often the regression is also trained and scored on shuffled values: the
            control task. `selectivity` is the score less the control's.
        results_dir: where records are kept, and energy and pitch.
        settings: of the paper's heads, as `ProbeConfig` names them: runs, epochs, ...

    Returns:
        One row per layer, scores in percent: model, random_weights, corpus, target, head,
        feature_norm, split, metric, layer, score (mean over runs), std (over runs, ddof 1), low,
        high (95 % interval, mean over runs) and interval_over, chance (the best constant answer),
        n_test, runs, validation (mean over folds and runs), control, selectivity, answers.

    Raises:
        LsmprobeError: no such target, a split that cannot be made, missing audio or frames, damage.

    Source: Alain and Bengio 2016, arXiv:1610.01644; Hewitt and Liang 2019, arXiv:1909.03368, of
    selectivity. An utterance is its own type here, so a shuffled value tells nothing of another's.
    """
    controls: list[dict[int, list[Answers]]] = []
    if head == "regression":
        if settings:
            raise SettingsError(
                f"{', '.join(settings)}: a regression has no such setting; drop it, or ask for "
                'head="linear" or "nonlinear".'
            )
        verify_once(cache)
        found = find_target(target, cache.utterances, acoustics_csv(cache, results_dir))
        name: str = "ridge" if found.is_number else "logistic"
        metric: Metric = "r2" if found.is_number else score
        made = target_split(found, cache.utterances, split, seed=split_seed)
        kind, layers = made.kind, _regress(cache, found, made, feature_norm, metric)
        for seed in range(shuffles):
            other = replace(found, truth=np.random.default_rng(seed).permutation(found.truth))
            controls.append(_regress(cache, other, made, feature_norm, metric, validate=False))
    else:
        if target != "emotion" or shuffles:
            raise SettingsError(
                f"head={head!r} is probed for the emotion alone, without shuffles; for other "
                'targets and for selectivity take head="regression".'
            )
        config = ProbeConfig(
            model=(cache.path.parent.name,),
            dataset=(cache.path.stem,),
            head=head,
            layer="all",
            split=split,
            split_seed=split_seed,
            feature_norm=feature_norm,
            cache_dir=cache.path.parents[1],
            results_dir=Path(results_dir),
            **settings,
        )
        results = probe(config)
        name, metric = head, score
        kind, layers = results["split"].iloc[0], _recorded(results)
    about = (
        cache.path.parent.name,
        cache.identity.get("random_init") is not None,
        cache.path.stem,
        target,
        name,
        feature_norm,
        kind,
        metric,
    )
    rows = []
    for layer, runs in layers.items():
        row = {**dict(zip(ABOUT, about, strict=True)), "layer": layer, **_summary(runs, metric)}
        row["validation"] = float(np.mean([run.validation for run in runs]))
        control = [_score(*_together(of_layers[layer][0]), metric) for of_layers in controls]
        row["control"] = float(np.mean(control)) if control else np.nan
        rows.append({**row, "selectivity": row["score"] - row["control"], "answers": runs})
    return pd.DataFrame(rows)


def best_layer(curve: pd.DataFrame) -> pd.DataFrame:
    """The layer that validation chooses, and its score on the test set.

    Every fold of every run chooses by its own validation set, which shares no utterance with its
    test set, and answers with the layer it chose. So where folds choose differently, the score is
    that of the choosing, not of one layer; `layer` is then the one chosen most often.

    Args:
        curve: what `probe_layers` returned; or several of them, concatenated: each has its best.

    Returns:
        One row per model, corpus, target, head, normalisation and split: the columns of `curve` up
        to runs, and chosen: {layer: in how many folds}.
    """
    rows = []
    for about, layers in curve.groupby(ABOUT, sort=False):
        numbers, metric = layers["layer"].to_numpy(), layers["metric"].iloc[0]
        chosen: Counter[int] = Counter()
        answers = []
        for runs in zip(*layers["answers"], strict=True):  # one run: its answers on every layer
            validation = np.nan_to_num([run.validation for run in runs], nan=-np.inf)
            best = validation.argmax(0)  # of each fold; the first on ties
            chosen.update(numbers[best].tolist())
            given = [runs[layer].answers[fold] for fold, layer in enumerate(best)]
            answers.append(replace(runs[0], answers=given))
        row = {"layer": chosen.most_common(1)[0][0], **_summary(answers, metric)}
        counts = {"chosen": dict(sorted(chosen.items()))}
        rows.append({**dict(zip(ABOUT, about, strict=True)), **row, **counts})
    return pd.DataFrame(rows)


def _summary(runs: Sequence[Answers], metric: Metric) -> dict[str, Any]:
    """Score, interval and chance level over the answers of all folds together, mean over runs."""
    points, intervals, chances = [], [], []
    for run in runs:
        truth, answers, n_classes = _together(run)
        speakers = np.concatenate(run.speakers)
        points.append(_score(truth, answers, n_classes, metric))
        chances.append(_chance(truth, n_classes, metric))
        if metric == "r2":
            intervals.append(Interval(*r2_interval(truth, answers, speakers)))
        else:
            intervals.append(bootstrap_interval(truth, answers, speakers, n_classes, score=metric))
    return {
        "score": float(np.mean(points)),
        "std": float(np.std(points, ddof=1)) if len(runs) > 1 else np.nan,
        "low": float(np.mean([interval.low for interval in intervals])),
        "high": float(np.mean([interval.high for interval in intervals])),
        "interval_over": intervals[0].over,
        "chance": float(np.mean(chances)),
        "n_test": len(truth),
        "runs": len(runs),
    }


def what_layers_know(
    cache: FeatureCache,
    targets: Sequence[str] | None = None,
    *,
    feature_norm: Norm = "zscore",
    split: str = "auto",
    score: ScoreName = "macro_f1",
    shuffles: int = 1,
    random_weights: bool = True,
    results_dir: str | Path = "results",
) -> pd.DataFrame:
    """The same probe for everything there is to know, layer by layer.

    Args:
        cache: whose layers.
        targets: by default all that this corpus has; what it lacks is named in the log.
        feature_norm: as in `probe_layers`.
        split: of all targets but the speaker, which is split at random. `auto` is as `probe_layers`
            has it for targets other than the emotion, so that all are tested on the same speakers.
        score: as in `probe_layers`.
        shuffles: as in `probe_layers`.
        random_weights: probe the control model too, the same architecture with random weights,
            where its cache lies beside this one.
        results_dir: as in `probe_layers`.

    Returns:
        As `probe_layers`, one row per model, target and layer.

    Raises:
        LsmprobeError: as `probe_layers`.
    """
    caches = [cache, *(control_caches(cache) if random_weights else ())]
    tables = []
    for name in TARGETS if targets is None else targets:
        spec = split if name != "speaker" else "random"
        if spec == "auto":
            spec = whole_speakers(cache.utterances)
        try:
            tables += [
                probe_layers(
                    one,
                    name,
                    feature_norm=feature_norm,
                    split=spec,
                    score=score,
                    shuffles=shuffles,
                    results_dir=results_dir,
                )
                for one in caches
            ]
        except (SettingsError, AudioError) as error:
            if targets is not None:
                raise
            log.warning("left out: %s", error)
    return pd.concat(tables, ignore_index=True)


def control_caches(cache: FeatureCache) -> list[FeatureCache]:
    """The caches of the same architecture with random weights that lie beside this one."""
    folder, name = cache.path.parent, glob.escape(f"{cache.path.parent.name}-random")
    paths = sorted(folder.parent.glob(f"{name}*/{glob.escape(cache.path.name)}"))
    caches = [FeatureCache(path) for path in paths]
    return [one for one in caches if one.identity.get("random_init") is not None]


def knowledge_table(knowledge: pd.DataFrame) -> pd.DataFrame:
    """Scores, layers by targets, with the chance level in the last row of every model.

    Args:
        knowledge: what `what_layers_know` returned.
    """
    tables = {}
    for model, rows in knowledge.groupby("model", sort=False):
        tables[model] = rows.pivot_table("score", "layer", "target", sort=False)
        tables[model].loc["chance"] = rows.groupby("target")["chance"].mean()
    return pd.concat(tables, names=["model", "layer"])


def knowledge_sentences(knowledge: pd.DataFrame) -> list[str]:
    """What each layer knows, a line each: `Layer 5: emotion 71, sentence 98, speaker 64`.

    Args:
        knowledge: what `what_layers_know` returned; of several models each line begins with its.
    """
    several = len(knowledge["model"].unique()) > 1
    lines = []
    for (model, layer), rows in knowledge.groupby(["model", "layer"], sort=False):
        which = f"{model}, layer {layer}" if several else f"Layer {layer}"
        known = ", ".join(f"{row.target} {row.score:.0f}" for row in rows.itertuples())
        lines.append(f"{which}: {known}")
    return lines


def acoustics_csv(cache: FeatureCache, results_dir: str | Path) -> Path:
    """Where the energy and pitch of a corpus are kept, for every model."""
    return Path(results_dir) / "acoustics" / f"{cache.path.stem}.csv"


def whole_speakers(utterances: pd.DataFrame) -> str:
    """The split in which every speaker is tested once."""
    return "loso" if utterances["speaker"].nunique() <= MAX_LOSO else "kfold:10"


def target_split(target: Target, utterances: pd.DataFrame, spec: str, *, seed: int) -> Split:
    """The split that suits a target; its indices count the utterances whose value is known.

    Args:
        target: what is predicted; words take the emotion's place when classes are spread.
        utterances: the table of the cache.
        spec: see `probe_layers`.
        seed: as `--split-seed`.

    Raises:
        SplitError: the utterances cannot be split so, or speakers are to be known unheard.
    """
    table = utterances.iloc[target.rows].reset_index(drop=True)
    if target.name in WORDS:
        table["emotion"] = table[target.name]
    if spec == "auto" and target.name != "emotion":
        spec = "random" if target.name == "speaker" else whole_speakers(table)
    split = make_split(spec, table, seed=seed)
    # Folds are scored together, where nothing is missing; a split that shares the speakers leaks
    # what is asked for when the speaker is.
    if target.classes and target.name != "speaker" and len(split.folds) == 1:
        for note in split.notes:
            log.warning("%s: %s", target.name, note)
    for fold in split.folds:
        heard = np.unique(target.truth[fold.train])
        if target.name == "speaker" and not np.isin(target.truth[fold.test], heard).any():
            raise SplitError(
                f"split {spec} tests speakers who are not in training, and nobody can name a voice "
                'never heard; for target speaker take split="random".'
            )
        if target.classes and len(heard) < 2:
            raise SplitError(
                f"split {spec} leaves one {target.name} in training; expected two or more. Take "
                "another split."
            )
    return split


def _regress(
    cache: FeatureCache,
    target: Target,
    split: Split,
    feature_norm: Norm,
    metric: Metric,
    *,
    validate: bool = True,
) -> dict[int, list[Answers]]:
    """One run on every layer, from the means over frames.

    Validation chooses nothing but the layer (see `best_layer`), so the test set is answered by a
    fit to training and validation together.
    """
    means = torch.from_numpy(np.array(cache.pooled[target.rows]))
    speakers = cache.utterances["speaker"].to_numpy()[target.rows]
    if target.name == "speaker":  # its interval is over utterances: these are all the speakers
        speakers = np.full_like(speakers, "")
    found: dict[int, list[Answers]] = {}
    for layer in tqdm(cache.layers, target.name, unit="layer", delay=5):
        validation, answers = [], []
        for fold in split.folds:
            fit = partial(fit_and_answer, means[:, layer], target.truth, feature_norm=feature_norm)
            if validate:
                truth, answer = target.truth[fold.validation], fit(fold.train, fold.validation)
                validation.append(_score(truth, answer, len(target.classes), metric))
            answers.append(fit(np.concatenate([fold.train, fold.validation]), fold.test))
        tested = [fold.test for fold in split.folds]
        found[layer] = [
            Answers(
                n_classes=len(target.classes),
                validation=validation,
                truth=[target.truth[test] for test in tested],
                answers=answers,
                speakers=[speakers[test] for test in tested],
            )
        ]
    return found


def _recorded(results: pd.DataFrame) -> dict[int, list[Answers]]:
    """Every run on every layer, from the records of the paper's heads."""
    found: dict[int, list[Answers]] = {}
    for row in results.sort_values(["layer", "seed"]).itertuples():
        record = load_record(Path(row.path))
        classes, folds = record["classes"], record["folds"]
        fold_of = np.repeat(range(len(folds)), [fold["n_test"] for fold in folds])
        tested = [part for _, part in pd.DataFrame(record["predictions"]).groupby(fold_of)]
        found.setdefault(int(row.layer), []).append(
            Answers(
                n_classes=len(classes),
                validation=[f["history"][f["best_epoch"] - 1]["validation_score"] for f in folds],
                truth=[np.searchsorted(classes, part["emotion"]) for part in tested],
                answers=[np.searchsorted(classes, part["predicted"]) for part in tested],
                speakers=[part["speaker"].to_numpy() for part in tested],
            )
        )
    return found


def _together(run: Answers) -> tuple[np.ndarray, np.ndarray, int]:
    """Truth and answers of all folds, and the number of classes."""
    return np.concatenate(run.truth), np.concatenate(run.answers), run.n_classes


def _score(truth: np.ndarray, answers: np.ndarray, n_classes: int, metric: Metric) -> float:
    """Percent."""
    return r2(truth, answers) if metric == "r2" else scores(truth, answers, n_classes)[metric]


def _chance(truth: np.ndarray, n_classes: int, metric: Metric) -> float:
    """The score of the best constant answer: the mean, or the most frequent class."""
    if metric == "r2":
        return 0.0
    return _score(truth, np.full_like(truth, np.bincount(truth).argmax()), n_classes, metric)
