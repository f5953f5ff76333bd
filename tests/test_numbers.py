"""Numbers as targets: scores by definition, a planted signal that is found, bad columns."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import pearsonr
from sklearn.metrics import r2_score

from lsmprobe.cache.reader import FeatureCache
from lsmprobe.config import ProbeConfig, ReportConfig
from lsmprobe.errors import SettingsError
from lsmprobe.layers.recorded import recorded_curves
from lsmprobe.probing.objectives import CCCLoss
from lsmprobe.probing.stage import probe
from lsmprobe.probing.targets import learned, target_columns
from lsmprobe.report.figures import draw_layer_curve
from lsmprobe.report.make import make_report, write_page
from lsmprobe.report.page import render
from lsmprobe.report.score_lines import format_scores
from lsmprobe.results.comparison import compare_runs
from lsmprobe.results.measures import MEASURES
from lsmprobe.results.records import load_predictions, load_record, load_results
from lsmprobe.results.score_table import score_table
from lsmprobe.results.scores import bootstrap_interval, resampled_scores, score_of, shuffled_answers

NUMBERS = MEASURES["numbers"]


def lin(truth, answers):
    """Lin's definition, from numpy's own moments."""
    covariance = np.mean((truth - truth.mean()) * (answers - answers.mean()))
    return 2 * covariance / (truth.var() + answers.var() + (truth.mean() - answers.mean()) ** 2)


DEFINITIONS = {
    "ccc": lin,
    "pearson": lambda t, a: pearsonr(t, a).statistic,
    "rmse": lambda t, a: np.sqrt(np.mean((t - a) ** 2)),
    "mae": lambda t, a: np.mean(np.abs(t - a)),
    "r2": lambda t, a: 100 * r2_score(t, a),
}


@pytest.fixture
def said():
    rng = np.random.default_rng(3)
    truth = 200 + 30 * rng.standard_normal((60, 2))
    answers = 0.6 * truth + 70 + 20 * rng.standard_normal((60, 2))
    return truth, answers, np.arange(60) % 7


@pytest.mark.parametrize("score", DEFINITIONS)
def test_a_score_is_what_its_definition_says_and_several_targets_are_averaged(said, score):
    truth, answers, _ = said
    own = [DEFINITIONS[score](truth[:, k], answers[:, k]) for k in range(2)]
    assert score_of(truth, answers, 2, score) == pytest.approx(np.mean(own), rel=1e-12)


def test_r2_is_100_for_the_truth_and_none_where_the_truth_is_constant(said):
    truth, answers, _ = said
    assert score_of(truth, truth, 2, "r2") == 100
    assert score_of(truth, np.broadcast_to(truth.mean(0), truth.shape), 2, "r2") == 0
    assert np.isnan(score_of(np.full(5, 0.1), np.arange(5.0), 1, "r2"))
    shifted = score_of(1e6 + truth, 1e6 + answers, 2, "r2")
    assert shifted == pytest.approx(score_of(truth, answers, 2, "r2"), rel=1e-6)
    speakers = np.repeat(["a", "b", "c"], 20)
    found = bootstrap_interval(truth, truth, speakers, 2, score="r2")
    assert (found.low, found.high) == pytest.approx((100, 100))


def test_ccc_is_1_for_the_truth_alone_and_0_for_a_constant(said):
    truth, answers, _ = said
    assert score_of(truth, truth, 2, "ccc") == pytest.approx(1)
    assert score_of(truth, truth + 5, 2, "ccc") < 1
    assert score_of(truth, np.full_like(truth, truth.mean()), 2, "ccc") == 0
    assert score_of(truth, answers, 2, "ccc") == pytest.approx(score_of(answers, truth, 2, "ccc"))
    shifted = score_of(1e6 + truth, 1e6 + answers, 2, "ccc")  # sums of squares would lose it
    assert shifted == pytest.approx(score_of(truth, answers, 2, "ccc"), rel=1e-6)


def test_the_loss_is_one_less_the_score_and_has_a_gradient_where_nothing_varies(said):
    truth, answers = (torch.from_numpy(each) for each in said[:2])
    expected = 1 - score_of(said[0], said[1], 2, "ccc")
    assert CCCLoss()(answers, truth).item() == pytest.approx(expected, rel=1e-12)
    one = torch.zeros(1, 1, requires_grad=True)
    loss = CCCLoss()(one, torch.zeros(1, 1))
    loss.backward()
    assert loss.item() == 1 and one.grad.isfinite().all()


@pytest.mark.parametrize("score", NUMBERS.scores)
def test_resamples_score_as_a_plain_loop_over_speakers_would(said, score):
    """Each resample is a weighting of utterances; a repeated utterance counts as often as it is."""
    truth, answers, speakers = said
    [values], over = resampled_scores(
        truth, answers[None], speakers, 2, score=score, n_resamples=300
    )
    assert over == "speakers, then utterances"
    rng = np.random.default_rng(0)
    loop = []
    for _ in range(300):
        drawn = [
            rng.choice(np.flatnonzero(speakers == s), (speakers == s).sum())
            for s in rng.choice(7, 7)
        ]
        rows = np.concatenate(drawn)
        loop.append(score_of(truth[rows], answers[rows], 2, score))
    assert np.quantile(values, [0.1, 0.5, 0.9]) == pytest.approx(
        np.quantile(loop, [0.1, 0.5, 0.9]), rel=0.06
    )
    found = bootstrap_interval(truth, answers, speakers, 2, score=score)
    assert found.low < score_of(truth, answers, 2, score) < found.high


def test_guessing_has_the_alarm_and_knowing_has_not(said):
    truth, answers, speakers = said
    names = ("a", "b")
    assert not NUMBERS.evaluate(truth, answers, speakers, names).alarms
    dealt = np.random.default_rng(1).permutation(answers)
    [alarm] = NUMBERS.evaluate(truth, dealt, speakers, names).alarms
    assert alarm.code == "not-above-constant"
    still = NUMBERS.evaluate(truth, np.full_like(truth, 3.0), speakers, names)
    assert [alarm.code for alarm in still.alarms] == ["one-answer", "not-above-constant"]
    assert still.scores["ccc"] == 0
    assert abs(shuffled_answers(truth, answers, 2, score="ccc", n_shuffles=200).mean) < 0.05


@pytest.fixture
def measured(tmp_path, planted_cache):
    """A cache whose layer 3 holds the emotion, and with it a number; and a table that has it."""
    path = planted_cache(layer=3)
    table = FeatureCache(path).utterances
    level = {name: 10.0 * at + 100 for at, name in enumerate(sorted(set(table.emotion)))}
    labels = pd.DataFrame(
        {
            "key": table.key,
            "valence": table.emotion.map(level) + np.arange(len(table)) % 2,
            "arousal": -table.emotion.map(level),
            "group": np.where(table.emotion.map(level) > 105, "high", "low"),
        }
    )
    file = tmp_path / "own.csv"
    labels.assign(emotion=table.emotion).to_csv(file, index=False)
    return ProbeConfig(
        **{"cache_dir": tmp_path / "cache", "results_dir": tmp_path / "results"},
        **{"head": "linear", "layer": "all", "runs": 2, "epochs": 6, "lr": 5e-3},
        **{"split": "loso", "labels": file},
    )


@pytest.mark.slow
def test_the_curve_of_a_number_peaks_at_the_layer_that_holds_it(measured):
    results = probe(replace(measured, target="valence,arousal"))
    curve = results.groupby("layer").ccc.mean()
    assert curve.idxmax() == 3 and curve[3] > 0.9
    assert curve.drop(3).max() < 0.5
    [record] = {load_record(p)["objective"] for p in map(Path, results.path)}
    assert record == "ccc"
    table = score_table(results)
    best = table[table.layer == 3].iloc[0]
    assert best.low < best.ccc < best.high and best.constant_ccc == 0
    assert "CCC" in format_scores(results) and "macro-F1" not in format_scores(results)
    pairs = compare_runs(results, "layer")
    assert (pairs.difference.abs() <= 2).all() and set(pairs.target) == {"valence,arousal"}
    table = load_predictions(results.path[0])
    assert list(table)[3:] == ["valence", "predicted_valence", "arousal", "predicted_arousal"]


@pytest.mark.slow
def test_a_sweep_of_numbers_is_a_curve_by_ccc_in_every_report(measured):
    config = replace(measured, head="ridge", target="valence", split="speaker")
    results = probe(config)
    curve = recorded_curves(results)
    assert set(curve["metric"]) == {"ccc"} and curve["score"].idxmax() == 3
    np.testing.assert_allclose(curve["score"], results.sort_values("layer")["ccc"], atol=1e-6)
    assert draw_layer_curve(results).get_ylabel() == "CCC"
    text = make_report(ReportConfig(results_dir=config.results_dir))
    assert (config.results_dir / "report" / "curve-made-valence-ccc.png").is_file()
    assert "Which layer" in text and "3 (1 of 1)" in text
    page = write_page(ReportConfig(results_dir=config.results_dir)).read_text()
    assert page.count('class="curve ') == 1
    assert "made, valence, split speaker, features none: CCC of every layer" in page
    best = results[results["layer"] == 3].iloc[0]
    assert f"layer 3: {best.ccc:.3f} ({best.ccc_low:.3f} to {best.ccc_high:.3f})" in page


@pytest.mark.slow
def test_words_of_another_column_are_classes_and_emotions_keep_their_runs(measured):
    config = replace(measured, layer=3, runs=1)
    [group] = probe(replace(config, target="group")).itertuples()
    [emotion] = probe(replace(config, layer=None)).itertuples()
    assert (group.target, group.measure, emotion.target) == ("group", "classes", "emotion")
    assert group.macro_f1 > 90 and group.experiment != emotion.experiment
    said = json.loads(Path(group.path).read_text())["predictions"][0]
    assert said["truth"] in ("high", "low") and said["emotion"] not in ("high", "low")
    numbers = probe(replace(config, target="valence", regression_loss="mse"))
    assert numbers.ccc[0] > 0.9
    folder = config.results_dir
    said = make_report(ReportConfig(results_dir=folder))
    table2, _, others = said.partition("Other targets")
    assert "valence" not in table2 and "valence" in others and "group" in others
    page = render(load_results(folder))
    assert "2 of 3 runs learn other targets" in page and "CCC" in page
    assert "CCC" in render(load_results(folder).query("measure == 'numbers'"))


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "key": [f"k{i}" for i in range(8)],
            "same": [1.0] * 8,
            "mixed": ["1", "2", "x", "4", "5", "6", "7", "8"],
            "half": [1.0] * 4 + [np.nan] * 4,
            "few": [1.0, 2, 3, 4, 5, 6, 7, np.nan],
            "words": ["a", "b"] * 4,
            "single": ["a"] * 7 + ["b"],
            "votes": [1.0, 2.0] * 4,
            "infinite": [1.0, 2, 3, 4, 5, 6, 7, -np.inf],
        }
    )


@pytest.mark.parametrize(
    ("target", "kind", "message"),
    [
        ("valense", "auto", "no column 'valense'"),
        ("same", "auto", "'same' is 1.0 for all 8 utterances"),
        ("mixed", "numbers", "1 of 8 values of 'mixed' is no numbers .the first is 'x'"),
        ("mixed", "auto", "7 of 8 values of 'mixed' are numbers and 1 is text .the first is 'x'"),
        ("half", "auto", "4 of 8 utterances of c have no half"),
        ("single", "auto", "single 'b' occurs once"),
        ("words,mixed", "auto", "8 of 8 values of 'words' are no numbers"),
        ("words,votes", "classes", "2 columns as classes"),
        ("infinite", "auto", "1 of 8 values of 'infinite' is infinite .'k7' first"),
    ],
)
def test_a_column_that_cannot_be_learned_is_one_line_with_counts(table, target, kind, message):
    with pytest.raises(SettingsError, match=message) as error:
        learned(table, target_columns(target), corpus="c", kind=kind)
    assert "\n" not in str(error.value)


def test_what_has_no_target_is_left_out_counted_and_named(table, caplog):
    found = learned(table, ("few",), corpus="c")
    assert len(found.table) == 7 and "1 of 8 utterances has no few" in caplog.text
    assert "k7" in caplog.text


def test_numbers_may_be_read_as_classes(table):
    assert learned(table, ("votes",), corpus="c", kind="classes").names == ("1", "2")
    assert learned(table, ("votes",), corpus="c").names == ("votes",)


@pytest.mark.parametrize("target", ["", "a,,b", "a,a"])
def test_a_target_that_names_nothing_or_twice_is_refused(target):
    with pytest.raises(SettingsError, match="--target"):
        target_columns(target)
