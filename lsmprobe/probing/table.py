"""The table of heads and the table of normalisations: what differs between two of them is a field.

A new head is a row: `register_head` in a notebook, or a line below. Training, records, reports and
predictions ask the row and know no head by its name.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lsmprobe.arguments import checked
from lsmprobe.cache.layout import Reads
from lsmprobe.config import HEAD_NAMES, STANDARDISING, ProbeConfig
from lsmprobe.errors import ResultsError, SettingsError, nearest
from lsmprobe.probing.heads import LinearHead, MultiLayerHead, NonLinearHead
from lsmprobe.probing.norms import NormaliseVectors, Standardise
from lsmprobe.probing.pooling_heads import StatisticsHead, WeightedMeanHead
from lsmprobe.probing.solvers import by_name, linear_svm, logistic, neighbours, ridge, solve
from lsmprobe.probing.training import Fit

EVERY_HEAD = (  # settings that decide any run's numbers, as `ProbeConfig` names them
    *("emotions", "map", "feature_norm", "epochs", "batch_size", "lr", "weight_decay"),
    *("scheduler", "class_weights", "epoch_choice", "validation_loss"),
)
SOLVED = ("emotions", "map", "feature_norm", "class_weights")  # of heads without epochs
Moments = tuple[Float[Tensor, "*layers dim"], Float[Tensor, "*layers dim"]]


# (layers that it reads, dim, outputs, settings of its row) -> a freshly initialised head
Build = Callable[[int, int, int, Mapping[str, Any]], nn.Module]


@dataclass(frozen=True)
class Head:
    """A row: what a head reads, what decides its numbers, how it is built."""

    name: str
    title: str  # as tables show it
    build: Build
    reads: Reads = "frames"  # means come as utterances of one frame
    weighs_layers: bool = False  # reads every layer at once, else one
    settings: tuple[str, ...] = ()  # fields of `ProbeConfig` besides those that decide any run
    in_paper: bool = False  # what `--head all` means
    common: tuple[str, ...] = EVERY_HEAD  # fields of `ProbeConfig` that decide like rows' numbers
    fit: Callable[..., list[Fit]] | None = None  # what trains it on a fold; None: gradient steps
    learns: tuple[str, ...] = (
        "classes",
        "numbers",
        "shares",
    )  # measures of the targets that it can learn
    draws: bool = True  # else every seed gives the same numbers, so that one run is enough
    input_weight: str = ""  # whose last axis is what the head reads, for records without `dim`

    @property
    def decisive(self) -> tuple[str, ...]:
        """Every field of `ProbeConfig` that decides the numbers of a run with this head."""
        return self.common + self.settings


def _linear(n_layers: int, dim: int, n_outputs: int, settings: Mapping[str, Any]) -> nn.Module:
    return LinearHead(dim, n_outputs, hidden=settings["hidden"])


def _nonlinear(n_layers: int, dim: int, n_outputs: int, settings: Mapping[str, Any]) -> nn.Module:
    return NonLinearHead(dim, n_outputs, hidden=settings["hidden"], dropout=settings["dropout"])


def _multilayer(n_layers: int, dim: int, n_outputs: int, settings: Mapping[str, Any]) -> nn.Module:
    widths = {"hidden": settings["hidden"], "dropout": settings["dropout"]}
    return MultiLayerHead(n_layers, dim, n_outputs, **widths)


def _weighted_mean(
    n_layers: int, dim: int, n_outputs: int, settings: Mapping[str, Any]
) -> nn.Module:
    return WeightedMeanHead(n_layers, dim, n_outputs, hidden=settings["hidden"])


def _statistics(attentive: bool) -> Build:
    def build(n_layers: int, dim: int, n_outputs: int, settings: Mapping[str, Any]) -> nn.Module:
        widths = {"hidden": settings["hidden"], "dropout": settings["dropout"]}
        return StatisticsHead(dim, n_outputs, **widths, attentive=attentive)

    return build


def _solved(name: str, title: str, build: Build, **changes: Any) -> Head:
    """A row of a head that scikit-learn solves, or that keeps the training set."""
    usual: dict[str, Any] = {"reads": "means", "common": SOLVED, "fit": solve, "draws": False}
    return Head(name, title, build, **(usual | changes))


_WIDTHS = ("hidden", "dropout")
_SCALARS = ("include_layer_0", "scalar_lr", "scalar_weight_decay")
HEADS: dict[str, Head] = {
    head.name: head
    for head in (
        Head(
            name="linear",
            title="Linear",
            build=_linear,
            reads="means",
            settings=("hidden",),
            in_paper=True,
            input_weight="project.weight",
        ),
        Head(
            name="nonlinear",
            title="Non-Linear",
            build=_nonlinear,
            settings=_WIDTHS,
            in_paper=True,
            input_weight="per_frame.0.weight",
        ),
        Head(
            name="multilayer",
            title="Multi-Layer",
            build=_multilayer,
            weighs_layers=True,
            settings=_WIDTHS + _SCALARS,
            in_paper=True,
            input_weight="nonlinear.per_frame.0.weight",
        ),
        Head(
            name="multilayer-means",
            title="Multi-Layer, means",
            build=_multilayer,
            reads="means",
            weighs_layers=True,
            settings=_WIDTHS + _SCALARS,
        ),
        Head(
            name="weighted-mean",
            title="Weighted mean",
            build=_weighted_mean,
            reads="means",
            weighs_layers=True,
            settings=("hidden", *_SCALARS),
        ),
        Head("mean-std", "Mean and std", _statistics(attentive=False), settings=_WIDTHS),
        Head("attentive", "Attentive statistics", _statistics(attentive=True), settings=_WIDTHS),
        _solved("logistic", "Logistic regression", by_name(logistic), learns=("classes",)),
        _solved("svm", "Linear SVM", by_name(linear_svm), learns=("classes",)),
        _solved(
            "knn",
            "Nearest neighbours",
            neighbours,
            learns=("classes", "numbers"),
            common=SOLVED[:3],
        ),
        _solved("ridge", "Ridge", by_name(ridge), learns=("numbers",), common=SOLVED[:3]),
    )
}
BUILT_IN = tuple(HEADS)
PAPER_HEADS = tuple(head.name for head in HEADS.values() if head.in_paper)
OTHER_TITLES = {"ast": "AST"}  # trained from scratch, so that it reads no cache as a head does


@checked
def register_head(
    name: str,
    build: Build,
    *,
    title: str | None = None,
    reads: Reads = "frames",
    weighs_layers: bool = False,
    settings: Sequence[str] = (),
) -> Head:
    """Add a head of one's own; from then on `--head NAME` and `head=NAME` mean it.

    Records of its runs are read anywhere, but only a process that has registered it can train it
    or predict with it. It may draw from torch's global generator, which is seeded at every step; so
    on a CPU it does not train side by side with other heads, nor they with each other beside it.

    Args:
        name: as flags and records have it; registering a name again replaces the row.
        build: `build(n_layers, dim, n_outputs, settings)` makes a module that is called with the
            frames of a batch, (frames, dim), and the frames of each utterance, (batch,), and
            answers (batch, n_outputs). One that weighs layers gets (layers, frames, dim), and as a
            third argument the normalisation, which it applies itself.
        title: as tables show it.
        reads: `means`, one per utterance and so quick to train, or `frames`.
        weighs_layers: whether it reads every layer at once.
        settings: fields of `ProbeConfig` that decide its numbers, such as `hidden`. What else is
            changed about a head needs another name, else its earlier runs count as finished.

    Raises:
        SettingsError: the name is one of the table's, or `all`.

    Example:
        >>> from torch import nn
        >>> class Deep(nn.Module):
        ...     def __init__(self, dim, n_outputs):
        ...         super().__init__()
        ...         self.net = nn.Sequential(
        ...             nn.Linear(dim, 8), nn.ReLU(), nn.Linear(8, n_outputs)
        ...         )
        ...     def forward(self, frames, lengths):
        ...         return self.net(frames)
        >>> row = register_head(
        ...     "deep", lambda n_layers, dim, n_outputs, settings: Deep(dim, n_outputs),
        ...     reads="means",
        ... )
        >>> row.title, unregister_head("deep")
        ('deep', None)
    """
    if name in BUILT_IN or name == "all":
        raise SettingsError(f"name is {name!r}, which is taken; choose another.")
    row = Head(name, title or name, build, reads, weighs_layers, tuple(settings))
    HEADS[name] = row
    if name not in HEAD_NAMES:
        HEAD_NAMES.append(name)
    return row


def unregister_head(name: str) -> None:
    """Take a head of one's own out again."""
    if name in HEADS and name not in BUILT_IN:
        del HEADS[name]
        HEAD_NAMES.remove(name)


def heads_asked(name: str) -> list[Head]:
    """The rows that `--head` means: one, or with `all` those of the paper."""
    return [HEADS[one] for one in (PAPER_HEADS if name == "all" else (name,))]


def what_is_read(name: str) -> Reads:
    """What the heads that `--head` means read of a cache."""
    return "means" if all(row.reads == "means" for row in heads_asked(name)) else "frames"


def unreadable(row: Head, cache: Any) -> str | None:
    """Why a head cannot read a cache (`store`, `layers`), to follow the cache's name; or None."""
    if row.reads == "frames" and cache.store == "pooled":
        means = [name for name in PAPER_HEADS if HEADS[name].reads == "means"]
        return (
            f"holds pooled means only, and --head {row.name} reads frames; use --head "
            f"{' or '.join(means)}, or run lsmprobe extract again with --store frames."
        )
    if row.weighs_layers and len(cache.layers) == 1:
        single = [name for name in PAPER_HEADS if not HEADS[name].weighs_layers]
        return (
            f"holds one layer, and --head {row.name} weighs several; use --head "
            f"{' or '.join(single)}."
        )
    return None


def head_of(record: Mapping[str, Any]) -> Head:
    """The row of the head that a record is of.

    Raises:
        ResultsError: there is none, as for an AST, or for a head that is not registered here.
    """
    name = record["head"]
    if name not in HEADS:
        raise ResultsError(
            f"the record is of a head called {name!r}, which reads no cache, or which "
            f"`register_head` has not registered here; {nearest(name, HEADS)}"
        )
    return HEADS[name]


def settings_of(config: ProbeConfig, head: str) -> dict[str, Any]:
    """What decides a run's numbers besides cache, split, layer and seed; kept in its record."""
    return {name: getattr(config, name) for name in HEADS[head].decisive}


def head_title(name: str) -> str:
    """A head as tables show it; one that is not known here goes by its name."""
    return HEADS[name].title if name in HEADS else OTHER_TITLES.get(name, name)


@dataclass(frozen=True)
class Norm:
    """A row: how features are normalised before a head."""

    name: str
    fit: Callable[[Callable[[], Moments]], nn.Module]
    """From what returns mean and standard deviation of the training set; asked only if needed."""
    load: Callable[[Mapping[str, Tensor]], nn.Module]
    """From the buffers that it was saved with."""

    @property
    def has_statistics(self) -> bool:
        """Whether it is fitted to a corpus, so that it matters to which."""
        return self.name in STANDARDISING


NORMS: dict[str, Norm] = {
    norm.name: norm
    for norm in (
        Norm("none", lambda moments: nn.Identity(), lambda saved: nn.Identity()),
        Norm(
            "zscore",
            lambda moments: Standardise(*moments()),
            lambda saved: Standardise(saved["mean"], saved["std"]),
        ),
        Norm("layernorm", lambda moments: NormaliseVectors(), lambda saved: NormaliseVectors()),
    )
}


def build_head(
    row: Head,
    n_layers: int,
    dim: int,
    n_outputs: int,
    settings: Mapping[str, Any],
    *,
    seed: int,
) -> nn.Module:
    """A head initialised from 32 bits, whatever else draws from the global generator."""
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(seed)
        return row.build(n_layers, dim, n_outputs, settings)
