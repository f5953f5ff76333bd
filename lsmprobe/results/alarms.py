"""Alarms: signs that a run learned nothing, or that a layer holds next to nothing.

Each is one sentence, short enough for the footnote of a table, with a code that stays the same.
An alarm proves nothing; a run or a layer that has one is not a result before somebody has looked.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

HARDLY = 0.01


"""A dimension whose deviation is below this share of its mean hardly varies.

On EmoDB the typical dimension of Whisper tiny.en deviates by 8 % of its mean or more over clips and
by 39 % or more over time, whatever the layer; float16 rounds single values by up to 0.05 %. So
1 % is far below what features do and far above what rounding does.
"""


class Alarm(NamedTuple):
    """What is wrong: a code to look for, a sentence to read."""

    code: str
    text: str


def run_alarms(
    labels: Int[np.ndarray, " utterances"],
    predictions: Int[np.ndarray, " utterances"],
    n_classes: int,
    low: float,
    constant_f1: float,
) -> list[Alarm]:
    """What is suspicious about the test predictions of one run.

    - `one-class`: the run gives one answer to everything, though there is more to tell apart.
    - `not-above-constant`: the interval does not rule out the score of the best constant answer.

    Args:
        labels: the true class of every test utterance.
        predictions: the class that was predicted.
        n_classes: of the corpus.
        low: the low end of the run's 95 % interval of macro-F1, in percent.
        constant_f1: macro-F1 of the best constant answer to this test set, in percent.
    """
    alarms = []
    if len(np.unique(predictions)) == 1 < len(np.unique(labels)):
        alarms.append(Alarm("one-class", f"predicts one and the same of {n_classes} classes."))
    if low <= constant_f1:
        alarms.append(
            Alarm(
                "not-above-constant",
                f"its interval, from {low:.1f}, reaches the best constant answer, "
                f"{constant_f1:.1f}.",
            )
        )
    return alarms


def layer_alarms(
    means: Float[np.ndarray, "utterances dim"],
    stds: Float[np.ndarray, "utterances dim"],
    layer: int,
    *,
    over_time: bool = True,
) -> list[Alarm]:
    """What is suspicious about the hidden states of one layer.

    - `flat-over-time`: within a clip, every frame is nearly the same.
    - `flat-over-clips`: averaged over its frames, every clip is nearly the same.

    A dimension is compared with its own mean, and the median dimension decides: some models have a
    few dimensions of enormous constant size, which would drown the others in any distance or cosine
    although a head behind `zscore` reads the others well.

    Args:
        means: over the frames of each utterance.
        stds: over the frames of each utterance.
        layer: its number, for the sentence.
        over_time: False where every utterance is a single frame, which has no time to vary over.
    """
    size = np.abs(means.mean(0, dtype=np.float64))
    kinds = [("clips", means.std(0, dtype=np.float64), len(means) > 1)]
    kinds.append(("time", np.sqrt(np.square(stds, dtype=np.float64).mean(0)), over_time))
    alarms = []
    for what, deviation, can_vary in kinds:
        share = np.median(deviation / np.maximum(size, np.finfo(np.float64).tiny))
        if can_vary and share < HARDLY:
            text = f"layer {layer} hardly varies over {what}: {100 * share:.2g} % of its mean."
            alarms.append(Alarm(f"flat-over-{what}", text))
    return alarms
