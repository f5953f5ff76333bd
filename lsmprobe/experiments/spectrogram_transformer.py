"""The Audio Spectrogram Transformer (AST) and its training from scratch; arrays in, arrays out.

Source: Gong et al. 2021, arXiv:2104.01778; the recipe is the one for ESC-50 in its published code.
"""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import transformers
from jaxtyping import Float, Int
from torch import Tensor, nn

from lsmprobe.errors import TrainingError
from lsmprobe.probing.objectives import Objective, Targets

N_FRAMES = 512  # of 10 ms: longer utterances are cut, shorter ones padded
N_BINS = 128
PATCH = 16  # frames and bins
TOKEN_STD = 0.02  # of what positions and the two first tokens begin with


@dataclass(frozen=True)
class Size:
    """How large the network is."""

    dim: int
    n_blocks: int
    n_attention_heads: int
    stride: int  # from patch to patch, in frames and in bins


SIZES = {
    "ast": Size(dim=768, n_blocks=12, n_attention_heads=12, stride=10),  # the paper's
    "ast-tiny": Size(dim=96, n_blocks=4, n_attention_heads=3, stride=16),  # patches side by side
}


@dataclass(frozen=True)
class Recipe:
    """How it is trained: the published recipe for ESC-50, without its pre-training."""

    epochs: int = 25
    batch_size: int = 48  # utterances
    lr: float = 1e-4
    weight_decay: float = 5e-7  # coupled, as Adam has it
    betas: tuple[float, float] = (0.95, 0.999)
    constant_epochs: int = 5  # before the learning rate falls
    decay: float = 0.85  # of the learning rate, each epoch
    frequency_mask: int = 24  # bins; masks are narrower than this
    time_mask: int = 96  # frames


@dataclass(frozen=True)
class Fit:
    """The epoch chosen on validation, and what is kept of what the network says of the test set."""

    history: list[dict[str, float]]  # one entry per epoch, the first is epoch 1
    best_epoch: int  # counted from 1
    probabilities: Float[np.ndarray, "test outputs"]  # or what else the objective keeps


@dataclass(frozen=True)
class Spectrograms:
    """Filterbanks as the network takes them, by the statistics of the training set."""

    read: Callable[[int], np.ndarray]  # utterance -> (frames, bins)
    mean: float
    std: float

    def batch(self, utterances: Int[np.ndarray, " batch"]) -> Float[Tensor, "batch frames bins"]:
        """512 frames of each utterance, (x - mean) / (2 std); what is not there is 0, the mean."""
        batch = np.zeros((len(utterances), N_FRAMES, N_BINS), np.float32)
        for row, utterance in zip(batch, utterances, strict=True):
            frames = self.read(int(utterance))[:N_FRAMES].astype(np.float32)
            row[: len(frames)] = (frames - self.mean) / (2 * self.std)
        return torch.from_numpy(batch)


def train(
    size: str,
    read: Callable[[int], np.ndarray],
    labels: Targets,
    fold: tuple[np.ndarray, np.ndarray, np.ndarray],
    n_outputs: int,
    *,
    seed: int,
    recipe: Recipe,
    objective: Objective,
    device: str = "cpu",
    on_epoch: Callable[[], object] = lambda: None,
) -> Fit:
    """Train on one fold, choose the epoch on validation, score the test set once.

    Args:
        size: a name in SIZES.
        read: utterance -> its log-mel filterbanks, (frames, 128), one frame every 10 ms.
        labels: of every utterance, as the objective gives them.
        fold: indices of the training, validation and test utterances.
        n_outputs: of the objective: for classification the classes of the corpus, whether or not
            all of them occur in the fold.
        seed: of the initial weights, the order of the batches and the masks.
        recipe: how it is trained.
        objective: what is learned: its loss, unweighted, and the score that chooses the epoch.
        device: where it is trained.
        on_epoch: called once per epoch.

    Raises:
        TrainingError: a loss that is not finite.
    """
    training, validation, test = fold
    given = torch.from_numpy(labels)
    targets = given.float() if given.is_floating_point() else given.long()
    spectrograms = Spectrograms(read, *statistics(read, training))
    network = build_network(size, n_outputs, seed).to(device)
    scale = objective.scale(targets[training]).to(device)
    optimiser = torch.optim.Adam(
        network.parameters(),
        lr=recipe.lr,
        betas=recipe.betas,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda done: recipe.decay ** max(0, done + 1 - recipe.constant_epochs)
    )
    loss_of = objective.loss(targets[training], n_outputs, False).to(device)
    history: list[dict[str, float]] = []
    best_epoch, best_score, best_state = 0, -math.inf, {}
    for epoch in range(1, recipe.epochs + 1):
        network.train()
        summed = torch.zeros((), device=device)
        rng = np.random.default_rng([seed, epoch])
        for batch in batches(rng.permutation(training), recipe.batch_size):
            inputs = masked(spectrograms.batch(batch), recipe, rng).to(device)
            loss = loss_of(scale(network(inputs).logits), targets[batch].to(device))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            summed += loss.detach() * len(batch)
        outputs = predict(network, scale, spectrograms, validation, recipe.batch_size, device)
        answers = objective.answers_to(outputs)
        history.append(
            {
                "lr": optimiser.param_groups[0]["lr"],
                "train_loss": summed.item() / len(training),
                "validation_loss": loss_of(
                    outputs.to(device), targets[validation].to(device)
                ).item(),
                "validation_score": objective.score(labels[validation], answers, n_outputs),
            }
        )
        if not all(math.isfinite(value) for value in history[-1].values()):
            raise TrainingError(
                f"{size}, seed {seed}: at epoch {epoch} the loss is "
                f"{history[-1]['train_loss']} in training and {history[-1]['validation_loss']} in "
                "validation; expected finite numbers. Lower --lr."
            )
        if history[-1]["validation_score"] > best_score:  # the earliest on ties
            best_epoch, best_score = epoch, history[-1]["validation_score"]
            best_state = copy.deepcopy(network.state_dict())
        scheduler.step()
        on_epoch()
    network.load_state_dict(best_state)
    outputs = predict(network, scale, spectrograms, test, recipe.batch_size, device)
    return Fit(history, best_epoch, objective.kept(outputs).numpy())


def build_network(size: str, n_outputs: int, seed: int) -> nn.Module:
    """The network with random weights that depend on the seed alone.

    In transformers positions and the two tokens whose mean is classified begin as zeros, to be
    loaded over. Training could never tell two such tokens apart, so here they begin as published.
    """
    row = SIZES[size]
    config = transformers.ASTConfig(
        hidden_size=row.dim,
        num_hidden_layers=row.n_blocks,
        num_attention_heads=row.n_attention_heads,
        intermediate_size=4 * row.dim,
        patch_size=PATCH,
        frequency_stride=row.stride,
        time_stride=row.stride,
        max_length=N_FRAMES,
        num_mel_bins=N_BINS,
        num_labels=n_outputs,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = transformers.ASTForAudioClassification(config)
        embeddings = network.audio_spectrogram_transformer.embeddings
        for name in ("cls_token", "distillation_token", "position_embeddings"):
            nn.init.trunc_normal_(getattr(embeddings, name), std=TOKEN_STD)
    return network


def statistics(
    read: Callable[[int], np.ndarray], utterances: Int[np.ndarray, " utterances"]
) -> tuple[float, float]:
    """Mean and standard deviation over all bins of all frames that the network sees."""
    count, total, squares = 0, 0.0, 0.0
    for utterance in utterances:
        frames = read(int(utterance))[:N_FRAMES].astype(np.float64)
        count += frames.size
        total += frames.sum()
        squares += np.square(frames).sum()
    mean = total / count
    return float(mean), math.sqrt(squares / count - mean**2)


def masked(
    batch: Float[Tensor, "batch frames bins"], recipe: Recipe, rng: np.random.Generator
) -> Float[Tensor, "batch frames bins"]:
    """SpecAugment: of each utterance one band of bins and one stretch of frames become 0, the mean.

    Their widths are drawn evenly from 0 to the recipe's, and rounded down.

    Source: Park et al. 2019, arXiv:1904.08779, section 2.
    """
    for spectrogram in batch:
        spectrogram[:, band(N_BINS, recipe.frequency_mask, rng)] = 0
        spectrogram[band(N_FRAMES, recipe.time_mask, rng)] = 0
    return batch


def band(length: int, widest: int, rng: np.random.Generator) -> slice:
    """A random stretch of an axis, narrower than `widest`."""
    width = rng.uniform(0, widest)
    start = int(rng.uniform(0, length - width))
    return slice(start, start + int(width))


def batches(utterances: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Cut into batches; the last one may be smaller."""
    return (utterances[start : start + size] for start in range(0, len(utterances), size))


@torch.no_grad()
def predict(
    network: nn.Module,
    scale: nn.Module,
    spectrograms: Spectrograms,
    utterances: Int[np.ndarray, " utterances"],
    size: int,
    device: str,
) -> Float[Tensor, "utterances outputs"]:
    """The outputs of some utterances, scaled as `scale` does, on the CPU."""
    network.eval()
    inputs = (spectrograms.batch(batch).to(device) for batch in batches(utterances, size))
    return torch.cat([scale(network(batch).logits).cpu() for batch in inputs])
