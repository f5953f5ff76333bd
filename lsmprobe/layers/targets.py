"""What a layer may know besides the emotion: voice, words, length, loudness, pitch.

A target is a value per utterance. Words (emotion, speaker, gender, sentence) come from the table of
utterances, and so does the duration; energy and pitch are measured once on the audio and kept.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped

from lsmprobe.atomic import write_then_rename
from lsmprobe.corpora.audio import SAMPLE_RATE, read_audio
from lsmprobe.errors import AudioError, ResultsError, SettingsError, counted, nearest, one_line
from lsmprobe.progress import Progress, silent

WORDS = ("emotion", "speaker", "gender", "sentence")
NUMBERS = {"duration": "s", "energy": "dB", "pitch": "semitones"}  # and their units
TARGETS = (*WORDS, *NUMBERS)
PITCH_HZ = 60.0, 600.0  # from low male voices to shouting ones
REFERENCE_HZ = 100.0  # 0 semitones
OWN_LABELS = "as in the corpus"
HOP = 320  # samples: 20 ms
log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Target:
    """A value for every utterance where it is known."""

    name: str
    rows: Shaped[np.ndarray, " known"]  # positions in the table of utterances
    truth: Shaped[np.ndarray, " known"]  # classes as 0 to k - 1, or numbers in their unit
    classes: tuple[str, ...]  # none for numbers

    @property
    def is_number(self) -> bool:
        """Whether it is measured, not named."""
        return not self.classes


def labels_of(settings: Mapping[str, Any]) -> str:
    """Which labels a run learned, as text: how they were merged and chosen.

    >>> labels_of({"map": ["anger=high"], "emotions": []}), labels_of({})
    ('map: anger=high', 'as in the corpus')
    """
    chosen = {name: ", ".join(settings.get(name) or ()) for name in ("map", "emotions")}
    told = "; ".join(f"{name}: {value}" for name, value in chosen.items() if value)
    return told or OWN_LABELS


def find_target(
    name: str, utterances: pd.DataFrame, acoustics_csv: Path, progress: Progress = silent
) -> Target:
    """One target for the utterances of a cache.

    Args:
        name: one of `TARGETS`.
        utterances: the table of the cache.
        acoustics_csv: where energy and pitch are kept; see `measure_acoustics`.
        progress: how measuring them is shown.

    Raises:
        SettingsError: no such target, or these utterances do not differ in it.
        AudioError: energy or pitch is asked for, was not measured yet, and the audio is missing or
            another.
    """
    if name not in TARGETS:
        raise SettingsError(f"there is no target {name!r}; {nearest(name, TARGETS)}")
    if name in WORDS:
        column = utterances[name].to_numpy(str)
        known = np.flatnonzero(column != "")
        classes, truth = np.unique(column[known], return_inverse=True)
        if len(classes) < 2:
            raise SettingsError(
                f"target {name}: the table of utterances has {len(classes)} value of it "
                f"({', '.join(classes) or 'all empty'}); expected two or more. Leave it out."
            )
        return Target(name, known, truth, tuple(classes.tolist()))
    numbers = _numbers(name, utterances, acoustics_csv, progress)
    known = np.flatnonzero(np.isfinite(numbers))
    if len(known) < len(numbers):
        n = len(numbers) - len(known)
        log.warning("%s is not known of %s", name, counted(n, "utterance"))
    if len(np.unique(numbers[known])) < 2:
        raise SettingsError(
            f"target {name}: it does not differ between the utterances. Leave it out."
        )
    return Target(name, known, numbers[known], ())


def _numbers(
    name: str, utterances: pd.DataFrame, acoustics_csv: Path, progress: Progress
) -> Float[np.ndarray, " utterances"]:
    if name == "duration":
        return utterances["seconds"].to_numpy(np.float64)
    measured = measure_acoustics(utterances, acoustics_csv, progress)
    if name == "energy":
        return measured["energy_db"].to_numpy(np.float64)
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
    """Root mean square in dB relative to full scale; a full-scale sine has -3."""
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
