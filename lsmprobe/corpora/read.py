"""A corpus of the table -> its table of utterances.

Labels, speakers and keys come from the path, as the row's rule reads it wherever in the folder the
files lie, because folders are renamed, doubled by an unzip or mis-decoded; or from the label files
of the corpus. No audio is opened here. `read_corpus` is the one entrance, to a corpus of one's own
as well.
"""

import importlib.resources
import logging
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from lsmprobe.corpora.audformat_reader import read_audformat
from lsmprobe.corpora.folder import read_sorted_folder
from lsmprobe.corpora.hugging_face import read_hugging_face
from lsmprobe.corpora.labelled import Joined, Labelled, join
from lsmprobe.corpora.manifest import read_manifest
from lsmprobe.corpora.table import CORPORA, Corpus, Release
from lsmprobe.corpora.utterances import (
    OWN_LABEL,
    files_below,
    key_of_part,
    utterance_table,
    written_once,
)
from lsmprobe.errors import CorpusError, counted, nearest

TAKES = {
    "a corpus of the table": ("--data-dir",),
    "FILE.csv": ("--data-dir", "--columns", "--where"),
    "folder": ("--speaker-pattern",),
    "audformat": ("--columns", "--table"),
    "hf": ("--data-dir", "--columns", "--where", "--hf-split", "--hf-config"),
}
"""Which flags each kind of corpus can follow."""
SAMPLED = 2_000  # names that are compared with every row of the table
log = logging.getLogger(__name__)


def read_corpus(
    name: str,
    data_dir: str | Path | None = None,
    *,
    emotions: Sequence[str] = (),
    merge: Mapping[str, str] | None = None,
    speaker_pattern: str = "",
    columns: Mapping[str, str] | None = None,
    where: Mapping[str, Sequence[str]] | None = None,
    hf_split: str = "",
    hf_config: str = "",
    tables: Sequence[str] = (),
    skip_unlabelled: bool = False,
) -> pd.DataFrame:
    """The table of utterances (docs/design.md), sorted by key.

    Args:
        name: a row of `CORPORA`; or a manifest `FILE.csv`, `folder:DIR` with a sub-folder per
            emotion, an audformat database `audformat:DIR`, a Hugging Face dataset `hf:ID`.
        data_dir: where a row's files lie, see `corpus_folder`; for a manifest, where its paths are
            looked for before its own folder; for `hf:ID`, where its audio is written to.
        emotions: only these, as they are called after merging.
        merge: label -> the label that it becomes.
        speaker_pattern: for `folder:DIR`, a regular expression searched in the path inside DIR,
            with a group named speaker.
        columns: for a manifest or `hf:ID`, a column of ours (emotion, speaker, ...) -> what it is
            called there; for `audformat:DIR`, the scheme or column of the emotion.
        where: for a manifest or `hf:ID`, only the rows whose column has one of these values.
        hf_split: for `hf:ID`, only this split.
        hf_config: for `hf:ID`, which of its configurations.
        tables: for `audformat:DIR`, only the emotions of these tables.
        skip_unlabelled: leave out what has no emotion or no speaker, count and name it; otherwise
            that is an error.

    Raises:
        CorpusError: the corpus is missing, ambiguous, another one, or contradicts itself.
    """
    kind, _, place = name.partition(":")
    kind = "a corpus of the table" if name in CORPORA else kind
    kind = "FILE.csv" if name.lower().endswith(".csv") and kind not in TAKES else kind
    if kind not in TAKES:
        raise CorpusError(
            f"there is no corpus {name!r}; {nearest(name, CORPORA)} One of your own is a manifest, "
            "FILE.csv, or folder:DIR with a sub-folder per emotion."
        )
    options = {
        "--data-dir": data_dir,
        "--speaker-pattern": speaker_pattern,
        "--columns": columns,
        "--where": where,
        "--hf-split": hf_split,
        "--hf-config": hf_config,
        "--table": tables,
    }
    _refuse_options(name, kind, [flag for flag, value in options.items() if value])
    columns, where = columns or {}, where or {}
    if kind == "folder":
        table = read_sorted_folder(
            Path(place).expanduser(), speaker_pattern, skip_unlabelled=skip_unlabelled
        )
    elif kind == "audformat":
        table = read_audformat(
            Path(place).expanduser(),
            columns=columns,
            tables=tables,
            skip_unlabelled=skip_unlabelled,
        )
    elif kind == "hf":
        table = read_hugging_face(
            place,
            Path(data_dir or Path("data") / place.replace("/", "--")),
            columns=columns,
            where=where,
            split=hf_split,
            subset=hf_config,
            skip_unlabelled=skip_unlabelled,
        )
    elif kind == "FILE.csv":
        table = read_manifest(
            Path(name).expanduser(),
            data_dir,
            columns=columns,
            where=where,
            skip_unlabelled=skip_unlabelled,
        )
    else:
        table = _read_row(CORPORA[name], corpus_folder(name, data_dir))
    labels = set(CORPORA[name].labels.values()) if name in CORPORA else set(table.emotion)
    return _select(table, name, labels, emotions, merge or {})


def _refuse_options(name: str, kind: str, given: Sequence[str]) -> None:
    """What only another kind of corpus can follow is not ignored."""
    for flag in given:
        if flag not in TAKES[kind]:
            kinds = " or ".join(each for each, flags in TAKES.items() if flag in flags)
            raise CorpusError(f"{flag} is for {kinds}; {name!r} takes none, leave it out.")


def known_corpus(name: str) -> Corpus:
    """The row of that name."""
    if name not in CORPORA:
        raise CorpusError(f"there is no corpus {name!r}; {nearest(name, CORPORA)}")
    return CORPORA[name]


def corpus_folder(name: str, data_dir: str | Path | None = None) -> Path:
    """Where a row's files lie: data_dir, else $LSMPROBE_DATA/name, else data/name.

    A variant may lie where its corpus does: demos-8 in demos. Where nothing lies yet, the first.
    """
    if data_dir is not None:
        return Path(data_dir).expanduser()
    roots = [root for root in (os.environ.get("LSMPROBE_DATA"), "data") if root]
    names = (name, known_corpus(name).variant_of or name)
    places = [Path(root).expanduser() / each for root in roots for each in names]
    return next((place for place in places if os.access(place, os.F_OK)), places[0])


def has_files(name: str) -> bool:
    """Whether the files of a corpus are where they are looked for, whatever they hold.

    A manifest, folder:DIR and the like name their own place.
    """
    is_row = ":" not in name and not name.lower().endswith(".csv")
    return not is_row or (name in CORPORA and corpus_folder(name).exists())


def _read_row(corpus: Corpus, folder: Path) -> pd.DataFrame:
    if not os.access(folder, os.F_OK):
        raise CorpusError(
            f"{str(folder)!r} is not there; expected {corpus.title} in the folder that --data-dir "
            f"names, in $LSMPROBE_DATA/{corpus.name} or in data/{corpus.name}. To get it: "
            f"{corpus.how_to_get}."
        )
    files = _files_named_from(folder)
    found = [(match, path) for inside, path in files if (match := corpus.match(inside))]
    _refuse_another(corpus, folder, [inside for inside, _ in files], len(found))
    _say_what_lies_beside(corpus, [inside for inside, _ in files])
    release = corpus.release([match.string for match, _ in found])
    excluded = _names_in(corpus.left_out)
    clips = (Clip(corpus.key(match), match, path) for match, path in found)
    audio = [
        clip
        for clip in clips
        if clip.key not in excluded and re.search(release.path, clip.match.string)
    ]
    labelled = _with_labels(corpus, folder, dict(files), _without_second_copy(corpus, audio))
    rows = [row for row in labelled if row["emotion"]]
    if not rows:
        raise CorpusError(_all_left_out(corpus, folder, [match for match, _ in found]))
    _say_what_is_left_out(corpus, labelled)
    if corpus.releases:
        level = logging.INFO if release.name == corpus.releases[0].name else logging.WARNING
        there = counted(len(rows), "clip", of=release.n_utterances)
        log.log(level, "%s: reading %s, %s", corpus.title, release.name, there)
    if len(rows) != (release.n_utterances or len(rows)):
        said = "%s: found %s; `lsmprobe corpora check %s` says what is missing"
        there = counted(len(rows), "clip", of=release.n_utterances)
        log.warning(said, corpus.title, there, corpus.name)
    return utterance_table(rows)


class Clip(NamedTuple):
    """An audio file of a corpus."""

    key: str
    match: re.Match[str]  # of the row's rule
    path: str  # on the disk


def _without_second_copy(corpus: Corpus, audio: list[Clip]) -> list[Clip]:
    """Of a clip that a known copy holds twice, the one that lies less deep."""
    if not corpus.second_copy:
        return audio
    depth: dict[str, int] = {}
    for clip in audio:
        depth[clip.key] = min(clip.match.string.count("/"), depth.get(clip.key, 1_000))
    first = [
        clip
        for clip in audio
        if clip.match.string.count("/") == depth[clip.key]
        or not re.search(corpus.second_copy, clip.match.string)
    ]
    if len(first) < len(audio):
        said = "%s: this copy holds files twice; the second %d are skipped, such as %r"
        kept = {clip.match.string for clip in first}
        skipped = next(clip.match.string for clip in audio if clip.match.string not in kept)
        log.warning(said, corpus.title, len(audio) - len(first), skipped)
    return first


def _with_labels(
    corpus: Corpus, folder: Path, files: Mapping[str, str], audio: Sequence[Clip]
) -> list[dict[str, Any]]:
    """A row per clip, or per part of one, by the label files where the corpus has them."""
    rows_of: Mapping[str, Sequence[Labelled]] = {}
    if corpus.labelled_by:
        labelled = corpus.labelled_by(files)
        if labelled:
            joined = join(labelled, [clip.key for clip in audio])
            rows_of = joined.rows_of
            _say_orphans(corpus, labelled, joined)
        elif corpus.needs_label_files:
            raise CorpusError(
                f"{str(folder)!r} has {counted(len(audio), 'clip')} of {corpus.title} but not its "
                f"labels; expected {corpus.label_files} below that folder. Copy the whole release "
                "there."
            )
        else:
            said = "%s: %s is not there, so its columns are missing"
            log.info(said, corpus.title, corpus.label_files)
    unlabelled = [] if corpus.needs_label_files else [Labelled("")]
    return [
        _row(corpus, clip, said) for clip in audio for said in rows_of.get(clip.key, unlabelled)
    ]


def _row(corpus: Corpus, clip: Clip, said: Labelled) -> dict[str, Any]:
    """What the label file says of a clip, and where it is silent the path."""
    match = corpus.spelled(clip.match, clip.key)
    label = said.label or corpus.label(match)
    speaker = said.speaker or corpus.speaker(match)
    start_s, end_s = written_once(said.start_s, said.end_s)
    further = {**corpus.further(match), **said.further}
    for column, labels in corpus.further_labels.items():
        further[column] = labels.get(further.get(column, ""), "")
    groups = match.groupdict("")
    word = said.split or groups.get("split") or groups.get("partition", "")
    return {
        "key": key_of_part(clip.key, start_s, end_s),
        "path": clip.path,
        "emotion": corpus.emotion_called(label) if corpus.is_used(word) else "",
        "speaker": speaker,
        "gender": said.gender or corpus.gender(match, speaker),
        "sentence": said.sentence or corpus.sentence(match),
        "start_s": start_s,
        "end_s": end_s,
        "split": corpus.split(word),
        "further": {OWN_LABEL: label, **further},
    }


def _say_orphans(corpus: Corpus, labelled: Sequence[Labelled], joined: Joined) -> None:
    """Rows of labels without audio, and audio without a row, counted and named."""
    rows = [row.path for row in joined.without_audio]
    files, n_files = joined.without_labels, len(joined.rows_of) + len(joined.without_labels)
    for what, lacks, names, n_all in (
        ("row of the labels|rows of the labels", "audio", rows, len(labelled)),
        ("audio file", "label", files, n_files),
    ):
        if names:
            found = counted(len(names), what, "has", of=n_all)
            log.warning("%s: %s no %s, such as %r", corpus.title, found, lacks, names[0])


def _say_what_is_left_out(corpus: Corpus, rows: Sequence[Mapping[str, Any]]) -> None:
    """Clips whose label the row does not have, by their own label."""
    out = Counter(row["further"][OWN_LABEL] for row in rows if not row["emotion"])
    if out:
        named = ", ".join(f"{label or '(none)'} {n}" for label, n in out.most_common())
        said = "%s: %s not of %r and left out, by the corpus's own label: %s"
        found = counted(out.total(), "clip", "is", of=len(rows))
        log.info(said, corpus.title, found, corpus.name, named)


def _say_what_lies_beside(corpus: Corpus, paths: Sequence[str]) -> None:
    for pattern, what in corpus.beside.items():
        names = [path for path in paths if re.search(pattern, path)]
        if names:
            found = counted(len(names), "file", "is")
            log.warning("%s: %s not read, such as %r: %s", corpus.title, found, names[0], what)


def release_in(corpus: Corpus, folder: Path) -> Release:
    """What `read_corpus` reads in a folder."""
    inside = [path for path, _ in _files_named_from(folder)]
    return corpus.release([path for path in inside if corpus.match(path)])


def _files_named_from(folder: Path) -> list[tuple[str, str]]:
    """As `files_below`, with the folder's name: it may be EYASE's speaker or Oréau's version."""
    top = folder.resolve().name
    return [(f"{top}/{inside}", path) for inside, path in files_below(folder)]


def _refuse_another(corpus: Corpus, folder: Path, paths: Sequence[str], n_found: int) -> None:
    """Short names fit several corpora, EmoDB's are partly Oréau's: the best fit must be ours.

    Where more than half of all files are ours no other corpus can fit better; else a sample of the
    names is compared with every row.
    """
    if 2 * n_found > len(paths):
        return
    sample = paths[:: -(-len(paths) // SAMPLED)] if paths else []
    ours = sum(1 for path in sample if corpus.match(path))
    others = [row for row in CORPORA.values() if not row.variant_of and row.title != corpus.title]
    fits = {row.title: sum(1 for path in sample if row.match(path)) for row in others}
    other = max(fits, key=lambda title: fits[title])
    if fits[other] > ours:
        raise CorpusError(
            f"{str(folder)!r} has {counted(n_found, 'file name')} of {corpus.title}; this looks "
            f"like {other} ({counted(fits[other], 'name')}). Name a folder that holds "
            f"{corpus.title} alone with --data-dir."
        )
    if not n_found:
        raise CorpusError(
            f"{str(folder)!r} has no clip of {corpus.title} among {counted(len(paths), 'file')}; "
            f"expected names like {corpus.example!r}. Unpack the archive there, or name another "
            "folder with --data-dir."
        )


def _all_left_out(corpus: Corpus, folder: Path, found: Sequence[re.Match[str]]) -> str:
    """What to say of a folder whose every clip is of the corpus's files, but not of this row."""
    rows = [row for row in CORPORA.values() if row.title == corpus.title and row is not corpus]
    have = [row.name for row in rows if any(row.emotion(match) for match in found)]
    return (
        f"{str(folder)!r} has {counted(len(found), 'clip')} of {corpus.title}, and "
        f"{corpus.name!r} leaves all of them out (the first: {corpus.key(found[0])!r}). "
        + (f"Ask for {' or '.join(have)}, which has them." if have else "Copy the whole corpus.")
    )


def _names_in(file: str) -> frozenset[str]:
    """The lines of a list in lsmprobe/data."""
    if not file:
        return frozenset()
    data = importlib.resources.files("lsmprobe") / "data"
    return frozenset((data / file).read_text("utf-8").splitlines())


def _select(
    table: pd.DataFrame,
    name: str,
    labels: set[str],
    emotions: Sequence[str],
    merge: Mapping[str, str],
) -> pd.DataFrame:
    """Merge labels, then keep the emotions asked for."""
    for asked, known in (
        (merge, labels),
        (emotions, {merge.get(label, label) for label in labels}),
    ):
        for emotion in asked:
            if emotion not in known:
                raise CorpusError(f"{name!r} has no emotion {emotion!r}; {nearest(emotion, known)}")
    table = table.assign(emotion=[merge.get(emotion, emotion) for emotion in table.emotion])
    kept = table[table.emotion.isin(emotions or set(table.emotion))]
    if kept.empty:
        raise CorpusError(f"{name!r} has no clip of {', '.join(emotions)} in this copy.")
    return kept.reset_index(drop=True)
