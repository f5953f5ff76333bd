"""The files of a cache: one, or parts that lie beside each other under its name.

`CORPUS.h5` is the whole cache, or stands for its parts: `CORPUS.part-03-of-16.h5`, written by as
many processes. `CORPUS.added-01.h5` holds clips that came to the corpus later.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lsmprobe.cache.file import CacheFile
from lsmprobe.cache.plan import CachePlan, plan_hash, settings
from lsmprobe.errors import CacheError, counted

PART_NAME = re.compile(r"(?P<cache>.+)\.(?:part-(?P<number>\d+)-of-(?P<of>\d+)|added-\d+)\.h5")


def names_of(path: Path) -> tuple[str, str]:
    """The model and the corpus that a cache lies under: CACHE_DIR/MODEL/CORPUS.h5."""
    return path.parent.name, path.stem


def part_path(path: Path, number: int, count: int) -> Path:
    """Where part `number` (from 0) of `count` of a cache lies."""
    return path.with_name(f"{path.stem}.part-{number:02d}-of-{count:02d}.h5")


def added_path(path: Path, number: int) -> Path:
    """Where the clips lie that came to a corpus later, the first time, the second and so on."""
    return path.with_name(f"{path.stem}.added-{number:02d}.h5")


def replacement_path(path: Path) -> Path:
    """Where what is to replace a cache grows until it is finished."""
    return path.with_name(f".{path.stem}.replacement.h5")


def verified_mark(file: Path) -> Path:
    """Where it stands that a file was read whole and found undamaged; see verification.py."""
    return file.with_name(f".{file.name}.verified")


def remove_file(file: Path) -> None:
    """Remove a file of a cache, and what stands of it beside it."""
    file.unlink()
    verified_mark(file).unlink(missing_ok=True)


def cache_paths(folder: Path) -> list[Path]:
    """The caches MODEL/CORPUS.h5 of a folder, finished or not; parts count as their cache."""
    files = [path for path in folder.glob("*/*.h5") if not path.name.startswith(".")]
    return sorted({cache_of(path) for path in files})


def cache_of(path: Path) -> Path:
    """The cache that a file by its name is part of."""
    named = PART_NAME.fullmatch(path.name)
    return path.with_name(f"{named['cache']}.h5") if named else path


def cache_files(path: Path) -> list[Path]:
    """The files that go by the name of a cache: the whole one, parts, additions; in this order."""
    if not path.parent.is_dir():
        return []
    files = [file for file in path.parent.iterdir() if cache_of(file) == path]
    return sorted(files, key=lambda file: (file != path, ".added-" in file.name, file.name))


def plan_part(plan: CachePlan, number: int, count: int) -> CachePlan:
    """Part `number` (from 0) of `count`: consecutive utterances, all parts about equally long.

    A pure function of the plan, so that processes that know nothing of each other share the work.

    Raises:
        CacheError: the utterances are too few for so many parts.
    """
    samples = plan.utterances["samples"].to_numpy(np.int64)
    part = part_numbers(samples, count)
    if len(np.unique(part[samples > 0])) < count:
        raise CacheError(
            f"{counted(len(samples), 'utterance')} cannot be cut into {count} parts of like "
            "length, since some would be empty. Use fewer parts."
        )
    here = {"number": number, "of": count, "plan": plan_hash(plan)}
    return plan_of_rows(plan, np.flatnonzero(part == number).tolist(), here)


def part_numbers(samples: np.ndarray, count: int) -> np.ndarray:
    """Which part of `count` each utterance goes into: where its middle lies.

    Args:
        samples: of every utterance, 0 where it cannot be read; not all 0.
        count: of the parts.
    """
    samples = samples.astype(np.int64)
    middles = 2 * np.cumsum(samples) - samples
    return np.minimum(middles * count // (2 * samples.sum()), count - 1)


def plan_added(plan: CachePlan, rows: Sequence[int], path: Path) -> tuple[Path, CachePlan]:
    """A further file for utterances that the cache at `path` lacks: where, and its plan."""
    there = cache_files(path)
    number = next(n for n in range(1, len(there) + 2) if added_path(path, n) not in there)
    part = {"added_to": whole_plan_hash(CacheFile(there[0]))}
    return added_path(path, number), plan_of_rows(plan, rows, part)


def plan_of_rows(plan: CachePlan, rows: Sequence[int], part: dict) -> CachePlan:
    """The plan of a file that holds some of a plan's utterances; `part` says why not all."""
    utterances = plan.utterances.iloc[list(rows)].reset_index(drop=True)
    identity = plan.identity | ({"part": part} if part else {})
    return replace(plan, utterances=utterances, identity=identity)


def open_files(path: Path) -> tuple[list[CacheFile], list[int]]:
    """The files that make up a cache, and the numbers of parts that are not there.

    The whole file, or else all parts; and what was added to them. Any others are what a merge or a
    replacement that was killed has left over, and count for nothing.

    Raises:
        CacheError: there is none, one cannot be used, or they do not belong together.
    """
    beside = cache_files(path)
    added = [file for file in beside if ".added-" in file.name and file != path]
    parts = [file for file in beside if file not in (path, *added)]
    if path.exists() or not parts:
        files, missing = [CacheFile(path)], []
        if cache_of(path) != path:  # a part, looked at by itself
            return files, []
        if part_of(files[0]):
            raise CacheError(
                f"{path} holds a part of a cache ({part_of(files[0])}); expected all of it. Give "
                "it its name back."
            )
    else:
        files = [CacheFile(file) for file in parts]
        missing = _missing(path, files)
    whole = part_of(files[0]).get("plan")
    for file in map(CacheFile, added):
        to = part_of(file).get("added_to")
        if to is not None and (to == whole if whole else is_of_plan(to, files[0])):
            files.append(file)
    return files, missing


def part_of(file: CacheFile) -> dict:
    """Which part of a cache a file says it is; of a whole one nothing."""
    return dict(file.identity.get("part", {}))


def whole_plan_hash(file: CacheFile) -> str:
    """The plan of the whole cache of which this file is a part, or all."""
    return str(part_of(file).get("plan") or plan_hash(file))


def is_of_plan(digest: Any, planned: Any) -> bool:
    """Whether a hash is that of a plan; files from before labels were apart counted them too."""
    return digest == plan_hash(planned) or digest == plan_hash(planned, with_labels=True)


def _missing(path: Path, parts: Sequence[CacheFile]) -> list[int]:
    """The numbers of the parts that are not there."""
    numbers, counts = set(), set()
    for file in parts:
        named = PART_NAME.fullmatch(file.path.name)
        assert named
        number, count = int(named["number"]), int(named["of"])
        made = [part_of(file).get(name) for name in ("number", "of")]
        if made != [number, count]:
            raise CacheError(
                f"{file.path} was made as part {made[0]} of {made[1]}; expected what its name "
                "says. Rename it."
            )
        numbers.add(number)
        counts.add(count)
    if len(counts) > 1:
        raise CacheError(
            f"{path} is there in {' and in '.join(map(str, sorted(counts)))} parts; expected one "
            "set of parts. Delete the other."
        )
    return sorted(set(range(*counts)) - numbers)


def check_parts(path: Path, files: Sequence[CacheFile], keys: np.ndarray) -> None:
    """Refuse parts that were not made alike, or that share an utterance.

    Args:
        path: the cache, for messages.
        files: its files.
        keys: those of all files, in order.

    Raises:
        CacheError: with what differs.
    """
    first = files[0]
    for other in files[1:]:
        old, new = settings(first), settings(other)
        found = [
            f"{name} is {new.get(name)!r} and not {old.get(name)!r}"
            for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name)
        ]
        if not found and part_of(other).get("plan") not in (None, part_of(first).get("plan")):
            found = ["it was cut from another list of utterances"]
        if found:
            raise CacheError(
                f"{other.path} does not go with {first.path.name}: {'; '.join(found)}. Delete one "
                "of them and extract it again, all parts with the same settings and corpus."
            )
    twice = keys[1:][keys[1:] == keys[:-1]]
    if len(twice):
        raise CacheError(
            f"{path} has {os.fsdecode(twice[0])!r} in two of its parts; expected one. Delete one "
            "of these parts."
        )
