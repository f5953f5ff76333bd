"""Heads that scikit-learn solves instead of epochs of gradient steps, over pooled means.

Each solves for several strengths of its regularisation (or numbers of neighbours); the validation
set chooses, as it chooses the epoch of other heads. Features are standardised with the training
set's statistics, which are part of the solved head. Nothing is drawn: one seed says it all.
scikit-learn is imported by what solves, since other heads do without it and it takes a second.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn

from lsmprobe.probing.batches import Features, PooledFeatures
from lsmprobe.probing.objectives import CLASSIFICATION, Objective, Targets
from lsmprobe.probing.trainer import Member
from lsmprobe.probing.training import Fit

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # C: the inverse of the regularisation
PENALTIES = (1e-1, 1.0, 10.0, 1e2, 1e3, 1e4, 1e5)  # ridge's alpha
NEIGHBOURS = (1, 3, 5, 9, 15, 25)
NEVER = -1e4  # the logit of a class that the training set lacks
LEAST_SHARE = 1e-6  # of votes, so that their logarithm is finite
Means = Float[np.ndarray, "train dim"]


class Solution(NamedTuple):
    """One solved head: what was tried, and its state."""

    tried: float  # strength of the regularisation, or number of neighbours
    converged: bool
    state: dict[str, Tensor]


class SolvedHead(nn.Module, ABC):
    """A head over one layer's pooled means whose state is solved for."""

    @abstractmethod
    def solutions(self, means: Means, targets: Targets, balanced: bool) -> Iterator[Solution]:
        """What the validation set chooses from; `means` of the training set are as they come."""


class LinearMap(SolvedHead):
    """One linear map, such as scikit-learn solves for.

    `solver` gives coefficients and offsets over standardised features, for each strength.
    """

    def __init__(self, dim: int, n_outputs: int, solver: Callable[..., Iterator[Any]]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_outputs, dim))
        self.bias = nn.Parameter(torch.zeros(n_outputs))
        self._solver = solver

    def forward(
        self, frames: Float[Tensor, "batch dim"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch outputs"]:
        """Logits (of an SVM distances from the planes), or numbers."""
        return frames @ self.weight.T + self.bias

    def solutions(self, means: Means, targets: Targets, balanced: bool) -> Iterator[Solution]:
        """One for each strength."""
        centre, spread = _moments(means)
        for tried, converged, weight, bias in self._solver(
            (means - centre) / spread, targets, len(self.bias), balanced
        ):
            unscaled = weight / spread
            state = {"weight": unscaled, "bias": bias - unscaled @ centre}
            yield Solution(tried, converged, {n: torch.from_numpy(a) for n, a in state.items()})


class NearestNeighbours(SolvedHead):
    """What the k nearest training utterances say: the share of their votes, or their mean.

    Euclidean distances between standardised means.

    Source: Cover and Hart 1967, doi:10.1109/TIT.1967.1053964.
    """

    def __init__(self, dim: int, n_outputs: int) -> None:
        super().__init__()
        for name, shape in self._shapes(0, dim, n_outputs).items():
            self.register_buffer(name, torch.zeros(shape))

    @staticmethod
    def _shapes(n_train: int, dim: int, n_outputs: int) -> dict[str, tuple[int, ...]]:
        rows = {"means": (n_train, dim), "values": (n_train, n_outputs)}
        return {**rows, "centre": (dim,), "spread": (dim,), "k": (), "votes": ()}

    def forward(
        self, frames: Float[Tensor, "batch dim"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch outputs"]:
        """Logarithms of shares of votes, or numbers."""
        own = self.get_buffer
        asked = (frames - own("centre")) / own("spread")
        distances = torch.cdist(asked, own("means"), compute_mode="donot_use_mm_for_euclid_dist")
        nearest = distances.topk(int(own("k")), largest=False).indices
        mean = own("values")[nearest].mean(1)
        return mean.clamp(min=LEAST_SHARE).log() if own("votes") else mean

    def solutions(self, means: Means, targets: Targets, balanced: bool) -> Iterator[Solution]:
        """One for each number of neighbours; each has one vote, whatever its class."""
        centre, spread = _moments(means)
        votes = not np.issubdtype(targets.dtype, np.floating)
        values = np.eye(self.get_buffer("values").shape[1])[targets] if votes else targets
        state = {
            "means": (means - centre) / spread,
            "values": values,
            "centre": centre,
            "spread": spread,
            "votes": np.float64(votes),
        }
        for k in NEIGHBOURS:
            if k <= len(means):
                tensors = {name: torch.tensor(a) for name, a in {**state, "k": k}.items()}
                yield Solution(float(k), True, tensors)

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        """The saved training set has a size of its own."""
        for name in ("means", "values"):
            if (found := state.get(prefix + name)) is not None:
                self.register_buffer(name, torch.zeros(found.shape))
        super()._load_from_state_dict(state, prefix, *rest)


def solve(
    members: Sequence[Member],
    features: Features,
    targets: Targets,
    fold: tuple[np.ndarray, np.ndarray, np.ndarray],
    n_outputs: int,
    *,
    objective: Objective = CLASSIFICATION,
    device: str = "cpu",
    on_epoch: Callable[[], None] = lambda: None,
) -> list[Fit]:
    """As `training.fit`, for members whose heads are `SolvedHead`.

    `on_epoch` is called once for each. The history has an entry for everything that was tried:
    tried, converged (1 or 0) and validation_score; the best of them is chosen, the first on ties,
    which regularises most.
    """
    fits = []
    for member in members:
        fits.append(_solved(member, features, targets, fold, n_outputs, objective))
        on_epoch()
    return fits


def _solved(
    member: Member,
    features: Features,
    targets: Targets,
    fold: tuple[np.ndarray, np.ndarray, np.ndarray],
    n_outputs: int,
    objective: Objective,
) -> Fit:
    train, validation, test = fold
    probe, head = member.probe.cpu().eval(), member.probe.head
    assert isinstance(head, SolvedHead), "a row that is solved builds a SolvedHead"
    assert isinstance(features, PooledFeatures), "a row that is solved reads means"
    probe.scale = objective.scale(torch.from_numpy(targets[train]))

    def read(rows: np.ndarray) -> Float[Tensor, "utterances dim"]:
        [means], _ = features.batch(rows, member.layers)
        return means[0].cpu().float()

    @torch.no_grad()
    def outputs(means: Tensor) -> Tensor:
        return probe(means, torch.ones(len(means), dtype=torch.long))

    seen = probe.norm(read(train)).double().numpy()
    learned = _unscaled(targets[train], probe.scale)
    of_validation, truth = read(validation), targets[validation]
    history: list[dict[str, float | None]] = []
    best, best_score, best_state = 0, -np.inf, {}
    balanced = member.recipe.class_weights == "balanced"
    for number, (tried, converged, state) in enumerate(
        head.solutions(seen, learned, balanced), start=1
    ):
        head.load_state_dict({name: tensor.float() for name, tensor in state.items()})
        answers = objective.answers_to(outputs(of_validation))
        score = objective.score(truth, answers, n_outputs)
        entry = {"tried": tried, "converged": float(converged), "validation_score": score}
        history.append(dict(entry))
        if score > best_score:
            best, best_score, best_state = number, score, state
    head.load_state_dict({name: tensor.float() for name, tensor in best_state.items()})
    return Fit(member, history, best, objective.kept(outputs(read(test))).numpy())


def _unscaled(targets: Targets, scale: nn.Module) -> Num[np.ndarray, "train ..."]:
    """Numbers around 0, as heads put them out before their scale; classes as they are."""
    saved = {name: buffer.double().numpy() for name, buffer in scale.named_buffers()}
    return (targets.astype(np.float64) - saved["mean"]) / saved["std"] if saved else targets


def _moments(means: Means) -> tuple[Float[np.ndarray, " dim"], Float[np.ndarray, " dim"]]:
    """Mean and standard deviation of each dimension; 1 where it is constant."""
    spread = means.std(0)
    return means.mean(0), np.where(spread > 0, spread, 1.0)


def logistic(
    means: Means, targets: Int[np.ndarray, " train"], n_outputs: int, balanced: bool
) -> Iterator[tuple[float, bool, np.ndarray, np.ndarray]]:
    """Multinomial logistic regression with an L2 penalty, from strong to weak.

    Source: Bishop 2006, "Pattern Recognition and Machine Learning", section 4.3.4; as a probe Alain
    and Bengio 2016, arXiv:1610.01644.
    """
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(
        max_iter=1000, warm_start=True, class_weight="balanced" if balanced else None
    )
    yield from _classifiers(model, means, targets, n_outputs)


def linear_svm(
    means: Means, targets: Int[np.ndarray, " train"], n_outputs: int, balanced: bool
) -> Iterator[tuple[float, bool, np.ndarray, np.ndarray]]:
    """Linear support vector machines, one class against the rest, with the squared hinge loss.

    Source: Fan et al. 2008, LIBLINEAR, JMLR 9, 1871-1874.
    """
    from sklearn.svm import LinearSVC

    model = LinearSVC(max_iter=5000, random_state=0, class_weight="balanced" if balanced else None)
    yield from _classifiers(model, means, targets, n_outputs)


def ridge(
    means: Means, targets: Float[np.ndarray, "train outputs"], n_outputs: int, balanced: bool
) -> Iterator[tuple[float, bool, np.ndarray, np.ndarray]]:
    """Least squares with an L2 penalty, from strong to weak.

    Source: Hoerl and Kennard 1970, doi:10.1080/00401706.1970.10488634.
    """
    from sklearn.linear_model import Ridge

    for alpha in reversed(PENALTIES):
        model = Ridge(alpha=alpha).fit(means, targets)
        yield alpha, True, np.reshape(model.coef_, (n_outputs, -1)), np.ravel(model.intercept_)


def _classifiers(
    model: Any, means: Means, targets: Int[np.ndarray, " train"], n_outputs: int
) -> Iterator[tuple[float, bool, np.ndarray, np.ndarray]]:
    """A map for each strength, with a row for every class of the corpus."""
    from sklearn.exceptions import ConvergenceWarning

    there = np.unique(targets)
    for strength in STRENGTHS:
        weight, bias = np.zeros((n_outputs, means.shape[1])), np.full(n_outputs, NEVER)
        bias[there] = 0.0
        if len(there) < 2:  # nothing to tell apart
            yield strength, True, weight, bias
            return
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", ConvergenceWarning)
            model.set_params(C=strength).fit(means, targets)
        rows = there if len(there) > 2 else there[1:]  # of two classes, the second's alone
        weight[rows], bias[rows] = model.coef_, model.intercept_
        converged = not any(issubclass(each.category, ConvergenceWarning) for each in told)
        yield strength, converged, weight, bias


def by_name(solver: Callable[..., Iterator[Any]]) -> Callable[..., SolvedHead]:
    """A row's `build` for a linear map."""
    return lambda n_layers, dim, n_outputs, settings: LinearMap(dim, n_outputs, solver)


def neighbours(n_layers: int, dim: int, n_outputs: int, settings: Any) -> SolvedHead:
    """A row's `build`."""
    return NearestNeighbours(dim, n_outputs)
