from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import utterance_table, write_cache
from sklearn.metrics import f1_score
from sklearn.preprocessing import StandardScaler

from lsmprobe import analysis
from lsmprobe.analysis import (
    average_weights,
    layer_drops,
    layer_health,
    layer_shares,
    layer_similarity,
    layer_weights,
    project_layer,
    rank_agreement,
    saved_probe,
)
from lsmprobe.cache import CachePlan, CacheWriter, FeatureCache
from lsmprobe.config import ProbeConfig
from lsmprobe.errors import CacheError, ResultsError
from lsmprobe.layer_probes import probe_layers
from lsmprobe.probing import probe
from lsmprobe.results import load_head, load_record


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


# ------------------------------------------------------------------------------ learned weights


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
def test_a_share_is_weight_times_the_root_mean_square_of_the_frames(
    tmp_path, planted_cache, feature_norm
):
    cache = FeatureCache(planted_cache())
    results = probed(tmp_path, feature_norm=feature_norm, split="kfold:3")
    shares = layer_shares(cache, results)
    assert shares.layer.tolist() == [1, 2, 3, 4, 5]
    record, tensors = saved(results)
    rms = []
    for fold in range(3):
        norm = saved_probe(record, tensors, fold).norm
        frames = np.stack(
            [np.concatenate([cache.frames(i, n) for i in range(160)]) for n in shares.layer]
        )
        rms.append(norm(torch.tensor(frames, dtype=torch.float32)).square().mean((1, 2)).sqrt())
    np.testing.assert_allclose(shares.rms, torch.stack(rms).mean(0), rtol=2e-3)
    assert shares.share.sum() == pytest.approx(1)
    np.testing.assert_allclose(shares.weight, results.layer_weights[0], rtol=1e-5)
    if feature_norm == "layernorm":
        np.testing.assert_allclose(shares.share, shares.weight, rtol=1e-5)


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
        with pytest.raises(ResultsError, match=r"no Multi-Layer run on .*; run probe\.py"):
            function(other, results)


def test_rank_agreement_is_one_for_the_same_order_and_minus_one_for_the_opposite():
    weights = pd.DataFrame(
        {"experiment": "e", "layer": [1, 2, 3, 4], "weight": [0.1, 0.2, 0.3, 0.4]}
    )
    curve = pd.DataFrame({"layer": [0, 1, 2, 3, 4], "score": [99.0, 10, 20, 30, 40]})
    same = rank_agreement(weights, curve).iloc[0]
    assert (same.kendall, same.spearman, same.layers) == pytest.approx((1, 1, 4))
    assert same.kendall_p == pytest.approx(2 / 24)  # of 4! orders, this one and its opposite
    turned = rank_agreement(weights, curve.assign(score=-curve.score)).iloc[0]
    assert (turned.kendall, turned.spearman) == pytest.approx((-1, -1))


# ------------------------------------------------------------------------------------ similarity


def made_cache(path, states, frames=None, **kwargs):
    lengths = frames or [state.shape[1] for state in states]
    speakers = [f"s{i % 3}" for i in range(len(states))]
    emotions = [("anger", "fear")[i % 2] for i in range(len(states))]
    return FeatureCache(
        write_cache(path, utterance_table(speakers, emotions, lengths), states, **kwargs)
    )


@pytest.fixture
def states(rng):
    """Twelve utterances of 3 to 6 frames at 3 layers, the third a rotation of the second."""
    turn = torch.tensor(np.linalg.qr(rng.normal(size=(8, 8)))[0], dtype=torch.float32)
    made = []
    for i in range(12):
        hidden = torch.tensor(rng.normal(size=(3, 3 + i % 4, 8)), dtype=torch.float32)
        hidden[2] = 4 * hidden[1] @ turn + 1
        made.append(hidden)
    return made


@pytest.mark.parametrize("rows", ["utterances", "frames"])
@pytest.mark.parametrize("measure", ["cka", "svcca"])
def test_a_rotated_layer_is_the_same_and_another_is_not(tmp_path, states, measure, rows):
    cache = made_cache(tmp_path / "m" / "c.h5", states, dtype="float32")
    table = layer_similarity(cache, measure=measure, rows=rows)
    assert table.loc[1, 2] == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(np.diag(table), 1, atol=1e-6)
    np.testing.assert_array_equal(table, table.T)
    assert table.loc[0, 1] < 0.9
    assert (table.index.name, table.columns.name) == ("m", "m")


def test_frames_are_read_in_blocks_and_give_what_all_at_once_give(tmp_path, states, monkeypatch):
    cache = made_cache(tmp_path / "m" / "c.h5", states, dtype="float32")
    whole = layer_similarity(cache, rows="frames")
    monkeypatch.setattr(analysis, "BLOCK", 7)
    assert len(list(analysis._blocks(cache, np.arange(12), 0, "frames"))) > 5
    pd.testing.assert_frame_equal(layer_similarity(cache, rows="frames"), whole)
    pd.testing.assert_frame_equal(layer_similarity(cache), layer_similarity(cache, cache))


def test_two_models_are_compared_on_the_utterances_that_both_have(tmp_path, states):
    first = made_cache(tmp_path / "m" / "c.h5", states, dtype="float32")
    order = [3, 0, 7, 1, 9, 2, 4, 11]
    table = first.utterances.iloc[order].reset_index(drop=True)
    plan = table.drop(columns=["sha256", "offset"], errors="ignore")
    path = tmp_path / "n" / "c.h5"
    with CacheWriter.open(
        path, CachePlan(plan, 3, 8, "frames", "float32", {"model": "n"})
    ) as writer:
        for row, i in enumerate(order):
            writer.write(row, states[i], f"{i:064x}")
    second = FeatureCache(path)
    table = layer_similarity(first, second)
    np.testing.assert_allclose(np.diag(table), 1, atol=1e-6)
    np.testing.assert_allclose(
        np.diag(layer_similarity(first, second, rows="frames")), 1, atol=1e-6
    )
    assert (table.index.name, table.columns.name) == ("m", "n")


def test_models_with_other_frames_or_other_utterances_are_refused(tmp_path, states):
    cache = made_cache(tmp_path / "m" / "c.h5", states)
    longer = made_cache(tmp_path / "n" / "c.h5", [torch.cat([s, s], 1) for s in states])
    with pytest.raises(CacheError, match=r'numbers of frames.*rows="utterances"'):
        layer_similarity(cache, longer, rows="frames")
    assert layer_similarity(cache, longer).loc[1, 1] == pytest.approx(1, abs=1e-4)
    few = made_cache(tmp_path / "few" / "c.h5", states[:3])
    with pytest.raises(CacheError, match="3 utterances in common; expected at least 4"):
        layer_similarity(cache, few)


# ------------------------------------------------------------------------------ health, pictures


def test_degenerate_layers_are_named_and_healthy_ones_are_not(tmp_path):
    states = list(torch.randn(12, 5, 6, 8))
    for hidden in states:
        hidden[1, :, :2] = 7.0  # two units of layer 1 say nothing
        hidden[2] = 3 + 1e-3 * hidden[2]  # layer 2 hardly varies
        hidden[4] *= 3
    states[5][4, 2, 6] = 65504.0  # one value of layer 4 is at the limit
    health = layer_health(made_cache(tmp_path / "m" / "c.h5", states)).set_index("layer")
    assert health.findings[[0, 3]].tolist() == ["", ""]
    assert "layer 1: 25 % of its units do not vary." in health.findings[1]
    assert "layer 2 hardly varies over time" in health.findings[2]
    assert "layer 4: 12 % of its units overflow." in health.findings[4]
    assert health.overflowed_units.tolist() == [0, 0, 0, 0, 1 / 8]
    assert health.constant_units[1] == 2 / 8
    assert health.mean_cosine[2] > 0.99
    assert (health.rank_share <= 1).all()
    np.testing.assert_allclose(
        health.clip_share, health.clip_variance / (health.time_variance + health.clip_variance)
    )


def test_without_frames_an_overflow_that_may_be_is_not_known(tmp_path):
    states = list(torch.randn(12, 2, 6, 8))
    states[5][1, 2, 6] = 65504.0
    health = layer_health(made_cache(tmp_path / "m" / "c.h5", states, store="pooled"))
    assert health.overflowed_units[0] == 0
    assert np.isnan(health.overflowed_units[1])
    assert health.findings.tolist() == ["", ""]


def test_the_first_two_principal_components_are_drawn(tmp_path, planted_cache):
    cache = FeatureCache(planted_cache())
    points = project_layer(cache, 3)
    scaled = StandardScaler().fit_transform(cache.pooled[:, 3].astype(np.float64))
    u, s, _ = np.linalg.svd(scaled, full_matrices=False)
    np.testing.assert_allclose(np.abs(points[["x", "y"]]), np.abs(u[:, :2] * s[:2]), atol=1e-3)
    assert points.columns.tolist() == ["x", "y", "key", "emotion", "speaker", "gender", "sentence"]
    with pytest.raises(CacheError, match="has layers 0 to 5; got layer 6"):
        project_layer(cache, 6)


def test_neighbours_stay_together_in_a_tsne_picture(planted_cache):
    cache = FeatureCache(planted_cache(strength=30.0))
    points = project_layer(cache, 3, "tsne", seed=1)
    centres = points.groupby("emotion")[["x", "y"]].mean()
    spread = points.groupby("emotion")[["x", "y"]].std().max(axis=None)
    gaps = [
        np.linalg.norm(a - b)
        for i, a in enumerate(centres.to_numpy())
        for b in centres.to_numpy()[:i]
    ]
    assert min(gaps) > 2 * spread
    pd.testing.assert_frame_equal(points, project_layer(cache, 3, "tsne", seed=1))
