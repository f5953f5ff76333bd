"""The clips and the model of a run of stage 1, and so what its cache looks like."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

from lsmprobe.cache.codecs import codec_of
from lsmprobe.cache.plan import CachePlan
from lsmprobe.cache.selection import Selection
from lsmprobe.config import ExtractConfig
from lsmprobe.corpora.audio import (
    PART_TOLERANCE_S,
    SAMPLE_RATE,
    decoders,
    ends_beyond,
    n_samples,
    read_header,
)
from lsmprobe.corpora.read import corpus_folder, read_corpus
from lsmprobe.corpora.toy import write_toy_corpus
from lsmprobe.errors import AudioError, CorpusError, SettingsError, counted
from lsmprobe.extraction.ahead import DECODERS
from lsmprobe.extraction.encoder import Encoder
from lsmprobe.extraction.load import load_encoder
from lsmprobe.machine import choose_device
from lsmprobe.progress import Progress, silent
from lsmprobe.version import __version__

DECODED_BY = "decoded_by"  # of a table of utterances: programs besides the libraries -> versions
log = logging.getLogger(__name__)


def planned_utterances(config: ExtractConfig) -> pd.DataFrame:
    """The corpus' utterances, with the samples (at 16 kHz) and seconds that their headers promise.

    Every file of audio is opened. The table's `attrs` keep which programs decode them.

    Raises:
        CorpusError: the corpus cannot be read, or some clips cannot and that is not allowed.
    """
    if config.dataset == "toy":
        write_toy_corpus(corpus_folder("toy", config.data_dir))
    table = read_corpus(config.dataset, **config.reading)
    cut: list[str] = []

    def promised(row: Any) -> int | AudioError:
        try:
            header = read_header(row.path)
            samples = n_samples(header, row.start_s, row.end_s, config.max_seconds)
            if ends_beyond(header, row.end_s):
                cut.append(row.key)
            return samples
        except AudioError as error:
            return error

    with ThreadPoolExecutor(DECODERS) as pool:
        found = list(pool.map(promised, table.itertuples()))
    unreadable = [what for what in found if isinstance(what, AudioError)]
    if unreadable and not config.skip_unreadable:
        count = f"{counted(len(unreadable), 'clip', of=len(table))} cannot be read; the first: "
        raise CorpusError(f"{count}{unreadable[0]} --skip-unreadable leaves them out.")
    if len(unreadable) == len(table):
        raise CorpusError(
            f"none of {counted(len(table), 'clip')} can be read; the first: {unreadable[0]}"
        )
    for error in unreadable:
        log.warning("skipping: %s", error)
    if cut:
        cut.sort()
        said = "%s up to %g s beyond the file's end and cut there; the first: %s"
        log.warning(
            said, counted(len(cut), "part", "is"), PART_TOLERANCE_S, ", ".join(map(repr, cut[:3]))
        )
    samples = np.array([0 if isinstance(what, AudioError) else what for what in found])
    hours = samples.sum() / SAMPLE_RATE / 3600
    log.info("%s: %s, %.3g h", config.dataset, counted(len(table), "clip"), hours)
    table.attrs[DECODED_BY] = decoders(table.path[samples > 0])
    return _with_samples(table, samples)


def chosen_encoder(config: ExtractConfig, progress: Progress = silent) -> Encoder:
    """The encoder that the settings name, downloaded if it must be, and ready to run."""
    return load_encoder(
        config.model,
        device=choose_device(config.device),
        precision=config.precision,
        random_init=config.random_init,
        revision=config.revision,
        input_norm=config.input_norm,
        whisper_context=config.whisper_context,
        adapter=config.adapter,
        progress=progress,
    )


def chosen_selection(config: ExtractConfig, encoder: Encoder) -> Selection:
    """Which of the model's states are stored.

    Raises:
        SettingsError: a layer that the model does not have, or a step that is less than a frame.
    """
    n_layers = encoder.n_layers + 1
    layers: Sequence[int] = config.layers_among(n_layers)
    layers = range(n_layers) if len(layers) == n_layers else layers
    if config.frame_step is None:
        return Selection(layers, n_layers)
    if encoder.frame_ms is None:
        raise SettingsError(
            f"--frame-step: {config.model} has one frame for all of an utterance; leave it out."
        )
    if config.frame_step < encoder.frame_ms:
        raise SettingsError(
            f"--frame-step {config.frame_step:g}: {config.model} has a frame every "
            f"{encoder.frame_ms:g} ms; expected as many or more."
        )
    return Selection(layers, n_layers, config.frame_step / encoder.frame_ms)


def planned_cache(
    config: ExtractConfig,
    utterances: pd.DataFrame | None = None,
    progress: Progress = silent,
) -> tuple[Encoder, CachePlan]:
    """The model, and everything that decides what the cache looks like.

    Args:
        config: what is extracted.
        utterances: as `planned_utterances` found them, where they were read before.
        progress: a bar over the bytes of a download.
    """
    if utterances is None:
        utterances = planned_utterances(config)
    encoder = chosen_encoder(config, progress)
    return encoder, plan_of(config, encoder, _long_enough(config, utterances, encoder))


def plan_of(config: ExtractConfig, encoder: Encoder, utterances: pd.DataFrame) -> CachePlan:
    """What the cache of some utterances, with their samples and seconds, looks like."""
    selection = chosen_selection(config, encoder)
    frames = [selection.n_frames(encoder.n_frames(n)) if n else 0 for n in utterances.samples]
    return CachePlan(
        utterances=utterances.assign(frames=frames),
        n_layers=len(selection.layers),
        dim=encoder.dim,
        store=config.store,
        dtype=config.store_dtype,
        identity={
            **{name: value for name, value in encoder.identity.items() if name != "versions"},
            "corpus": config.corpus_name(config.dataset),
            "audio": "mean of the channels, 16 kHz, soxr_hq",
            "max_seconds": config.max_seconds,
            "labels": "in the table beside the cache",
            **selection.identity(encoder.frame_ms or 0.0),
            **({"store_dtype": config.store_dtype} if codec_of(config.store_dtype).levels else {}),
            "versions": {
                **encoder.identity["versions"],
                "lsmprobe": __version__,
                "librosa": version("librosa"),
                "soxr": version("soxr"),
                **utterances.attrs.get(DECODED_BY, {}),
            },
        },
    )


def _long_enough(config: ExtractConfig, table: pd.DataFrame, encoder: Encoder) -> pd.DataFrame:
    """Clips that are too short for one frame of this model count as unreadable."""
    short = (table.samples > 0) & (table.samples < encoder.min_samples)
    if short.any():
        found = (
            f"{counted(short.sum(), 'clip', 'is', of=len(table))} shorter than one frame of "
            f"{config.model}, {encoder.min_samples} samples at 16 kHz; the first: "
            f"{table.key[short].iloc[0]!r}"
        )
        if not config.skip_unreadable:
            raise CorpusError(f"{found}. --skip-unreadable leaves them out.")
        log.warning("skipping: %s", found)
    return _unreadable(table, short)


def _unreadable(table: pd.DataFrame, rows: pd.Series) -> pd.DataFrame:
    """The table with some clips counted as unreadable: they have no samples."""
    return _with_samples(table, table.samples.mask(rows, 0).to_numpy())


def _with_samples(table: pd.DataFrame, samples: np.ndarray) -> pd.DataFrame:
    """The table with the length of every clip; none: it cannot be read."""
    return table.assign(samples=samples, seconds=samples / SAMPLE_RATE)
