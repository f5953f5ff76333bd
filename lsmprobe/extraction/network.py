"""A config -> the network, with a checkpoint's weights or random ones.

Weights are read from safetensors or as weights alone, never as code, and none of the encoder's is
left out: weights that the architecture has no place for belong to another model.
"""

import hashlib
import logging
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lsmprobe.errors import ModelError, counted, one_line
from lsmprobe.extraction.checkpoints import (
    MERGE,
    Checkpoint,
    in_one_line,
    refuse_adapter_beside,
    shown,
)
from lsmprobe.extraction.hub import WEIGHTS, weights_here
from lsmprobe.impostors import HEAD, impostor

NOT_SAVED = "masked_spec_embed"  # stands for masked frames in pre-training; random if missing
# How peft and loralib name what they add to a layer, and the layer to which they add it.
UNMERGED = re.compile(r"(^|\.)(lora_|base_layer\.|base_model\.model\.)")
ATTENTION_ADAPTER = ".adapter_layer."  # of MMS
BLOCK = re.compile(r"(?:^|\.)layers\.(\d+)\.")
X_VECTOR_HEAD = ("feature_extractor.weight", "feature_extractor.bias")  # a linear layer of the head
log = logging.getLogger(__name__)


def read_network(checkpoint: Checkpoint, config: Any) -> Any:
    """The weights in float32 (some are saved as float16), from safetensors or weights alone.

    Raises:
        ModelError: they cannot be read, or some are missing, or some would not be used.
    """
    assert checkpoint.folder is not None
    refuse_adapter_beside(checkpoint)
    for file in weight_files(checkpoint):
        refuse_impostor(checkpoint, file)
    with readable_weights(checkpoint):
        network, report = network_class(config).from_pretrained(
            checkpoint.folder,
            config=config,
            dtype=torch.float32,
            key_mapping={r"^(model\.)?encoder\.": ""} if config.model_type == "whisper" else None,
            weights_only=True,
            local_files_only=True,
            output_loading_info=True,
        )
    refuse_unused(checkpoint, network, sorted(report["unexpected_keys"]))
    missing = sorted(set(report["missing_keys"]) - {NOT_SAVED})
    if missing:
        raise ModelError(
            f"the checkpoint of {checkpoint.name} lacks {counted(len(missing), 'weight')} of the "
            f"model ({missing[0]} first): they would be random. Get another copy, or use "
            "--random-init."
        )
    return network


def use_attention_adapter_(network: Any, checkpoint: Checkpoint, language: str) -> None:
    """Put the attention adapters of a language (MMS) in the place of those inside the weights.

    Raises:
        ModelError: the model has none, or the file is not there, or its weights do not fit.
    """
    from safetensors.torch import load_file

    assert checkpoint.folder is not None
    file = checkpoint.folder / adapter_file(language)
    places = {name for name in network.state_dict() if ATTENTION_ADAPTER in name}
    if not places:
        raise ModelError(f"{checkpoint.name} has no attention adapters; leave --adapter out.")
    if not file.exists():
        there = [each.name for each in checkpoint.folder.glob(adapter_file("*"))]
        raise ModelError(
            f"{checkpoint.name} has no {file.name}; there is {', '.join(sorted(there)) or 'none'}."
        )
    refuse_impostor(checkpoint, file)
    with in_one_line(f"{shown(checkpoint, file)} cannot be read"):
        written = {
            without_prefix(network, name): values for name, values in load_file(file).items()
        }
    own = {name: values.float() for name, values in written.items() if ATTENTION_ADAPTER in name}
    if own.keys() != places:
        raise ModelError(
            f"{shown(checkpoint, file)} holds {counted(len(own), 'weight')} of attention adapters; "
            f"expected the {len(places)} of the model."
        )
    with in_one_line(f"{shown(checkpoint, file)} does not fit the model"):
        network.load_state_dict(own, strict=False)


def adapter_file(language: str) -> str:
    """As MMS calls the attention adapters of a language."""
    return f"adapter.{language}.safetensors"


def weight_files(checkpoint: Checkpoint) -> list[Path]:
    """The files that are read: one with the weights, or an index and the files that it lists.

    Raises:
        ModelError: there are none, or not all that the index lists.
    """
    assert checkpoint.folder is not None
    for name in WEIGHTS:
        if (index := checkpoint.folder / f"{name}.index.json").exists():
            refuse_impostor(checkpoint, index)
    files = weights_here(checkpoint.folder)
    if files is None:
        raise ModelError(
            f"{checkpoint.name} has no weights: expected {' or '.join(WEIGHTS)}, whole or in "
            "shards with an index, as `save_pretrained` writes them. Or use --random-init."
        )
    for file in files:
        if not file.exists():
            raise ModelError(
                f"{checkpoint.name} lacks {file.name}, which its {files[0].name} lists; copy or "
                "download it again."
            )
    return files


def refuse_impostor(checkpoint: Checkpoint, file: Path) -> None:
    """Weights, or an index, that are something else.

    Raises:
        ModelError: the file says so by its first bytes.
    """
    is_text = file.suffix == ".json"
    with file.open("rb") as opened:
        found = impostor(opened.read(HEAD), "an index" if is_text else "weights", is_text=is_text)
    if found and file.suffix == ".bin" and holds_tensors(file):
        return  # what torch saves is a zip archive
    if found:
        raise ModelError(f"{shown(checkpoint, file)} {found}.")


def holds_tensors(file: Path) -> bool:
    """Whether a zip archive is one of torch's."""
    return zipfile.is_zipfile(file) and any(
        name.endswith("data.pkl") for name in zipfile.ZipFile(file).namelist()
    )


def refuse_unused(checkpoint: Checkpoint, network: Any, unused: Sequence[str]) -> None:
    """Weights of the encoder that the architecture has no place for; others are named and pass.

    Heads, projectors, quantizers and decoders come after the encoder or serve its training.

    Raises:
        ModelError: some are of the encoder, or of an adapter of it.
    """
    inside = [name for name in unused if is_inside(network, name)]
    if not inside:
        if unused:
            own = [without_prefix(network, name) for name in unused]
            tops = sorted({one_line(name.partition(".")[0]) for name in own})
            said = "%s: %s no part of the encoder and so not used: %s"
            found = counted(len(unused), "weight", "is")
            log.info(said, checkpoint.name, found, ", ".join(tops))
        return
    found = (
        f"{checkpoint.name}: {counted(len(inside), 'weight')} would not be used "
        f"({one_line(inside[0])} first)"
    )
    if any(UNMERGED.search(name) for name in inside):
        raise ModelError(f"{found}: an adapter, such as a LoRA, that is not merged. {MERGE}")
    if any(ATTENTION_ADAPTER in name for name in inside):
        raise ModelError(
            f"{found}: attention adapters, which its config.json does not mention. Set "
            "adapter_attn_dim there, as the model has it from which it was made."
        )
    blocks = {int(block[1]) for name in inside if (block := BLOCK.search(name))}
    if blocks and min(blocks) >= network.config.num_hidden_layers:
        raise ModelError(
            f"{found}: they have {counted(max(blocks) + 1, 'block')}, and its config.json says "
            f"{network.config.num_hidden_layers}. Correct num_hidden_layers there."
        )
    raise ModelError(
        f"{found}: its config.json describes a network without them. Use the config.json that "
        "belongs to the weights."
    )


def is_inside(network: Any, name: str) -> bool:
    """Whether a weight without a place belongs to the encoder, by its name in the file."""
    if UNMERGED.search(name) and "decoder." not in name:
        return True
    own = without_prefix(network, name)
    top = own.partition(".")[0]
    return top in dict(network.named_children()) and own not in X_VECTOR_HEAD


def without_prefix(network: Any, name: str) -> str:
    """As a weight is called in the base model, not in one with a head."""
    return name.removeprefix(f"{network.base_model_prefix}.")


@contextmanager
def readable_weights(checkpoint: Checkpoint) -> Iterator[None]:
    """Whatever goes wrong is one line, without torch's advice to read the file as code."""
    what = f"the weights of {checkpoint.name} cannot be read"
    with in_one_line(what):
        try:
            yield
        except Exception as error:
            if "weights_only" not in str(error):
                raise
            named = re.search(r"GLOBAL (\S+)", str(error))
            raise ModelError(
                f"{what}: the file holds {named[1] if named else 'Python objects'}, and weights "
                "are tensors. Save `model.state_dict()` alone, or as safetensors."
            ) from error


def random_network(config: Any, seed: int) -> Any:
    """The architecture with weights that depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return network_class(config)(config)


def network_class(config: Any) -> Any:
    """The class in transformers; of Whisper the encoder alone."""
    import transformers
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    if config.model_type == "whisper":
        return WhisperEncoder
    return transformers.MODEL_MAPPING[type(config)]


def weights_sha256(network: nn.Module) -> str:
    """One hash over names, shapes and values."""
    digest = hashlib.sha256()
    for name, values in sorted(network.state_dict().items()):
        if name != NOT_SAVED:
            digest.update(f"{name} {tuple(values.shape)} {values.dtype}".encode())
            digest.update(values.contiguous().reshape(-1).numpy())
    return digest.hexdigest()
