"""Every row of the table of heads: trained, recorded, reported, used again; the further heads."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import utterance_table, write_cache
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from lsmprobe.cache.reader import FeatureCache
from lsmprobe.config import ProbeConfig
from lsmprobe.errors import SettingsError
from lsmprobe.experiments.prediction import as_json, probabilities
from lsmprobe.probing import training
from lsmprobe.probing.cores import side_by_side
from lsmprobe.probing.record import saved_probe
from lsmprobe.probing.solvers import LinearMap, NearestNeighbours, logistic
from lsmprobe.probing.stage import probe
from lsmprobe.probing.table import BUILT_IN, HEADS
from lsmprobe.report.score_lines import format_scores
from lsmprobe.results.records import load_head, load_record

SPEAKERS, EACH = 4, 10  # utterances


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    """Three layers of a few frames; layer 2 holds the emotion, and `loud`, linearly."""
    generator = torch.Generator().manual_seed(0)
    emotions = ["anger", "joy"] * (SPEAKERS * EACH // 2)
    lengths = [3 + i % 3 for i in range(len(emotions))]
    loud = torch.randn(len(emotions), generator=generator)
    states = []
    for i, length in enumerate(lengths):
        hidden = 0.5 * torch.randn(3, length, 6, generator=generator)
        hidden[2, :, 0] += 3 if emotions[i] == "joy" else -3
        hidden[2, :, 1] += 3 * loud[i]
        states.append(hidden)
    speakers = [f"s{i // EACH}" for i in range(len(emotions))]
    table = utterance_table(speakers, emotions, lengths)
    folder = tmp_path_factory.mktemp("rows")
    write_cache(folder / "cache" / "m" / "c.h5", table, states)
    pd.DataFrame({"key": table.key, "loud": loud.numpy()}).to_csv(folder / "own.csv", index=False)
    return folder


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_row_trains_is_recorded_reported_and_used_again(name, cache_dir, tmp_path):
    row = HEADS[name]
    numbers = "classes" not in row.learns
    config = ProbeConfig(
        head=name,
        cache_dir=cache_dir / "cache",
        results_dir=tmp_path,
        runs=2,
        epochs=12,
        hidden=16,
        lr=2e-2,
        split="speaker",
        target="loud" if numbers else "emotion",
        labels=cache_dir / "own.csv" if numbers else None,
        device="cpu",
    )
    results = probe(config)
    assert len(results) == (2 if row.draws else 1)
    assert (results["ccc"] > 0.7).all() if numbers else (results["macro_f1"] > 75).all()
    assert row.title in format_scores(results) or name in format_scores(results)
    path = Path(results["path"][0])
    record = load_record(path)
    assert set(record["settings"]) == set(row.decisive)
    again = probe(config)  # nothing is trained twice
    pd.testing.assert_frame_equal(again, results)
    [first] = [
        one for one in record["predictions"] if one["key"] == record["predictions"][0]["key"]
    ]
    cache = FeatureCache(cache_dir / "cache" / "m" / "c.h5")
    position = list(cache.utterances.key).index(first["key"])
    hidden = torch.stack(
        [torch.from_numpy(np.array(cache.frames(position, layer))) for layer in range(3)]
    )
    own = saved_probe(record, load_head(path), 0)
    said = probabilities(record, [own], hidden.float())
    if numbers:
        assert said[0] == pytest.approx(first["predicted"]["loud"], abs=0.02)
    else:
        np.testing.assert_allclose(said, first["probabilities"], atol=0.02)


@pytest.mark.parametrize("name", [name for name in BUILT_IN if HEADS[name].fit is None])
def test_a_row_that_trains_draws_nothing_from_the_global_generator(
    name, cache_dir, tmp_path, monkeypatch
):
    """Heads that train side by side would share it."""
    states = []

    def watched(*args):
        states.append(torch.get_rng_state())
        side_by_side(*args)
        states.append(torch.get_rng_state())

    monkeypatch.setattr(training, "side_by_side", watched)
    folders = {"cache_dir": cache_dir / "cache", "results_dir": tmp_path}
    probe(ProbeConfig(head=name, runs=1, epochs=1, split="speaker", device="cpu", **folders))
    assert len(states) == 2 and torch.equal(*states)


def test_a_head_that_cannot_learn_the_target_is_one_line(cache_dir, tmp_path):
    config = ProbeConfig(
        head="logistic",
        cache_dir=cache_dir / "cache",
        results_dir=tmp_path,
        target="loud",
        labels=cache_dir / "own.csv",
    )
    with pytest.raises(SettingsError, match=r"logistic learns classes.*loud is of numbers.*ridge"):
        probe(config)


def test_predicted_numbers_are_plain_values_in_json():
    table = pd.DataFrame({"clip": ["a.wav"], "arousal": [3.5], "valence": [2.0]})
    assert as_json(table) == [{"clip": "a.wav", "predicted": {"arousal": 3.5, "valence": 2.0}}]


def blobs(n=60, dim=5, n_classes=3):
    rng = np.random.default_rng(1)
    targets = np.arange(n) % n_classes
    return 100 + rng.standard_normal((n, dim)) * 7 + 9 * np.eye(n_classes, dim)[targets], targets


def test_logistic_regression_is_that_of_scikit_learn_on_standardised_features():
    means, targets = blobs()
    head = LinearMap(5, 3, logistic)
    for solution in head.solutions(means, targets, balanced=True):
        head.load_state_dict({name: t.float() for name, t in solution.state.items()})
        scaler = StandardScaler().fit(means)
        own = LogisticRegression(C=solution.tried, class_weight="balanced", max_iter=1000)
        own.fit(scaler.transform(means), targets)
        ours = torch.softmax(head(torch.from_numpy(means).float(), torch.ones(60).long()), 1)
        expected = own.predict_proba(scaler.transform(means))
        np.testing.assert_allclose(ours.detach().numpy(), expected, atol=0.01)


def test_neighbours_vote_as_those_of_scikit_learn():
    means, targets = blobs()
    head = NearestNeighbours(5, 3)
    for solution in head.solutions(means[::2], targets[::2], balanced=False):
        head.load_state_dict({name: t.float() for name, t in solution.state.items()})
        scaler = StandardScaler().fit(means[::2])
        own = KNeighborsClassifier(int(solution.tried)).fit(
            scaler.transform(means[::2]), targets[::2]
        )
        shares = head(torch.from_numpy(means[1::2]).float(), torch.ones(30).long()).exp()
        expected = own.predict_proba(scaler.transform(means[1::2]))
        np.testing.assert_allclose(shares.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("there", [[0], [0, 2]])
def test_a_class_that_training_lacks_is_never_answered(there):
    means, targets = blobs()
    own = np.isin(targets, there)
    head = LinearMap(5, 3, logistic)
    *_, last = head.solutions(means[own], targets[own], balanced=True)
    head.load_state_dict({name: t.float() for name, t in last.state.items()})
    answers = head(torch.from_numpy(means).float(), torch.ones(60).long()).argmax(1)
    assert set(answers.tolist()) == set(there)
    assert (answers.numpy()[own] == targets[own]).mean() > 0.7


@pytest.mark.parametrize("name", ["mean-std", "attentive"])
def test_statistics_of_an_utterance_are_the_same_alone_and_packed(name):
    head = HEADS[name].build(1, 4, 2, {"hidden": 8, "dropout": 0.1}).eval()
    frames = torch.randn(9, 4)
    packed = head(frames, torch.tensor([1, 8]))
    torch.testing.assert_close(packed[1:], head(frames[1:], torch.tensor([8])))


def test_even_attention_is_mean_and_standard_deviation():
    widths = {"hidden": 8, "dropout": 0.1}
    attentive = HEADS["attentive"].build(1, 4, 2, widths).eval()
    plain = HEADS["mean-std"].build(1, 4, 2, widths).eval()
    shared = {n: t for n, t in attentive.state_dict().items() if not n.startswith("attention")}
    plain.load_state_dict(shared)
    torch.nn.init.zeros_(attentive.attention[2].weight)
    frames, lengths = torch.randn(9, 4), torch.tensor([2, 7])
    torch.testing.assert_close(attentive(frames, lengths), plain(frames, lengths))


def test_the_weighted_mean_of_means_is_that_of_frames():
    head = HEADS["weighted-mean"].build(3, 4, 2, {"hidden": 8})
    torch.nn.init.normal_(head.scalars)
    frames, lengths = torch.randn(3, 9, 4), torch.tensor([2, 7])
    means = torch.stack([part.mean(1) for part in frames.split([2, 7], 1)], 1)
    torch.testing.assert_close(head(frames, lengths), head(means, torch.ones(2).long()))
