"""The one reader of a cache: all its files as one table and one stack of layers."""

import hashlib
import html
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Shaped

from lsmprobe.blocks import rows_as_json
from lsmprobe.cache.codecs import codec_of
from lsmprobe.cache.file import CacheFile
from lsmprobe.cache.labels import labels_of, with_labels
from lsmprobe.cache.layout import PLANNED, decoded, table_of
from lsmprobe.cache.parts import check_parts, names_of, open_files, part_of
from lsmprobe.cache.plan import decisive
from lsmprobe.cache.selection import Selection, numbers
from lsmprobe.errors import CacheError, counted


class FeatureCache:
    """Reads a cache: its table, the frames of every layer, the pooled means.

    Arrays are read-only views of the file mapped into memory: what is not touched is not read. HDF5
    is done with when the constructor returns, so instances may be pickled and used in forked
    processes. While a writer is at work, an instance shows what was done when it was opened.
    Parts are one cache, whose utterances are in the order of their keys.

    Raises:
        CacheError: no such file, not a cache, another version, truncated, damaged, or unfinished;
            or parts that do not belong together.
    """

    files: list[CacheFile]  # one, or the parts
    missing_parts: list[int]  # those of which there is no file
    is_finished: bool  # every utterance is there or skipped
    layers: Sequence[int]  # those that are stored; 0 is what enters the first block
    selection: Selection  # which of the model's states are stored
    dim: int
    store: str  # frames or pooled
    dtype: str  # how frames are stored, a row of codecs.py
    identity: dict  # model, preprocessing, layer convention, versions
    offsets: Int[np.ndarray, " utterances"]  # first row of each utterance in its file's layers
    lengths: Int[np.ndarray, " utterances"]  # frames of each utterance

    def __init__(self, path: str | Path, *, allow_unfinished: bool = False) -> None:
        self.path = Path(path)
        self.files, self.missing_parts = open_files(self.path)
        first = self.files[0]
        self.store, self.dtype, self.dim = first.store, first.dtype, first.dim
        self.selection = first.selection
        self.n_layers, self.layers = first.n_layers, first.selection.layers
        self.identity = {name: value for name, value in first.identity.items() if name != "part"}

        sizes = [len(file.done) for file in self.files]
        keys = np.concatenate([file.columns["key"] for file in self.files])
        order = np.arange(len(keys)) if len(sizes) == 1 else np.argsort(keys, kind="stable")
        self._order = order
        if len(sizes) > 1:
            check_parts(self.path, self.files, keys[order])
        self._done = np.concatenate([file.done for file in self.files])[order]
        self._skipped = np.concatenate([file.skipped for file in self.files])[order]
        to_come = int((~self._done & ~self._skipped).sum())
        self.is_finished = not (to_come or self.missing_parts)
        if not (self.is_finished or allow_unfinished):
            raise CacheError(f"{self.path} is unfinished: {self.what_is_missing()}")
        self._file_of = np.repeat(np.arange(len(sizes)), sizes)[order][self._done]
        self._row_of = np.concatenate([np.arange(size) for size in sizes])[order][self._done]
        self.offsets, self.lengths = (
            self._column(name)[self._done] for name in ("offset", "frames")
        )

    @classmethod
    def of(cls, cache: "FeatureCache | str | Path") -> "FeatureCache":
        """The cache itself, or the one that lies at a path.

        Raises:
            CacheError: as the constructor.
        """
        return cache if isinstance(cache, FeatureCache) else cls(cache)

    @property
    def model(self) -> str:
        """The name that it lies under, see `names_of`."""
        return names_of(self.path)[0]

    @property
    def corpus(self) -> str:
        """As `model`."""
        return names_of(self.path)[1]

    def __repr__(self) -> str:
        return f"<FeatureCache {self.path}: {', '.join(self._described().values())}>"

    def _repr_html_(self) -> str:
        """What a notebook shows in the place of this value."""
        rows = {"file": str(self.path), **self._described(), **self._labels_described()}
        cells = "".join(
            f"<tr><th style='text-align: left'>{name}</th>"
            f"<td style='text-align: left'>{html.escape(value)}</td></tr>"
            for name, value in rows.items()
        )
        caption = html.escape(f"{self.model} on {self.corpus}")
        return f"<table><caption>{caption}</caption><tbody>{cells}</tbody></table>"

    def _described(self) -> dict[str, str]:
        """In words, what can be said without reading a label."""
        minutes = float(self._column("seconds")[self._done].sum()) / 60
        known = {
            "utterances": f"{counted(len(self.lengths), 'utterance')} of {minutes:.1f} min",
            "layers": f"{counted(self.n_layers, 'layer')} of {self.dim} dimensions",
            "stored": f"frames as {self.dtype}" if self.store == "frames" else "means over frames",
        }
        if self.identity.get("random_init") is not None:
            known["weights"] = "random weights"
        if not self.is_finished:
            known["unfinished"] = self.what_is_missing()
        return known

    def _labels_described(self) -> dict[str, str]:
        try:
            table = self.utterances
        except CacheError as error:
            return {"labels": str(error)}
        emotions = table["emotion"].value_counts().sort_index()
        return {
            "speakers": str(table["speaker"].nunique()),
            "emotions": ", ".join(f"{name} {n}" for name, n in emotions.items()),
        }

    @cached_property
    def columns(self) -> dict[str, np.ndarray]:
        """What was planned, as it is stored; also what is missing."""
        return {name: self._column(name) for name in PLANNED}

    @cached_property
    def utterances(self) -> pd.DataFrame:
        """Those that are there, one row each: what was planned, `sha256`, and their labels.

        Labels, and further columns, are those of `CORPUS.labels.csv` where it was written.

        Raises:
            CacheError: that table was written, and is missing or damaged.
        """
        found = labels_of(self)
        return self.planned if found is None else with_labels(self.planned, *found)

    @cached_property
    def planned(self) -> pd.DataFrame:
        """As `utterances`, with the labels that the HDF5 file was laid out with."""
        return table_of(self._planned(self._done) | {"sha256": self._sha256()})

    @cached_property
    def missing(self) -> pd.DataFrame:
        """Utterances that are not there; `skipped` marks those left out on purpose."""
        return table_of(self._planned(~self._done) | {"skipped": self._skipped[~self._done]})

    def what_is_missing(self) -> str:
        """For people: what an unfinished cache lacks, and what to do."""
        if self.missing_parts:
            count = part_of(self.files[0])["of"]
            numbers = ", ".join(map(str, self.missing_parts))
            return (
                f"of its {count} parts there is no {numbers}. Run lsmprobe extract with "
                f"--part {self.missing_parts[0]}/{count}."
            )
        to_come = int((~self._done & ~self._skipped).sum())
        return (
            f"{counted(to_come, 'utterance', 'is', of=len(self._done))} still to come. Run "
            "lsmprobe extract again; it continues there."
        )

    def frames(self, i: int, layer: int) -> Float[np.ndarray, "frames dim"]:
        """Hidden states of utterance `i` (a row of `utterances`) at one layer, as they are stored.

        A read-only view of the file; of a bfloat16 cache a float32 copy, which is exact, of an int8
        cache the float32 that its numbers stand for.

        Raises:
            CacheError: there is no such layer, or only the pooled means were stored.
        """
        place = self._checked_place(layer)
        file, row, codec = self.files[self._file_of[i]], self._row_of[i], codec_of(self.dtype)
        array = file.array(f"layers/{layer:02d}")
        values = codec.decode(array[self.offsets[i] : self.offsets[i] + self.lengths[i]])
        if codec.levels:
            mean, scale = (file.array(f"pooled/{name}")[row, place] for name in ("mean", "scale"))
            values = mean + scale * values
        return values

    def layer(self, layer: int) -> Shaped[np.ndarray, "frames dim"]:
        """One layer of all utterances; those of `i` are the `lengths[i]` rows from `offsets[i]` on.

        A read-only view of the file: bfloat16 as its bits, uint16, and int8 as its whole numbers.
        In an unfinished cache it has rows of no utterance, which hold anything.

        Raises:
            CacheError: as `frames`, and where the cache is in parts, which have no common view.
        """
        self._checked_place(layer)
        if len(self.files) > 1:
            raise CacheError(
                f"{self.path} is in {counted(len(self.files), 'part')}, which cannot be one view; "
                f"read it utterance by utterance, or run: lsmprobe cache merge {self.path}"
            )
        return self.files[0].array(f"layers/{layer:02d}")

    @cached_property
    def pooled(self) -> Float[np.ndarray, "utterances layers dim"]:
        """The mean over each utterance's frames; a view of the file if every utterance is there."""
        return self._done_rows("pooled/mean")

    @cached_property
    def pooled_std(self) -> Float[np.ndarray, "utterances layers dim"]:
        """The population standard deviation over each utterance's frames."""
        return self._done_rows("pooled/std")

    def means_of(
        self, rows: Int[np.ndarray, " some"], layers: Sequence[int]
    ) -> Float[np.ndarray, "some layers dim"]:
        """`pooled` of some utterances at some layers, copied; of parts no other is put together.

        Raises:
            CacheError: a layer is not stored.
        """
        return self._gathered("pooled/mean", rows, list(map(self.place, layers)))

    def stds_of(
        self, rows: Int[np.ndarray, " some"], layers: Sequence[int]
    ) -> Float[np.ndarray, "some layers dim"]:
        """As `means_of`, of `pooled_std`."""
        return self._gathered("pooled/std", rows, list(map(self.place, layers)))

    @cached_property
    def identity_hash(self) -> str:
        """SHA-256 over what the features are: identity, stored type, keys and audio of all rows."""
        about = [decisive(self.identity), self.dtype]
        text = json.dumps(about, sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(text.removesuffix("]").encode() + b",")
        columns = self._column("key")[self._done], self._sha256()
        for piece in rows_as_json(columns, read=decoded, between=","):
            digest.update(piece)
        digest.update(b"]")
        return digest.hexdigest()

    def verify(self, i: int) -> bool:
        """Whether the stored bytes of utterance `i` are still those that were written."""
        file, row = self.files[self._file_of[i]], int(self._row_of[i])
        return not file.mismatches(row, row + 1, file.sums())

    def __getstate__(self) -> dict[str, Any]:
        mapped = ("pooled", "pooled_std")  # mapped again where it is unpickled
        return {name: value for name, value in vars(self).items() if name not in mapped}

    def place(self, layer: int) -> int:
        """Where a layer lies in `pooled` and `pooled_std`.

        Raises:
            CacheError: it is not stored.
        """
        if layer not in self.layers:
            held = f"has layers {numbers(self.layers)}"
            raise CacheError(f"{self.path} {held}; got layer {layer}.{self._how_to_store(layer)}")
        return self.layers.index(layer)

    def _how_to_store(self, layer: int) -> str:
        """What to do about a layer that the model has and the cache lacks."""
        if not 0 <= layer < self.selection.n_model_layers:
            return ""
        return (
            " Run lsmprobe extract again with that layer among --layers, and another --cache-dir."
        )

    def _checked_place(self, layer: int) -> int:
        if self.store != "frames":
            raise CacheError(
                f"{self.path} holds pooled means only; expected frames. Run lsmprobe extract with "
                "--store frames and another --cache-dir."
            )
        return self.place(layer)

    def _column(self, name: str) -> np.ndarray:
        """One of `columns`; put together where it is used, since the files hold it already."""
        return np.concatenate([file.columns[name] for file in self.files])[self._order]

    def _planned(self, chosen: np.ndarray) -> dict[str, np.ndarray]:
        """The columns of a table of utterances."""
        return {name: self._column(name)[chosen] for name in PLANNED if name != "offset"}

    def _sha256(self) -> np.ndarray:
        return self._done_rows("utterances/sha256")

    def _done_rows(self, name: str) -> np.ndarray:
        """The rows of all utterances that are there: of one complete file a view."""
        if len(self.files) == 1 and self._done.all():
            return self.files[0].array(name)
        return self._gathered(name, np.arange(len(self._row_of)))

    def _gathered(
        self, name: str, rows: np.ndarray, places: Sequence[int] | None = None
    ) -> np.ndarray:
        """Rows of a dataset from all files; of one that has layers those at some places."""
        first = self.files[0].array(name)
        shape = first.shape[1:] if places is None else (len(places), *first.shape[2:])
        gathered = np.empty((len(rows), *shape), first.dtype)
        file_of, row_of = self._file_of[rows], self._row_of[rows]
        by_file = np.argsort(file_of, kind="stable")
        ends = np.searchsorted(file_of, range(1, len(self.files)), sorter=by_file)
        for file, mine in zip(self.files, np.split(by_file, ends), strict=True):
            array, own = file.array(name), row_of[mine]
            gathered[mine] = array[own] if places is None else array[own[:, None], places]
        return gathered
