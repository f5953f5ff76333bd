"""What a layer may know: the emotion, voice, words, length, loudness, pitch, or any column.

A target is a value per utterance: any column of the table of utterances, as `lsmprobe probe
--target` learns it. Energy and pitch are measured once on the audio and kept.
"""

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pandas as pd
from jaxtyping import Float, Num, Shaped

from lsmprobe.atomic import write_then_rename
from lsmprobe.corpora.audio import SAMPLE_RATE, read_audio
from lsmprobe.errors import AudioError, ResultsError, SettingsError, nearest, one_line
from lsmprobe.probing.objectives import CLASSIFICATION
from lsmprobe.probing.targets import hash_of_labels, learned, target_columns, told_of
from lsmprobe.progress import Progress, silent
from lsmprobe.results.records import run_id

NUMBERS = {"duration": "s", "energy": "dB", "pitch": "semitones"}  # and their units
TARGETS = ("emotion", "speaker", "gender", "sentence", *NUMBERS)  # that need no column of one's own
PITCH_HZ = 60.0, 600.0  # from low male voices to shouting ones
REFERENCE_HZ = 100.0  # 0 semitones
OWN_LABELS = "as in the corpus"
HOP = 320  # samples: 20 ms
Known = Num[np.ndarray, "known *columns"]
log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Target:
    """A value for every utterance where it is known, or several numbers."""

    columns: tuple[str, ...]
    rows: Shaped[np.ndarray, " known"]  # positions in the table of utterances
    truth: Known
    """Classes as 0 to k - 1, or numbers in their unit; several columns of numbers are an axis."""
    classes: tuple[str, ...]  # none for numbers
    labels_hash: str  # as records have it

    @property
    def name(self) -> str:
        """As it is asked for, and as tables show it."""
        return ",".join(self.columns)

    @property
    def is_number(self) -> bool:
        """Whether it is measured, not named."""
        return not self.classes

    @property
    def n_outputs(self) -> int:
        """Of classes or columns."""
        return len(self.classes or self.columns)


def labels_of(settings: Mapping[str, Any], file: str | Path | None = None) -> str:
    """Which labels a run learned, as text: how they were merged and chosen, and from which file.

    >>> labels_of({"map": ["anger=high"], "emotions": []}), labels_of({}, "labels/heard.csv")
    ('map: anger=high', 'labels: heard.csv')
    """
    chosen = {name: ", ".join(settings.get(name) or ()) for name in ("map", "emotions")}
    if file:
        chosen["labels"] = Path(file).name
    told = "; ".join(f"{name}: {value}" for name, value in chosen.items() if value)
    return told or OWN_LABELS


def find_target(
    name: str,
    utterances: pd.DataFrame,
    acoustics_csv: Path,
    progress: Progress = silent,
    *,
    corpus: str = "the corpus",
    kind: str = "auto",
) -> Target:
    """One target for the utterances of a cache.

    Args:
        name: a column of the table, or several of numbers with commas; or one of `NUMBERS`, where
            the table has no such column.
        utterances: the table of the cache.
        acoustics_csv: where energy and pitch are kept; see `measure_acoustics`.
        progress: how measuring them is shown.
        corpus: for messages.
        kind: classes, numbers, or auto: numbers are numbers, words are classes.

    Raises:
        SettingsError: as `learned`.
        AudioError: energy or pitch is asked for, was not measured yet, and the audio is missing or
            another.
    """
    try:
        columns = target_columns(name)
        table = utterances.copy()
        for column in columns:
            if column in NUMBERS and column in table:
                log.warning("%s is the column of %s, not measured on the audio", column, corpus)
            elif column in NUMBERS:
                table[column] = _numbers(column, utterances, acoustics_csv, progress)
            elif column not in table:
                known = [*(each for each in table.columns if each != "key"), *NUMBERS]
                raise SettingsError(
                    f"--target: {corpus} has no column {column!r}; {nearest(column, known)} Add "
                    "columns with --labels FILE.csv."
                )
        found = learned(table, columns, corpus=corpus, kind=kind)
    except SettingsError as error:
        raise SettingsError(of_arguments(str(error))) from error
    measured = is_measured(columns, utterances)
    labels = hash_of_measured(utterances) if measured else run_id(told_of(found, columns))
    rows, own = found.table.index.to_numpy(), found.table[list(columns)]
    if found.objective is CLASSIFICATION:
        return Target(columns, rows, found.objective.targets(own, found.names), found.names, labels)
    truth = own.to_numpy(np.float64)
    return Target(columns, rows, truth if len(columns) > 1 else truth[:, 0], (), labels)


def is_measured(columns: Iterable[str], utterances: pd.DataFrame) -> bool:
    """Whether a target is measured on the audio, so that it is no label."""
    return any(name in NUMBERS and name not in utterances for name in columns)


def hash_of_measured(utterances: pd.DataFrame) -> str:
    """The labels that decide a curve whose target is measured: they decide its split."""
    return run_id({"labels": hash_of_labels(utterances)})


def of_arguments(message: str) -> str:
    """A message of a command's flags, for who calls a function: its arguments.

    >>> of_arguments("--target: no column; --labels FILE.csv, or --target-kind classes.")
    'target: no column; labels="FILE.csv", or target_kind="classes".'
    """
    other = "merge it with another one by --labels FILE.csv"
    message = message.replace("leave it out with --emotions or merge it with --map", other)
    message = re.sub(r"--target-kind (\w+)", r'target_kind="\1"', message)
    message = re.sub(r"--labels( FILE\.csv)?", 'labels="FILE.csv"', message)
    return message.replace("--target", "target")


def _numbers(
    name: str, utterances: pd.DataFrame, acoustics_csv: Path, progress: Progress
) -> Float[np.ndarray, " utterances"]:
    if name == "duration":
        return utterances["seconds"].to_numpy(np.float64)
    measured = measure_acoustics(utterances, acoustics_csv, progress)
    if name == "energy":
        energy = measured["energy_db"].to_numpy(np.float64)
        return np.where(np.isfinite(energy), energy, np.nan)  # silence has none
    return 12 * np.log2(measured["pitch_hz"].to_numpy(np.float64) / REFERENCE_HZ)


def measure_acoustics(
    utterances: pd.DataFrame, csv: Path, progress: Progress = silent
) -> pd.DataFrame:
    """Energy and pitch of every utterance; what `csv` has already is not measured again.

    Args:
        utterances: columns key, path, start_s, end_s, samples, sha256.
        csv: where they are kept.
        progress: how it is shown.

    Returns:
        One row per utterance, in order: key, sha256, `energy_db` (root mean square over the whole
        utterance, in dB relative to full scale) and `pitch_hz` (median over the voiced frames; NaN
        where no frame is voiced).

    Raises:
        AudioError: an audio file is missing, cannot be read, or has changed since.
        ResultsError: `csv` cannot be read or written.
    """
    kept = _read_kept(csv)
    wanted = utterances[["key", "sha256"]].merge(kept, on=["key", "sha256"], how="left")
    missing = np.flatnonzero(wanted["energy_db"].isna())
    columns = ["path", "start_s", "end_s", "samples"]
    table = utterances[columns].iloc[missing]
    parts = zip(missing, table.to_numpy(), strict=True)
    try:
        for i, (path, start_s, end_s, samples) in progress(
            parts, desc="energy and pitch", total=len(missing), disable=not len(missing)
        ):
            audio = read_audio(path, start_s=start_s, end_s=end_s)
            if audio.sha256 != wanted.loc[i, "sha256"]:
                raise AudioError(f"{one_line(path)} has changed since it was extracted.")
            waveform = audio.waveform[:samples]
            wanted.loc[i, ["energy_db", "pitch_hz"]] = energy_db(waveform), pitch_hz(waveform)
    except AudioError as error:
        raise AudioError(
            f"energy and pitch are measured on the audio: {error} Put the corpus back where it was "
            "extracted from, or leave these targets out."
        ) from error
    finally:  # a run that is stopped continues at the next utterance
        others = kept[~kept["key"].isin(wanted["key"])]
        if len(missing):
            measured = pd.concat([others, wanted.dropna(subset="energy_db")])
            _write(measured.to_csv(index=False), csv)
    return wanted


def energy_db(waveform: Float[np.ndarray, " samples"]) -> float:
    """Root mean square in dB relative to full scale; a full-scale sine has -3, silence -inf."""
    if not waveform.any():
        return -np.inf
    return float(10 * np.log10(np.mean(waveform.astype(np.float64) ** 2)))


def pitch_hz(waveform: Float[np.ndarray, " samples"]) -> float:
    """Median fundamental frequency of the voiced frames, 60 to 600 Hz; NaN if none is voiced.

    Source: Mauch and Dixon 2014, "pYIN", with librosa's settings.
    """
    low, high = PITCH_HZ
    hz, voiced, _ = librosa.pyin(
        waveform,
        fmin=low,
        fmax=high,
        sr=SAMPLE_RATE,
        hop_length=HOP,
    )
    return float(np.median(hz[voiced])) if voiced.any() else float("nan")


def _read_kept(csv: Path) -> pd.DataFrame:
    columns = ["key", "sha256", "energy_db", "pitch_hz"]
    if not csv.exists():
        return pd.DataFrame({name: pd.Series(dtype="object") for name in columns}).astype(
            {"energy_db": "float64", "pitch_hz": "float64"}
        )
    try:
        text = {"key": str, "sha256": str}
        return pd.read_csv(csv, dtype=text, usecols=columns, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise ResultsError(
            f"{csv} is not a table of {', '.join(columns)} ({error}); delete it, it is made again."
        ) from error


def _write(content: str, csv: Path) -> None:
    try:
        write_then_rename(csv, content.encode())
    except OSError as error:
        raise ResultsError(f"{csv} cannot be written: {error.strerror}.") from error
