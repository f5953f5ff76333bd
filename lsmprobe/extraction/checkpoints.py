"""A row of the table, a folder or an id of the hub -> config, preprocessor and network.

Weights are read from safetensors or as weights alone, never as code.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lsmprobe.errors import ModelError, nearest
from lsmprobe.extraction.models import MODEL_TYPES, SAMPLE_RATE, SPEECH_MODELS, InputNorm

UNUSED = "masked_spec_embed"  # stands for masked frames in pre-training, and is random if not saved


@dataclass(frozen=True)
class Checkpoint:
    """Where a model was found; without a folder it is an architecture of the table."""

    name: str
    hub_id: str | None = None
    folder: Path | None = None
    commit: str | None = None


def find_checkpoint(
    model: str, revision: str | None, with_weights: bool, others: Iterable[str] = ()
) -> Checkpoint:
    """A row of the table, else a local folder, else an id on the hub, which is downloaded.

    Args:
        model: its name, folder or id.
        revision: a commit, branch or tag on the hub; by default the row's, or `main`.
        with_weights: or its config alone.
        others: names that are no checkpoints, for the message that there is no such model.

    Raises:
        ModelError: it is none of them.
    """
    row = SPEECH_MODELS.get(model)
    folder = Path(model).expanduser()
    hub_id = row.hub_id if row else model
    if hub_id is None or (row is None and folder.is_dir()):
        if revision is not None:
            raise ModelError(f"{model} is not on the hub, so it has no revision; leave it out.")
        return Checkpoint(model) if row else Checkpoint(folder.resolve().name, folder=folder)
    if not re.fullmatch(r"\w[\w.-]*/[\w.-]+", hub_id):
        raise ModelError(
            f"no model is called {model!r}; {nearest(model, [*SPEECH_MODELS, *others])} "
            "Or give a local folder, or a Hugging Face id as owner/name."
        )
    revision = revision or (row.revision if row else "main")
    snapshot = download(hub_id, revision, with_weights)
    return Checkpoint(model, hub_id, snapshot, commit=snapshot.name)


def download(hub_id: str, revision: str, with_weights: bool) -> Path:
    """The checkpoint's folder in the hub's cache on this disk; its name is the commit.

    Raises:
        ModelError: the hub does not have it, or is out of reach and the cache does not have it.
    """
    from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache
    from huggingface_hub.errors import (
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        listed = HfApi().model_info(hub_id, revision=revision).siblings or []
    except (HFValidationError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ModelError(
            f"the Hugging Face hub has no model {hub_id} at revision {revision}, or shows it only "
            "after `hf auth login`."
        ) from error
    except Exception as error:  # being offline has many classes
        cached = try_to_load_from_cache(hub_id, "config.json", revision=revision)
        if isinstance(cached, str):
            return Path(cached).parent
        raise ModelError(
            f"{hub_id} at revision {revision} is not in the local cache, and the Hugging Face hub "
            "cannot be reached. Connect once, or give a local folder."
        ) from error
    files = ["config.json", "preprocessor_config.json", "processor_config.json"]
    if with_weights:
        safe = any(file.rfilename.startswith("model.safetensors") for file in listed)
        kind = "model{}.safetensors{}" if safe else "pytorch_model{}.bin{}"
        files += [kind.format(*parts) for parts in (("", ""), ("", ".index.json"), ("-*", ""))]
    with one_line(f"{hub_id} cannot be downloaded"):
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=files))


def read_config(checkpoint: Checkpoint) -> Any:
    """The architecture, as transformers describes it.

    Raises:
        ModelError: there is none, or one that does not run here.
    """
    import transformers

    if checkpoint.folder is None:
        written = dict(SPEECH_MODELS[checkpoint.name].config or {})
    elif (checkpoint.folder / "config.json").is_file():
        with one_line(f"{checkpoint.name}: its config.json cannot be read"):
            written = dict(json.loads((checkpoint.folder / "config.json").read_text("utf-8")))
    else:
        raise ModelError(
            f"{checkpoint.folder} has no config.json; expected what `save_pretrained` writes."
        )
    if written.get("model_type") not in MODEL_TYPES:
        raise ModelError(
            f"{checkpoint.name} is a model of type {written.get('model_type')!r}; expected one of "
            f"{', '.join(MODEL_TYPES)}."
        )
    if written.get("add_adapter") or written.get("use_intermediate_ffn_before_adapter"):
        raise ModelError(
            f"{checkpoint.name} has an adapter behind its last block (add_adapter), which changes "
            "the frames; expected a model without, such as the one it was made from."
        )
    if "quantization_config" in written:
        raise ModelError(
            f"{checkpoint.name} has quantised weights; expected floating point, such as the model "
            "has from which it was made."
        )
    with one_line(f"{checkpoint.name}: its config.json does not describe a model"):
        kind = transformers.CONFIG_MAPPING[written["model_type"]]
        attention = MODEL_TYPES[written["model_type"]].attention
        return kind(**architecture(kind, written), attn_implementation=attention)


def architecture(kind: Any, written: dict[str, Any]) -> dict[str, Any]:
    """The fields of a config.json that describe the network: numbers, words and lists of them.

    All others are left out, known or not: transformers reads some of them as programs of the hub
    that compute the attention, as other files of weights or as code.

    Args:
        kind: the class of configs in transformers, whose own fields are allowed.
        written: what the file holds.

    Raises:
        ValueError: such a field holds something else.
    """
    from transformers import PretrainedConfig

    common = PretrainedConfig().to_dict()
    allowed = {*kind().to_dict(), *kind.attribute_map} - {*common}
    fields = {name: written[name] for name in written if name in allowed}
    for name, value in fields.items():
        values = value if isinstance(value, list) else [value]
        if not all(each is None or isinstance(each, bool | int | float | str) for each in values):
            raise ValueError(f"{name} is {json.dumps(value)[:80]}; expected a number, word or list")
    return fields


def read_extractor(checkpoint: Checkpoint, config: Any, input_norm: InputNorm) -> Any:
    """What prepares the input: filterbanks, and `do_normalize`.

    Raises:
        ModelError: it is not there and `input_norm` asks for it, or it is for another sample rate.
    """
    import transformers

    kind = getattr(transformers, MODEL_TYPES[config.model_type].extractor)
    if checkpoint.folder is None:
        return kind(do_normalize=False)
    try:
        extractor = kind.from_pretrained(checkpoint.folder, local_files_only=True)
    except OSError as error:
        if input_norm == "checkpoint":
            raise ModelError(
                f"{checkpoint.name} has no readable preprocessor_config.json, which says how its "
                "input is normalised. Put it there, or use --input-norm none or zscore."
            ) from error
        default = {"feature_size": config.num_mel_bins} if config.model_type == "whisper" else {}
        extractor = kind(**default)
    if extractor.sampling_rate != SAMPLE_RATE:
        raise ModelError(
            f"{checkpoint.name} hears {extractor.sampling_rate} Hz; expected {SAMPLE_RATE}."
        )
    return extractor


def read_network(checkpoint: Checkpoint, config: Any) -> Any:
    """The weights in float32 (some are saved as float16), from safetensors or weights alone.

    Raises:
        ModelError: they cannot be read, or some are missing.
    """
    with one_line(f"the weights of {checkpoint.name} cannot be read"):
        network, report = network_class(config).from_pretrained(
            checkpoint.folder,
            config=config,
            dtype=torch.float32,
            key_mapping={r"^(model\.)?encoder\.": ""} if config.model_type == "whisper" else None,
            weights_only=True,
            local_files_only=True,
            output_loading_info=True,
        )
    missing = sorted(set(report["missing_keys"]) - {UNUSED})
    if missing:
        raise ModelError(
            f"the checkpoint of {checkpoint.name} lacks {len(missing)} weights of the model "
            f"({missing[0]} first), which would be random. Get another copy, or use --random-init."
        )
    return network


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
        if name != UNUSED:
            digest.update(f"{name} {tuple(values.shape)} {values.dtype}".encode())
            digest.update(values.contiguous().reshape(-1).numpy())
    return digest.hexdigest()


@contextmanager
def one_line(what: str) -> Iterator[None]:
    """For libraries that raise a dozen classes, some over many lines, at a bad file."""
    try:
        yield
    except Exception as error:
        raise ModelError(f"{what}: {' '.join(str(error).split())[:300]}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """No load report and no progress bars from transformers inside."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
