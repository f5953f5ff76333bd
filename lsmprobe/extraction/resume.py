"""What is there of a cache already, and so which files a run of stage 1 has to write.

The same settings continue what is there; new clips become a further file; anything else that has
changed is reported; it replaces the cache only if asked to.
"""

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pandas as pd

from lsmprobe.cache.file import KEEP_IT, CacheFile
from lsmprobe.cache.layout import decoded
from lsmprobe.cache.lock import sole_writer
from lsmprobe.cache.parts import (
    cache_files,
    is_of_plan,
    part_of,
    part_path,
    plan_added,
    plan_of_rows,
    plan_part,
    replacement_path,
    whole_plan_hash,
)
from lsmprobe.cache.plan import CachePlan, differences
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.cache.writer import CacheWriter
from lsmprobe.corpora.audio import audio_hash
from lsmprobe.corpora.utterances import UNLABELLED
from lsmprobe.errors import CacheError, counted, one_line

HASHERS = 2  # threads that read audio files
BUILD_ANEW = " Use another --cache-dir, or --replace to build it again."
PlannedFile = tuple[Path, CachePlan]
log = logging.getLogger(__name__)


def planned_files(
    path: Path, plan: CachePlan, part: tuple[int, int] | None = None, replaces: bool = False
) -> list[PlannedFile]:
    """The files that a run writes, each with its plan.

    Args:
        path: the cache.
        plan: all that it is to hold.
        part: (i, n) for part i of n alone.
        replaces: where what is there cannot be continued, begin a new cache beside it, which is to
            take its place.

    Raises:
        CacheError: what is there was made otherwise, with what differs.
        AudioError: the audio of what is done cannot be read any more.
    """
    if part:
        return [_part(path, plan, *part)]
    if not cache_files(path):
        return [(path, plan)]
    try:
        return _continued(path, plan)
    except CacheError as error:
        if not replaces:
            raise
        found = _less_advice(error)
        log.warning("a new cache is built beside it, to replace it once finished: %s", found)
    for file in cache_files(path):
        with sole_writer(file):  # that nobody is at work on what is to be replaced
            pass
    beside = replacement_path(path)
    _take_over(path, beside, plan)
    if beside.exists():
        try:
            return _continued(beside, plan, takes_new=False)
        except CacheError as error:
            log.warning("starting again: %s", _less_advice(error))
            with sole_writer(beside):
                beside.unlink()
    return [(beside, plan)]


def _less_advice(error: CacheError) -> str:
    """What was found, without the advice to do what the user is doing."""
    return one_line(str(error).removesuffix(BUILD_ANEW).removesuffix(KEEP_IT))


def _take_over(path: Path, beside: Path, plan: CachePlan) -> None:
    """Begin a replacement with what a file that cannot be opened holds undamaged."""
    if cache_files(path) != [path] or not path.is_file() or _opens(path):
        return
    try:
        with CacheWriter.open(beside, plan) as writer:
            n_taken = writer.take_over(path)
    except CacheError:  # of which extraction will hear, or which lets it start again
        return
    if n_taken:
        log.info("taken over from %s: %s, undamaged", path, counted(n_taken, "clip"))


def _opens(path: Path) -> bool:
    try:
        CacheFile(path)
    except CacheError:
        return False
    return True


def _opened(file: Path) -> CacheFile:
    """A file that another process may be replacing by its copy, which is to be continued."""
    try:
        return CacheFile(file)
    except CacheError:
        return CacheFile(file)


def _part(path: Path, plan: CachePlan, number: int, count: int) -> PlannedFile:
    """One part of `count`, if it goes with what is there."""
    mine = part_path(path, number, count)
    there = cache_files(path)
    names = {part_path(path, n, count) for n in range(count)}
    if foreign := [file for file in there if file not in names]:
        raise CacheError(
            f"{foreign[0]} is there, beside which --part {number}/{count} makes no sense. Run "
            "without --part, use another --cache-dir, or delete it."
        )
    others = [file for file in there if file != mine]
    # One of the others stands for all: each of them was compared with one that was there before.
    for file in [*([mine] if mine in there else []), *others[:1]]:
        stored = _opened(file)
        found = []
        if not is_of_plan(whole_plan_hash(stored), plan):
            found = differences(stored, plan, but=("new",))
            found = found or ["it was cut from another list of utterances"]
        if file == mine:
            found += _changed_audio(FeatureCache(file, allow_unfinished=True), plan.utterances)
        if found:
            raise CacheError(
                f"{file} was planned differently: {'; '.join(found)}. All parts need the same "
                "settings and corpus: use another --cache-dir, or delete the parts."
            )
    return mine, plan_part(plan, number, count)


def _continued(path: Path, plan: CachePlan, takes_new: bool = True) -> list[PlannedFile]:
    """The files of a cache that is there, and a further one for new clips.

    Raises:
        CacheError: settings, or utterances that it has, or their audio are not what is planned.
    """
    stored = FeatureCache(path, allow_unfinished=True)
    if stored.missing_parts:
        raise CacheError(f"{path} is unfinished: {stored.what_is_missing()}")
    _refuse_emptied_labels(stored, plan)
    plan = _without_room(stored, plan)
    may_differ = ("new", "in another place") if takes_new else ()
    found = differences(stored, plan, may_differ) + _changed_audio(stored, plan.utterances)
    if found:
        raise CacheError(f"{path} was planned differently: {'; '.join(found)}.{BUILD_ANEW}")
    rows = {key: row for row, key in enumerate(plan.utterances.key)}
    files = []
    for file in stored.files:
        mine = [rows.pop(key) for key in decoded(file.columns["key"])]
        files.append((file.path, plan_of_rows(plan, mine, part_of(file))))
    new = list(rows.values())
    if plan.utterances.frames.iloc[new].any():
        files.append(plan_added(plan, new, path))
        log.info("into %s: %s", files[-1][0], counted(len(new), "new clip"))
    return files


def _refuse_emptied_labels(stored: FeatureCache, plan: CachePlan) -> None:
    """A clip whose label was emptied is still one of the cache, whose features stay good.

    Raises:
        CacheError: there are such clips.
    """
    unlabelled = set(plan.utterances.attrs.get(UNLABELLED, ()))
    if emptied := sorted(unlabelled & set(stored.planned.key)):
        raise CacheError(
            f"{stored.path} holds {counted(len(emptied), 'clip')} without an emotion or a speaker "
            f"by now ({emptied[0]!r} first). Give them a label of their own, such as unclear, and "
            "run lsmprobe extract again, which keeps the features; then choose the others with "
            "lsmprobe probe --emotions."
        )


def _without_room(stored: FeatureCache, plan: CachePlan) -> CachePlan:
    """Clips that were unreadable when the file was laid out have no room in it, repaired or not."""
    table, missing = plan.utterances, stored.missing
    mended = table.key.isin(missing.key[missing.frames == 0]) & (table.samples > 0)
    for key in table.key[mended]:
        log.warning("skipping %r: it was unreadable when %s was laid out", key, stored.path)
    none = {name: table[name].mask(mended, 0) for name in ("samples", "seconds", "frames")}
    return replace(plan, utterances=table.assign(**none))


def _changed_audio(stored: FeatureCache, table: pd.DataFrame) -> list[str]:
    """Whether files have other bytes than when they were extracted; every one of them is read."""
    known = dict(zip(stored.planned.key, stored.planned.sha256, strict=True))
    there = table[table.key.isin(known) & (table.samples > 0)]
    paths = list(dict.fromkeys(there.path))  # a file may hold many utterances
    with ThreadPoolExecutor(HASHERS) as pool:
        found = dict(zip(paths, pool.map(audio_hash, paths), strict=True))
    changed = [k for k, p in zip(there.key, there.path, strict=True) if known[k] != found[p]]
    return [f"audio: {len(changed)} changed ({changed[0]!r} first)"] if changed else []
