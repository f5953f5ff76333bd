"""Learning curves: nested speakers, fixed test set, more is better where there is more to learn."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lsmprobe.cache.reader import FeatureCache
from lsmprobe.config import ProbeConfig
from lsmprobe.errors import SettingsError, TrainingError
from lsmprobe.experiments.learning_curves import doubling, learning_curve
from lsmprobe.probing.stage import probe
from lsmprobe.report.figures import draw_learning_curve
from lsmprobe.results.records import load_record, load_results

QUICK = {"epochs": 2, "hidden": 8, "device": "cpu"}


@pytest.fixture
def curve_of(tmp_path, planted_cache):
    cache = planted_cache()  # a path is as good as a cache

    def make(**settings):
        given = {"layer": 3, "runs": 2, "results_dir": tmp_path / "results", **QUICK, **settings}
        return learning_curve(cache, **given)

    return make


def test_sizes_double_up_to_all_speakers():
    assert doubling(1) == [1]
    assert doubling(54) == [1, 2, 4, 8, 16, 32, 54]


def test_training_sets_are_nested_and_the_rest_is_fixed(curve_of, tmp_path):
    curve = curve_of()
    # 10 speakers of 16 clips: 8 are trained on.
    assert list(curve["speakers"]) == [1, 1, 2, 2, 4, 4, 8, 8]
    assert (curve["clips"] == 16 * curve["speakers"]).all()
    assert list(curve["seed"]) == [0, 1] * 4
    assert (curve["n_test"] == 16).all()
    results = load_results(tmp_path / "results")
    records = [load_record(path) for path in map(type(tmp_path), results["path"])]
    tested = {tuple(p["key"] for p in record["predictions"]) for record in records}
    assert len(tested) == 1
    chosen: dict[int, list[set[str]]] = {0: [], 1: []}
    for record in sorted(records, key=lambda r: r["folds"][0]["n_train"]):
        if record["split"]["kind"] == "learning-curve":
            said = record["split"]["notes"][-1]
            chosen[record["seed"]].append(set(said.partition(": ")[2].split(", ")))
        assert record["folds"][0]["n_validation"] == 16
    for sets in chosen.values():
        assert [len(one) for one in sets] == [1, 2, 4]
        assert sets[0] < sets[1] < sets[2]
    assert chosen[0] != chosen[1]


def test_a_run_that_breaks_down_is_named_and_costs_no_other(curve_of, breaks_down, caplog):
    breaks_down(lambda member: member.seed == 1)
    curve = curve_of(sizes=[1, 8])
    assert list(curve["speakers"]) == [1, 8] and list(curve["seed"]) == [0, 0]
    assert (
        "skipping planted on made, linear on layer 3, seed 1: the loss is not finite" in caplog.text
    )
    breaks_down(lambda member: True)
    with pytest.raises(TrainingError, match="not finite"):
        curve_of(sizes=[2])


def test_with_all_speakers_the_runs_are_those_of_probe(curve_of, tmp_path, monkeypatch):
    curve = curve_of(sizes=[8])
    monkeypatch.setattr("lsmprobe.probing.stage.fit", None)  # nothing is trained again
    results = probe(
        ProbeConfig(
            cache_dir=tmp_path / "cache",
            results_dir=tmp_path / "results",
            head="linear",
            layer=3,
            runs=2,
            **QUICK,
        )
    )
    assert list(results["macro_f1"]) == list(curve["score"])
    assert set(results["split"]) == {"speaker"}


def test_more_speakers_score_higher_where_the_emotion_is_planted(curve_of):
    curve = curve_of(sizes=[1, 8], runs=3, epochs=15, lr=5e-3)
    means = curve.groupby("speakers")["score"].mean()
    assert means[8] > means[1] + 10
    assert means[8] > 80


def test_every_layer_may_have_a_curve_and_multilayer_one_of_its_own(curve_of):
    assert set(curve_of(sizes=[2], runs=1, layer="all")["layer"]) == set(range(6))
    weighed = curve_of(sizes=[2], runs=1, head="multilayer", layer=None)
    assert weighed["layer"].isna().all()


@pytest.mark.parametrize(
    ("score", "constant"), [("macro_f1", 10.0), ("uar", 25.0), ("accuracy", 25.0)]
)
def test_guessing_is_the_best_constant_answer(curve_of, score, constant):
    """Of four emotions alike: one recalled, a quarter right; its F1 is 2/5, the others' 0."""
    curve = curve_of(sizes=[1], runs=1, score=score)
    np.testing.assert_allclose(curve["constant"], constant)
    assert set(curve["metric"]) == {score}


def test_numbers_have_a_learning_curve_in_their_own_score(curve_of, tmp_path):
    curve = curve_of(target="seconds", head="ridge", layer=3, sizes=[2, 8], runs=1)
    assert list(curve["speakers"]) == [2, 8] and set(curve["target"]) == {"seconds"}
    assert set(curve["metric"]) == {"ccc"} and set(curve["constant"]) == {0.0}
    assert (curve["ccc_low"] <= curve["score"]).all() and (curve["score"] < 1).all()
    ax = draw_learning_curve(curve)
    assert "CCC, mean" in ax.get_ylabel() and ax.get_ylim()[1] == pytest.approx(1.02)
    errors = curve_of(target="seconds", head="ridge", sizes=[8], runs=1, score="rmse")
    table = FeatureCache(tmp_path / "cache" / "planted" / "made.h5").utterances.set_index("key")
    [record] = map(load_record, [Path(load_results(tmp_path / "results")["path"].iloc[-1])])
    tested = table["seconds"][[p["key"] for p in record["predictions"]]]
    assert errors["constant"].iloc[0] == pytest.approx(tested.std(ddof=0), rel=1e-5)
    assert errors["score"].iloc[0] > 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"score": "ccc"}, "score is 'ccc', and emotion is classes; expected macro_f1, uar"),
        ({"split": "loso"}, "needs one test set, and split loso has 10"),
        ({"split": "kfold:3"}, "has 3; take speaker"),
        ({"resplit": True}, "has one per run"),
        ({"sizes": [0, 3]}, "sizes: 0 training speakers; made has 1 to 8"),
        ({"sizes": [9]}, "sizes: 9 training speakers"),
        ({"layer": 9}, "--layer 9"),
    ],
)
def test_what_cannot_be_is_refused(curve_of, settings, said):
    with pytest.raises(SettingsError, match=said):
        curve_of(**settings)


def test_the_figure_has_a_line_a_band_and_the_best_constant_answer(curve_of):
    curve = curve_of()
    ax = draw_learning_curve(curve)
    line, constant = ax.lines
    means = curve.groupby("speakers")["score"].mean()
    np.testing.assert_allclose(line.get_xydata(), np.column_stack([means.index, means]))
    assert constant.get_ydata()[0] == curve["constant"].iloc[0]
    [band] = ax.collections
    spread = curve.groupby("speakers")["score"].std()
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.max() == pytest.approx((means + spread).max())
    assert ax.get_xlabel() == "training speakers"
    assert "macro-F1 (%)" in ax.get_ylabel()
    assert ax.get_title() == "planted, made, emotion, split speaker, linear, layer 3, norm none"
    two = pd.concat([curve, curve.assign(head="nonlinear")])
    ax = draw_learning_curve(two, over="clips")
    assert ax.get_xlabel() == "training clips"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["linear", "nonlinear"]
