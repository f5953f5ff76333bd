"""A data set in the format of Hugging Face -> its table of utterances."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lsmprobe.corpora.audio import AUDIO_SUFFIXES
from lsmprobe.corpora.utterances import (
    PARTS,
    extra,
    known_gender,
    reason,
    utterance_table,
    within,
)
from lsmprobe.errors import CorpusError


def read_hugging_face(place: str, folder: Path) -> pd.DataFrame:
    """A dataset with the columns audio, emotion (or label), speaker and, where known, gender.

    Audio that lies inside the dataset is written to the folder once.

    Raises:
        CorpusError: no such dataset, datasets is not installed, or it has other columns.
    """
    datasets = extra("datasets")
    from huggingface_hub.constants import HF_HUB_CACHE

    try:
        parts = datasets.load_dataset(place)
    except Exception as error:
        raise CorpusError(f"cannot load the dataset {place!r}: {reason(error)}.") from error
    homes = [Path(place), *map(Path, (datasets.config.HF_DATASETS_CACHE, HF_HUB_CACHE))]
    rows = []
    for split, part in parts.items():
        columns = part.column_names
        emotion = next((name for name in ("emotion", "label") if name in columns), None)
        if emotion is None or not {"audio", "speaker"} <= set(columns):
            raise CorpusError(
                f"the dataset {place!r} has the columns {columns}; expected audio, emotion (or "
                "label), speaker. Rename them in a copy of your own, or write a manifest."
            )
        names = getattr(part.features[emotion], "names", None)
        for number, record in enumerate(part.cast_column("audio", datasets.Audio(decode=False))):
            suffix = Path(record["audio"]["path"] or "").suffix.lower()
            key = f"{split}/{number:06}{suffix if suffix in AUDIO_SUFFIXES else '.wav'}"
            label = record[emotion]
            rows.append(
                {
                    "key": key,
                    "path": _written(record["audio"], folder / key, homes),
                    "emotion": names[label] if names else str(label),
                    "speaker": str(record["speaker"]),
                    "gender": known_gender(record.get("gender")),
                    "split": split if set(PARTS) <= set(parts) else "",
                }
            )
    return utterance_table(rows)


def _written(audio: Mapping[str, Any], file: Path, homes: Sequence[Path]) -> str:
    """Where the audio lies, after it was written there if it lay inside the dataset."""
    if audio["bytes"] is None:
        return str(within(str(audio["path"]), homes, "the dataset"))
    if not file.exists():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            beside = file.with_name(f".{file.name}")
            beside.write_bytes(audio["bytes"])
            beside.rename(file)
        except OSError as error:
            raise CorpusError(f"cannot write {str(file)!r}: {error.strerror}.") from error
    return str(file.absolute())
