"""Alarms: signs that a run learned nothing, or that a layer holds next to nothing.

Each is one sentence, short enough for the footnote of a table, with a code that stays the same.
An alarm proves nothing; a run or a layer that has one is not a result before somebody has looked.
"""

from collections.abc import Container
from typing import NamedTuple, SupportsIndex

import numpy as np
from jaxtyping import Float, Int

from lsmprobe.errors import counted

# A dimension whose standard deviation is below this share of its mean hardly varies. On EmoDB the
# median dimension of Whisper tiny.en varies by 8% of its mean or more over clips and by 39% or more
# over time, whatever the layer; float16 rounds single values by up to 0.05%. So 1% is far below
# what features do and far above what rounding does.
HARDLY = 0.01


SHARED_SPEAKERS = "shared-speakers"
SHARED_AUDIO = "shared-audio"
OTHER_LABELS = "other-labels"  # no record has it: labels may change after the run
LEAKS = {"shared_speakers": SHARED_SPEAKERS, "shared_audio": SHARED_AUDIO}
"""Columns of tables of layers, speakers or choices -> the alarm whose runs they name."""
MEANINGS = {  # of each code, for the line below a table
    "one-class": "it gives one answer to everything",
    "one-answer": "it gives one number to everything",
    "not-above-constant": "it may be no better than guessing",
    "not-below-constant": "it may be no better than guessing",
    "flat-over-time": "a layer hardly varies within a clip",
    "flat-over-clips": "a layer hardly varies over clips",
    "confounded": "the speaker, gender or sentence nearly tells the emotion",
    SHARED_SPEAKERS: "test speakers are also in train, so the score does not tell how new speakers "
    "fare",
    SHARED_AUDIO: "files that are tested are in train too, so the score is flattered",
    "unknown-speakers": "not every test speaker is known, so train may have the same voices",
    OTHER_LABELS: "it learned other labels than its cache holds now",
}


def explained(code: str, n: SupportsIndex, runs: SupportsIndex) -> str:
    """What a line below a table says of an alarm that `n` of the runs have.

    >>> explained("one-class", 1, 3)
    'one-class in 1 of 3 runs (docs/statistics.md): it gives one answer to everything.'
    """
    means = f": {MEANINGS[code]}" if code in MEANINGS else ""
    return f"{code} in {counted(n, 'run', of=runs)} (docs/statistics.md){means}."


def leaks_in(codes: Container[str]) -> dict[str, bool]:
    """Which of `LEAKS` are among these.

    >>> leaks_in({"one-class", "shared-audio"})
    {'shared_speakers': False, 'shared_audio': True}
    """
    return {name: code in codes for name, code in LEAKS.items()}


class Alarm(NamedTuple):
    """What is wrong: a code to look for, a sentence to read."""

    code: str
    text: str


def run_alarms(
    labels: Int[np.ndarray, " utterances"],
    predictions: Int[np.ndarray, " utterances"],
    n_classes: int,
    *,
    score: float,
    low: float,
    constant: float,
    shuffled_95: float,
) -> list[Alarm]:
    """What is suspicious about the test predictions of one run; scores are macro-F1 in percent.

    - `one-class`: the run gives one answer to everything, though there is more to tell apart.
    - `not-above-constant`: the score does not exceed what the run's own answers reach when they are
      shuffled against the truth, or its interval does not rule out the best constant answer. Of
      runs that guess, 95% or more have this alarm, whatever the size and the classes.

    Args:
        labels: the true class of every test utterance.
        predictions: the class that was predicted.
        n_classes: of the corpus.
        score: of the run.
        low: the low end of its 95% interval.
        constant: the score of the best constant answer to this test set.
        shuffled_95: the point that 95% of its shuffled answers do not exceed.
    """
    alarms = []
    if len(np.unique(predictions)) == 1 < len(np.unique(labels)):
        alarms.append(Alarm("one-class", f"predicts one and the same of {n_classes} classes."))
    if score <= shuffled_95:
        text = f"its score, {score:.1f}, is within what shuffled answers reach, {shuffled_95:.1f}."
        alarms.append(Alarm("not-above-constant", text))
    elif low <= constant:
        text = f"its interval, from {low:.1f}, reaches the best constant answer, {constant:.1f}."
        alarms.append(Alarm("not-above-constant", text))
    return alarms


def divergence_alarms(
    *, score: float, high: float, constant: float, shuffled_95: float
) -> list[Alarm]:
    """What is suspicious about a mean divergence from distributions, in bits; lower is better.

    - `not-below-constant`: the divergence is not below what the run's own answers reach when they
      are shuffled against the truth, or its interval does not rule out the best constant answer.

    Args:
        score: of the run.
        high: the high end of its 95% interval.
        constant: the divergence of the one distribution that is nearest to this test set.
        shuffled_95: the point that 95% of its shuffled answers do not fall below.
    """
    if score >= shuffled_95:
        text = f"its JSD, {score:.3f}, is within what shuffled answers reach, {shuffled_95:.3f}."
    elif high >= constant:
        text = f"its JSD's interval, to {high:.3f}, reaches the best constant, {constant:.3f}."
    else:
        return []
    return [Alarm("not-below-constant", text)]


def speaker_alarms(*, tested: int, shared: int, unknown: int, utterances: int) -> list[Alarm]:
    """What the speakers of a test set make of its score.

    - `shared-speakers`: training has heard speakers who are tested, so a score does not tell how
      new speakers fare.
    - `unknown-speakers`: nobody knows whether it has.

    Args:
        tested: known speakers who are tested.
        shared: of these, who are in train too.
        unknown: test utterances whose speaker is not known.
        utterances: that are tested.
    """
    alarms = []
    if shared:
        found = f"{counted(shared, 'test speaker', 'is', of=tested)} also in train"
        text = f"{found}: its score does not tell how new speakers fare."
        alarms.append(Alarm(SHARED_SPEAKERS, text))
    if unknown:
        found = f"the speaker of {counted(unknown, 'test utterance', of=utterances)}"
        text = f"{found} is not known: its score may be of voices that train has heard."
        alarms.append(Alarm("unknown-speakers", text))
    return alarms


def audio_alarms(in_train: int, utterances: int) -> list[Alarm]:
    """`shared-audio`: files that are tested lie under other names in train too.

    Args:
        in_train: test utterances that train has too, byte for byte.
        utterances: that are tested.
    """
    if not in_train:
        return []
    found = counted(in_train, "test utterance", "is", of=utterances)
    return [Alarm(SHARED_AUDIO, f"{found} in train too, byte for byte: its score is flattered.")]


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
            text = f"layer {layer} hardly varies over {what}: {100 * share:.2g}% of its mean."
            alarms.append(Alarm(f"flat-over-{what}", text))
    return alarms
