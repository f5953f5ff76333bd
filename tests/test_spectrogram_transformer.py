from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from lsmprobe.errors import TrainingError
from lsmprobe.experiments.spectrogram_transformer import (
    SIZES,
    Recipe,
    Size,
    Spectrograms,
    build_network,
    masked,
    statistics,
    train,
)
from lsmprobe.probing.objectives import CLASSIFICATION

MICRO = Size(dim=12, n_blocks=1, n_attention_heads=1, stride=64)


@pytest.fixture
def micro(monkeypatch):
    monkeypatch.setitem(SIZES, "micro", MICRO)
    return "micro"


@pytest.fixture(scope="module")
def networks():
    """Of every size that is shipped, for 50 classes."""
    return {size: build_network(size, 50, seed=0) for size in ("ast", "ast-tiny")}


def toy(n_utterances, seed=0):
    """Two classes, one loud in low bins, one in high ones: read, labels, (train, validation, test).

    Of 300 to 559 frames, so some are padded and some are cut.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(n_utterances) % 2
    spectrograms = [rng.normal(-6, 2, (rng.integers(300, 560), 128)) for _ in labels]
    for frames, label in zip(spectrograms, labels, strict=True):
        frames[:, slice(80, 110) if label else slice(20, 50)] += 4
    fold = tuple(np.split(np.arange(n_utterances), [n_utterances // 2, n_utterances * 3 // 4]))
    return spectrograms.__getitem__, labels, fold


def test_the_paper_s_size_has_the_published_architecture(networks):
    patches = 12 * 50  # (128 - 16) // 10 + 1 bands, (512 - 16) // 10 + 1 stretches of frames
    block = 4 * (768 * 768 + 768) + (768 * 3072 + 3072) + (3072 * 768 + 768) + 2 * 2 * 768
    by_hand = {
        "patches": 16 * 16 * 768 + 768,
        "two tokens": 2 * 768,
        "positions": (patches + 2) * 768,
        "blocks": 12 * block,
        "final LayerNorm": 2 * 768,
        "classifier": 2 * 768 + 768 * 50 + 50,
    }
    assert (
        sum(p.numel() for p in networks["ast"].parameters()) == sum(by_hand.values()) == 85_757_234
    )
    # Published: 86,594,063 with AudioSet's 1024 frames (101 instead of 50 stretches), 527 classes.
    of_audioset = 12 * (101 - 50) * 768 + (527 - 50) * (768 + 1)
    assert sum(by_hand.values()) + of_audioset == 86_594_063


@pytest.mark.parametrize(("size", "tokens"), [("ast", 12 * 50 + 2), ("ast-tiny", 8 * 32 + 2)])
def test_512_frames_become_the_published_number_of_tokens(networks, size, tokens):
    embeddings = networks[size].audio_spectrogram_transformer.embeddings
    with torch.no_grad():
        embedded = embeddings(torch.zeros(1, 512, 128))
    assert embedded.shape == (1, tokens, SIZES[size].dim)
    assert embeddings.position_embeddings.shape == (1, tokens, SIZES[size].dim)


def test_the_weights_depend_on_the_seed_alone(micro):
    torch.manual_seed(5)
    expected = torch.rand(3)
    first = build_network(micro, 4, seed=0).state_dict()
    torch.manual_seed(5)
    again = build_network(micro, 4, seed=0).state_dict()
    assert torch.equal(torch.rand(3), expected)  # no random number of others was used up
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = build_network(micro, 4, seed=1).state_dict()
    assert not torch.equal(
        first["classifier.dense.weight"],
        other["classifier.dense.weight"],
    )


@pytest.mark.parametrize("size", ["ast", "ast-tiny"])
def test_the_two_tokens_and_the_positions_do_not_begin_alike(networks, size):
    embeddings = networks[size].audio_spectrogram_transformer.embeddings
    tokens = embeddings.cls_token, embeddings.distillation_token
    assert not torch.equal(*tokens)
    for values in (*tokens, embeddings.position_embeddings):
        assert values.std().item() == pytest.approx(0.02, rel=0.3)


def test_statistics_are_those_of_all_bins_of_the_frames_that_are_seen(rng):
    spectrograms = [rng.normal(i, 1 + i, (n, 128)) for i, n in enumerate((100, 700, 512))]
    seen = np.concatenate([s[:512].ravel() for s in spectrograms[1:]])
    mean, std = statistics(spectrograms.__getitem__, np.array([1, 2]))
    assert mean == pytest.approx(seen.mean())
    assert std == pytest.approx(seen.std())


def test_inputs_are_normalised_then_padded_or_cut(rng):
    spectrograms = [rng.normal(-6, 3, (n, 128)).astype(np.float16) for n in (100, 700)]
    batch = Spectrograms(spectrograms.__getitem__, -6.0, 3.0).batch(np.array([0, 1]))
    assert batch.shape == (2, 512, 128)
    assert (batch[0, 100:] == 0).all()
    assert float(batch[0, :100].mean()) == pytest.approx(0, abs=0.05)
    assert float(batch[1].std()) == pytest.approx(0.5, abs=0.05)  # of (x - mean) / (2 std)
    expected = (spectrograms[1][:512].astype(np.float32) + 6) / 6
    np.testing.assert_allclose(batch[1], expected, atol=1e-6)


@given(
    frequency=st.integers(0, 128),
    time=st.integers(0, 512),
    seed=st.integers(0, 2**32),
)
def test_masks_are_one_band_and_one_stretch_of_each_utterance(frequency, time, seed):
    recipe = Recipe(frequency_mask=frequency, time_mask=time)
    blanked = masked(torch.ones(3, 512, 128), recipe, np.random.default_rng(seed)) == 0
    for utterance in blanked:
        frames = np.flatnonzero(utterance.all(dim=1))
        bins = np.flatnonzero(utterance.all(dim=0))
        for stretch, widest in ((frames, time), (bins, frequency)):
            assert len(stretch) <= max(0, widest - 1)
            assert len(stretch) == 0 or np.ptp(stretch) == len(stretch) - 1
        outside = utterance[np.setdiff1d(range(512), frames)][:, np.setdiff1d(range(128), bins)]
        assert not outside.any()


def test_masks_take_every_width_and_lie_anywhere():
    blanked = masked(torch.ones(1500, 512, 128), Recipe(), np.random.default_rng(0)) == 0
    bands, stretches = blanked.all(dim=1), blanked.all(dim=2)
    for reached, widest in ((bands, 24), (stretches, 96)):
        widths = reached.sum(dim=1)
        assert set(widths.tolist()) == set(range(widest))
        assert float(widths.float().mean()) == pytest.approx((widest - 1) / 2, rel=0.05)
        share = reached.float().mean(dim=0)  # the published formula never reaches the last one
        inside = share[widest:-widest]
        assert inside.max() < 1.5 * inside.min()
        assert share[[0, -2]].min() > 0


def test_the_learning_rate_falls_as_in_the_published_code(micro):
    read, labels, fold = toy(8)
    fit = train(
        micro, read, labels, fold, 2, seed=0, recipe=Recipe(epochs=25), objective=CLASSIFICATION
    )
    optimiser = torch.optim.Adam([torch.zeros(1)], lr=1e-4)
    published = torch.optim.lr_scheduler.MultiStepLR(optimiser, list(range(5, 26)), gamma=0.85)
    expected = []
    for _ in range(25):
        expected.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        published.step()
    assert [epoch["lr"] for epoch in fit.history] == pytest.approx(expected)


@pytest.mark.slow
def test_ast_tiny_learns_a_separable_task():
    read, labels, fold = toy(40)
    epochs = []
    fit = train(
        *("ast-tiny", read, labels, fold, 2),
        seed=0,
        recipe=Recipe(epochs=8, batch_size=4, lr=5e-4),
        objective=CLASSIFICATION,
        on_epoch=lambda: epochs.append(1),
    )
    guess = fit.probabilities.argmax(1)
    assert f1_score(labels[fold[2]], guess, average="macro") > 0.8  # a constant answer: 0.33
    assert len(epochs) == len(fit.history) == 8
    np.testing.assert_allclose(fit.probabilities.sum(1), 1, atol=1e-5)
    best = max(epoch["validation_score"] for epoch in fit.history)
    first = next(i for i, e in enumerate(fit.history, 1) if e["validation_score"] == best)
    assert fit.best_epoch == first  # the earliest on ties


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(micro):
    read, labels, fold = toy(12)
    first, again, other = (
        train(
            micro, read, labels, fold, 2, seed=s, recipe=Recipe(epochs=2), objective=CLASSIFICATION
        )
        for s in (0, 0, 1)
    )
    assert first.history == again.history
    np.testing.assert_array_equal(first.probabilities, again.probabilities)
    assert first.history != other.history


def test_the_test_set_is_scored_with_the_epoch_that_validation_chose(micro):
    read, labels, fold = toy(12)

    def trained(*validation_scores):
        points = iter(validation_scores)
        chosen = replace(CLASSIFICATION, score=lambda *_: next(points))
        recipe = Recipe(epochs=len(validation_scores), lr=1e-2)
        return train(*(micro, read, labels, fold, 2), seed=0, recipe=recipe, objective=chosen)

    fit, until = trained(1.0, 3.0, 3.0, 2.0), trained(1.0, 3.0)
    assert fit.best_epoch == until.best_epoch == 2
    np.testing.assert_array_equal(fit.probabilities, until.probabilities)
    assert not np.array_equal(fit.probabilities, trained(3.0, 1.0).probabilities)


def test_a_loss_that_is_not_finite_stops_the_run(micro):
    read, labels, fold = toy(8)

    def deaf(utterance):
        return np.full_like(read(utterance), np.nan)

    with pytest.raises(TrainingError, match="seed 7: at epoch 1 the loss is nan"):
        train(micro, deaf, labels, fold, 2, seed=7, recipe=Recipe(), objective=CLASSIFICATION)
