"""New audio through a saved head and its encoder: labels and probabilities.

A stage: the record of a run says which model, preprocessing, layers and head.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from lsmprobe.arguments import checked
from lsmprobe.cache.selection import step_means, step_of
from lsmprobe.config import Device
from lsmprobe.corpora.audio import SAMPLE_RATE, read_audio
from lsmprobe.errors import ModelError, ResultsError
from lsmprobe.extraction.descriptors import DESCRIPTORS
from lsmprobe.extraction.encoder import Encoder
from lsmprobe.extraction.load import load_encoder
from lsmprobe.extraction.models import SPEECH_MODELS
from lsmprobe.machine import choose_device
from lsmprobe.probing.heads import Probe
from lsmprobe.probing.objectives import objective_of
from lsmprobe.probing.record import saved_probe
from lsmprobe.probing.table import head_of
from lsmprobe.results.measures import measure_of
from lsmprobe.results.records import load_head, load_record

log = logging.getLogger(__name__)


@checked
def predict(
    record: str | Path,
    clips: Sequence[str | Path | np.ndarray],
    *,
    model: str | None = None,
    device: Device = "auto",
) -> pd.DataFrame:
    """What a trained head says of new audio.

    Args:
        record: the JSON file of a run; its head lies beside it. Of a run with several folds the
            answer is the mean of their heads' probabilities.
        clips: audio files, or waveforms (mono, 16 kHz, nominally within [-1, 1]).
        model: where the encoder is, if not as the record says: a folder or a Hugging Face id. Its
            weights must be those that the head was trained on.
        device: where the encoder runs.

    Returns:
        One row per clip: clip (its path, or its number), predicted, and `p_EMOTION` for every
        emotion, which sum to 1; of a run that learned votes or shares these are the shares that the
        head expects. Of a run that learned numbers: clip, and each of its targets.

    Raises:
        ResultsError: no such record, its head is not there, or it cannot judge a single clip.
        ModelError: the encoder is not there, or its weights are others.
        AudioError: a file that cannot be read, or audio that is too short.
    """
    path = Path(record)
    run = load_record(path)
    head_of(run)
    if run["settings"].get("target_norm"):
        raise ResultsError(
            f"{path} was tested with --target-norm, which standardises a whole corpus and says "
            "nothing of one clip; take a run without it."
        )
    tensors = load_head(path, run)
    probes = [saved_probe(run, tensors, fold) for fold in range(len(run["folds"]))]
    if len(probes) > 1:
        log.info(
            "%s has %d folds: the answer is the mean of what their heads say", path, len(probes)
        )
    encoder = recorded_encoder(run["cache"]["identity"], model, choose_device(device))
    longest_s = run["cache"]["identity"].get("max_seconds")
    answers = []
    for clip in clips:
        if isinstance(clip, np.ndarray):
            waveform = clip if longest_s is None else clip[: round(longest_s * SAMPLE_RATE)]
        else:
            waveform = read_audio(clip, max_s=longest_s).waveform
        [hidden] = encoder.hidden_states([waveform])
        answers.append(probabilities(run, probes, hidden.cpu().float()))
    chances = np.array(answers).reshape(len(clips), len(run["classes"]))
    names = [i if isinstance(clip, np.ndarray) else str(clip) for i, clip in enumerate(clips)]
    if not measure_of(run).classes:
        return pd.DataFrame({"clip": names}).join(pd.DataFrame(chances, columns=run["classes"]))
    predicted = [run["classes"][best] for best in chances.argmax(1)]
    table = pd.DataFrame({"clip": names, "predicted": predicted})
    return table.join(pd.DataFrame(chances, columns=[f"p_{name}" for name in run["classes"]]))


@torch.no_grad()
def probabilities(
    record: Mapping[str, Any], probes: Sequence[Probe], hidden: Float[Tensor, "layers frames dim"]
) -> Float[np.ndarray, " classes"]:
    """The mean of the folds' probabilities, or numbers, for the hidden states of one utterance."""
    row = head_of(record)
    if row.reads == "means":  # as utterances of one frame
        hidden = hidden.mean(1, keepdim=True)
    else:
        hidden = step_means(hidden, step_of(record["cache"]["identity"]))
    read = hidden[record["layers"]] if row.weighs_layers else hidden[record["layer"]]
    lengths = torch.tensor([hidden.shape[1]])
    kept = objective_of(record).kept
    folds = [kept(probe(read, lengths))[0] for probe in probes]
    return torch.stack(folds).double().mean(0).numpy()


def recorded_encoder(identity: Mapping[str, Any], model: str | None, device: str) -> Encoder:
    """The encoder that made a cache.

    Args:
        identity: of the cache, as a record has it.
        model: a folder or an id to load it from, if not as the identity says.
        device: where it runs.

    Raises:
        ModelError: it is not there, or its weights are others.
    """
    hub_id = identity.get("hub_id")
    known = hub_id or identity["model"] in SPEECH_MODELS.keys() | DESCRIPTORS.keys()
    if model is None and not known:
        raise ModelError(
            f"the head was trained on {identity['model']}, a folder whose place no record keeps; "
            "name it with --model FOLDER."
        )
    name = model or hub_id or identity["model"]
    encoder = load_encoder(
        name,
        device=device,
        precision=identity["precision"],
        random_init=identity["random_init"],
        revision=None if model else identity.get("revision"),
        input_norm=identity["input_norm"],
        whisper_context=identity.get("whisper_context") or "window",
        adapter=identity.get("adapter"),
    )
    found, expected = (each.get("weights_sha256") for each in (encoder.identity, identity))
    if found != expected:
        raise ModelError(
            f"the weights of {name} have the hash {str(found)[:12]}; the head was trained on "
            f"{identity['model']} with {str(expected)[:12]}. Name the right one with --model."
        )
    return encoder


def as_json(table: pd.DataFrame) -> list[dict[str, Any]]:
    """What `predict` returned, as plain values: clip, predicted, probabilities by emotion.

    Of a run that learned numbers: clip, and as predicted each target's number.
    """
    values = table.drop(columns=["clip", "predicted"], errors="ignore").to_dict("records")
    if "predicted" not in table:
        return [
            {"clip": clip, "predicted": numbers}
            for clip, numbers in zip(table["clip"].tolist(), values, strict=True)
        ]
    return [
        {
            "clip": clip,
            "predicted": predicted,
            "probabilities": {name.removeprefix("p_"): chance for name, chance in chances.items()},
        }
        for clip, predicted, chances in zip(
            table["clip"].tolist(), table["predicted"], values, strict=True
        )
    ]
