"""A row of the table, a folder or an id of the hub -> its config and its preprocessor."""

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lsmprobe.config import InputNorm
from lsmprobe.corpora.audio import SAMPLE_RATE
from lsmprobe.errors import ModelError, nearest
from lsmprobe.extraction.hub import PREPROCESSORS, snapshot
from lsmprobe.extraction.models import MODEL_TYPES, SPEECH_MODELS
from lsmprobe.impostors import HEAD, impostor
from lsmprobe.progress import Progress, silent

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
MERGE = (
    "Merge it and save the whole model (with peft: "
    "model.merge_and_unload().save_pretrained(FOLDER)), then use that."
)
BEHIND_THE_LAST_BLOCK = ("add_adapter", "use_intermediate_ffn_before_adapter")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """Where a model was found; without a folder it is an architecture of the table."""

    name: str
    hub_id: str | None = None
    folder: Path | None = None
    commit: str | None = None
    sha256: Mapping[str, str] = field(
        default_factory=dict
    )  # of its files with weights, if from the hub


def find_checkpoint(
    model: str,
    revision: str | None,
    with_weights: bool,
    others: Iterable[str] = (),
    *,
    extra: Sequence[str] = (),
    progress: Progress = silent,
) -> Checkpoint:
    """A row of the table, else a local folder, else an id on the hub, which is downloaded.

    Args:
        model: its name, folder or id.
        revision: a commit, branch or tag on the hub; by default the row's, or `main`.
        with_weights: or its config alone.
        others: names that are no checkpoints, for the message that there is no such model.
        extra: further files that are needed of a repository.
        progress: a bar over the bytes of a download.

    Raises:
        ModelError: it is none of them, or a download fails.
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
    is_row = row is not None and revision in (None, row.revision)
    found = snapshot(
        hub_id,
        revision or (row.revision if row else "main"),
        weights=with_weights,
        extra=extra,
        sha256=row.sha256 if row and is_row else None,
        pinned=is_row and row is not None and row.revision != "main",
        progress=progress,
    )
    return Checkpoint(model, hub_id, found.folder, found.commit, found.sha256)


def read_config(checkpoint: Checkpoint) -> Any:
    """The architecture, as transformers describes it.

    Raises:
        ModelError: there is none, or one that does not run here.
    """
    import transformers

    if checkpoint.folder is None:
        written = dict(SPEECH_MODELS[checkpoint.name].config or {})
    elif (checkpoint.folder / "config.json").is_file():
        written = read_json(checkpoint, checkpoint.folder / "config.json")
    else:
        refuse_adapter_beside(checkpoint)
        raise ModelError(
            f"{checkpoint.folder} has no config.json; expected what `save_pretrained` writes."
        )
    kind = written.get("model_type")
    if kind not in MODEL_TYPES:
        found = f"is a model of type {kind!r}" if kind else "has no model_type in its config.json"
        raise ModelError(f"{checkpoint.name} {found}; expected one of {', '.join(MODEL_TYPES)}.")
    behind = [name for name in BEHIND_THE_LAST_BLOCK if written.get(name)]
    if behind:
        written |= dict.fromkeys(behind, False)
        log.info(
            "%s has an adapter behind its last block (%s), which comes after every layer that is "
            "stored and is not used",
            checkpoint.name,
            behind[0],
        )
    if "quantization_config" in written:
        raise ModelError(
            f"{checkpoint.name} has quantised weights; expected floating point, such as the model "
            "has from which it was made."
        )
    with in_one_line(f"{checkpoint.name}: its config.json does not describe a model"):
        kind = transformers.CONFIG_MAPPING[written["model_type"]]
        return kind(**architecture(kind, written), attn_implementation=attention(kind))


def attention(kind: Any) -> str:
    """How attention is computed: PyTorch's own function where this transformers has it for a kind.

    The config.json has no say in it: it might name a program of the hub there.
    """
    import transformers

    return "sdpa" if transformers.MODEL_MAPPING[kind]._supports_sdpa else "eager"


def refuse_adapter_beside(checkpoint: Checkpoint) -> None:
    """What fine-tuning with peft leaves beside the weights, or in the place of a model.

    With peft installed transformers would add it, and without it would not.

    Raises:
        ModelError: there is one.
    """
    assert checkpoint.folder is not None
    for name in ADAPTER_FILES:
        if (checkpoint.folder / name).exists():
            raise ModelError(
                f"{checkpoint.name} holds an adapter ({name}), such as a LoRA, that is not part of "
                f"the model's weights and would not be used. {MERGE}"
            )


def read_json(checkpoint: Checkpoint, file: Path) -> dict[str, Any]:
    """What a file of the checkpoint holds.

    Raises:
        ModelError: it is something else.
    """
    with in_one_line(f"{shown(checkpoint, file)} cannot be read"):
        content = file.read_bytes()
    found = impostor(content[:HEAD], "a config", is_text=True)
    if found:
        raise ModelError(f"{shown(checkpoint, file)} {found}.")
    with in_one_line(f"{shown(checkpoint, file)} cannot be read"):
        return dict(json.loads(content.decode("utf-8")))


def shown(checkpoint: Checkpoint, file: Path) -> str:
    """A file of a checkpoint, for a message."""
    return f"{file.name} of {checkpoint.name}"


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
    for name in PREPROCESSORS:
        if (checkpoint.folder / name).is_file():
            read_json(checkpoint, checkpoint.folder / name)  # or it says what it is instead
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
            f"{checkpoint.name} hears {extractor.sampling_rate} Hz; expected {SAMPLE_RATE}, to "
            "which all audio is resampled. Choose a model of that rate."
        )
    made, wanted = mel_bins(extractor, config)
    if made != wanted:
        raise ModelError(
            f"{checkpoint.name}: its preprocessor makes {made} mel bins, and its weights expect "
            f"{wanted}. Put the preprocessor_config.json of the model it was made from beside them."
        )
    return extractor


def mel_bins(extractor: Any, config: Any) -> tuple[int, int]:
    """How many filters the preprocessor has, and how many the network expects; 0 for waveforms."""
    if config.model_type == "whisper":
        return extractor.feature_size, config.num_mel_bins
    if config.model_type == "wav2vec2-bert":  # it takes frames in pairs
        return extractor.num_mel_bins, config.feature_projection_input_dim // extractor.stride
    return 0, 0


@contextmanager
def in_one_line(what: str) -> Iterator[None]:
    """For libraries that raise a dozen classes, some over many lines, at a bad file."""
    try:
        yield
    except ModelError:
        raise
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
