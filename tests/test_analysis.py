import numpy as np
import pandas as pd
import pytest
import torch
from conftest import utterance_table, write_cache
from sklearn.preprocessing import StandardScaler

from lsmprobe.cache.plan import CachePlan
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.cache.writer import CacheWriter
from lsmprobe.errors import CacheError, SettingsError
from lsmprobe.layers import similarity
from lsmprobe.layers.health import layer_health
from lsmprobe.layers.projection import project_layer
from lsmprobe.layers.similarity import layer_similarity


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
    monkeypatch.setattr(similarity, "BLOCK", 7)
    assert len(list(similarity.blocks_of_layer(cache, np.arange(12), 0, "frames"))) > 5
    pd.testing.assert_frame_equal(layer_similarity(cache, rows="frames"), whole)
    pd.testing.assert_frame_equal(layer_similarity(cache), layer_similarity(cache, cache))


@pytest.mark.parametrize("measure", ["cka", "svcca"])
@pytest.mark.parametrize("rows", ["utterances", "frames"])
def test_tiles_read_a_fifth_and_give_exactly_what_pair_by_pair_gives(
    tmp_path, rng, monkeypatch, measure, rows
):
    states = [torch.tensor(rng.normal(size=(25, 4, 6)), dtype=torch.float32) for _ in range(12)]
    one = made_cache(tmp_path / "m" / "c.h5", states, dtype="float32")
    two = made_cache(tmp_path / "n" / "c.h5", [s[:7] ** 3 for s in states], dtype="float32")
    reads = []
    monkeypatch.setattr(similarity, "BLOCK", 7)
    plain = similarity.blocks_of_layer

    def counted(cache, utterances, layer, rows):
        reads.append(layer)
        return plain(cache, utterances, layer, rows)

    monkeypatch.setattr(similarity, "blocks_of_layer", counted)
    tables, n_reads = {}, []
    for other in (one, two):
        tables[other] = layer_similarity(one, other, measure=measure, rows=rows)
        n_reads.append(len(reads))
        reads.clear()
    compare, everyone = similarity.MEASURES[measure], np.arange(12)

    def together(i, other, j):
        both = (plain(one, everyone, i, rows), plain(other, everyone, j, rows))
        return similarity.sums(zip(*both, strict=True))

    for other, table in tables.items():
        for i, j in [(0, 0), (1, 6), (6, 1), (4, 5), (24, 3)]:
            own = together(i, one, i)
            if other is one:
                i, j = min(i, j), max(i, j)
                own = together(i, one, i)
            theirs = similarity.sums((b, b) for b in plain(other, everyone, j, rows))
            assert table.loc[i, j] == compare(together(i, other, j), own, theirs)
    # Pair by pair there are 25 + 25 x 26 / 2 of one model and 32 + 25 x 7 of two, two reads each.
    assert n_reads == [150, 117]


def test_a_table_knows_its_measure_and_a_wrong_one_is_refused(tmp_path, states):
    cache = made_cache(tmp_path / "m" / "c.h5", states)
    assert layer_similarity(cache, measure="svcca").attrs["measure"] == "SVCCA"
    assert layer_similarity(cache, measure="CKA").equals(layer_similarity(cache))
    for wrong, function in (
        ({"measure": "ckaa"}, layer_similarity),
        ({"rows": "clips"}, layer_similarity),
        ({"layer": 1, "method": "umap"}, project_layer),
    ):
        with pytest.raises(SettingsError, match="expected one of"):
            function(cache, **wrong)


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
    assert "layer 1: 25% of its units do not vary." in health.findings[1]
    assert "layer 2 hardly varies over time" in health.findings[2]
    assert "layer 4: 12% of its units overflow." in health.findings[4]
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
    pd.testing.assert_frame_equal(points, project_layer(cache, 3, "PCA"))
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
