"""The caches that records name, where they can be opened: what a record does not say of a clip."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from lsmprobe.cache.reader import FeatureCache
from lsmprobe.errors import CacheError, ResultsError, SettingsError
from lsmprobe.layers.curves import labels_hash_of_curve
from lsmprobe.layers.targets import OWN_LABELS
from lsmprobe.probing.objectives import objective_of
from lsmprobe.probing.task import labels_hash_now
from lsmprobe.results.alarms import OTHER_LABELS, Alarm
from lsmprobe.results.measures import target_of
from lsmprobe.results.records import Load, labels_hash_of, load_record, load_results

IN_RECORD = ("emotion", "speaker", "split", "sha256")  # or of no use for groups


class Told(NamedTuple):
    """What a record and its cache say together: columns of `Caches.told`."""

    alarms: list[str]
    cache_now: bool
    labels_now: bool | None


def _with_told(results: pd.DataFrame, told: Sequence[Told]) -> pd.DataFrame:
    columns = zip(*told, strict=True) if told else [()] * len(Told._fields)
    return results.assign(
        **{
            name: pd.Series(list(values), results.index, dtype=object)
            for name, values in zip(Told._fields, columns, strict=True)
        }
    )


class Caches:
    """The caches that the records name, where they can be opened."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.opened: dict[str, FeatureCache] = {}  # those that some record is of
        self._there: dict[str, tuple[FeatureCache, str] | None] = {}
        self._labels: dict[str, str | None] = {}

    def get(self, record: Mapping[str, Any]) -> FeatureCache | None:
        """The cache of a record, if it is there and still the one that was probed."""
        name = record["cache"].get("file", "")
        there = self._open(name)
        if there is None or there[1] != record["cache"]["hash"]:
            return None
        self.opened[name] = there[0]
        return there[0]

    def has_labels_of(self, record: Mapping[str, Any]) -> bool | None:
        """Whether the cache of a record, or each of a transfer, holds the labels that it learned.

        None where nobody can say: a cache is not there or was made again, the labels were those of
        another table, or the record is of before they were kept.
        """
        told, cache = record.get("labels", {"file": "not known"}), record["cache"]
        if told["file"]:
            return None
        own = {
            "file": cache.get("file", ""),
            "cache": cache["hash"],
            "hash": labels_hash_of(record),
        }
        learned = told.get("of", [own | {"settings": record["settings"]}])
        now = [self._labels_now(record, each) for each in learned]
        if None in now:
            return None
        return now == [each["hash"] for each in learned]

    def _labels_now(self, record: Mapping[str, Any], of: Mapping[str, Any]) -> str | None:
        """The hash of the labels that a cache holds now, learned as a record says; remembered."""
        cache = self.get({"cache": {"file": of["file"], "hash": of["cache"]}})
        if cache is None:
            return None
        target, settings = target_of(record), of["settings"]
        names = record["classes"] if "of" in record["labels"] else ()
        chosen = settings.get("map"), settings.get("emotions"), names
        asked = repr((of["file"], target, record.get("objective"), chosen))
        if asked not in self._labels:
            self._labels[asked] = None
            # No table, no such objective here, or a chain in --map, which was taken before.
            with suppress(CacheError, ResultsError, SettingsError):
                objective = objective_of(record)
                self._labels[asked] = labels_hash_now(cache, target, objective, settings, names)
        return self._labels[asked]

    def is_cache_of_curve(self, curve: pd.Series) -> bool:
        """Whether a row of what `load_curves` gives was read from the cache that is there now."""
        there = self._open(f"{curve.model}/{curve.corpus}.h5")
        return there is not None and there[1] == curve.cache_hash

    def has_labels_of_curve(self, curve: pd.Series) -> bool | None:
        """As `has_labels_of`, of a row of what `load_curves` gives."""
        there = self._open(f"{curve.model}/{curve.corpus}.h5")
        if there is None or curve.labels != OWN_LABELS or not curve.labels_hash:
            return None
        with suppress(CacheError):
            return labels_hash_of_curve(there[0], curve.target, curve.metric) == curve.labels_hash
        return None

    def alarms_of(self, record: Mapping[str, Any]) -> list[Alarm]:
        """Those of a record, and whether its cache holds other labels now."""
        found = [Alarm(**alarm) for alarm in record.get("alarms", [])]
        if self.has_labels_of(record) is False:
            found.append(Alarm(OTHER_LABELS, "it learned other labels than its cache holds now."))
        return found

    def told(self, results: pd.DataFrame, load: Load = load_record) -> pd.DataFrame:
        """What `load_results` returned, with the codes of `alarms_of`, and what caches say.

        Its columns `cache_now` and `labels_now` say whether the cache that was read, and the labels
        that were learned, are those that are there now; the second is None as `has_labels_of` is.
        """
        return _with_told(results, [self._told(load(Path(path))) for path in results.path])

    def told_results(self, results_dir: Path, load: Load = load_record) -> pd.DataFrame:
        """As `told`, of a folder of results, whose records are read once."""
        told: dict[str, Told] = {}

        def noting(path: Path) -> dict[str, Any]:
            record = load(path)
            told[str(path)] = self._told(record)
            return record

        results = load_results(results_dir, load=noting)
        return _with_told(results, [told[path] for path in results.path])

    def _told(self, record: Mapping[str, Any]) -> Told:
        codes = [alarm.code for alarm in self.alarms_of(record)]
        return Told(codes, self.get(record) is not None, self.has_labels_of(record))

    def _open(self, name: str) -> tuple[FeatureCache, str] | None:
        """A cache that is there, and its hash."""
        if self.folder is not None and name and name not in self._there:
            self._there[name] = None
            with suppress(CacheError):
                cache = FeatureCache(self.folder / name)
                self._there[name] = cache, cache.identity_hash
        return self._there.get(name)

    def table(self, record: Mapping[str, Any]) -> pd.DataFrame:
        """What the record does not say of utterances, by key; empty if there is no cache."""
        cache = self.get(record)
        if cache is None:
            return pd.DataFrame()
        table = cache.utterances.set_index("key")
        return table.drop(columns=[name for name in IN_RECORD if name in table])
