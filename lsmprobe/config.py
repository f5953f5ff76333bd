"""One frozen dataclass per command: a field is a flag, and a notebook builds the same object.

This module imports nothing heavy, so that `--help` answers at once.
"""

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from lsmprobe.errors import SettingsError

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class ExtractConfig:
    """Stage 1: run a frozen speech model over a corpus, store every layer's hidden states."""

    model: str
    """A model of the table (wav2vec2-large, whisper-small, ...), a Hugging Face id, or a folder."""
    dataset: str
    """A corpus (demos, emodb, ...), a manifest (CSV: path, emotion, speaker), folder:DIR,
    audformat:DIR or hf:ID."""
    data_dir: Path | None = None
    """Where the corpus lies; otherwise $LSMPROBE_DATA/NAME, then data/NAME."""
    cache_dir: Path = Path("cache")
    """The cache of a model and a corpus is CACHE_DIR/MODEL/CORPUS.h5."""
    store: Literal["frames", "pooled"] = "frames"
    """Every frame, or only the mean and deviation over the frames (exact for the Linear head)."""
    store_dtype: Precision = "float16"
    """How frames are stored. A value that float16 cannot hold stops the run, never becomes inf."""
    device: Device = "auto"
    """Where the model runs; auto takes a GPU if there is one."""
    precision: Precision = "float32"
    """How the model computes. Half precision rounds, differently from batch to batch."""
    batch_seconds: float | None = None
    """Seconds of audio, padding counted, that run together; by default 12 (CPU), 240 (GPU)."""
    random_init: int | None = None
    """Random weights from this seed instead of the checkpoint's: the control."""
    revision: str | None = None
    """A branch, tag or commit of the Hugging Face repository; otherwise the table's."""
    whisper_context: Literal["window", "utterance"] = "window"
    """What Whisper sees: 30 s windows, as it was trained, or the utterance's own length."""
    input_norm: Literal["checkpoint", "none", "zscore"] = "checkpoint"
    """How the waveform is normalised: as the checkpoint's preprocessor says, not, or always."""
    max_seconds: float | None = None
    """Longer utterances are cut here; by default nothing is cut."""
    emotions: tuple[str, ...] = ()
    """Only the utterances of these emotions."""
    map: tuple[str, ...] = ()
    """Merge labels, OLD=NEW, before anything else."""
    speaker_pattern: str = ""
    """For folder:DIR, a regular expression over the path with a group named speaker."""
    skip_unreadable: bool = False
    """Leave out clips that cannot be read; they are counted and named, and stand as not done."""
    dry_run: bool = False
    """Say how many clips, hours and gigabytes, and how long it would take; extract nothing."""
    selftest: bool = False
    """Extract a few clips alone and batched and print the largest difference; store nothing."""

    def __post_init__(self) -> None:
        _check_ranges(self)
        if self.dry_run and self.selftest:
            raise SettingsError("--dry-run and --selftest are two things; ask for one of them.")
        self.cache_path  # noqa: B018  has a name
        label_map(self.map)

    @property
    def cache_path(self) -> Path:
        """Where this extraction is stored."""
        model = model_name(self.model)
        if self.random_init is not None:
            model = f"{model}-random{self.random_init}"
        return self.cache_dir / model / f"{dataset_name(self.dataset)}.h5"


@dataclass(frozen=True)
class ProbeConfig:
    """Stage 2: train the heads on cached hidden states and score them on held-out speakers."""

    model: tuple[str, ...] = ()
    """The models, as named at extraction; none or `all`: every one in the cache folder."""
    dataset: tuple[str, ...] = ()
    """The corpora, as named at extraction; none or `all`: every one in the cache folder."""
    head: Literal["linear", "nonlinear", "multilayer", "all"] = "all"
    """Linear and Non-Linear read one layer, Multi-Layer a learned weighting of all of them."""
    layer: int | Literal["all"] | None = None
    """The layer that Linear and Non-Linear read, or all in one sweep; by default the last."""
    runs: int = 3
    """Runs with seeds SEED, SEED+1, ...: initialisation, dropout and order of batches."""
    seed: int = 0
    """The first seed."""
    split: str = "auto"
    """speaker, random, loso, kfold:K, given (the manifest's own), or a JSON file. auto: given where
    the manifest brings one, else speaker."""
    split_seed: int = 0
    """0 is the best split found; others are other good ones."""
    resplit: bool = False
    """A new split for every run."""
    feature_norm: Literal["none", "zscore", "layernorm"] = "none"
    """What is done to features before the head: nothing (as the paper), standardised per layer and
    dimension with the training set's statistics, or layer-normalised per vector."""
    emotions: tuple[str, ...] = ()
    """Only the utterances of these emotions."""
    map: tuple[str, ...] = ()
    """Merge labels, OLD=NEW, before anything else."""
    cache_dir: Path = Path("cache")
    """Where extract.py wrote."""
    results_dir: Path = Path("results")
    """One record per run is written here."""
    device: Device = "auto"
    """Where the heads are trained; auto takes a GPU if there is one."""
    epochs: int = 30
    """Passes over the training set."""
    batch_size: int = 32
    """Utterances per step."""
    lr: float = 5e-4
    """Adam's learning rate."""
    weight_decay: float = 1e-4
    """Adam's (coupled) weight decay."""
    scheduler: Literal["plateau", "cosine", "none"] = "plateau"
    """plateau: halved when 5 epochs in a row and one more bring no better validation loss, not
    below 5e-5."""
    class_weights: Literal["balanced", "none"] = "balanced"
    """Weigh the loss inversely to the training counts of the classes, or not."""
    epoch_choice: Literal["best", "loss", "last"] = "best"
    """The epoch that is scored on the test set: best validation macro-F1, lowest loss, or last."""
    hidden: int = 256
    """Width of the heads."""
    dropout: float = 0.1
    """Dropout of the Non-Linear and Multi-Layer heads."""
    include_layer_0: bool = False
    """Let Multi-Layer weigh layer 0 too."""
    scalar_lr: float | None = None
    """Another learning rate for Multi-Layer's layer weights."""
    scalar_weight_decay: float | None = None
    """Another weight decay for Multi-Layer's layer weights."""
    force: bool = False
    """Repeat runs whose record is there already."""

    def __post_init__(self) -> None:
        _check_ranges(self)
        if self.head == "multilayer" and self.layer is not None:
            raise SettingsError(
                "--layer does not go with --head multilayer, which reads every layer; drop one."
            )
        label_map(self.map)


@dataclass(frozen=True)
class DemoConfig:
    """Both stages on the embedded corpus and the embedded model, whose weights are random."""

    folder: Path = Path()
    """data/, cache/ and results/ are written in here."""


@dataclass(frozen=True)
class ListCorporaConfig:
    """List the corpora: language, licence, how to obtain each, expected counts."""


@dataclass(frozen=True)
class CheckCorpusConfig:
    """Check a copy of a corpus; exit status 0 only if it is complete."""

    name: str
    """A corpus of the table."""
    data_dir: Path | None = None
    """Where it lies; otherwise $LSMPROBE_DATA/NAME, then data/NAME."""
    json: Path | None = None
    """Write the findings here too."""


@dataclass(frozen=True)
class GetCorpusConfig:
    """Download and unpack a corpus, or say where and how to ask for it."""

    name: str
    """A corpus of the table."""
    data_dir: Path | None = None
    """Where to put it; otherwise $LSMPROBE_DATA/NAME, else data/NAME."""


@dataclass(frozen=True)
class Table1Config:
    """Print the paper's Table 1 from the copies that are there, beside the paper's own rows."""


@dataclass(frozen=True)
class SplitConfig:
    """A split of a corpus."""

    split: str
    """speaker, random, loso, kfold:K, given, or a JSON file."""
    dataset: str
    """As at extraction: a corpus, a manifest, folder:DIR."""
    data_dir: Path | None = None
    """Where the corpus lies; otherwise $LSMPROBE_DATA/NAME, then data/NAME."""
    split_seed: int = 0
    """0 is the best split found; others are other good ones."""
    emotions: tuple[str, ...] = ()
    """Only the utterances of these emotions."""
    map: tuple[str, ...] = ()
    """Merge labels, OLD=NEW, before anything else."""
    speaker_pattern: str = ""
    """For folder:DIR, a regular expression over the path with a group named speaker."""

    def __post_init__(self) -> None:
        label_map(self.map)


@dataclass(frozen=True)
class AuditConfig(SplitConfig):
    """Say what the parts of a split share; exit status 0 only if no speaker or audio is shared."""


@dataclass(frozen=True)
class MakeSplitConfig(SplitConfig):
    """Make a split, say how it came out, and save it for `probe.py --split FILE`."""

    out: Path = Path("split.json")
    """Where it is written."""


RANGES: dict[str, tuple[float, float]] = {
    "batch_seconds": (0.001, 1e6),
    "max_seconds": (0.025, 1e6),  # one frame
    "random_init": (0, 2**32),
    "runs": (1, 1000),
    "seed": (0, 2**32),
    "split_seed": (0, 2**32),
    "epochs": (1, 100_000),
    "batch_size": (1, 1_000_000),
    "lr": (1e-12, 100),
    "weight_decay": (0, 100),
    "scalar_lr": (0, 100),
    "scalar_weight_decay": (0, 100),
    "hidden": (1, 65_536),
    "dropout": (0, 0.99),
}


def _check_ranges(config: ExtractConfig | ProbeConfig) -> None:
    """Every number within what can be meant; NaN is in no range."""
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name in RANGES and value is not None:
            low, high = RANGES[field.name]
            if not low <= value <= high:
                flag = field.name.replace("_", "-")
                raise SettingsError(f"--{flag} is {value}; expected {low} to {high}.")


def model_name(model: str) -> str:
    """The name under which a model's caches lie: its table name, its id, or its folder's name.

    >>> model_name("wav2vec2-large"), model_name("facebook/hubert-base-ls960")
    ('wav2vec2-large', 'facebook--hubert-base-ls960')
    """
    folder = Path(model).expanduser()
    if model and folder.is_dir():
        return _not_empty(folder.resolve().name, "--model", model)
    return _not_empty(model.strip("/").replace("/", "--"), "--model", model)


def dataset_name(dataset: str) -> str:
    """The name under which a corpus' caches lie; a manifest's own, without the ending.

    >>> dataset_name("emodb"), dataset_name("lists/my.corpus.csv"), dataset_name("folder:clips")
    ('emodb', 'my.corpus', 'clips')
    """
    scheme, colon, where = dataset.partition(":")
    if colon and re.fullmatch(r"[a-z]+", scheme):
        return _not_empty(Path(where).expanduser().resolve().name, "--dataset", dataset)
    name = Path(dataset).name
    name = name[:-4] if name.lower().endswith(".csv") else name
    return _not_empty(name, "--dataset", dataset)


def _not_empty(name: str, flag: str, value: str) -> str:
    if not name:
        raise SettingsError(f"{flag} {value!r} has no name to store a cache under; name it.")
    return name


def label_map(pairs: tuple[str, ...]) -> dict[str, str]:
    """`("rage=anger",)` as `{"rage": "anger"}`.

    Raises:
        SettingsError: a pair is not OLD=NEW, or one label is mapped twice.
    """
    merged: dict[str, str] = {}
    for pair in pairs:
        old, equals, new = pair.partition("=")
        if not (old and equals and new):
            raise SettingsError(f"--map got {pair!r}; expected OLD=NEW, such as rage=anger.")
        if merged.setdefault(old, new) != new:
            raise SettingsError(
                f"--map sends {old!r} to both {merged[old]!r} and {new!r}; keep one."
            )
    return merged
