"""Soft labels: divergence by definition, ties, a planted distribution, bad columns."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.spatial.distance import jensenshannon
from torch import nn

from lsmprobe.cache.reader import FeatureCache
from lsmprobe.config import ProbeConfig, ReportConfig, SensitivityConfig
from lsmprobe.errors import SettingsError
from lsmprobe.experiments.sensitivity import planned_flips
from lsmprobe.probing.objectives import DISTRIBUTION, SoftCrossEntropy, balanced_weights
from lsmprobe.probing.record import saved_probe
from lsmprobe.probing.stage import probe
from lsmprobe.probing.targets import learned, target_columns
from lsmprobe.probing.task import find_caches, read_task
from lsmprobe.report.make import make_report, write_page
from lsmprobe.report.score_lines import format_scores
from lsmprobe.report.scores_of_run import format_items, items_of_runs
from lsmprobe.report.sweep import format_sweeps
from lsmprobe.results.breakdown import confusion_of, largest_errors, scores_by_group
from lsmprobe.results.comparison import compare_runs
from lsmprobe.results.distributions import best_constant, jensen_shannon, most_frequent
from lsmprobe.results.measures import SHARES
from lsmprobe.results.records import load_head, load_predictions, load_record
from lsmprobe.results.score_table import score_table
from lsmprobe.results.scores import bootstrap_interval, score_of

CLASSES = ("anger", "joy", "sadness")


def votes(n, n_raters=5, seed=0, n_classes=3):
    """Distributions of so many votes; some rows are ties, some have classes without a vote."""
    rng = np.random.default_rng(seed)
    leaning = rng.dirichlet(np.full(n_classes, 0.7), n)
    return np.stack([rng.multinomial(n_raters, p) for p in leaning]) / n_raters


# --------------------------------------------------------------------------------- the numbers


def entropy(p):
    return -sum(x * np.log2(x) for x in p if x > 0)


@given(st.integers(0, 10_000), st.integers(2, 9))
def test_the_divergence_is_what_its_definition_and_scipy_say(seed, n_classes):
    y, a = votes(6, 4, seed, n_classes), votes(6, 7, seed + 1, n_classes)
    found = jensen_shannon(y, a)
    defined = [
        entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2 for p, q in zip(y, a, strict=True)
    ]
    np.testing.assert_allclose(found, defined, atol=1e-12)
    np.testing.assert_allclose(found, jensenshannon(y, a, axis=1, base=2) ** 2, atol=1e-12)
    np.testing.assert_allclose(found, jensen_shannon(a, y))
    assert (jensen_shannon(y, y) < 1e-15).all()
    assert jensen_shannon(np.eye(2), np.eye(2)[::-1]) == pytest.approx([1, 1])  # nothing in common


@pytest.mark.parametrize("seed", [0, 1])
def test_no_constant_distribution_is_nearer_than_the_best(seed):
    y = votes(40, seed=seed)
    found = best_constant(y)
    assert found.sum() == pytest.approx(1)

    def mean(logits):
        q = np.exp(logits) / np.exp(logits).sum()
        return jensen_shannon(y, np.tile(q, (len(y), 1))).mean()

    searched = minimize(mean, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-9})
    own = jensen_shannon(y, np.tile(found, (len(y), 1))).mean()
    assert own == pytest.approx(searched.fun, abs=1e-9)
    assert own < jensen_shannon(y, np.tile(y.mean(0), (len(y), 1))).mean()


def test_the_most_frequent_label_is_none_where_two_classes_have_most_votes():
    shares = np.array([[3, 1, 1], [2, 2, 1], [1, 1, 1], [0, 0, 5]]) / np.array([[5], [5], [3], [5]])
    assert most_frequent(shares).tolist() == [0, -1, -1, 2]
    assert most_frequent(shares.astype(np.float32)).tolist() == [0, -1, -1, 2]
    assert most_frequent(shares.round(6)).tolist() == [0, -1, -1, 2]  # as records have them


def test_utterances_without_agreement_count_in_the_divergence_and_not_in_macro_f1():
    y, a, speakers = votes(80), votes(80, 50, seed=5), np.arange(80) % 8
    agreed = most_frequent(y) >= 0
    assert 0 < agreed.sum() < 80
    labels, guesses = most_frequent(y)[agreed], a.argmax(1)[agreed]
    for soft, hard in (("plurality_f1", "macro_f1"), ("plurality_accuracy", "accuracy")):
        assert score_of(y, a, 3, soft) == pytest.approx(score_of(labels, guesses, 3, hard))
    assert score_of(y, a, 3, "jsd") == pytest.approx(jensen_shannon(y, a).mean())
    certain = np.eye(3)[labels], a[agreed], speakers[agreed]
    own = bootstrap_interval(*certain, 3, score="plurality_f1")
    usual = bootstrap_interval(labels, guesses, speakers[agreed], 3)
    assert (own.low, own.high) == pytest.approx((usual.low, usual.high))
    found = bootstrap_interval(y, a, speakers, 3, score="jsd")
    assert found.low < score_of(y, a, 3, "jsd") < found.high
    assert found.over == "speakers, then utterances"


def test_of_certain_distributions_the_loss_is_that_of_classes():
    torch.manual_seed(0)
    labels, outputs = torch.tensor([0, 2, 2, 1, 2]), torch.randn(5, 3)
    certain = torch.eye(3)[labels]
    usual = nn.CrossEntropyLoss(balanced_weights(labels, 3))
    torch.testing.assert_close(SoftCrossEntropy(certain)(outputs, certain), usual(outputs, labels))
    soft = torch.from_numpy(votes(5)).float()
    torch.testing.assert_close(
        SoftCrossEntropy()(outputs, soft), nn.CrossEntropyLoss()(outputs, soft)
    )
    exact = soft.clamp(min=1e-30).log().requires_grad_()
    SoftCrossEntropy(soft)(exact, soft).backward()  # weights do not move what is learned of one
    assert exact.grad.abs().max() < 1e-6
    unseen = SoftCrossEntropy(torch.eye(3)[:1])
    assert not DISTRIBUTION.has_loss(unseen, certain[3:4]) and DISTRIBUTION.has_loss(
        unseen, certain
    )


def test_guessing_has_both_alarms_and_knowing_has_none():
    y, speakers = votes(120), np.arange(120) % 8
    known = 0.8 * y + 0.2 / 3
    found = SHARES.evaluate(y, known, speakers, CLASSES)
    assert not found.alarms and found.scores["jsd"] < found.scores["constant_jsd"]
    dealt = np.random.default_rng(1).permutation(known)
    codes = [alarm.code for alarm in SHARES.evaluate(y, dealt, speakers, CLASSES).alarms]
    assert codes == ["not-above-constant", "not-below-constant"]
    best = np.tile(best_constant(y), (120, 1))
    still = SHARES.evaluate(y, best, speakers, CLASSES)
    assert [alarm.code for alarm in still.alarms][::2] == ["one-class", "not-below-constant"]
    assert still.scores["jsd"] == pytest.approx(still.scores["constant_jsd"])
    split = np.tile([0.5, 0.5, 0.0], (20, 1))  # nobody agrees
    nobody = SHARES.evaluate(split, known[:20], np.arange(20) % 4, CLASSES).scores
    assert nobody["n_agreed"] == nobody["plurality_f1"] == 0


# --------------------------------------------------------------------------------- from a corpus


@pytest.fixture
def rated(tmp_path, planted_cache):
    """A cache whose layer 3 holds the emotion, and six votes on it: as counts and as words."""
    table = FeatureCache(planted_cache(layer=3)).utterances
    names = sorted(set(table.emotion))
    at = table.emotion.map(names.index).to_numpy()
    counts = 4 * np.eye(4, dtype=int)[at] + 2 * np.eye(4, dtype=int)[(at + 1) % 4]
    counts[::10] = 3 * (np.eye(4, dtype=int)[at] + np.eye(4, dtype=int)[(at + 1) % 4])[::10]  # ties
    said = [[n for n, c in zip(names, row, strict=True) for _ in range(c)] for row in counts]
    labels = pd.DataFrame(counts, columns=[f"n_{name}" for name in names]).assign(
        key=table.key,
        emotion=table.emotion,
        **{f"rater{r}": [row[r] for row in said] for r in range(6)},
        all=["; ".join(row) for row in said],
    )
    labels.to_csv(tmp_path / "own.csv", index=False)
    return ProbeConfig(
        **{"cache_dir": tmp_path / "cache", "results_dir": tmp_path / "results"},
        **{"head": "linear", "layer": 3, "runs": 1, "epochs": 8, "lr": 1e-2, "split": "kfold:5"},
        **{"labels": tmp_path / "own.csv", "target": ",".join(f"n_{name}" for name in names)},
        target_kind="shares",
    )


def test_a_planted_distribution_is_found_and_shown_like_any_measure(rated, caplog):
    caplog.set_level("INFO")
    of_layers = [probe(replace(rated, layer=layer, epochs=6)) for layer in (1, 3)]
    results = pd.concat(of_layers, ignore_index=True)
    assert "16 of 160 utterances have no single most frequent label" in caplog.text
    own = results.set_index("layer")
    assert own.jsd.idxmin() == 3 and own.plurality_f1.idxmax() == 3
    best, noise = own.loc[3], own.loc[1]
    assert best.plurality_f1 > 90 and best.jsd < 0.4 * best.constant_jsd
    assert not best.alarms and "not-below-constant" in noise.alarms
    assert noise.jsd > 0.9 * noise.constant_jsd
    [row] = score_table(results[results.layer == 3]).itertuples()
    assert row.low < row.plurality_f1 <= row.high and row.jsd_low < row.jsd < row.jsd_high
    assert row.constant_jsd == best.constant_jsd
    said = format_scores(results)
    assert "macro-F1" in said and "JSD" in said and "in bits" in said
    [pair] = compare_runs(results, "layer").itertuples()
    assert pair.p < 0.01
    record = load_record(Path(best.path))
    assert record["objective"] == record["measure"] == "shares"
    table = load_predictions(best.path)
    assert (table.truth == "").sum() == 16
    share = table[[f"share_{name}" for name in record["classes"]]].sum(axis=1)
    assert share.to_numpy() == pytest.approx(1, abs=1e-5)
    key = record["predictions"][0]["key"]
    cache = FeatureCache(rated.cache_dir / "planted" / "made.h5")
    at = list(cache.utterances.key).index(key)
    head = saved_probe(record, load_head(Path(best.path)), fold=0)
    outputs = head(torch.from_numpy(np.array(cache.pooled[at, 3])[None]), torch.tensor([1]))
    expected = record["predictions"][0]["probabilities"]
    assert torch.softmax(outputs, 1)[0].tolist() == pytest.approx(expected, abs=1e-4)
    assert confusion_of([record]).to_numpy().sum() == 144
    assert largest_errors([record], 3).wrong_by.is_monotonic_decreasing
    assert {"plurality_accuracy", "jsd", "jsd_low"} <= {*scores_by_group([record], n_resamples=9)}
    shown = " ".join(format_items(items_of_runs([record])).split())
    assert (
        f"JSD {best.jsd:.3f}, 95% interval" in shown
        and "16 answers to utterances without one label left out" in shown
    )
    assert "The largest divergences." in shown and "Scores of each class" in shown
    _, _, others = make_report(ReportConfig(results_dir=rated.results_dir)).partition(
        "Other targets"
    )
    assert "n_anger" in others and "JSD" in others
    page = write_page(ReportConfig(results_dir=rated.results_dir)).read_text()
    assert "constant JSD" in page and "Other targets" in page
    curves = format_sweeps(results, rated.results_dir)
    assert curves.startswith(
        "No curve: curves are drawn of classes and numbers, and these runs learned shares"
    )


def test_every_kind_of_head_learns_them_and_the_others_say_that_they_do_not(rated):
    for head in ("nonlinear", "multilayer"):
        layer = {"nonlinear": 3}.get(head)
        [row] = probe(replace(rated, head=head, layer=layer, split="speaker", lr=5e-3)).itertuples()
        assert row.jsd < 0.7 * row.constant_jsd, head
    for head in ("svm", "logistic", "knn", "ridge"):
        with pytest.raises(SettingsError, match=rf"--head {head} learns .* is of shares; expected"):
            probe(replace(rated, head=head))
    sensitivity = SensitivityConfig(**{**vars(rated), "layer": 3})
    task = read_task(sensitivity, *find_caches(sensitivity)[0])
    choices = {f"{flip.choice} {flip.value}" for flip in planned_flips(sensitivity, task)}
    assert {"class_weights none", "epoch_choice jsd"} <= choices
    assert not {"epoch_choice uar", "regression_loss mse"} & choices
    by_jsd = replace(rated, split="speaker", epoch_choice="jsd", epochs=2)
    assert len(probe(by_jsd)) == 1
    with pytest.raises(SettingsError, match="'jsd', which is not a score of this target"):
        probe(replace(by_jsd, target="emotion", target_kind="auto"))


def test_votes_of_raters_are_the_distribution_that_their_counts_are(rated):
    table = pd.read_csv(rated.labels)
    counted = learned(table, target_columns(rated.target), corpus="c", kind="shares")
    expected = DISTRIBUTION.targets(counted.table[list(counted.names)], counted.names)
    for columns in (tuple(f"rater{r}" for r in range(6)), ("all",)):
        found = learned(table, columns, corpus="c", kind="votes")
        assert found.names == tuple(name.removeprefix("n_") for name in counted.names)
        shares = DISTRIBUTION.targets(found.table[list(columns)], found.names)
        np.testing.assert_array_equal(shares, expected)
    some = table.assign(rater0="", rater1=np.nan)  # a rater may not have voted
    assert len(learned(some, ("rater0", "rater1", "rater2"), corpus="c", kind="votes").table) == 160
    only = learned(table, ("all",), corpus="c", kind="votes", names=("anger", "sadness"))
    assert only.names == ("anger", "sadness") and 0 < len(only.table) < 160
    [row] = probe(replace(rated, target="all", target_kind="votes", epochs=2)).itertuples()
    record = json.loads(Path(row.path).read_text())
    assert record["target"] == ["all"] and len(record["classes"]) == 4


@pytest.fixture
def table():
    n = np.arange(8)
    return pd.DataFrame(
        {
            "key": [f"k{i}" for i in n],
            "a": [0.5, 0.2, 0.9, 0.1, 0.6, 0.3, 0.7, 0.8],
            "b": [0.5, 0.8, 0.1, 0.9, 0.4, 0.7, 0.3, 0.2],
            "none": 0.0,
            "minus": [-1.0, *n[1:]],
            "same": 0.5,
            "words": ["x", "y"] * 4,
            "one": "x",
            "empty": ["x", "y", "x", *[""] * 5],
            "sometimes": [*[0.0] * 2, *n[2:] / 8.0],
        }
    )


@pytest.mark.parametrize(
    ("target", "kind", "message"),
    [
        ("a", "shares", "names 1 column of shares, 'a'; expected one for each class"),
        ("a,none", "shares", "no utterance of c has a share of 'none'; leave it out"),
        ("a,minus", "shares", "1 of 8 values of 'minus' is below 0"),
        ("a,words", "shares", "8 of 8 values of 'words' are no numbers"),
        (
            "same,same2",
            "shares",
            "8 of 8 utterances have no single most frequent label .* have 0 labels",
        ),
        ("one", "votes", "classes in one of c: 1; expected 2 to 100"),
        ("empty", "votes", "5 of 8 utterances of c have no empty"),
        ("a,d", "shares", "c has no column 'd'"),
    ],
)
def test_columns_that_are_no_distribution_are_one_line_with_counts(table, target, kind, message):
    table = table.assign(same2=table.same)
    with pytest.raises(SettingsError, match=message) as error:
        learned(table, target_columns(target), corpus="c", kind=kind)
    assert "\n" not in str(error.value)


def test_shares_of_another_sum_are_divided_by_it_and_utterances_without_any_left_out(table, caplog):
    table = table.assign(b=table.b.where(table.index != 2, 0.6))
    found = learned(table, ("a", "b"), corpus="c", kind="shares")
    assert "shares of 1 of 8 utterances do not sum to 1 as most do (k2 first)" in caplog.text
    shares = DISTRIBUTION.targets(found.table[["a", "b"]], found.names)
    assert shares[2].tolist() == pytest.approx([0.6, 0.4])
    counts = table.assign(other=[0.0, 0.0, 0.1, *range(5)])
    kept = learned(counts, ("sometimes", "other"), corpus="c", kind="shares").table
    assert len(kept) == 6 and "2 of 8 utterances have no sometimes,other" in caplog.text


def test_words_that_may_be_one_and_votes_that_may_be_several_are_said(caplog):
    own = pd.DataFrame({"key": list("abcd"), "word": ["a", "b", "A", "B"] * 1})
    learned(pd.concat([own, own]), ("word",), corpus="c", kind="classes")
    assert "classes of word that differ only in case, each learned apart: 'A', 'a'" in caplog.text
    votes = own.assign(word=["a;a;b", "b;b", "a, b", "a"])
    learned(votes, ("word",), corpus="c", kind="votes")
    assert "votes of word such as 'a, b' count as one word" in caplog.text
