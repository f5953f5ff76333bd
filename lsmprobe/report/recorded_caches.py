"""The caches that records name, where they can be opened: what a record does not say of a clip."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from lsmprobe.cache.reader import FeatureCache
from lsmprobe.errors import CacheError

IN_RECORD = ("emotion", "speaker", "split", "sha256")  # or of no use for groups


class Caches:
    """The caches that the records name, where they can be opened."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.opened: dict[str, FeatureCache | None] = {}

    def get(self, record: Mapping[str, Any]) -> FeatureCache | None:
        """The cache of a record, if it is there and still the one that was probed."""
        name = record["cache"]["file"]
        if self.folder is None:
            return None
        if name not in self.opened:
            self.opened[name] = None
            with suppress(CacheError):
                cache = FeatureCache(self.folder / name)
                if cache.identity_hash == record["cache"]["hash"]:
                    self.opened[name] = cache
        return self.opened[name]

    def table(self, record: Mapping[str, Any]) -> pd.DataFrame:
        """What the record does not say of utterances, by key; empty if there is no cache."""
        cache = self.get(record)
        if cache is None:
            return pd.DataFrame()
        table = cache.utterances.set_index("key")
        return table.drop(columns=[name for name in IN_RECORD if name in table])
