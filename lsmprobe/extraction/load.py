"""A name -> an encoder, ready to run, and what identifies it."""

import logging
import re
from importlib.metadata import version
from typing import Any

import torch

from lsmprobe.config import InputNorm, Precision, WhisperContext
from lsmprobe.errors import ModelError
from lsmprobe.extraction.backbones import (
    Backbone,
    ConvolutionBackbone,
    FilterbankBackbone,
    WhisperBackbone,
)
from lsmprobe.extraction.checkpoints import (
    Checkpoint,
    find_checkpoint,
    quiet,
    read_config,
    read_extractor,
)
from lsmprobe.extraction.descriptors import DESCRIPTORS, load_descriptor
from lsmprobe.extraction.encoder import Encoder
from lsmprobe.extraction.exactness import batches_exactly
from lsmprobe.extraction.hub import check, weights_here
from lsmprobe.extraction.network import (
    adapter_file,
    random_network,
    read_network,
    use_attention_adapter_,
    weights_sha256,
)
from lsmprobe.progress import Progress, silent

LAYER_CONVENTION = (
    "layer 0 enters the first Transformer block, layer l in 1..L is what block l puts out, "
    "layer L is last_hidden_state (after the final LayerNorm where the model has one)"
)
log = logging.getLogger(__name__)


def load_encoder(
    model: str,
    *,
    device: str = "cpu",
    precision: Precision = "float32",
    random_init: int | None = None,
    revision: str | None = None,
    input_norm: InputNorm = "checkpoint",
    whisper_context: WhisperContext = "window",
    adapter: str | None = None,
    progress: Progress = silent,
) -> Encoder:
    """A frozen speech model, ready to run.

    Args:
        model: a row of SPEECH_MODELS, a local folder, or a Hugging Face id as `owner/name`, of one
            of the types in MODEL_TYPES.
        device: where it runs, for example `cpu`, `cuda` or `mps`.
        precision: what it computes in; the weights are read as float32 first.
        random_init: a seed; the same architecture with random weights, from the config alone.
        revision: a branch, tag or commit on the hub, instead of the table's.
        input_norm: each waveform to mean 0 and variance 1 where the checkpoint's preprocessor says
            so, never, or always.
        whisper_context: Whisper on windows of 30 s, as it was trained, or on the audio's own length
            (`utterance`): other states, and about ten times less work on 3 s. Others ignore it.
        adapter: of MMS, the language whose attention adapters are used, such as `deu`, instead of
            those inside the weights.
        progress: a bar over the bytes of a download.

    Raises:
        ModelError: there is no such model, or it cannot be loaded, or not all of its weights.
    """
    if adapter is not None:
        refuse_adapter(model, adapter, random_init)
    if model in DESCRIPTORS:
        return Encoder(*load_descriptor(model, input_norm, random_init, revision, precision))
    checkpoint = find_checkpoint(
        model,
        revision,
        random_init is None,
        others=DESCRIPTORS,
        extra=[adapter_file(adapter)] if adapter else [],
        progress=progress,
    )
    seed = 0 if checkpoint.folder is None and random_init is None else random_init
    with quiet():
        config = read_config(checkpoint)
        extractor = read_extractor(checkpoint, config, input_norm)
        network = read_network(checkpoint, config) if seed is None else random_network(config, seed)
    if adapter is not None:
        use_attention_adapter_(network, checkpoint, adapter)
    elif seed is None and getattr(config, "adapter_attn_dim", None):
        said = (
            "%s has attention adapters; those inside its weights are used (--adapter LANG: others)"
        )
        log.info(said, checkpoint.name)
    network.eval().requires_grad_(False)
    says_so = bool(getattr(extractor, "do_normalize", False))
    normalise = input_norm == "zscore" or (input_norm == "checkpoint" and says_so)
    identity: dict[str, Any] = {
        "model": checkpoint.name,
        "model_type": config.model_type,
        "hub_id": checkpoint.hub_id,
        "revision": checkpoint.commit,
        "weights_sha256": weights_sha256(network),
        "random_init": seed,
        "precision": precision,
        "input_norm": input_norm,
        "normalised": normalise,  # what the checkpoint said, where it was asked
        "whisper_context": whisper_context if config.model_type == "whisper" else None,
        "layer_convention": LAYER_CONVENTION,
        **({"adapter": adapter} if adapter else {}),
        "files_sha256": _files_sha256(checkpoint) if seed is None else {},
        "versions": {name: version(name) for name in ("transformers", "torch")},
    }
    network.to(device)
    backbone: Backbone
    if config.model_type == "whisper":
        backbone = WhisperBackbone(network, extractor, whisper_context)
    elif config.model_type == "wav2vec2-bert":
        backbone = FilterbankBackbone(network, extractor, input_norm != "none")
    else:
        backbone = ConvolutionBackbone(network)
    encoder = Encoder(backbone, normalise, identity)
    encoder.batches_exactly = batches_exactly(encoder)  # in float32, before the cast
    network.to(getattr(torch, precision))
    return encoder


def _files_sha256(checkpoint: Checkpoint) -> dict[str, str]:
    """The SHA-256 of each file with weights, from the hub or in a folder of one's own."""
    if checkpoint.sha256 or checkpoint.folder is None:
        return dict(checkpoint.sha256)
    files = weights_here(checkpoint.folder) or []
    return {file.name: check(checkpoint.name, file) for file in files}


def refuse_adapter(model: str, adapter: str, random_init: int | None) -> None:
    """Attention adapters where there can be none.

    Raises:
        ModelError: descriptors and random weights have none; a language is a name.
    """
    if model in DESCRIPTORS or model == "toy" or random_init is not None:
        what = model if random_init is None else f"{model} with random weights"
        raise ModelError(f"{what} has no attention adapters; leave --adapter {adapter} out.")
    if not re.fullmatch(r"\w[\w-]*", adapter):
        raise ModelError(
            f"--adapter is {adapter!r}; expected a language as its file calls it, such as deu of "
            f"{adapter_file('deu')}."
        )
