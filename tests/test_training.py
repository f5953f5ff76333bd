import contextlib
import copy
import gc
import weakref
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import nn

from lsmprobe.errors import TrainingError
from lsmprobe.probing import linear_kernel, training
from lsmprobe.probing.batches import FrameFeatures, PooledFeatures
from lsmprobe.probing.heads import LinearHead, MultiLayerHead, NonLinearHead, Probe
from lsmprobe.probing.linear_stack import LinearStack
from lsmprobe.probing.norms import Standardise, pooled_statistics
from lsmprobe.probing.objectives import CLASSIFICATION, balanced_weights
from lsmprobe.probing.seeds import seed_of
from lsmprobe.probing.trainer import Member, Recipe
from lsmprobe.probing.training import fit

N, DIM, CLASSES = 60, 6, 3


@pytest.fixture
def data(rng):
    """Labels that the means hold, a fold, and the means: (utterances, 2 layers, dim)."""
    labels = np.arange(N) % CLASSES
    means = rng.normal(size=(N, 2, DIM)).astype(np.float32)
    means[:, 1, :CLASSES] += 4 * np.eye(CLASSES, dtype=np.float32)[labels]
    order = rng.permutation(N)
    return labels, (order[:40], order[40:50], order[50:]), torch.from_numpy(means)


def member(name="linear", layers=(1,), seed=0, dropout=0.1):
    torch.manual_seed(seed)
    head = {
        "linear": lambda: LinearHead(DIM, CLASSES, hidden=16),
        "nonlinear": lambda: NonLinearHead(DIM, CLASSES, hidden=16, dropout=dropout),
        "multilayer": lambda: MultiLayerHead(len(layers), DIM, CLASSES, hidden=16, dropout=dropout),
    }[name]()
    return Member(name, Probe(nn.Identity(), head), tuple(layers), seed, own_draws=True)


def train(members, data, recipe=None, **kwargs):
    labels, fold, means = data
    features = kwargs.pop("features", PooledFeatures(means))
    members = [replace(member, recipe=recipe or Recipe(epochs=3)) for member in members]
    return fit(members, features, labels, fold, CLASSES, **kwargs)


class Recorder:
    """Features that remember what was asked of them."""

    def __init__(self, features):
        self.features, self.asked, self.pools = features, [], []

    def all_of(self, utterances, layers, device):
        return None  # as if memory were too small for them

    def through(self, pools, layers, device):
        at_hand = self.features.through(pools, layers, device)
        for pool in pools:
            self.at_hand = next(at_hand)
            self.pools.append(frozenset(pool.tolist()))
            yield self

    def batch(self, utterances, layers):
        self.asked.append((frozenset(utterances.tolist()), tuple(layers)))
        return self.at_hand.batch(utterances, layers)


def test_training_is_adam_on_the_weighted_cross_entropy(data):
    labels, (trained, _, _), means = data
    recipe = Recipe(
        epochs=4, batch_size=40, epoch_choice="last"
    )  # one batch: no order to depend on
    reference = member().probe
    optimiser = torch.optim.Adam(
        reference.parameters(), lr=5e-4, weight_decay=1e-4, betas=(0.9, 0.98), eps=1e-8
    )
    weights = compute_class_weight("balanced", classes=np.arange(3), y=labels[trained])
    loss = nn.CrossEntropyLoss(weight=torch.tensor(weights, dtype=torch.float32))
    for _ in range(4):
        optimiser.zero_grad()
        out = reference(means[trained, 1], torch.ones(40, dtype=torch.long))
        loss(out, torch.from_numpy(labels[trained])).backward()
        optimiser.step()
    [fitted] = train([member()], data, recipe)
    for ours, theirs in zip(fitted.member.probe.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_a_member_does_not_depend_on_who_trains_beside_it(data):
    [alone] = train([member("nonlinear", seed=1)], data)
    beside = train(
        [member("linear", seed=0), member("nonlinear", seed=1), member("linear", (0,), 1)], data
    )
    np.testing.assert_array_equal(alone.probabilities, beside[1].probabilities)
    assert alone.history == beside[1].history


def as_frames(means, budget=None):
    """Pooled means as frames, one per utterance: what trains the plain way."""
    return FrameFeatures(lambda u, layer: means[u, layer, None].numpy(), np.ones(N, int), budget)


@pytest.fixture(params=["operations of torch", "compiled"])
def way(request, monkeypatch):
    """How Linear heads train."""
    enough = 0 if request.param == "compiled" else float("inf")
    monkeypatch.setattr(training, "ENOUGH_TO_COMPILE", enough)
    return request.param


def linear_members(means, trained):
    """Linear heads that differ in layer, seed, recipe, size and normalisation."""
    recipe = Recipe(epochs=5, batch_size=8, lr=2e-3)
    recipes = [
        recipe,
        replace(recipe, lr=5e-3, scheduler="cosine", class_weights="none"),
        replace(recipe, weight_decay=0.1, epoch_choice="last", betas=(0.8, 0.9)),
    ]
    norm = Standardise(*pooled_statistics(means[trained, 1]))
    members = []
    for seed in range(2):
        for layer in range(2):
            for given in recipes:
                members.append(replace(member(layers=(layer,), seed=seed), recipe=given))
        standardised = member(seed=seed)
        members.append(replace(standardised, probe=Probe(norm, standardised.probe.head)))
        wide = Probe(nn.Identity(), LinearHead(DIM, CLASSES, hidden=24))
        members.append(Member("wide", wide, (1,), seed, recipe, own_draws=True))
    return [replace(m, recipe=recipe) if m.recipe == Recipe() else m for m in members]


@pytest.mark.usefixtures("way")
def test_linear_heads_trained_as_one_are_those_trained_one_by_one(data):
    labels, fold, means = data
    fits = [
        fit(linear_members(means, fold[0]), features, labels, fold, CLASSES)
        for features in (PooledFeatures(means), as_frames(means))
    ]
    for ours, plain in zip(*fits, strict=True):
        assert ours.best_epoch == plain.best_epoch
        np.testing.assert_allclose(ours.probabilities, plain.probabilities, atol=1e-4)
        for mine, theirs in zip(ours.history, plain.history, strict=True):
            assert mine == pytest.approx(theirs, rel=1e-4)


@pytest.mark.usefixtures("way")
def test_a_linear_member_does_not_depend_on_the_heads_it_is_stacked_with(data):
    _, fold, means = data
    together = linear_members(means, fold[0])
    alone = copy.deepcopy(together[4])
    fits = fit(together, PooledFeatures(means), *data[:2], CLASSES)
    [single] = fit([alone], PooledFeatures(means), *data[:2], CLASSES)
    np.testing.assert_allclose(fits[4].probabilities, single.probabilities, atol=1e-5)


@pytest.mark.parametrize("features", ["held", "in pools", "means"])
def test_heads_trained_side_by_side_are_those_trained_in_turn(data, features, threads):
    """Two cores: a seed each; three: a head each. Each has one thread, as all with one core."""
    labels, fold, means = data
    read = {
        "held": as_frames(means),
        "in pools": as_frames(means, budget=0),
        "means": PooledFeatures(means),
    }[features]
    found = {}
    for cores in (1, 2, 3):
        threads(cores)
        members = [
            replace(member(name, layers, seed), recipe=Recipe(epochs=3, batch_size=4))
            for seed in range(2)
            for name, layers in (("nonlinear", (1,)), ("multilayer", (0, 1)))
        ]
        epochs = iter(range(100))
        found[cores] = fit(members, read, labels, fold, CLASSES, on_epoch=partial(next, epochs))
        assert next(epochs) == 3 * len(members)
        assert torch.get_num_threads() == cores
    for one, two, three in zip(*found.values(), strict=True):
        assert one.history == two.history == three.history
        np.testing.assert_array_equal(one.probabilities, two.probabilities)
        np.testing.assert_array_equal(one.probabilities, three.probabilities)


class WithDropoutOfTorch(nn.Module):
    """A head of a user's own, which draws from the global generator."""

    def __init__(self):
        super().__init__()
        self.map = nn.Linear(DIM, CLASSES)

    def forward(self, frames, lengths):
        return self.map(nn.functional.dropout(frames, 0.5, self.training))


def test_a_head_that_draws_from_the_global_generator_trains_as_if_alone(data, threads):
    labels, fold, means = data

    def trained(cores, *seeds):
        threads(cores)
        members = []
        for seed in seeds:
            torch.manual_seed(seed)
            probe = Probe(nn.Identity(), WithDropoutOfTorch())
            members.append(Member("own", probe, (1,), seed, Recipe(epochs=3)))
        return fit(members, PooledFeatures(means), labels, fold, CLASSES)

    [expected] = trained(1, 7)
    _, found = trained(2, 3, 7)
    assert found.history == expected.history
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)


def test_linear_stacks_of_another_size_train_the_same_heads(data, threads, way):
    """Of six heads: stacks of four and two with one core, of two with three and more.

    To the bit, if compiled.
    """
    labels, fold, means = data
    found = []
    for cores in (1, 3):
        threads(cores)
        members = [
            replace(member("linear", (layer,), seed), recipe=Recipe(epochs=4, batch_size=8))
            for seed in range(3)
            for layer in range(2)
        ]
        found.append(fit(members, PooledFeatures(means), labels, fold, CLASSES))
    for one, other in zip(*found, strict=True):
        assert one.best_epoch == other.best_epoch
        tolerance = 0 if way == "compiled" else 1e-6
        np.testing.assert_allclose(one.probabilities, other.probabilities, rtol=0, atol=tolerance)


@pytest.mark.parametrize("hidden", [16, 18])
def test_where_there_is_enough_to_train_it_is_compiled(data, way, hidden, monkeypatch):
    made = []

    def watched(*args):
        made.append(args)
        return LinearStack(*args)

    monkeypatch.setattr(linear_kernel, "CompiledStack", watched)
    probe = Probe(nn.Identity(), LinearHead(DIM, CLASSES, hidden=hidden))
    train([Member("linear", probe, (1,), 0)], data)
    assert bool(made) == (way == "compiled" and hidden % 4 == 0)


@pytest.mark.usefixtures("way")
def test_trained_heads_have_memory_of_their_own(data):
    _, fold, means = data
    fits = fit(linear_members(means, fold[0]), PooledFeatures(means), *data[:2], CLASSES)
    tensors = [t for f in fits for t in f.member.probe.parameters()]
    assert len({t.untyped_storage().data_ptr() for t in tensors}) == len(tensors)
    assert all(t.untyped_storage().nbytes() == t.nbytes for t in tensors)


def test_seeds_share_pools_where_memory_is_too_small_and_the_fit_says_so(data):
    _labels, (trained, _, _), means = data
    for budget, shared in ((10**9, False), (0, True)):
        features = as_frames(means, budget)
        first: dict[int, set] = {}

        class Watched(Recorder):
            def all_of(self, utterances, layers, device):
                held = self.features.all_of(utterances, layers, device)
                if held is not None:
                    self.at_hand = held
                return held and self

        recorder = Watched(features)
        members = [member("nonlinear", seed=seed) for seed in range(3)]
        fits = train(members, data, Recipe(epochs=1, batch_size=3), features=recorder)
        assert {fitted.shared_pools for fitted in fits} == {shared}
        in_training = [asked for asked, _ in recorder.asked if asked <= set(trained.tolist())]
        for seed in range(3):  # the first twelve utterances that each seed sees
            first[seed] = frozenset.union(*in_training[seed:12:3])
        assert (first[0] == first[1] == first[2]) == shared


@pytest.mark.parametrize("changed", [{"seed": 1}, {"seed": 12345}, {"seed": 2**31}, {"fold": 1}])
def test_dropout_depends_on_the_seed_and_on_the_fold(data, changed):
    """Of two runs of one initialisation and one order, whose batches are the whole training set."""
    recipe = Recipe(epochs=3, batch_size=40, epoch_choice="last")
    outcomes = {}
    for name in ("linear", "nonlinear"):  # which have no dropout, and some
        one, other = member(name), replace(member(name), **changed)
        other.probe.load_state_dict(one.probe.state_dict())
        found = [train([each], data, recipe)[0].probabilities for each in (one, other)]
        outcomes[name] = np.abs(found[0] - found[1]).max()
    assert outcomes["linear"] < 1e-5 < outcomes["nonlinear"]


def test_seeds_are_32_bits_and_no_two_draws_share_one():
    seeds = {
        seed_of(purpose, seed, fold, step)
        for purpose in range(3)
        for seed in (0, 1, 2, 12345, 2**32)
        for fold in range(5)
        for step in range(40)
    }
    assert len(seeds) == 3 * 5 * 5 * 40
    assert min(seeds) >= 0 and max(seeds) < 2**32


@pytest.mark.parametrize("choice", ["best", "loss", "last"])
def test_a_validation_set_of_emotions_that_training_lacks_has_no_loss_and_the_run_goes_on(
    data, choice
):
    labels, (trained, validation, test), means = data
    labels = labels.copy()
    labels[trained], labels[validation] = labels[trained] % 2, 2
    recipe = Recipe(epochs=3, epoch_choice=choice)
    [fitted] = train([member("nonlinear")], (labels, (trained, validation, test), means), recipe)
    assert [epoch["validation_loss"] for epoch in fitted.history] == [None] * 3
    assert [epoch["validation_score"] for epoch in fitted.history] == [0.0] * 3
    assert fitted.best_epoch == (3 if choice == "last" else 1)
    assert np.isfinite(fitted.probabilities).all()


def test_a_pool_is_read_once_for_every_head_and_seed(data):
    _labels, (trained, _validation, _test), means = data
    recorder = Recorder(PooledFeatures(means))
    members = [member(name, seed=seed) for seed in range(3) for name in ("linear", "nonlinear")]
    train(members, data, Recipe(epochs=2, batch_size=4), features=recorder)
    sizes = [16, 16, 8, 10]  # 40 to train from in pools of four batches, 10 to validate
    assert [len(pool) for pool in recorder.pools] == 2 * sizes + [10]
    for epoch in (recorder.pools[:3], recorder.pools[4:7]):
        assert frozenset.union(*epoch) == frozenset(trained.tolist())
    assert recorder.pools[0] != recorder.pools[4]
    of_pool = [asked for asked, _ in recorder.asked[:12]]  # four batches for each seed
    for seed in range(3):
        assert frozenset.union(*of_pool[seed::3]) == recorder.pools[0]
    assert of_pool[0::3] != of_pool[1::3]  # a seed has its own order


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(data):
    first, again, other = (train([member("nonlinear", seed=s)], data)[0] for s in (0, 0, 1))
    np.testing.assert_array_equal(first.probabilities, again.probabilities)
    assert np.abs(first.probabilities - other.probabilities).max() > 1e-4


def test_what_trained_before_does_not_matter_to_the_callers_generator(data):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    members = [member("nonlinear")]
    torch.manual_seed(5)
    train(members, data)
    torch.testing.assert_close(torch.rand(3), expected)


def test_frames_and_their_means_train_the_linear_head_alike(data, rng):
    _labels, _fold, _ = data
    frames = [rng.normal(size=(n, 2, DIM)).astype(np.float32) for n in rng.integers(1, 9, N)]
    means = torch.tensor(
        np.stack([f.astype(np.float64).mean(0) for f in frames]), dtype=torch.float32
    )
    lengths = np.array([len(f) for f in frames])
    from_frames = FrameFeatures(lambda u, layer: frames[u][:, layer], lengths)
    [one] = train([member()], data, features=from_frames)
    [other] = train([member()], data, features=PooledFeatures(means))
    np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-6)


def test_a_batch_is_read_once_for_all_members_of_a_seed(data):
    _labels, _, means = data
    recorder = Recorder(PooledFeatures(means))
    members = [member("linear", (0,)), member("linear", (1,)), member("multilayer", (0, 1))]
    train(members, data, Recipe(epochs=2, batch_size=10), features=recorder)
    # 4 training batches and 1 of validation per epoch, then 1 of test; all layers at once
    assert len(recorder.asked) == 2 * (4 + 1) + 1
    assert {layers for _, layers in recorder.asked} == {(0, 1)}


def test_the_test_set_is_read_once_after_everything_else(data):
    _labels, (_trained, _validation, test), means = data
    recorder = Recorder(PooledFeatures(means))
    train([member()], data, features=recorder)
    touching = [i for i, (asked, _) in enumerate(recorder.asked) if asked & set(test.tolist())]
    assert touching == [len(recorder.asked) - 1]


def test_every_epoch_sees_every_training_utterance_once_in_another_order(data):
    _labels, (trained, _, _), means = data
    recorder = Recorder(PooledFeatures(means))
    train([member()], data, Recipe(epochs=2, batch_size=16), features=recorder)
    epochs = [recorder.asked[0:3], recorder.asked[4:7]]
    for epoch in epochs:
        assert sorted(len(asked) for asked, _ in epoch) == [
            8,
            16,
            16,
        ]  # the last one is not dropped
        assert frozenset.union(*(asked for asked, _ in epoch)) == frozenset(trained.tolist())
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize(("choice", "expected"), [("best", 2), ("last", 4)])
def test_the_epoch_is_the_best_on_validation_and_the_earliest_on_ties(data, choice, expected):
    values = iter([10.0, 30.0, 30.0, 20.0])
    [fitted] = train(
        [member()],
        data,
        Recipe(epochs=4, epoch_choice=choice),
        objective=replace(CLASSIFICATION, score=lambda *_: next(values)),
    )
    assert fitted.best_epoch == expected


def test_the_epoch_may_be_the_best_by_uar(data):
    values = iter([10.0, 30.0, 30.0, 20.0])
    by_uar = replace(CLASSIFICATION, other_scores={"uar": lambda *_: next(values)})
    [fitted] = train([member()], data, Recipe(epochs=4, epoch_choice="uar"), objective=by_uar)
    assert fitted.best_epoch == 2


def test_the_validation_loss_may_be_the_mean_of_its_batches(data):
    """With 10 utterances in batches of 4 the last two count as much as four others."""
    labels, (_, validation, _), means = data
    recipe = Recipe(epochs=1, batch_size=4, class_weights="none", validation_loss="batches")
    [fitted] = train([member()], data, recipe)
    logits = fitted.member.probe(means[validation, 1], torch.ones(10, dtype=torch.long))
    truth = torch.tensor(labels[validation])
    of_batches = [
        torch.nn.functional.cross_entropy(*both).item()
        for both in zip(logits.split(4), truth.split(4), strict=True)
    ]
    assert fitted.history[0]["validation_loss"] == pytest.approx(np.mean(of_batches), rel=1e-5)
    whole = torch.nn.functional.cross_entropy(logits, truth).item()
    assert fitted.history[0]["validation_loss"] != pytest.approx(whole, rel=1e-5)


def test_the_chosen_epochs_head_is_the_one_that_is_tested(data):
    _labels, (_, _, test), means = data
    values = iter([1.0, 0.0, 0.0])
    [chosen] = train(
        [member()],
        data,
        Recipe(epochs=3),
        objective=replace(CLASSIFICATION, score=lambda *_: next(values)),
    )
    [first] = train([member()], data, Recipe(epochs=1))
    np.testing.assert_array_equal(chosen.probabilities, first.probabilities)
    logits = chosen.member.probe(means[test, 1], torch.ones(len(test), dtype=torch.long))
    np.testing.assert_allclose(chosen.probabilities, torch.softmax(logits, 1).detach(), atol=1e-6)


def test_the_rate_is_halved_after_six_epochs_without_a_better_loss_down_to_its_floor(data):
    _labels, _fold, means = data
    still = PooledFeatures(torch.zeros_like(means))  # nothing to learn
    [fitted] = train([member()], data, Recipe(epochs=60, lr=4e-4), features=still)
    rate, best, worse = 4e-4, float("inf"), 0
    for epoch in fitted.history:
        assert epoch["lr"] == pytest.approx(rate)
        better = epoch["validation_loss"] < best * (1 - 1e-4)
        best, worse = (epoch["validation_loss"], 0) if better else (best, worse + 1)
        if worse == 6:
            rate, worse = max(rate / 2, 5e-5), 0
    assert rate == 5e-5


@pytest.mark.usefixtures("way")
def test_a_loss_that_is_not_finite_is_one_clear_line(data):
    with pytest.raises(TrainingError, match="Lower --lr"):
        train([member()], data, Recipe(epochs=3, lr=1e30))


def test_what_failed_holds_no_frames(data, threads):
    """Else what trains next finds less memory free, and may share pools."""
    labels, fold, means = data
    held = []

    class Watched(Recorder):
        def all_of(self, utterances, layers, device):
            frames = self.features.all_of(utterances, layers, device)
            held.append(weakref.ref(frames))
            return frames

    train([member()], data, Recipe(epochs=1))  # torch's first optimiser imports, and keeps frames
    gc.collect()
    gc.disable()
    try:
        for cores in (1, 2):
            threads(cores)
            members = [
                replace(member("nonlinear", seed=seed), recipe=Recipe(epochs=3, lr=1e30))
                for seed in range(2)
            ]
            with contextlib.suppress(TrainingError):
                fit(members, Watched(as_frames(means)), labels, fold, CLASSES)
        assert [frames() for frames in held] == [None, None]
    finally:
        gc.enable()


def test_the_scalars_can_learn_at_their_own_rate(data):
    still = Recipe(epochs=3, scalar_lr=0.0)
    [fitted] = train([member("multilayer", (0, 1))], data, still)
    assert fitted.member.probe.head.scalars.tolist() == [0.0, 0.0]
    [fitted] = train([member("multilayer", (0, 1))], data)
    assert fitted.member.probe.head.scalars.abs().max() > 0


def test_balanced_weights_are_those_of_scikit_learn_and_an_absent_class_weighs_nothing():
    targets = torch.tensor([0, 0, 0, 1, 1, 2])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=targets.numpy())
    torch.testing.assert_close(balanced_weights(targets, 3), torch.tensor(expected).float())
    assert balanced_weights(targets, 4)[3] == 0


def test_heads_learn_what_the_layer_holds_and_nothing_where_it_holds_nothing(data):
    labels, (_, _, test), _ = data
    held, empty = train(
        [member(layers=(1,)), member(layers=(0,))], data, Recipe(epochs=30, lr=5e-3)
    )
    assert (held.probabilities.argmax(1) == labels[test]).mean() >= 0.8
    assert (empty.probabilities.argmax(1) == labels[test]).mean() <= 0.7
