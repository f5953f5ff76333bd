"""One frozen dataclass per command: a field is a flag, and a notebook builds the same object.

This module imports nothing heavy, so that `--help` answers at once.
"""

import re
from dataclasses import KW_ONLY, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from tyro.conf import Positional

from lsmprobe.arguments import Within, check, check_fields
from lsmprobe.errors import SettingsError

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["float32", "bfloat16", "float16"]
InputNorm = Literal["checkpoint", "none", "zscore"]
WhisperContext = Literal["window", "utterance"]
FeatureNorm = Literal["none", "zscore", "layernorm"]  # those of probing/table
STANDARDISING: tuple[FeatureNorm, ...] = ("zscore",)  # with statistics of a training set
StoreDtype = Literal["float32", "bfloat16", "float16", "int8"]  # those of cache/codecs
Seed = Annotated[int, Within(0, 2**32)]
NOTHING = {"", "nan", "NaN", "None", "null", "NULL", "<NA>", "#N/A", "N/A", "n/a"}
"""What programs write into a cell that holds nothing."""
HEAD_NAMES = [  # those of probing/table, which adds to it
    *("linear", "nonlinear", "multilayer"),
    *("multilayer-means", "weighted-mean", "mean-std", "attentive"),
    *("logistic", "svm", "knn", "ridge"),
]


C = TypeVar("C", bound="Config")


class Config:
    """What every command's settings share: they are checked when they are built."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class EmotionFlags(Config):
    """Which utterances count, by their emotions."""

    emotions: tuple[str, ...] = ()
    """Only the utterances of these emotions."""
    map: tuple[str, ...] = ()
    """Merge labels, OLD=NEW, before anything else."""


@dataclass(frozen=True, kw_only=True)
class CorpusConfig(EmotionFlags):
    """How a corpus is read: the flags of every command that reads one."""

    data_dir: Path | None = None
    """The folder of the corpus; otherwise $LSMPROBE_DATA/NAME, then data/NAME."""
    speaker_pattern: str = ""
    """For folder:DIR, a regular expression over the path with a group named speaker."""
    columns: tuple[str, ...] = ()
    """What a manifest or a data set calls its columns: emotion=label,speaker=speaker_id;
    speaker=unknown where nobody knows who speaks. For audformat:DIR, which scheme or column
    holds the emotion."""
    where: tuple[str, ...] = ()
    """Only the rows of a manifest or a data set with this value: COLUMN=VALUE."""
    hf_split: str = ""
    """For hf:ID, only this split."""
    hf_config: str = ""
    """For hf:ID, which of its configurations (subsets)."""
    table: tuple[str, ...] = ()
    """For audformat:DIR, only the emotions of these tables."""
    skip_unlabelled: bool = False
    """Leave out clips without an emotion or a speaker; they are counted and named."""
    skip_unreadable: bool = False
    """Leave out clips that cannot be read; they are counted and named."""

    def __post_init__(self) -> None:
        super().__post_init__()
        label_map(self.map)
        self.reading  # noqa: B018  can be understood

    @property
    def reading(self) -> dict[str, Any]:
        """The arguments of `read_corpus` besides the corpus's name."""
        return {
            "data_dir": self.data_dir,
            "emotions": self.emotions,
            "merge": label_map(self.map),
            "speaker_pattern": self.speaker_pattern,
            "columns": named_columns(self.columns),
            "where": chosen_rows(self.where),
            "hf_split": self.hf_split,
            "hf_config": self.hf_config,
            "tables": self.table,
            "skip_unlabelled": self.skip_unlabelled,
        }

    def corpus_name(self, dataset: str) -> str:
        """The name under which a corpus's caches lie; a selection of a data set has its own.

        >>> CorpusConfig(hf_split="crema_d").corpus_name("hf:amu-cai/CAMEO")
        'CAMEO-crema_d'
        """
        values = [value for allowed in chosen_rows(self.where).values() for value in allowed]
        selected = [self.hf_config, self.hf_split, *values, *self.table]
        safe = [re.sub(r"[^\w.+-]", "_", each) for each in selected if each]
        return "-".join([dataset_name(dataset), *safe])


@dataclass(frozen=True, kw_only=True)
class ClusterFlags(Config):
    """Where a command runs if not in this process: the flags of every command that can."""

    cluster: str = ""
    """local:N, N processes here, one per GPU where there are GPUs; slurm, pbs, lsf or sge; or the
    address or the scheduler file of a Dask cluster. By default this process alone."""
    workers: Annotated[int, Within(1, 10_000)] = 4
    """With slurm, pbs, lsf or sge: the number of jobs; each runs one worker."""
    queue: str = ""
    """With any of the four: the partition or queue; otherwise the Dask configuration's."""
    account: str = ""
    """With any of the four: the account or project that pays."""
    cores: Annotated[int, Within(1, 1024)] | None = None
    """With slurm, pbs or lsf: cores of each job."""
    memory: str = ""
    """With slurm, pbs or lsf: memory of each job, such as 16GB."""
    walltime: str = ""
    """With any of the four: time limit of each job, such as 04:00:00; one that reaches it is
    replaced."""
    gpus: Annotated[int, Within(0, 64)] = 0
    """With slurm, pbs or lsf: GPUs of each job; a worker uses one."""
    cluster_file: Path | None = None
    """With any of the four: a YAML file in the format of Dask's configuration, for all else."""


@dataclass(frozen=True)
class _ModelOnDataset(Config):
    model: str
    """A model of the table (wav2vec2-large, whisper-small, ...), a Hugging Face id, or a folder."""
    dataset: str
    """A corpus (demos, emodb, ...), a manifest (CSV: path, emotion, speaker), folder:DIR,
    audformat:DIR or hf:ID."""


@dataclass(frozen=True)
class _ModelsOnDatasets(Config):
    model: tuple[str, ...]
    """Models of the table (wav2vec2-large, whisper-small, ...), Hugging Face ids, or folders."""
    dataset: tuple[str, ...]
    """Corpora (demos, emodb, ...), manifests (CSV: path, emotion, speaker), folder:DIR,
    audformat:DIR or hf:ID. Every model runs on every one of them."""


@dataclass(frozen=True)
class _Dataset(Config):
    dataset: str
    """As at extraction: a corpus, a manifest, folder:DIR."""


@dataclass(frozen=True, kw_only=True)
class _CorpusOrCache(CorpusConfig):
    cache_dir: Path = Path("cache")
    """Where the caches are, for a corpus whose files are not here: its cache knows its clips."""


@dataclass(frozen=True)
class _SplitOfDataset(Config):
    split: str
    """speaker, random, loso, kfold:K, kfold (the fold column), given, or a JSON file; one of
    several test sets is given/Test1 or FILE/Test1."""
    dataset: str
    """As at extraction: a corpus, a manifest, folder:DIR; or the name of a cache."""


@dataclass(frozen=True, kw_only=True)
class Extraction(CorpusConfig):
    """How hidden states are extracted, whatever the model and the corpus."""

    cache_dir: Path = Path("cache")
    """The cache of a model and a corpus is CACHE_DIR/MODEL/CORPUS.h5."""
    store: Literal["frames", "pooled"] = "frames"
    """Every frame, or only their mean and standard deviation (exact for the Linear head)."""
    store_dtype: StoreDtype = "float16"
    """How frames are stored. A value that float16 cannot hold stops the run, never becomes inf.
    int8 takes half the space, with a scale for each utterance, layer and dimension."""
    layers: str = ""
    """Store only these layers: 0,6,12, or last; by default all."""
    frame_step: Annotated[float, Within(10, 60_000)] | None = None
    """Store means of consecutive frames; each covers at most this many milliseconds."""
    device: Device = "auto"
    """Where the model runs; auto takes a GPU if there is one."""
    precision: Precision = "float32"
    """How the model computes. Half precision rounds, differently from batch to batch; on a CPU
    without instructions for it, it is many times slower."""
    batch_seconds: Annotated[float, Within(0.001, 1e6)] | None = None
    """Seconds of audio, padding counted, that run together; by default 12 (CPU), 240 (GPU)."""
    random_init: Seed | None = None
    """Random weights from this seed instead of the checkpoint's: the control."""
    revision: str | None = None
    """A branch, tag or commit of the Hugging Face repository; otherwise the table's."""
    adapter: str | None = None
    """The language whose attention adapters MMS runs with, such as deu; by default those inside its
    weights."""
    whisper_context: WhisperContext = "window"
    """What Whisper sees: 30 s windows, as it was trained, or the utterance's own length."""
    input_norm: InputNorm = "checkpoint"
    """How the waveform is normalised: as the checkpoint's preprocessor says, not, or always."""
    max_seconds: Annotated[float, Within(0.025, 1e6)] | None = None  # one frame at least
    """Longer utterances are cut here; by default nothing is cut."""
    part: str = ""
    """I/N: only part I (from 0) of N, for N processes or machines that share the work."""
    replace: bool = False
    """Where a cache with other settings is there, build a new one and swap it in once it is
    finished."""
    dry_run: bool = False
    """Say how many clips, hours and gigabytes, and how long it would take; extract nothing."""
    selftest: bool = False
    """Extract a few clips alone and batched and print the largest difference; store nothing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dry_run and self.selftest:
            raise SettingsError("--dry-run and --selftest are two things; ask for one of them.")
        if self.frame_step is not None and self.store == "pooled":
            raise SettingsError(
                "--frame-step does not go with --store pooled, which stores no frames; drop one."
            )
        if self.part_of_n and self.replace:
            raise SettingsError(
                "--replace does not go with --part, since one part cannot replace a cache; use "
                "another --cache-dir."
            )

    @property
    def part_of_n(self) -> tuple[int, int] | None:
        """`--part 3/16` as (3, 16)."""
        if not self.part:
            return None
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", self.part)
        number, count = (int(found[1]), int(found[2])) if found else (0, 0)
        if not number < count:
            raise SettingsError(
                f"--part is {self.part!r}; expected I/N with I from 0 to N - 1, such as 0/16."
            )
        return number, count


@dataclass(frozen=True)
class ExtractConfig(Extraction, _ModelOnDataset):
    """Stage 1: run a frozen speech model over a corpus, store every layer's hidden states."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.cache_path  # noqa: B018  has a name
        self.layers_among(None)

    def layers_among(self, n_layers: int | None) -> tuple[int, ...]:
        """The layers that are stored; empty where `n_layers`, of the model, is not known yet.

        Raises:
            SettingsError: `--layers` is not a list of layers, or names one that the model lacks.
        """
        asked = self.layers.replace(" ", "")
        if asked not in ("", "last") and not re.fullmatch(r"\d{1,4}(,\d{1,4})*", asked):
            raise SettingsError(
                f"--layers is {self.layers!r}; expected numbers with commas, such as 0,6,12, or "
                "last."
            )
        if n_layers is None:
            return ()
        if asked in ("", "last"):
            return tuple(range(n_layers))[-1 if asked else 0 :]
        layers = sorted({int(each) for each in asked.split(",")})
        if layers[-1] >= n_layers:
            raise SettingsError(
                f"--layers {self.layers}: {self.model} has layers 0 to {n_layers - 1}."
            )
        return tuple(layers)

    @property
    def cache_path(self) -> Path:
        """Where this extraction is stored; its parts lie beside it."""
        model = model_name(self.model)
        if self.revision is not None:
            model = "@".join((model, self.revision.replace("/", "--")))
        if self.adapter is not None:
            model = f"{model}+{self.adapter}"
        if self.random_init is not None:
            model = f"{model}-random{self.random_init}"
        return self.cache_dir / model / f"{self.corpus_name(self.dataset)}.h5"


@dataclass(frozen=True)
class ExtractGridConfig(ClusterFlags, Extraction, _ModelsOnDatasets):
    """Stage 1: run frozen speech models over corpora, store every layer's hidden states."""

    _: KW_ONLY
    parts: Annotated[int, Within(1, 999_999)] | None = None
    """With --cluster, into how many parts a new cache is cut; by default 4 for each worker."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for flag, names in (("--model", self.model), ("--dataset", self.dataset)):
            if not names:
                raise SettingsError(f"{flag} names nothing; expected one name or more.")
        if self.cluster and (self.dry_run or self.selftest):
            raise SettingsError("--dry-run and --selftest run here; drop --cluster.")
        if self.data_dir and len(self.dataset) > 1:
            raise SettingsError(
                "--data-dir is the folder of one corpus, and --dataset names "
                f"{len(self.dataset)}; put them into one folder each and set $LSMPROBE_DATA."
            )
        found: dict[Path, ExtractConfig] = {}
        for cell in self.cells:
            if (other := found.setdefault(cell.cache_path, cell)) is not cell:
                raise SettingsError(
                    f"{cell.model} on {cell.dataset} and {other.model} on {other.dataset} would "
                    f"both be stored as {cell.cache_path}; extract them into two --cache-dir."
                )

    @property
    def cells(self) -> list[ExtractConfig]:
        """Every model on every corpus: those of one corpus follow each other."""
        shared = {field.name: getattr(self, field.name) for field in fields(Extraction)}
        pairs = [(model, dataset) for dataset in self.dataset for model in self.model]
        return [ExtractConfig(model, dataset, **shared) for model, dataset in pairs]


@dataclass(frozen=True)
class SlurmScriptConfig(Extraction, _ModelOnDataset):
    """Print the job file of a Slurm array that runs lsmprobe extract in parts, for sbatch."""

    _: KW_ONLY
    parts: Annotated[int, Within(1, 999_999)]
    """Into how many parts the cache is cut: tasks of the array."""
    queue: str = ""
    """The partition."""
    account: str = ""
    """The account or project that pays."""
    cores: Annotated[int, Within(1, 1024)] | None = None
    """Cores of each task."""
    memory: str = ""
    """Memory of each task, such as 16G."""
    walltime: str = ""
    """Time limit of each task, such as 04:00:00; at its end the task is queued again."""
    gpus: Annotated[int, Within(0, 64)] = 0
    """GPUs of each task; one is used."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.part or self.replace or self.dry_run or self.selftest:
            raise SettingsError(
                "slurm-script writes a job for every part; drop --part, --replace, --dry-run and "
                "--selftest."
            )
        self.cell  # noqa: B018  makes sense

    @property
    def cell(self) -> ExtractConfig:
        """What all parts together extract."""
        shared = {field.name: getattr(self, field.name) for field in fields(Extraction)}
        return ExtractConfig(self.model, self.dataset, **shared)


@dataclass(frozen=True, kw_only=True)
class TargetFlags(EmotionFlags):
    """What is learned of whom: the flags of every command that trains."""

    target: str = "emotion"
    """What is learned: a column of the table of utterances, also one that --labels adds; several
    columns with commas, such as arousal,valence."""
    target_kind: Literal["auto", "classes", "numbers", "shares", "votes"] = "auto"
    """How the target is read; auto: numbers are numbers (regression), words are classes. Soft
    labels: shares, a column of shares or counts for each class; votes, a column of words for each
    rater, or one with anger;anger;fear."""
    regression_loss: Literal["ccc", "mse"] = "ccc"
    """The loss for numbers: 1 minus the concordance correlation, or the mean squared error."""
    labels: Path | None = None
    """A CSV table with the column key, whose other columns count instead of the cache's labels
    (emotion, speaker, ...): one row for each utterance. Or a folder with such a table for each
    corpus, CORPUS.csv."""


@dataclass(frozen=True)
class ProbeConfig(TargetFlags):
    """Stage 2: train the heads on cached hidden states and score them on held-out speakers."""

    model: tuple[str, ...] = ()
    """The models, as named at extraction; none or `all`: every one in the cache folder."""
    dataset: tuple[str, ...] = ()
    """The corpora, as named at extraction; none or `all`: every one in the cache folder."""
    head: str = "all"
    """linear, nonlinear, multilayer, or all of these. Linear and Non-Linear read one layer,
    Multi-Layer a learned weighting of all of them. Further ones: multilayer-means and weighted-mean
    (every layer, over means), mean-std and attentive (frames), and without epochs logistic, svm,
    knn, ridge (means of one layer; logistic is the quickest first result)."""
    layer: int | Literal["all"] | None = None
    """The layer that Linear and Non-Linear read, or all in one sweep; by default the last."""
    runs: Annotated[int, Within(1, 1000)] = 3
    """Runs with seeds SEED, SEED+1, ...: initialisation, dropout and order of batches."""
    seed: Seed = 0
    """The first seed."""
    split: str = "auto"
    """speaker, random, loso, kfold:K, kfold (the manifest's folds), given (its own split), or a
    JSON file. auto: given or kfold where the manifest brings one, else speaker."""
    split_seed: Seed = 0
    """0 is the best split found; others are other good ones."""
    resplit: bool = False
    """A new split for every run."""
    feature_norm: FeatureNorm = "none"
    """What is done to features before the head: nothing (as the paper), standardised per layer and
    dimension with the training set's statistics, or layer-normalised per vector."""
    cache_dir: Path = Path("cache")
    """Where `lsmprobe extract` wrote."""
    results_dir: Path = Path("results")
    """One record per run is written here."""
    device: Device = "auto"
    """Where the heads are trained; auto takes a GPU if there is one."""
    epochs: Annotated[int, Within(1, 100_000)] = 30
    """Passes over the training set."""
    batch_size: Annotated[int, Within(1, 1_000_000)] = 32
    """Utterances per step."""
    lr: Annotated[float, Within(1e-12, 100)] = 5e-4
    """Adam's learning rate."""
    weight_decay: Annotated[float, Within(0, 100)] = 1e-4
    """Adam's (coupled) weight decay."""
    scheduler: Literal["plateau", "cosine", "none"] = "plateau"
    """How the learning rate falls. plateau: it is halved after 6 epochs in a row without a better
    validation loss, but not below 5e-5."""
    class_weights: Literal["balanced", "none"] = "balanced"
    """Weigh the loss inversely to the training counts of the classes, or not."""
    epoch_choice: Literal["best", "uar", "jsd", "loss", "last"] = "best"
    """The epoch that is scored on the test set: best validation score (macro-F1, of numbers CCC),
    best validation UAR, of soft labels lowest JSD, lowest validation loss, or the last."""
    validation_loss: Literal["utterances", "batches"] = "utterances"
    """What the validation loss, which the plateau scheduler watches, is a mean of: of utterances
    (weighted by class), or of the losses of batches, as in the paper's reference for training."""
    hidden: Annotated[int, Within(1, 65_536)] = 256
    """Width of the heads."""
    dropout: Annotated[float, Within(0, 0.99)] = 0.1
    """Dropout of the Non-Linear and Multi-Layer heads."""
    include_layer_0: bool = False
    """Let Multi-Layer weigh layer 0 too."""
    scalar_lr: Annotated[float, Within(0, 100)] | None = None
    """Another learning rate for Multi-Layer's layer weights."""
    scalar_weight_decay: Annotated[float, Within(0, 100)] | None = None
    """Another weight decay for Multi-Layer's layer weights."""
    force: bool = False
    """Repeat runs whose record is there already."""

    def __post_init__(self) -> None:
        super().__post_init__()
        names = Literal[("all", *HEAD_NAMES)]  # type: ignore[valid-type]
        object.__setattr__(self, "head", check("--head", self.head, names))
        label_map(self.map)


@dataclass(frozen=True)
class BaselineConfig(TargetFlags, CorpusConfig, _Dataset):
    """The paper's baseline: an Audio Spectrogram Transformer, trained from scratch on a corpus."""

    size: Literal["ast", "ast-tiny"] = "ast"
    """ast is the paper's (86 million weights, for a GPU); ast-tiny a far smaller one that a CPU can
    train in minutes."""
    cache_dir: Path = Path("cache")
    """The filterbanks are computed once and kept in CACHE_DIR/fbank."""
    results_dir: Path = Path("results")
    """One record per run is written here."""
    runs: Annotated[int, Within(1, 1000)] = 3
    """Runs with seeds SEED, SEED+1, ...: initialisation, order of batches, masks."""
    seed: Seed = 0
    """The first seed."""
    split: str = "auto"
    """As for probe: speaker, random, loso, kfold:K, kfold, given, or a JSON file."""
    split_seed: Seed = 0
    """0 is the best split found; others are other good ones."""
    device: Device = "auto"
    """Where it is trained; auto takes a GPU if there is one."""
    epochs: Annotated[int, Within(1, 100_000)] = 25
    """Passes over the training set."""
    batch_size: Annotated[int, Within(1, 1_000_000)] = 48
    """Utterances per step."""
    lr: Annotated[float, Within(1e-12, 100)] = 1e-4
    """Adam's learning rate; from the sixth epoch on it falls by 15% each epoch."""
    weight_decay: Annotated[float, Within(0, 100)] = 5e-7
    """Adam's (coupled) weight decay."""
    frequency_mask: Annotated[int, Within(0, 128)] = 24
    """While training, a band of less than this many of the 128 bins is blanked out; 0: none."""
    time_mask: Annotated[int, Within(0, 512)] = 96
    """The same for the 512 frames."""
    force: bool = False
    """Repeat runs whose record is there already."""


@dataclass(frozen=True)
class SensitivityConfig(ProbeConfig):
    """Flip one open choice at a time: how far do the scores move, which conclusions change?"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layer == "all":
            raise SettingsError(
                "--layer all does not go with sensitivity, which compares heads on one layer, and "
                "Linear on all of them anyway; drop it."
            )
        if self.resplit:
            raise SettingsError(
                "--resplit does not go with sensitivity, which compares runs on one test set; drop "
                "it."
            )


@dataclass(frozen=True)
class TransferConfig(ProbeConfig):
    """Train on one corpus, test on another over the classes they share, for every pair of them."""

    target_norm: bool = False
    """With --feature-norm zscore, standardise each corpus with its own statistics, the target with
    those of its clips (it reads no label); otherwise all with the source's training set's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.split.partition("/")[0] not in ("auto", "speaker", "given"):
            raise SettingsError(
                f"--split {self.split} does not go with transfer, which splits every source once; "
                "expected auto, speaker or given."
            )
        if self.labels and not self.labels.is_dir():
            raise SettingsError(
                f"--labels {self.labels} is not a folder, and transfer reads the labels of several "
                "corpora; expected a folder with a table for each, CORPUS.csv."
            )
        if self.resplit:
            raise SettingsError(
                "--resplit does not go with transfer, which compares runs on one test set; drop it."
            )
        if self.target_norm and self.feature_norm not in STANDARDISING:
            raise SettingsError(
                f"--target-norm standardises, and --feature-norm is {self.feature_norm}; expected "
                f"{' or '.join(STANDARDISING)}."
            )


@dataclass(frozen=True)
class ProbeCommand(ClusterFlags, ProbeConfig):
    """Stage 2: train the heads on cached hidden states and score them on held-out speakers."""


@dataclass(frozen=True)
class SensitivityCommand(ClusterFlags, SensitivityConfig):
    """Flip one open choice at a time: how far do the scores move, which conclusions change?"""


@dataclass(frozen=True)
class TransferCommand(ClusterFlags, TransferConfig):
    """Train on one corpus, test on another over the classes they share, for every pair of them."""


@dataclass(frozen=True)
class BaselineCommand(ClusterFlags, BaselineConfig):
    """The paper's baseline: an Audio Spectrogram Transformer, trained from scratch on a corpus."""


def as_kind(config: Config, kind: type[C]) -> C:
    """The fields of one config that another has, as that other one."""
    return kind(**{field.name: getattr(config, field.name) for field in fields(kind)})  # type: ignore[arg-type]


@dataclass(frozen=True)
class ScoresConfig(Config):
    """What records hold: confusion matrix, scores by class and by group, the worst errors."""

    runs: Positional[tuple[str, ...]]
    """Records; or a part of their names (emodb/linear-layer12), or the numbers of runs or
    experiments that lsmprobe results ls shows; all runs of an experiment are shown together."""
    results_dir: Path = Path("results")
    """Where lsmprobe probe wrote its records."""
    cache_dir: Path = Path("cache")
    """Where the caches are, which hold gender, sentence, duration and the paths of clips."""
    by: tuple[str, ...] = ()
    """Further columns of the table of utterances to group by."""
    out: Path | None = None
    """Tables (Markdown, CSV) and the figure are written in here, a folder for each experiment;
    otherwise RESULTS_DIR/scores."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.runs:
            raise SettingsError(
                "scores got no run; name one or more (lsmprobe results ls lists what is there)."
            )


@dataclass(frozen=True)
class ListResultsConfig(Config):
    """List the experiments of a folder of results, a line each."""

    results_dir: Path = Path("results")
    """Where lsmprobe probe wrote its records."""
    cache_dir: Path = Path("cache")
    """Where the caches are, which say whether a run learned the labels that are there now."""


@dataclass(frozen=True)
class FindResultsConfig(Config):
    """Print the paths of the records that a short name means."""

    name: str
    """A part of their names (emodb/linear-layer12), or the number of a run or an experiment."""
    results_dir: Path = Path("results")
    """Where lsmprobe probe wrote its records."""


@dataclass(frozen=True)
class PredictConfig(Config):
    """Label new audio with the head of a finished run and its encoder."""

    run: Path
    """The run's record, RESULTS_DIR/MODEL/CORPUS/....json, whose head lies beside it; or a part of
    its name that no other has, such as its last digits."""
    files: Positional[tuple[Path, ...]]
    """Audio files."""
    results_dir: Path = Path("results")
    """Where to look for a run that is named by a part of its name."""
    model: str | None = None
    """The folder of the encoder, if the run's was a folder. Other weights are refused."""
    device: Device = "auto"
    """Where the encoder runs; auto takes a GPU if there is one."""
    json: bool = False
    """Print JSON: a list with clip, predicted, and probabilities by emotion."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.files:
            raise SettingsError("predict got no audio file; name one or more.")


@dataclass(frozen=True)
class ReportConfig(Config):
    """What the records answer: which layer, head and model, how sure, and better than what."""

    results_dir: Path = Path("results")
    """Where `lsmprobe probe` wrote its records."""
    out: Path | None = None
    """The tables and figures are written in here; otherwise RESULTS_DIR/report."""
    model: tuple[str, ...] = ()
    """Only these models, as the records name them."""
    dataset: tuple[str, ...] = ()
    """Only these corpora."""
    target: tuple[str, ...] = ()
    """Only runs that learned these targets: emotion, gender, valence, ..."""
    split: tuple[str, ...] = ()
    """Only runs with these splits: speaker, loso, ...; given/Test1 is one test set of several."""
    feature_norm: tuple[str, ...] = ()
    """Only runs with these feature normalisations: none, zscore, layernorm."""
    protocol: Literal["any", "paper"] = "any"
    """paper: only runs of the paper's protocol, with its Tables 1 to 3 and Figure 2."""
    full: bool = False
    """The paper's tables for every set of settings that was run, however long that is."""
    html: bool = False
    """Write the page instead: one file, OUT/report.html, that opens offline by double click."""
    cache_dir: Path = Path("cache")
    """Where the caches are, which say which runs learned the labels that are there now; for the
    page also for pictures of their layers, groups and clips."""
    embed_audio: Annotated[int, Within(0, 200)] = 0
    """For the page: embed up to this many clips, 5 MB at most. Mind the corpus's licence."""


@dataclass(frozen=True)
class DemoConfig(Config):
    """Both stages on the embedded corpus and the embedded model, whose weights are random."""

    folder: Path = Path("demo")
    """data/, cache/ and results/ are written in here, apart from real results."""


@dataclass(frozen=True)
class ListCorporaConfig(Config):
    """List the corpora: language, licence, how to obtain each, expected counts."""

    by: Literal["language", "licence"] = "language"
    """What to sort them by."""
    filter: str = ""
    """Only corpora with this word in their name, language, licence or emotions."""


@dataclass(frozen=True)
class _NamedCorpus(Config):
    name: str
    """A corpus of the table, a manifest (CSV), folder:DIR, audformat:DIR or hf:ID."""


@dataclass(frozen=True)
class CheckCorpusConfig(CorpusConfig, _NamedCorpus):
    """Check a copy of a corpus, or one of your own; exit status 0 only if nothing is wrong."""

    json: Path | None = None
    """Write the findings here too."""


@dataclass(frozen=True)
class GetCorpusConfig(Config):
    """Download and unpack a corpus, or say where and how to ask for it."""

    name: str
    """A corpus of the table."""
    data_dir: Path | None = None
    """Where to put it; otherwise $LSMPROBE_DATA/NAME, else data/NAME."""


@dataclass(frozen=True)
class Table1Config(Config):
    """Print the paper's Table 1 from the copies that are there, and the paper's own rows."""


@dataclass(frozen=True)
class SplitConfig(_CorpusOrCache, _SplitOfDataset):
    """A split of a corpus."""

    split_seed: Seed = 0
    """0 is the best split found; others are other good ones."""


@dataclass(frozen=True)
class AuditConfig(SplitConfig):
    """Say what the parts of a split share; exit status 0 only if no speaker or audio is shared."""


@dataclass(frozen=True)
class MakeSplitConfig(SplitConfig):
    """Make a split, say how it came out, and save it for `lsmprobe probe --split FILE`."""

    out: Path = Path("split.json")
    """Where it is written."""


@dataclass(frozen=True)
class _SplitSource(Config):
    source: str
    """Whose split:
    emobox, the folds of EmoBox, from a clone of github.com/emo-box/EmoBox;
    sessions, leave one session out (IEMOCAP, MSP-IMPROV), one training speaker as validation;
    session-speakers, the same with the second speaker of that session as validation;
    partitions, the corpus's own (MSP-Podcast, MELD, M3ED, Emozionalmente)."""
    folder: Path
    """For emobox the clone, or its folder of the corpus; for the others the corpus folder."""
    dataset: str
    """As at extraction: a corpus, a manifest, folder:DIR."""


@dataclass(frozen=True)
class ImportSplitConfig(_CorpusOrCache, _SplitSource):
    """Take over a published split for `lsmprobe probe --split FILE`, and say what it shares.

    Its clips are found in the corpus by the ends of their paths. What only one of the two has is
    counted and named; clips of the corpus that it does not list are left out of the split.
    """

    _: KW_ONLY
    fold: Annotated[int, Within(1, 1000)] | None = None
    """Only this fold, counted from 1; by default all, each tested once."""
    out: Path = Path("split.json")
    """Where it is written."""


@dataclass(frozen=True)
class ListCachesConfig(Config):
    """List the caches of a folder: what they hold, how much of it is there, how large they are."""

    cache_dir: Path = Path("cache")
    """Where `lsmprobe extract` wrote."""
    missing: bool = False
    """Only what is missing or unfinished, part by part, and the array expression of these parts."""


@dataclass(frozen=True)
class CacheInfoConfig(Config):
    """Everything a cache says about itself."""

    path: Path
    """CACHE_DIR/MODEL/CORPUS.h5."""


@dataclass(frozen=True)
class VerifyCacheConfig(Config):
    """Read caches and compare every checksum; exit status 0 only if nothing is damaged."""

    paths: tuple[Path, ...]
    """CACHE_DIR/MODEL/CORPUS.h5, one or several; none or `all`: every one in the cache folder."""
    cache_dir: Path = Path("cache")
    """Where `lsmprobe extract` wrote."""
    repair: bool = False
    """Mark damaged utterances as not done; lsmprobe extract then makes only those again."""


@dataclass(frozen=True)
class MergeCacheConfig(Config):
    """Make one file of a cache in parts, its checksums compared on the way."""

    path: Path
    """CACHE_DIR/MODEL/CORPUS.h5, as if it were there."""
    remove_parts: bool = False
    """Remove the parts once the merged file is complete and durable."""


@dataclass(frozen=True)
class PruneCachesConfig(Config):
    """Say what interrupted runs and merges have left over, and remove it with --yes."""

    paths: tuple[Path, ...]
    """CACHE_DIR/MODEL/CORPUS.h5: what is left over of these caches, and if one is unfinished, the
    cache itself; none or `all`: what is left over in the cache folder. What cannot be read as a
    cache, and clips that are nowhere else, stay."""
    cache_dir: Path = Path("cache")
    """Where `lsmprobe extract` wrote."""
    yes: bool = False
    """Remove it; otherwise it is only listed."""


@dataclass(frozen=True)
class ExportCacheConfig(Config):
    """Write the pooled means, or one layer, as OUT.npy, and its utterances as OUT.csv."""

    path: Path
    """CACHE_DIR/MODEL/CORPUS.h5."""
    out: Path
    """Where to write: OUT.npy and OUT.csv."""
    layer: int | None = None
    """Only this layer; otherwise the means of all."""
    frames: bool = False
    """Every frame of the layer, not the means; the CSV says where each utterance begins."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frames and self.layer is None:
            raise SettingsError("--frames needs --layer L: frames are exported layer by layer.")
        if self.out.name in ("", ".."):
            raise SettingsError(f"{str(self.out)!r} is a folder; expected a name without .npy.")


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
        SettingsError: a pair is not OLD=NEW, one label is mapped twice, or a label is merged into
            one that becomes another itself: all pairs apply at once.
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
    for old, new in merged.items():
        if merged.get(new, new) != new:
            raise SettingsError(
                f"--map sends {old!r} to {new!r} and {new!r} to {merged[new]!r}; expected each "
                f"label on one side, since all pairs apply at once. Say what {old!r} is to become "
                f"in the end, such as {old}={merged[new]}, or exchange names with --labels."
            )
    return merged


def merges_told(pairs: tuple[str, ...]) -> str:
    """What becomes of each label that is merged, to follow a count; empty if none is.

    >>> merges_told(("rage=anger", "joy=happiness"))
    ', with rage as anger and joy as happiness'
    """
    told = [f"{old} as {new}" for old, new in label_map(pairs).items()]
    return f", with {' and '.join(told)}" if told else ""


def named_columns(pairs: tuple[str, ...]) -> dict[str, str]:
    """What lsmprobe calls a column -> what the corpus calls it.

    >>> named_columns(("emotion=label,speaker=speaker_id",))
    {'emotion': 'label', 'speaker': 'speaker_id'}

    Raises:
        SettingsError: a pair is not NAME=THEIRS, or one column is named twice.
    """
    named: dict[str, str] = {}
    for pair in ",".join(pairs).split(",") if pairs else ():
        ours, equals, theirs = pair.strip().partition("=")
        if not (ours and equals and theirs):
            raise SettingsError(
                f"--columns got {pair!r}; expected OURS=THEIRS, such as emotion=label."
            )
        if named.setdefault(ours, theirs) != theirs:
            raise SettingsError(f"--columns names {ours!r} twice; keep one.")
    return named


def chosen_rows(pairs: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Column -> the values that it may have; every column must have one of its values.

    >>> chosen_rows(("dataset=crema_d", "dataset=emodb", "language=English"))
    {'dataset': ('crema_d', 'emodb'), 'language': ('English',)}

    Raises:
        SettingsError: a pair is not COLUMN=VALUE.
    """
    chosen: dict[str, tuple[str, ...]] = {}
    for pair in pairs:
        column, equals, value = pair.partition("=")
        if not (column and equals):
            raise SettingsError(
                f"--where got {pair!r}; expected COLUMN=VALUE, such as dataset=crema_d."
            )
        chosen[column] = (*chosen.get(column, ()), value)
    return chosen
