"""The report that answers first: which layer, head and model, how sure, and better than what.

It compares what may be compared: experiments of one corpus that were tested on one split, and were
trained by one recipe. Everything is chosen on validation; what is shown was scored on the test set.
"""

from collections.abc import Hashable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lsmprobe.errors import ResultsError, counted
from lsmprobe.layers.answers import ABOUT
from lsmprobe.layers.recorded import recorded_curves
from lsmprobe.layers.targets import OWN_LABELS, labels_of
from lsmprobe.layers.weights import WEIGHTS_NAMED_BY, layer_weights
from lsmprobe.probing.table import head_title
from lsmprobe.report.advice import one_voice_advice
from lsmprobe.report.comparable import Comparable
from lsmprobe.report.current import outdated, unlike_now
from lsmprobe.report.figures import draw_answers, draw_layer_weights
from lsmprobe.report.flips import flips_of, flips_table
from lsmprobe.report.outcomes import by_group, confused
from lsmprobe.report.paper import paper_table
from lsmprobe.report.runs import Runs
from lsmprobe.report.score_lines import score_items
from lsmprobe.report.shown import drawn, file_name, shortened
from lsmprobe.report.sweep import MAX_CORPORA, sweep_items
from lsmprobe.report.tables import in_words
from lsmprobe.report.typeset import (
    DASH,
    Heading,
    Item,
    Table,
    head_and_layer,
    interval,
    listed,
    named_models,
    number,
    p_value,
    score,
)
from lsmprobe.results.alarms import explained
from lsmprobe.results.breakdown import confusion
from lsmprobe.results.records import load_predictions
from lsmprobe.results.score_table import interval_of_experiment

ON_PAGE = "the tables below show them too."
ELSEWHERE = "lsmprobe results ls lists all, lsmprobe report --html shows all."
MAX_PAIRS = 2  # of emotions that are confused, per corpus


def answer_items(runs: Runs, out: Path) -> list[Item]:
    """The short report, in order; figures are drawn into `out`.

    Args:
        runs: those asked for.
        out: where figures are written.

    Raises:
        ResultsError: no run answers with classes.
    """
    runs, every, compared, chosen, best, differences = Comparable.of(runs)
    items: list[Item] = [Heading("lsmprobe report")]
    items += summary(best, compared, differences, runs)
    flips = flips_of(every)
    items += left_out_items(every, flips)
    items += curve_items(runs, [row for of_one in compared.rows for row in of_one], out)
    items.append(scores_item(runs, chosen, compared))
    items += outcome_items(best, out)
    items += difference_items(differences)
    items += weight_items(runs.table, chosen, out)
    items += flips_table(flips)
    items += transfer_items(runs)
    items += paper_items(compared)
    return items


def answer_sentences(runs: Runs) -> list[str]:
    """What the report says first, for the page; see `answer_items`."""
    found = Comparable.of(runs)
    said = summary(found.best, found.compared, found.differences, found.runs)
    return [*said, *left_out_items(found.every, flips_of(found.every), on_page=True)]


# What is said first


def summary(
    best: pd.DataFrame, compared: pd.DataFrame, differences: pd.DataFrame, runs: Runs
) -> Iterator[str]:
    """Which layer, head and model, how sure, better than what: a paragraph per corpus."""
    for row in best.itertuples():
        found = interval_of_experiment(runs.table.loc[row.rows], load=runs.load)
        n = int(((compared.corpus == row.corpus) & (compared.target == row.target)).sum())
        said = [
            f"{row.corpus}{_target(row)}: of {counted(n, 'experiment')} {_name(row)} is best on "
            f"validation ({_how(row)}). On the test set its "
            f"macro-F1 is {score(row.macro_f1, row.std)}, 95% interval "
            f"{interval(found.low, found.high)}, {_against(row)}."
        ]
        own = differences[(differences.corpus == row.corpus) & (differences.target == row.target)]
        if len(own):
            said.append(_next_best(next(own.itertuples())))
        said += [f"Alarm {explained(code, n, row.runs)}" for code, n in row.alarms.items()]
        yield " ".join(said)
    one_voice = sorted(set(best.corpus[best.test_speakers == 1]))
    if one_voice:
        yield one_voice_advice(one_voice, [])
    elsewhere = runs.table.groupby("corpus").split.agg(lambda names: sorted(set(names)))
    shown = best.groupby("corpus").split.agg(lambda names: set(names))
    others = [
        f"{corpus} ({', '.join(name for name in names if name not in shown.get(corpus, ()))})"
        for corpus, names in elsewhere.items()
        if set(names) - shown.get(corpus, set())
    ]
    if others:
        yield (
            "For each corpus one split is shown: that which tests most speakers, of those without "
            "speakers of train if there are any. Runs on other splits: "
            f"{listed(others)}; --split shows them."
        )


def left_out_items(
    experiments: pd.DataFrame, flips: pd.DataFrame, *, on_page: bool = False
) -> Iterator[str]:
    """What is not compared: other recipes, and labels or caches that are not those of today.

    Args:
        experiments: what `experiments_of` returned.
        flips: what `flips_of` returned.
        on_page: whether this stands on the page, whose tables have all.
    """
    named = [*zip(*(experiments[name] for name in ("corpus", "target", "split")), strict=True)]
    shown = {name for name, is_main in zip(named, experiments.main, strict=True) if is_main}
    of_shown = np.array([name in shown for name in named], dtype=bool)  # others are told already
    of_flips = experiments.experiment.isin(flips.experiment)  # which have a table
    others = experiments[~(experiments.main | experiments.outdated | of_flips) & of_shown]
    if len(others):
        yield (
            f"Not compared: {_by_corpus(others)} by another recipe than most, of a cache that "
            f"stores otherwise, or on splits of another seed; {ON_PAGE if on_page else ELSEWHERE}"
        )
    if len(old := experiments[experiments.outdated]):
        yield (
            f"Not compared: {_by_corpus(old)}. Others of the same name learned the labels, or read "
            "the cache, that are there now (the latest ones, where no cache can be asked); "
            "lsmprobe results ls lists all. Probe again what is to be compared, or move the old "
            "records away."
        )


def _by_corpus(rows: pd.DataFrame, what: str = "experiment") -> str:
    groups = rows.groupby("corpus")
    return listed([f"{name} ({counted(len(own), what)})" for name, own in groups])


def _target(row: Any) -> str:
    return "" if row.target == "emotion" else f", {row.target}"


def _name(row: Any) -> str:
    [model] = named_models([row.model], [row.random_weights])
    of = "" if pd.isna(row.layer) or pd.isna(row.n_layers) else f" of {row.n_layers - 1}"
    return f"{head_and_layer(head_title(row.head), row.layer)}{of}, on {model}"


def _how(row: Any) -> str:
    """The split, the normalisation, and what is not the default."""
    return ", ".join([f"split {row.split}", f"norm {row.feature_norm}", *in_words(row.changes)])


def _against(row: Any) -> str:
    shuffled = (
        "" if pd.isna(row.shuffled_f1) else f" and {number(row.shuffled_f1)} of shuffled answers"
    )
    return f"against {number(row.constant_f1)} of the best constant answer{shuffled}"


def _next_best(row: Any) -> str:
    if pd.isna(row.difference):
        return f"Next is {row.b_head} on {row.b}; {row.note}"
    clear = row.low > 0 or row.high < 0
    verdict = "zero is outside" if clear else "zero is inside: not told apart"
    p = "" if pd.isna(row.p) else f"; p = {p_value(row.p)}"
    return (
        f"Next is {row.b_head}, {row.b}, norm {row.b_norm}: {number(row.difference, '+')} points "
        f"({interval(row.low, row.high, '+')}, {verdict}{p})."
    )


# Layer curves, scores, confusions, groups


def curve_items(runs: Runs, rows: Sequence[Hashable], out: Path) -> Iterator[Item]:
    """Those of sweeps, and of `probe_layers` where its curves were kept.

    Args:
        runs: all of them; of those of other targets every sweep is drawn.
        rows: of the table, whose sweeps are drawn.
        out: where figures are written.
    """
    curves = [runs.regressions] if len(runs.regressions) else []
    with suppress(ResultsError):  # no sweep among them
        every = pd.concat([runs.table.loc[rows], runs.others[~outdated(runs.others)]])
        curves.append(recorded_curves(every, load=runs.load))
    if curves:
        yield from sweep_items(pd.concat(curves, ignore_index=True), out)
    if len(old := runs.old_curves):
        apart = old.groupby([*ABOUT, "split_seed"], dropna=False, as_index=False).first()
        yield (
            f"Not drawn: curves of probe_layers of {_by_corpus(apart, 'curve')} that learned other "
            "labels than the caches hold now, an older file of labels, or another cache than is "
            "there now. Run probe_layers again."
        )


def scores_item(runs: Runs, chosen: pd.DataFrame, compared: pd.DataFrame) -> Table:
    """Each model and head as it is best on validation."""
    ranked = chosen.sort_values(["corpus", "target", "validation"], ascending=[True, True, False])
    rows = [row for of_one in ranked.rows for row in of_one]
    shown = runs.table.loc[rows].assign(
        alarms=[[code for code, _ in of_run] for of_run in runs.table.loc[rows].alarms]
    )
    [table] = score_items(shown, load=runs.load)
    assert isinstance(table, Table)
    table = table._replace(rows=table.rows.drop(columns="accuracy", errors="ignore"))
    notes = [*_not_the_defaults(ranked), *table.notes]
    if (n := len(compared) - len(chosen)) > 0:
        notes.insert(
            0,
            "Of each model and head the layer and normalisation that are best on validation; "
            f"{counted(n, 'other experiment')} of the same split and recipe: "
            "lsmprobe report --html.",
        )
    return shortened(table._replace(notes=notes))


def _not_the_defaults(chosen: pd.DataFrame) -> Iterator[str]:
    """Which rows were made with what, where it is not the default."""
    words = chosen.changes.map(in_words).map(", ".join)
    for text, own in chosen[words != ""].groupby(words, sort=False):
        rows = [f"{row.model} on {row.corpus}, {row.head}" for row in own.itertuples()]
        yield f"{'All' if len(own) == len(chosen) else listed(rows, '; ')}: {text}."


def outcome_items(best: pd.DataFrame, out: Path) -> Iterator[Item]:
    """What the best experiment of each corpus mistakes for what, and whose clips."""
    for row in list(best.itertuples())[:MAX_CORPORA]:
        said = pd.concat([load_predictions(path) for path in row.paths], ignore_index=True)
        name = f"{_name(row)}, {row.corpus}, {row.target}"
        about = f"{name}, {_how(row)}"
        path = out / f"{file_name('answers', row.corpus, row.target)}.png"
        yield drawn(
            f"Answers of {about}. {_mistakes(said)} {_extremes(said)}",
            path,
            draw_answers(said, about),
        )


def _mistakes(said: pd.DataFrame) -> str:
    """The pairs of classes that are mistaken most often, as a sentence."""
    pairs = confused(confusion(said)).head(MAX_PAIRS)
    if pairs.empty:
        return "Nothing is mistaken."
    named = [f"{p.true} for {p.predicted} ({number(p.share)}%)" for p in pairs.itertuples()]
    return f"Mistaken most often: {', '.join(named)}."


def _extremes(said: pd.DataFrame) -> str:
    """The speakers with the fewest and the most right answers, as a sentence."""
    groups = by_group(said, "speaker")
    low, high = groups.loc[groups.share.idxmin()], groups.loc[groups.share.idxmax()]
    if len(groups) == 1:
        return f"One speaker, {low['name']}."
    return (
        f"Of {counted(len(groups), 'speaker')} {low['name']} has fewest right answers "
        f"({number(low.share)}%), {high['name']} most ({number(high.share)}%)."
    )


# Differences


def difference_items(data: pd.DataFrame) -> Iterator[Table]:
    """The differences as a table, where there are any."""
    if data.empty:
        return
    rows = pd.DataFrame(
        {
            "corpus": data.corpus,
            "model": data.b,
            "head": data.b_head,
            "norm": data.b_norm,
            "difference": [number(value, "+") for value in data.difference],
            "95% interval": [
                interval(low, high, "+") for low, high in zip(data.low, data.high, strict=True)
            ],
            "p, Holm": data.p_holm.map(p_value),
        }
    )
    over = " or ".join(sorted(set(data.over) - {""})) or DASH
    reasons = data[data.note != ""].groupby("note").corpus.agg(lambda own: sorted(set(own)))
    notes = [
        "Macro-F1 of the best of each corpus, named on top, less another's, in points, on the same "
        f"utterances and seeds. Bootstrap over {over}; p by permutation of speakers.",
        *(f"{listed(corpora)}: {note}" for note, corpora in reasons.items()),
    ]
    yield shortened(
        Table(
            "differences", "How far the best of a corpus is ahead of others.", rows, 4, notes, data
        )
    )


# Layer weights


def weight_items(runs: pd.DataFrame, chosen: pd.DataFrame, out: Path) -> Iterator[Item]:
    """What heads that weigh layers have learned: a map, and the heaviest layer of each."""
    rows = [row for of_one in chosen.rows for row in of_one]
    weighing = runs.loc[rows]
    weighing = weighing[weighing.layer_weights.notna()]
    if weighing.empty:
        return
    weights = layer_weights(weighing)
    caption = "Layer weights of Multi-Layer, mean over runs; darker is heavier."
    yield drawn(caption, out / "layer-weights.png", draw_layer_weights(weights))
    shown = []
    for (*named_by, _), own in weights.groupby([*WEIGHTS_NAMED_BY, "experiment"]):
        top = own.loc[own.weight.idxmax()]
        shown.append(
            (
                *(*named_by, f"{top.layer} of {own.layer.max()}"),
                f"{score(100 * top.weight, 100 * top['std'])}",
                number(100 / len(own)),
                "no" if top.noisy else "yes",
            )
        )
    columns = ["model", "corpus", "split", "norm", "heaviest layer", "its weight", "even share"]
    notes = [
        "Percent, ± over runs. Clear: layers differ more than runs. Scale matters: layer_shares."
    ]
    table = pd.DataFrame(shown, columns=[*columns, "clear"])
    yield shortened(Table("weights", "The heaviest layers.", table, 4, notes, weights))


# Transfer, and the paper


def transfer_items(runs: Runs) -> Iterator[Table]:
    """Of each pair of corpora and model the head and layer that are best on validation."""
    table = runs.transfers
    if table.empty:
        return
    told = [labels_of(own.settings, own.labels_file) for own in table.itertuples()]
    table = table.assign(labels=told).sort_values("created", kind="stable")
    same = ["model", "corpus", "target", "labels"]
    table = table[~unlike_now(table, "labels_hash", same, "labels_now")]
    keys = [*same, "feature_norm", "head", "layer", "experiment"]
    groups = table.groupby(keys, dropna=False)
    means = groups[["macro_f1", "validation", "constant_f1"]].mean().reset_index()
    means["runs"] = groups.size().to_numpy()
    means["std"] = groups["macro_f1"].std().to_numpy()
    best = means.loc[means.assign(rank=means.validation.fillna(-1)).groupby(same)["rank"].idxmax()]
    ends = [
        interval_of_experiment(table[table.experiment == row.experiment], load=runs.load)
        for row in best.itertuples()
    ]
    pairs = [both.split("-to-", 1) for both in best.corpus]
    rows = pd.DataFrame(
        {
            "model": best.model,
            "trained → tested": [" → ".join(pair) for pair in pairs],
            "learned": [_learned(row) for row in best.itertuples()],
            "head": [head_and_layer(head_title(row.head), row.layer) for row in best.itertuples()],
            "norm": best.feature_norm,
            "macro-F1": list(map(score, best.macro_f1, best["std"])),
            "95% interval": [interval(one.low, one.high) for one in ends],
            "constant": best.constant_f1.map(number),
        }
    )
    notes = [
        "Head, layer and norm by validation on the corpus trained on; tested on all of the other."
    ]
    if set(rows["learned"]) == {"emotion"}:
        rows = rows.drop(columns="learned")
    n_names = rows.columns.get_loc("macro-F1")
    yield shortened(Table("transfers", "Across corpora.", rows, n_names, notes, means))


def _learned(row: Any) -> str:
    """The target of a transfer, and how its labels were merged and chosen."""
    return row.target if row.labels == OWN_LABELS else f"{row.target} ({row.labels})"


def paper_items(compared: pd.DataFrame) -> Iterator[Item]:
    """Beside the paper's Table 3, where its protocol, one of its models and corpora were run."""
    paper = paper_table(3)
    ours = compared[~compared.changes.astype(bool) & compared.split.eq("speaker")]
    ours = ours[ours.feature_norm.eq("none") & ours.target.eq("emotion")]
    ours = ours[ours.layer.isna() | (ours.layer == ours.n_layers - 1).fillna(False)]
    keys = ["corpus", "model", "head"]
    ours = ours.assign(model=ours.papers)
    both = ours.merge(paper[[*keys, "macro_f1", "std"]], on=keys, suffixes=("", "_paper"))
    if both.empty:
        return
    both = both.assign(difference=both.macro_f1 - both.macro_f1_paper)
    rows = pd.DataFrame(
        {
            **{key: both[key] for key in ("corpus", "model")},
            "head": both["head"].map(head_title),
            "here": [score(*pair, 2) for pair in zip(both.macro_f1, both["std"], strict=True)],
            "paper": [
                score(*pair, 2) for pair in zip(both.macro_f1_paper, both.std_paper, strict=True)
            ],
            "difference": [number(value, "+", 2) for value in both.difference],
        }
    )
    notes = ["The paper's tables whole: lsmprobe report --protocol paper."]
    data = both[[*keys, "macro_f1", "std", "macro_f1_paper", "std_paper", "difference"]]
    yield shortened(Table("paper", "Beside the paper's Table 3.", rows, 3, notes, data))
