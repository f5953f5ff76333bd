"""What killed runs have left over in a cache folder."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from lsmprobe.cache.catalogue import how_much_is_done
from lsmprobe.cache.file import CacheFile
from lsmprobe.cache.labels import cache_of_labels, labels_path, written_mark
from lsmprobe.cache.lock import is_being_written
from lsmprobe.cache.parts import cache_files, cache_of, cache_paths, replacement_path
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.cache.verify import damaged_rows
from lsmprobe.errors import CacheError, counted, one_line

LEFT_BESIDE = re.compile(
    r"\.(?P<file>.+\.(?:h5|npy|labels\.csv))\.(?:[0-9a-f]{8}\.tmp|lock|(?P<mark>verified))"
)
log = logging.getLogger(__name__)


def prunable(path: Path, *, named: bool) -> dict[Path, str]:
    """What may be removed of a cache, and why; of what stays though it does not count, a log line.

    Args:
        path: the cache.
        named: whether the user named it; then also what is unfinished of it.

    Raises:
        CacheError: the user named what is not there or cannot be used, and nothing is left over.
    """
    found = _left_beside(path) | _labels_of_nothing(path)
    if named:
        found |= _unfinished_replacement(path)
    files = cache_files(path)
    try:
        cache = FeatureCache(path, allow_unfinished=True)
    except CacheError as error:
        if named and not found:
            raise
        if files:
            _log_kept(error)
        return found
    used = [file.path for file in cache.files]
    if named and not cache.is_finished:
        idle = [file for file in used if not is_being_written(file)]
        return found | dict.fromkeys(idle, f"unfinished: {how_much_is_done(cache)}")
    spare = [file for file in files if file not in used and not is_being_written(file)]
    return found | _held_twice(cache, spare)


def _left_beside(path: Path) -> dict[Path, str]:
    """Hidden files of a cache that serve nobody any more, and why."""
    found = {}
    for entry in sorted(path.parent.iterdir()) if path.parent.is_dir() else ():
        left = LEFT_BESIDE.fullmatch(entry.name) if entry.is_file() else None
        if not left:
            continue
        of = path.with_name(left["file"])
        if cache_of(of) not in (path, replacement_path(path)) and of != labels_path(path):
            continue
        writers = cache_files(path) if of == labels_path(path) else [of]
        if left["mark"] and not of.exists():
            found[entry] = f"says that {of.name} was verified, which is gone"
        elif not (left["mark"] or any(map(is_being_written, writers))):
            found[entry] = "left over by a run that was killed"
    return found


def _labels_of_nothing(path: Path) -> dict[Path, str]:
    """The table of labels, and its mark, of a cache of which no file is there."""
    if cache_files(path) or replacement_path(path).exists():
        return {}
    beside = [labels_path(path), written_mark(path)]
    return {file: f"belongs to {path.name}, which is gone" for file in beside if file.exists()}


def _unfinished_replacement(path: Path) -> dict[Path, str]:
    """What was to replace a cache, if no process works on it and it is a cache."""
    replacement = replacement_path(path)
    if not replacement.exists() or is_being_written(replacement):
        return {}
    try:
        cache = FeatureCache(replacement, allow_unfinished=True)
    except CacheError as error:
        _log_kept(error)
        return {}
    if cache.is_finished:
        _log_kept(f"{replacement} is finished; lsmprobe extract --replace puts it in place")
        return {}
    return {replacement: f"an unfinished replacement: {how_much_is_done(cache)}"}


def _held_twice(cache: FeatureCache, spare: Sequence[Path]) -> dict[Path, str]:
    """Those files that do not count and whose every clip the cache holds too, alike and sound."""
    if not spare:
        return {}
    if any(damaged_rows(file) for file in cache.files):
        _log_kept(f"{cache.path} has damaged clips, so what lies beside it may be needed")
        return {}
    held = {key: value for file in cache.files for key, value in _checksums(file).items()}
    found = {}
    for path in spare:
        try:
            mine = _checksums(CacheFile(path))
        except CacheError as error:
            _log_kept(error)
            continue
        if n_alone := sum(held.get(key) != value for key, value in mine.items()):
            _log_kept(f"{path} has {counted(n_alone, 'clip')} that {cache.path.name} does not hold")
        else:
            found[path] = f"its clips are in {cache.path.name}"
    return found


def _checksums(file: CacheFile) -> dict[bytes, int]:
    """Those stored with the utterances that are there, by key."""
    stored = file.array("utterances/checksum")[file.done]
    return dict(zip(file.columns["key"][file.done].tolist(), stored.tolist(), strict=True))


def _log_kept(why: object) -> None:
    log.warning("kept: %s", one_line(str(why)))


def prunable_in(folder: Path) -> dict[Path, str]:
    """What is left over in a folder of caches, and why; nothing that holds clips not held twice."""
    left = [(path, LEFT_BESIDE.fullmatch(path.name)) for path in folder.glob("*/*")]
    of = {cache_of(path.with_name(found["file"])) for path, found in left if found}
    of |= {cache_of_labels(path) for path in folder.glob("*/*.labels.csv")}
    paths = sorted(of | set(cache_paths(folder)))
    return {file: why for path in paths for file, why in prunable(path, named=False).items()}
