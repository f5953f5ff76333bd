import numpy as np
import pandas as pd
import pytest
import torch
from conftest import utterance_table, write_cache
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, r2_score, recall_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lsmprobe.cache.reader import FeatureCache
from lsmprobe.config import ProbeConfig
from lsmprobe.errors import AudioError, ResultsError, SettingsError, SplitError
from lsmprobe.layers.answers import ABOUT, Answers, best_layer, curve_of
from lsmprobe.layers.health import layer_health
from lsmprobe.layers.knowledge import knowledge_sentences, knowledge_table, what_layers_know
from lsmprobe.layers.probes import layer_answers, probe_layers, sweep_layers, whole_speakers
from lsmprobe.layers.projection import project_layer
from lsmprobe.layers.similarity import layer_similarity
from lsmprobe.probing.stage import probe
from lsmprobe.report.sweep import curve_table
from lsmprobe.results.alarms import MEANINGS, SHARED_AUDIO
from lsmprobe.results.records import load_results
from lsmprobe.results.score_table import score_table
from lsmprobe.splits.kinds import make_split

QUICK = {"epochs": 3, "runs": 2, "device": "cpu", "hidden": 32}


@pytest.fixture
def knowing_cache(tmp_path):
    """A cache whose layers 0 to 4 hold, one each: speaker, gender, sentence, emotion, duration."""

    def make(model="knowing", strength=4.0, random_init=None, n_speakers=6):
        generator = torch.Generator().manual_seed(3)
        directions = torch.nn.functional.normalize(
            torch.randn(5, 12, 24, generator=generator), dim=2
        )
        rows = [(s, e, c) for s in range(n_speakers) for e in range(3) for c in range(4)]
        lengths = torch.randint(4, 12, (len(rows),), generator=generator).tolist()
        states = []
        for (speaker, emotion, sentence), length in zip(rows, lengths, strict=True):
            hidden = torch.randn(5, length, 24, generator=generator)
            for layer, code in enumerate((speaker, speaker % 2, sentence, emotion)):
                hidden[layer] += strength * directions[layer, code]
            hidden[4] += strength / 4 * length * directions[4, 0]
            states.append(hidden)
        table = utterance_table(
            [f"s{s}" for s, _, _ in rows],
            [("anger", "fear", "sadness")[e] for _, e, _ in rows],
            lengths,
        ).assign(
            gender=[("female", "male")[s % 2] for s, _, _ in rows],
            sentence=[f"c{c}" for _, _, c in rows],
        )
        identity = {"model": model, "random_init": random_init}
        path = tmp_path / "cache" / model / "made.h5"
        return FeatureCache(write_cache(path, table, states, identity=identity))

    return make


# --------------------------------------------------------------------------------- layer curves


def test_the_planted_layer_is_found_and_the_others_are_at_chance(planted_cache):
    cache = FeatureCache(planted_cache(layer=3))
    curve = probe_layers(cache, split="kfold:5", shuffles=1).set_index("layer")
    assert curve.index.tolist() == [0, 1, 2, 3, 4, 5]
    assert curve.score[3] > 90
    assert curve.drop(3).score.max() < 45  # chance is 25
    assert curve.above_shuffled[3] > 50
    assert curve.drop(3).above_shuffled.abs().max() < 20
    assert (curve.low < curve.score).all() and (curve.score < curve.high).all()
    assert curve.constant.unique() == pytest.approx(100 * 0.4 / 4)  # F1 of one class 2/5, three 0
    assert curve.shuffled[3] == pytest.approx(25, abs=1)
    assert 25 < curve.shuffled_95[3] < 35
    best = best_layer(curve.reset_index()).iloc[0]
    assert (best.layer, best.score) == (3, curve.score[3])
    assert best.chosen == "3: 5"


def test_a_curve_survives_a_file_and_so_does_its_best_layer(planted_cache, tmp_path):
    cache = FeatureCache(planted_cache(strength=1.0))
    curve = pd.concat(
        [probe_layers(cache, split="kfold:5", feature_norm=n) for n in ("none", "zscore")]
    )
    curve.to_csv(tmp_path / "curve.csv", index=False)
    again = pd.read_csv(tmp_path / "curve.csv")
    assert not any(isinstance(cell, list | dict) for row in curve.to_numpy() for cell in row)
    best, expected = (
        best_layer(each)[["layer", "score", "low", "high", "chosen"]] for each in (again, curve)
    )
    pd.testing.assert_frame_equal(best, expected)
    with pytest.raises(ResultsError, match="chose among more layers than the 5 of this curve"):
        best_layer(curve[curve["layer"] != best["layer"][0]])


def test_a_path_is_as_good_as_a_cache(planted_cache):
    path = planted_cache()
    curve = probe_layers(FeatureCache(path), split="kfold:3")
    pd.testing.assert_frame_equal(probe_layers(path, split="kfold:3"), curve)
    pd.testing.assert_frame_equal(probe_layers(str(path), split="kfold:3"), curve)
    assert layer_health(path).equals(layer_health(FeatureCache(path)))
    assert layer_similarity(path, str(path)).equals(layer_similarity(FeatureCache(path)))
    assert project_layer(path, 1).equals(project_layer(FeatureCache(path), 1))


def test_answers_are_a_tidy_table_that_gives_the_scores(planted_cache):
    cache = FeatureCache(planted_cache(strength=0.7))
    answers = layer_answers(cache, split="kfold:4")
    assert answers.columns.tolist() == ["layer", "fold", "key", "speaker", "truth", "answer"]
    table = cache.utterances.set_index("key")
    assert (answers["truth"] == table.emotion[answers["key"]].to_numpy()).all()
    curve = probe_layers(cache, split="kfold:4").set_index("layer")
    for layer, own in answers.groupby("layer"):
        assert sorted(own["key"]) == sorted(table.index)  # every utterance is tested once
        expected = 100 * f1_score(own["truth"], own["answer"], average="macro")
        assert curve.score[layer] == pytest.approx(expected)


@pytest.mark.parametrize("score", ["macro_f1", "uar"])
def test_the_regression_is_scikit_learns_fitted_without_the_test_set(planted_cache, score):
    cache = FeatureCache(planted_cache(strength=0.7))
    curve = probe_layers(cache, split="kfold:4", score=score)
    emotions = cache.utterances.emotion.to_numpy()
    for layer in (0, 3):
        answers = np.empty_like(emotions)
        for fold in make_split("kfold:4", cache.utterances).folds:
            known = np.concatenate([fold.train, fold.validation])
            model = LogisticRegression(C=0.01, class_weight="balanced", max_iter=5000)
            model = make_pipeline(StandardScaler(), model)
            model.fit(cache.pooled[known, layer].astype(float), emotions[known])
            answers[fold.test] = model.predict(cache.pooled[fold.test, layer].astype(float))
        reference = {"macro_f1": f1_score, "uar": recall_score}[score]
        expected = 100 * reference(emotions, answers, average="macro")
        assert curve.score[layer] == pytest.approx(expected)


@pytest.mark.parametrize("head", ["linear", pytest.param("nonlinear", marks=pytest.mark.slow)])
def test_the_papers_heads_are_probed_once_and_scored_from_their_records(
    tmp_path, planted_cache, head
):
    cache = FeatureCache(planted_cache())
    folders = {"results_dir": tmp_path / "results"}
    curve = sweep_layers(cache, head, split="kfold:3", **QUICK, **folders)
    records = sorted((tmp_path / "results" / "planted").rglob("*.json"))
    assert len(records) == 6 * 2
    written = [path.stat().st_mtime_ns for path in records]
    same = ProbeConfig(
        head=head,
        layer="all",
        split="kfold:3",
        feature_norm="zscore",
        cache_dir=tmp_path / "cache",
        **QUICK,
        **folders,
    )
    by_layer = probe(same).groupby("layer")
    assert [path.stat().st_mtime_ns for path in records] == written
    np.testing.assert_allclose(curve["score"], by_layer.macro_f1.mean())
    table = score_table(probe(same))
    np.testing.assert_allclose(curve[["low", "high"]], table[["low", "high"]], atol=1.5)
    np.testing.assert_allclose(curve["std"], by_layer.macro_f1.std())
    assert curve.runs.tolist() == [2] * 6
    assert curve.chosen.sum() == 2 * 3  # two runs of three folds


def hand_made(validation, answers):
    """The curve of one run: of each layer, what every fold scored in validation and answered."""
    values = ("m", False, "c", "", "", "", "emotion", "h", "zscore", "k", "accuracy")
    layers = {
        layer: [
            Answers(
                n_outputs=2,
                validation=of_layer,
                truth=[np.array([0, 1])] * 2,
                answers=[np.array(a) for a in answers[layer]],
                speakers=[np.array(["a", "a"]), np.array(["b", "b"])],
            )
        ]
        for layer, of_layer in enumerate(validation)
    }
    return curve_of(dict(zip(ABOUT, values, strict=True)), layers)


def test_the_best_layer_is_chosen_on_validation_fold_by_fold_and_never_on_test():
    # Layer 0 is perfect in test, yet validation prefers layer 1 in both folds.
    right, wrong = [0, 1], [1, 0]
    curve = hand_made([[50.0, 50.0], [60.0, 60.0]], [[right, right], [wrong, right]])
    best = best_layer(curve).iloc[0]
    assert (best.layer, best.score, best.chosen) == (1, 50, "1: 2")
    # Each fold has its own choice, the earlier layer on ties.
    curve = hand_made([[70.0, 60.0], [60.0, 60.0]], [[right, wrong], [wrong, right]])
    best = best_layer(curve).iloc[0]
    assert (best.layer, best.score, best.chosen) == (0, 50, "0: 2")
    # A validation set that cannot be scored chooses nothing.
    curve = hand_made([[np.nan, 1.0], [60.0, 2.0]], [[wrong, wrong], [right, right]])
    assert best_layer(curve).score[0] == 100


@pytest.mark.slow
def test_standardised_scores_do_not_depend_on_the_scale_of_any_dim(planted_cache, tmp_path, rng):
    cache = FeatureCache(planted_cache(strength=1.0))
    factors = torch.tensor(10 ** rng.uniform(-2, 2, size=(6, 1, 16)), dtype=torch.float32)
    states = [
        factors
        * torch.tensor(np.stack([cache.frames(i, n) for n in range(6)]), dtype=torch.float32)
        for i in range(160)
    ]
    table = cache.utterances.drop(columns="sha256")
    path = write_cache(tmp_path / "scaled" / "made.h5", table, states, dtype="float32")
    scores = {
        norm: [
            probe_layers(one, feature_norm=norm, split="kfold:4").score[3]
            for one in (cache, FeatureCache(path))
        ]
        for norm in ("none", "zscore")
    }
    assert scores["zscore"][0] == pytest.approx(scores["zscore"][1], abs=1)
    assert abs(scores["none"][0] - scores["none"][1]) > 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "mood"}, "target: made has no column 'mood'"),
        ({"score": "ccc"}, "score is 'ccc', and emotion is classes; expected macro_f1, uar, acc"),
        ({"target": "duration", "score": "uar"}, "duration is numbers; expected r2, ccc, pearson"),
        ({"feature_norm": "z-score"}, "feature_norm is 'z-score'; expected one of .*'zscore'"),
        ({"score": "f1"}, "score is 'f1'; expected one of 'macro_f1'"),
        ({"shuffles": -1}, "shuffles is -1; expected 0 to 1000"),
        ({"control": "words"}, "control is 'words'; expected one of 'labels'"),
        ({"shuffles": 1, "control": "speaker", "split": "loso"}, "tests a speaker that is not"),
        ({"shuffles": 1, "control": "sentence"}, "tests a sentence that is not known"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(planted_cache, arguments, message):
    with pytest.raises(SettingsError, match=message):
        probe_layers(FeatureCache(planted_cache()), **arguments)


def test_a_score_that_is_none_is_refused_before_anything_is_trained(planted_cache, tmp_path):
    folders = {"results_dir": tmp_path / "results"}
    cache = FeatureCache(planted_cache())
    for wrong in ({"score": "f1"}, {"feature_norm": "z-score"}, {"head": "Lineer"}):
        with pytest.raises(SettingsError, match="expected one of"):
            sweep_layers(cache, **QUICK, **folders, **wrong)
    assert not (tmp_path / "results").exists()


# ---------------------------------------------------------------------- what else a layer knows


@pytest.mark.slow
def test_every_target_is_found_in_the_layer_that_holds_it(knowing_cache):
    cache = knowing_cache()
    names = ["speaker", "gender", "sentence", "emotion", "duration"]
    knowledge = what_layers_know(cache, names)
    table = knowledge_table(knowledge).loc["knowing"]
    assert table.columns.tolist() == names
    assert table.index.tolist() == [0, 1, 2, 3, 4, "best constant answer", "shuffled answers"]
    assert table.loc["best constant answer", "gender"] == pytest.approx(100 / 3)
    assert table.loc["shuffled answers", "gender"] == pytest.approx(50, abs=1)
    for layer, name in enumerate(names):
        assert table.loc[layer, name] > 85
        assert table.loc[layer, name] - table.loc["best constant answer", name] > 40
    # The speaker's layer tells the gender of these voices, but not that of new ones as well.
    others = [(a, n) for a in range(5) for b, n in enumerate(names) if a != b and n != "gender"]
    assert max(table.loc[layer, name] for layer, name in others) < 65
    splits = knowledge.groupby("target").split.unique().explode().to_dict()
    assert splits == {"speaker": "random", **dict.fromkeys(names[1:], "loso")}
    over = knowledge.groupby("target").interval_over.first()
    assert over["speaker"] == "utterances only"
    assert over["sentence"] == "speakers, then utterances"


@pytest.mark.slow
def test_the_random_control_beside_the_cache_is_probed_too(knowing_cache):
    cache = knowing_cache()
    knowing_cache("knowing-random0", strength=0.0, random_init=0)
    knowing_cache("knowing-else", strength=0.0)
    knowledge = what_layers_know(cache, ["sentence"])
    assert knowledge.groupby("model").random_weights.first().to_dict() == {
        "knowing": False,
        "knowing-random0": True,
    }
    score = knowledge.set_index(["model", "layer"]).score
    assert score["knowing", 2] > 85
    assert score["knowing-random0", 2] < 50
    alone = what_layers_know(cache, ["sentence"], random_weights=False)
    assert set(alone.model) == {"knowing"}


@pytest.mark.slow
def test_a_target_that_the_corpus_lacks_is_left_out_unless_it_was_asked_for(planted_cache, caplog):
    cache = FeatureCache(planted_cache())  # knows no gender, no sentence, and its audio is nowhere
    with pytest.raises(SettingsError, match="160 of 160 utterances of made have no gender"):
        what_layers_know(cache, ["gender"])
    with pytest.raises(AudioError, match="leave these targets out"):
        what_layers_know(cache, ["energy"])
    knowledge = what_layers_know(cache, shuffles=0)
    assert knowledge.target.unique().tolist() == ["emotion", "speaker", "duration"]
    assert "skipping gender: 160 of 160 utterances of made have no gend" in caplog.text
    assert "skipping energy: energy and pitch are measured on the audio" in caplog.text


def test_a_layer_is_told_in_a_line():
    knowledge = pd.DataFrame(
        {
            "model": "a",
            "layer": [4, 5, 4, 5],
            "target": ["emotion"] * 2 + ["speaker"] * 2,
            "score": [70.6, 60, 98, 64],
        }
    )
    assert knowledge_sentences(knowledge) == [
        "Layer 4: emotion 71, speaker 98",
        "Layer 5: emotion 60, speaker 64",
    ]
    control = knowledge.assign(model="a-random0", score=1.0)
    assert knowledge_sentences(pd.concat([knowledge, control])) == [
        "a, layer 4: emotion 71, speaker 98",
        "a, layer 5: emotion 60, speaker 64",
        "a-random0, layer 4: emotion 1, speaker 1",
        "a-random0, layer 5: emotion 1, speaker 1",
    ]


def test_voices_never_heard_cannot_be_named(knowing_cache):
    with pytest.raises(SplitError, match='for target speaker take split="random"'):
        probe_layers(knowing_cache(), "speaker", split="loso")


def test_one_gender_in_training_is_refused(knowing_cache):
    with pytest.raises(SplitError, match="leaves one gender in training"):
        probe_layers(knowing_cache(n_speakers=3), "gender")


def test_up_to_ten_speakers_each_is_tested_alone():
    for n, expected in ((10, "loso"), (11, "kfold:10")):
        assert (
            whole_speakers(pd.DataFrame({"speaker": [f"s{i}" for i in range(n)] * 2})) == expected
        )


def test_shuffled_labels_teach_nothing(knowing_cache):
    curve = probe_layers(knowing_cache(), "sentence", shuffles=3, score="accuracy").set_index(
        "layer"
    )
    assert abs(curve.control[2] - 25) < 12  # four sentences
    assert curve.above_shuffled[2] == pytest.approx(curve.score[2] - curve.control[2])
    assert curve.selectivity.isna().all()
    assert set(curve.control_task) == {"shuffled labels"}
    assert np.isnan(probe_layers(knowing_cache("again"), "sentence").control).all()


def test_a_label_dealt_to_every_sentence_is_learned_where_sentences_are_known(knowing_cache):
    """Hewitt and Liang's control task: layer 2 holds the sentence, layer 3 the emotion."""
    curve = probe_layers(knowing_cache(), control="sentence", shuffles=2).set_index("layer")
    assert curve.control[2] > 85 > 60 > curve.control[3]
    assert curve.selectivity[3] > 30 > 0 > curve.selectivity[2]
    assert curve.above_shuffled.isna().all()
    voices = probe_layers(knowing_cache("v"), control="speaker", shuffles=2, split="random")
    assert voices.control.idxmax() == 0  # layer 0 holds the speaker


# ------------------------------------------------------------------------------------- numbers


def test_numbers_are_scored_by_r2_as_scikit_learn_has_it(knowing_cache):
    curve = probe_layers(knowing_cache(), "duration", shuffles=1).set_index("layer")
    answers = layer_answers(knowing_cache("again"), "duration")
    own = answers[answers["layer"] == 4]
    assert curve.score[4] == pytest.approx(100 * r2_score(own["truth"], own["answer"]))
    assert curve.metric[4] == "r2"
    assert curve.constant[4] == 0
    assert curve.shuffled[4] < curve.shuffled_95[4] < 0
    assert curve.low[4] < curve.score[4] < curve.high[4]
    assert best_layer(curve.reset_index()).layer[0] == 4
    assert curve.control[4] < 10 and curve.above_shuffled[4] > 50  # shuffled numbers teach nothing


def rated(cache, **columns):
    """The path of a table of labels with further columns."""
    path = cache.path.with_name("own.csv")
    cache.utterances[["key", "emotion"]].assign(**columns).to_csv(path, index=False)
    return path


def test_a_planted_number_is_found_in_its_layer_whatever_its_column_is_called(knowing_cache, rng):
    """Layer 4 holds the number of frames; one rating follows it, the other one follows nothing."""
    cache = knowing_cache()
    frames = cache.lengths
    noise, guess = rng.normal(size=(2, len(frames)))
    labels = rated(cache, arousal=3 + frames / 4 + 0.2 * noise, valence=guess)
    curve = probe_layers(cache, "arousal", labels=labels, score="ccc").set_index("layer")
    assert curve.score.idxmax() == 4
    assert curve.score[4] > 0.7 > 0.3 > curve.score.drop(4).max()
    assert set(curve.labels) == {"labels: own.csv"} and set(curve.target) == {"arousal"}
    assert (curve.low <= curve.score).all() and (curve.score <= curve.high).all()
    both = probe_layers(cache, "arousal,valence", labels=labels).set_index("layer")
    one, other = (
        probe_layers(cache, name, labels=labels).set_index("layer")
        for name in ("arousal", "valence")
    )
    np.testing.assert_allclose(both.score, (one.score + other.score) / 2)
    answers = layer_answers(cache, "arousal,valence", labels=labels)
    assert {"truth_arousal", "answer_arousal", "truth_valence", "answer_valence"} <= {*answers}
    names = ["arousal", "emotion"]
    table = knowledge_table(what_layers_know(cache, names, labels=labels, shuffles=0))
    np.testing.assert_allclose(table.loc["knowing"].loc[cache.layers, "arousal"], one.score)


def test_a_column_of_words_is_probed_like_a_column_of_the_table(knowing_cache):
    cache = knowing_cache()
    labels = rated(cache, text=cache.utterances["sentence"].to_numpy())
    own = probe_layers(cache, "text", labels=labels, control="sentence", shuffles=1)
    built_in = probe_layers(cache, "sentence", control="sentence", shuffles=1)
    decisive = ["layer", "score", "low", "high", "constant", "shuffled", "control", "selectivity"]
    pd.testing.assert_frame_equal(own[decisive], built_in[decisive])


def test_a_trained_head_sweeps_the_layers_for_a_column_of_numbers(knowing_cache, tmp_path, rng):
    cache = knowing_cache()
    labels = rated(cache, arousal=cache.lengths / 4 + 0.1 * rng.normal(size=len(cache.lengths)))
    settings = {"target": "arousal", "labels": labels, "results_dir": tmp_path / "results"}
    curve = sweep_layers(cache, "ridge", split="kfold:3", **settings).set_index("layer")
    assert set(curve.metric) == {"ccc"} and set(curve.target) == {"arousal"}
    assert curve.score.idxmax() == 4 and curve.score[4] > 0.7
    assert set(curve.constant) == {0.0}
    records = load_results(tmp_path / "results").set_index("layer")
    np.testing.assert_allclose(curve.score, records.ccc[curve.index], atol=1e-5)  # as kept
    with pytest.raises(SettingsError, match="score is 'uar', and arousal is numbers"):
        sweep_layers(cache, "ridge", score="uar", **settings)


def test_a_curve_says_that_files_that_are_tested_are_in_train_too(planted_cache):
    cache = FeatureCache(planted_cache())
    curve = probe_layers(cache)
    assert not curve.shared_audio.any() and not any(
        "!" in note for note in curve_table(curve).notes
    )
    cache.utterances["sha256"] = "0" * 64
    curve = probe_layers(cache)
    assert curve.shared_audio.all() and not curve.shared_speakers.any()
    table = curve_table(curve)
    assert table.notes[0] == f"! {MEANINGS[SHARED_AUDIO]}."
    assert table.rows["its score"].str.startswith("! ").all()


def test_an_interval_resamples_the_speakers_of_the_labels_that_count(planted_cache, tmp_path):
    """As they were laid out there are ten speakers; a corrected table knows one voice apiece."""
    cache = FeatureCache(planted_cache(strength=0.7))
    pairs = cache.utterances.assign(speaker=[f"p{i // 40}" for i in range(160)])
    csv = tmp_path / "pairs.csv"
    pairs[["key", "speaker"]].to_csv(csv, index=False)
    curve = probe_layers(cache, split="random", labels=csv)
    assert cache.utterances.speaker.nunique() == 10
    two = csv.read_text().replace("p2", "p0").replace("p3", "p1")
    csv.write_text(two)
    of_two = probe_layers(cache, split="random", labels=csv)
    assert set(curve.interval_over) == {"speakers, then utterances"}
    assert set(of_two.interval_over) == {"utterances only"}
