from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import write_cache
from scipy.fft import dct
from scipy.ndimage import gaussian_filter1d
from scipy.stats import binom, kendalltau
from sklearn.metrics import f1_score

from lsmprobe.cache.reader import FeatureCache
from lsmprobe.config import ProbeConfig
from lsmprobe.errors import ResultsError
from lsmprobe.layers.agreement import agreement_p, surrogates
from lsmprobe.layers.probes import probe_layers
from lsmprobe.layers.weights import (
    average_weights,
    layer_drops,
    layer_shares,
    layer_weights,
    rank_agreement,
)
from lsmprobe.probing.record import saved_probe
from lsmprobe.probing.stage import probe
from lsmprobe.results.records import load_head, load_record


def probed(tmp_path, **settings):
    quick = {"head": "multilayer", "epochs": 3, "runs": 1, "device": "cpu", "hidden": 32}
    folders = {"cache_dir": tmp_path / "cache", "results_dir": tmp_path / "results"}
    return probe(ProbeConfig(**{**quick, **folders, **settings}))


def saved(results):
    """The record and the trained heads of the first run."""
    path = Path(results.path[0])
    return load_record(path), load_head(path)


def learned(*weights, layers=(1, 2, 3), **fields):
    """Results of runs that learned these weights."""
    row = {
        "model": "m",
        "random_weights": False,
        "corpus": "c",
        "split": "speaker",
        "feature_norm": "none",
        "experiment": "e",
        "head": "multilayer",
        **fields,
    }
    return pd.DataFrame(
        [
            {**row, "seed": seed, "layers": list(layers), "layer_weights": list(of_run)}
            for seed, of_run in enumerate(weights)
        ]
    )


def test_the_weights_of_every_run_stand_by_themselves():
    runs = layer_weights(learned([0.2, 0.3, 0.5], [0.4, 0.3, 0.3]), per="run")
    assert runs.seed.tolist() == [0, 0, 0, 1, 1, 1]
    assert runs.layer.tolist() == [1, 2, 3, 1, 2, 3]
    assert runs.weight.tolist() == [0.2, 0.3, 0.5, 0.4, 0.3, 0.3]


def test_weights_that_differ_more_between_runs_than_between_layers_are_called_noisy(caplog):
    clear = learned([0.2, 0.3, 0.5], [0.21, 0.3, 0.49])
    noise = learned([0.2, 0.3, 0.5], [0.5, 0.3, 0.2], experiment="f", corpus="d")
    single = learned([0.2, 0.3, 0.5], experiment="g", corpus="e")
    table = layer_weights(pd.concat([clear, noise, single], ignore_index=True))
    assert table.groupby("experiment").noisy.all().to_dict() == {"e": False, "f": True, "g": False}
    assert "m on d (speaker, none): the learned weights differ more" in caplog.text
    assert "m on c" not in caplog.text


def test_an_average_counts_every_corpus_once():
    one = learned([0.2, 0.8], [0.2, 0.8], [0.2, 0.8], layers=(1, 2), corpus="a", experiment="a")
    two = learned([0.6, 0.4], layers=(1, 2), corpus="b", experiment="b")
    deep = learned([0.1, 0.2, 0.7], model="deep", corpus="a", experiment="c")
    table = average_weights(layer_weights(pd.concat([one, two, deep])), "corpus")
    small = table[table.model == "m"]
    np.testing.assert_allclose(small.weight, [0.4, 0.6])
    np.testing.assert_allclose(small["std"], np.std([0.2, 0.6], ddof=1))
    assert small.averaged.tolist() == [2, 2]
    models = average_weights(layer_weights(pd.concat([one, deep])), "model")
    assert models.averaged.tolist() == [1] * 5  # two layers and three have no common scale
    assert "model" not in models
    other = learned([0.4, 0.6], layers=(1, 2), model="n", corpus="b", experiment="d")
    everything = average_weights(layer_weights(pd.concat([one, two, other])), "corpus", "model")
    np.testing.assert_allclose(everything.weight, [0.4, 0.6])
    assert everything.averaged.tolist() == [3, 3]


def test_two_kinds_of_experiment_are_not_averaged():
    both = pd.concat([learned([0.5, 0.2, 0.3]), learned([0.4, 0.3, 0.3], experiment="f")])
    with pytest.raises(ResultsError, match="m on c has several experiments"):
        average_weights(layer_weights(both), "corpus")


@pytest.mark.parametrize("feature_norm", ["none", "zscore", "layernorm"])
@pytest.mark.parametrize("by", ["standard_deviation", "root_mean_square"])
def test_a_share_is_weight_times_the_size_of_the_frames(tmp_path, planted_cache, feature_norm, by):
    cache = FeatureCache(planted_cache())
    results = probed(tmp_path, feature_norm=feature_norm, split="kfold:3", epochs=1)
    shares = layer_shares(cache, results, by=by)
    assert shares.layer.tolist() == [1, 2, 3, 4, 5]
    record, tensors = saved(results)
    sizes = []
    for fold in range(3):
        norm = saved_probe(record, tensors, fold).norm
        frames = np.stack(
            [np.concatenate([cache.frames(i, n) for i in range(160)]) for n in shares.layer]
        )
        behind = norm(torch.tensor(frames, dtype=torch.float32))
        if by == "standard_deviation":
            behind = behind - behind.mean(1, keepdim=True)
        sizes.append(behind.square().mean((1, 2)).sqrt())
    np.testing.assert_allclose(shares["size"], torch.stack(sizes).mean(0), rtol=2e-3)
    assert shares.share.sum() == pytest.approx(1)
    np.testing.assert_allclose(shares.weight, results.layer_weights[0], rtol=1e-5)


def test_a_constant_mean_counts_only_where_it_is_asked_for(tmp_path, planted_cache):
    """Layer 2 gets an offset that no head can use: its share stays what it was."""
    plain = FeatureCache(planted_cache())
    states = [
        torch.tensor(np.stack([plain.frames(i, n) for n in plain.layers]), dtype=torch.float32)
        for i in range(160)
    ]
    for hidden in states:
        hidden[2] += 30
    table = plain.utterances.drop(columns="sha256")
    path = write_cache(tmp_path / "cache" / "offset" / "made.h5", table, states, dtype="float32")
    results = probed(tmp_path, epochs=1, model=("offset",))
    shares = {
        by: layer_shares(FeatureCache(path), results, by=by).set_index("layer").share[2]
        for by in ("standard_deviation", "root_mean_square")
    }
    assert shares["standard_deviation"] < 0.3 < 0.7 < shares["root_mean_square"]


@pytest.mark.parametrize("head", ["linear", "nonlinear", "multilayer"])
@pytest.mark.parametrize("feature_norm", ["none", "zscore", "layernorm"])
def test_a_saved_head_gives_the_recorded_probabilities(tmp_path, planted_cache, head, feature_norm):
    cache = FeatureCache(planted_cache())
    results = probed(tmp_path, head=head, feature_norm=feature_norm, epochs=1)
    record, tensors = saved(results)
    trained = saved_probe(record, tensors)
    first = record["predictions"][0]
    row = list(cache.utterances.key).index(first["key"])
    frames = np.stack([cache.frames(row, layer) for layer in record["layers"]]).astype(np.float32)
    if head != "multilayer":
        frames = frames[0]
    if head == "linear":  # reads the mean, as an utterance of one frame
        frames = np.array(cache.pooled[row, record["layers"][0]])[None]
    logits = trained(torch.tensor(frames), torch.tensor([frames.shape[-2]]))
    np.testing.assert_allclose(
        torch.softmax(logits[0], 0).detach(), first["probabilities"], atol=2e-5
    )


def test_a_drop_is_the_score_lost_without_the_layer(tmp_path, planted_cache):
    cache = FeatureCache(planted_cache())
    results = probed(tmp_path, split="kfold:3", epochs=8, lr=2e-3, scalar_lr=0.05)
    drops = layer_drops(cache, results)
    assert drops.macro_f1.tolist() == pytest.approx([results.macro_f1[0]] * 5)
    np.testing.assert_allclose(drops["drop"], drops.macro_f1 - drops.without)
    # The same by another way: a scalar of minus infinity is a weight of 0.
    record, tensors = saved(results)
    row_of = {key: row for row, key in enumerate(cache.utterances.key)}
    answers, start = [], 0
    for number, fold in enumerate(record["folds"]):
        trained = saved_probe(record, tensors, number)
        trained.head.scalars.data[2] = -torch.inf  # layer 3
        for prediction in record["predictions"][start : start + fold["n_test"]]:
            row = row_of[prediction["key"]]
            frames = np.stack([cache.frames(row, n) for n in range(1, 6)]).astype(np.float32)
            logits = trained(torch.tensor(frames), torch.tensor([frames.shape[1]]))
            answers.append(record["classes"][int(logits.argmax())])
        start += fold["n_test"]
    truth = [prediction["emotion"] for prediction in record["predictions"]]
    expected = 100 * f1_score(truth, answers, average="macro", zero_division=0)
    assert drops.without[2] == pytest.approx(expected)


def test_a_drop_is_of_the_classes_that_a_run_learned(tmp_path, planted_cache):
    cache = FeatureCache(planted_cache())
    table = cache.utterances
    own = table[["key"]].assign(half=np.where(table.emotion < "h", "a", "b"), n=table.frames)
    own.to_csv(tmp_path / "own.csv", index=False)
    asked = {"labels": tmp_path / "own.csv", "epochs": 1, "split": "speaker"}
    results = probed(tmp_path, target="half", **asked)
    assert layer_drops(cache, results).macro_f1[0] == pytest.approx(results.macro_f1[0])
    with pytest.raises(ResultsError, match="learned numbers; expected classes"):
        layer_drops(cache, probed(tmp_path, target="n", **asked))


@pytest.mark.slow
def test_weights_probes_and_leaving_out_find_the_planted_layer_alike(tmp_path, planted_cache):
    cache = FeatureCache(planted_cache(layer=2))
    settings = {"feature_norm": "zscore", "split": "kfold:5"}
    results = probed(tmp_path, **settings, epochs=12, lr=2e-3, hidden=64, scalar_lr=0.05)
    curve = probe_layers(cache, **settings)
    shares = layer_shares(cache, results)
    drops = layer_drops(cache, results)
    assert curve.layer[curve.score.idxmax()] == 2
    assert layer_weights(results).set_index("layer").weight.idxmax() == 2
    assert shares.set_index("layer").share.idxmax() == 2
    assert drops.set_index("layer")["drop"].idxmax() == 2
    assert drops["drop"].max() > 30
    agreement = rank_agreement(shares, curve).set_index("value")
    assert agreement.layers.tolist() == [5, 5]  # layer 0 has no weight
    assert agreement.spearman.max() <= 1


def test_results_of_another_cache_are_not_mistaken_for_this_one(tmp_path, planted_cache):
    planted_cache()
    results = probed(tmp_path, epochs=1)
    other = FeatureCache(planted_cache(folder=tmp_path / "other", identity={"model": "n"}))
    for function in (layer_shares, layer_drops):
        with pytest.raises(ResultsError, match=r"no Multi-Layer run on .*; run lsmprobe probe"):
            function(other, results)


def test_rank_agreement_is_one_for_the_same_order_and_minus_one_for_the_opposite():
    weights = pd.DataFrame(
        {"experiment": "e", "layer": [1, 2, 3, 4], "weight": [0.1, 0.2, 0.3, 0.4]}
    )
    curve = pd.DataFrame({"layer": [0, 1, 2, 3, 4], "score": [99.0, 10, 20, 30, 40]})
    same = rank_agreement(weights, curve).iloc[0]
    assert (same.kendall, same.spearman, same.layers) == pytest.approx((1, 1, 4))
    assert same.kendall_p >= 2 / 2**3  # of 8 signs, these and their opposites
    turned = rank_agreement(weights, curve.assign(score=-curve.score)).iloc[0]
    assert (turned.kendall, turned.spearman) == pytest.approx((-1, -1))
    flat = rank_agreement(weights, curve.assign(score=50.0)).iloc[0]
    assert np.isnan([flat.kendall, flat.kendall_p, flat.spearman, flat.spearman_p]).all()


def smooth(rng, n_layers):
    return gaussian_filter1d(rng.normal(size=n_layers + 100), n_layers / 8)[50 : 50 + n_layers]


def wandering(rng, n_layers):
    return np.cumsum(rng.normal(size=n_layers))


@pytest.mark.slow
@pytest.mark.parametrize("curve", [smooth, wandering])
@pytest.mark.parametrize("n_layers", [12, 24])
def test_unrelated_smooth_curves_seldom_agree_significantly(rng, curve, n_layers):
    trials, level = 150, 0.05
    p, unordered = [], []
    for _ in range(trials):
        one, other = curve(rng, n_layers), curve(rng, n_layers)
        p.append(agreement_p(one, other))
        unordered.append(kendalltau(one, other).pvalue)
    assert np.mean(np.array(unordered) <= level) > 0.2  # what is wrong with the usual p
    for of_measure in np.transpose(p):
        assert (of_measure <= level).sum() <= binom.ppf(0.999, trials, level)
        assert (of_measure <= 0.5).mean() > 0.35  # and it does not simply stay silent


def test_curves_with_the_same_bends_agree_significantly(rng):
    bends = rng.normal(size=24)
    assert max(agreement_p(bends, bends + 0.3 * rng.normal(size=24))) < 0.01


@pytest.mark.parametrize("n_layers", [5, 13, 14])
def test_surrogates_keep_how_much_a_curve_varies_at_every_frequency(rng, n_layers):
    curve = wandering(rng, n_layers)
    made = surrogates(curve)
    assert len(made) == (2 ** (n_layers - 1) - 1 if n_layers <= 13 else 4999)
    sizes = np.abs(dct(np.vstack([curve - curve.mean(), made]), norm="ortho", axis=-1))
    np.testing.assert_allclose(sizes, np.broadcast_to(sizes[0], sizes.shape), atol=1e-9)


def test_ranks_are_compared_with_one_curve():
    weights = pd.DataFrame({"experiment": "e", "layer": [1, 2], "weight": [0.4, 0.6]})
    curve = pd.DataFrame(
        {"target": ["emotion", "pitch"] * 2, "layer": [1, 1, 2, 2], "score": [1.0, 9, 2, 3]}
    )
    with pytest.raises(ResultsError, match=r"several values of target \(emotion, pitch\); choose"):
        rank_agreement(weights, curve)
    with pytest.raises(ResultsError, match="the curve is of the pitch"):
        rank_agreement(weights, curve[curve["target"] == "pitch"])


def test_only_weights_and_curves_of_one_model_corpus_and_labels_are_compared(caplog):
    both = pd.concat(
        [learned([0.2, 0.3, 0.5], corpus=name, experiment=name) for name in ("here", "there")]
    )
    about = {"model": "m", "random_weights": False, "corpus": "here", "labels": "as in the corpus"}
    curve = pd.DataFrame({**about, "layer": [1, 2, 3], "score": [30.0, 20.0, 10.0]})
    found = rank_agreement(layer_weights(both), curve)
    assert found[["corpus", "kendall"]].to_numpy().tolist() == [["here", -1.0]]
    assert "no curve of the same model, corpus and labels: m on there" in caplog.text
    two = pd.concat([curve, curve.assign(corpus="there", score=-curve["score"])])
    assert rank_agreement(layer_weights(both), two).kendall.tolist() == [-1.0, 1.0]
    merged = learned([0.2, 0.3, 0.5], corpus="here", settings={"map": ["anger=high"]})
    with pytest.raises(ResultsError, match=r"map: anger=high.* do not belong together"):
        rank_agreement(layer_weights(merged), curve)
