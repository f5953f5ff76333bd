"""What a head learns: columns of the table of utterances, as classes, numbers or distributions."""

import hashlib
import json
import logging
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from lsmprobe.blocks import rows_as_json
from lsmprobe.errors import SettingsError, agreeing, counted, nearest
from lsmprobe.probing.objectives import (
    CLASSIFICATION,
    DISTRIBUTION,
    OBJECTIVES,
    Objective,
    votes_in,
    votes_of,
)
from lsmprobe.results.distributions import NO_LABEL, most_frequent
from lsmprobe.results.measures import EMOTION

MOST_CLASSES = 100  # more are names of clips or whole texts rather than classes
NAMED = ("emotion", "speaker", "gender", "sentence")  # columns of every table: classes for sure
MISSING_CODES = (-9999, -999, -99, -9, 99, 999, 9999)  # that tables use for what is not known
OTHER_MARKS = re.compile(r"[,|/+&]")  # that may stand between votes, but do not here
log = logging.getLogger(__name__)


class Learned(NamedTuple):
    """The utterances that have a target, and what is learned of them."""

    table: pd.DataFrame
    names: tuple[str, ...]  # classes, or columns of numbers
    objective: Objective


def told_of(found: Learned, target: Sequence[str]) -> dict[str, str]:
    """What a run's name says of what is learned; equal means the same labels of the same clips."""
    named = {"labels": hash_of_labels(found.table)}
    if found.objective.name == CLASSIFICATION.name and tuple(target) == EMOTION:
        return named  # as it was before there were others
    values = found.objective.targets(found.table[list(target)], found.names).tolist()
    about = {"target": ",".join(target), "names": ",".join(found.names)}
    return {**named, **about, "objective": found.objective.name, "targets": _sha256(values)}


def kind_of(objective: Objective, table: pd.DataFrame, target: Sequence[str]) -> str:
    """The row of `KINDS` that an objective was chosen by."""
    kind = objective.measure.name
    columns = [table[name] for name in target if name in table]
    words = not all(map(pd.api.types.is_numeric_dtype, columns))
    return "votes" if kind == "shares" and words else kind


def hash_of_labels(table: pd.DataFrame) -> str:
    """Who says what with which emotion."""
    digest = hashlib.sha256()
    columns = [table[name].to_numpy(object) for name in ("key", "emotion", "speaker")]
    for piece in rows_as_json(columns):
        digest.update(piece)
    return digest.hexdigest()


def _sha256(values: list) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def target_columns(target: str) -> tuple[str, ...]:
    """`--target arousal,valence` as ("arousal", "valence").

    Raises:
        SettingsError: it names nothing, or a column twice.
    """
    names = tuple(name.strip() for name in target.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise SettingsError(
            f"--target is {target!r}; expected a column, or several with commas, each once."
        )
    return names


class Read(NamedTuple):
    """What a target is in one corpus, before it is asked whether it can be learned there."""

    table: pd.DataFrame  # the utterances that have it
    kind: str  # of KINDS
    names: tuple[str, ...]  # its classes, or columns


def read_target(
    table: pd.DataFrame,
    target: Sequence[str],
    *,
    corpus: str,
    kind: str = "auto",
    tell: bool = True,
) -> Read:
    """What a target's columns hold: classes, numbers, shares of classes, or raters' votes.

    Args:
        table: of utterances.
        target: one or more columns of it; several are numbers, shares or votes.
        corpus: for messages.
        kind: a row of `KINDS`, or auto: numbers are numbers, words are classes.
        tell: whether utterances without a target, which are left out, are told of in the log.

    Raises:
        SettingsError: a column is missing, half empty or mixed, or holds nothing that differs; with
            counts.
    """
    for name in target:
        if name not in table.columns:
            known = [c for c in table.columns if c != "key"]
            raise SettingsError(
                f"--target: {corpus} has no column {name!r}; {nearest(name, known)} "
                "Add columns with --labels FILE.csv."
            )
    numeric = [name for name in target if pd.api.types.is_numeric_dtype(table[name])]
    if unasked := kind == "auto":
        kind = "numbers" if len(target) > 1 or numeric else "classes"
    table = _with_target(table, target, kind, corpus, tell=tell)
    if unasked and kind == "classes" and tuple(target) != EMOTION:
        _check_words(table, target[0], corpus)
    found = KINDS[kind](table, target, corpus)
    if tell and kind in ("classes", "votes"):
        _say_what_may_be_one(found, ",".join(target), corpus)
    if tell and kind in ("numbers", "shares"):
        say_what_may_be_missing(found.table, target, corpus)
    return found


def say_what_may_be_missing(table: pd.DataFrame, names: Sequence[str], corpus: str) -> None:
    """Warn of codes for missing values among numbers: outside the others by more than their range.

    Args:
        table: with these columns, of numbers.
        names: of the columns.
        corpus: for messages.
    """
    for name in names:
        values = table[name].to_numpy(np.float64)
        rest = values[np.isfinite(values) & ~np.isin(values, MISSING_CODES)]
        if not len(rest):
            continue
        low, high = rest.min(), rest.max()
        far = np.abs(values - (low + high) / 2) > 1.5 * (high - low)
        for code in np.unique(values[far & np.isin(values, MISSING_CODES)]):
            log.warning(
                "%s: %s %g in %s, far outside the others (%g to %g): if it stands for a missing "
                "value, leave the cell empty",
                *(corpus, counted((values == code).sum(), "value", "is", of=len(values)), code),
                *(name, low, high),
            )


def _say_what_may_be_one(found: Read, target: str, corpus: str) -> None:
    """Classes that differ in case alone, and votes that may be several words."""
    folded: dict[str, list[str]] = {}
    for name in found.names:
        folded.setdefault(name.casefold(), []).append(name)
    if alike := [", ".join(map(repr, names)) for names in folded.values() if len(names) > 1]:
        log.warning(
            "%s: classes of %s that differ only in case, each learned apart: %s",
            *(corpus, target, "; ".join(alike)),
        )
    several = [name for name in found.names if found.kind == "votes" and OTHER_MARKS.search(name)]
    if several:
        log.warning(
            "%s: votes of %s such as %r count as one word; between votes is a semicolon",
            *(corpus, target, several[0]),
        )


def _read_classes(table: pd.DataFrame, target: Sequence[str], corpus: str) -> Read:
    if len(target) > 1:
        raise SettingsError(
            f"--target names {len(target)} columns as classes; expected one, or numbers."
        )
    [name] = target
    table = table.assign(**{name: table[name].map(_as_class)})
    return Read(table, "classes", tuple(sorted(set(table[name]))))


def _read_numbers(table: pd.DataFrame, target: Sequence[str], corpus: str) -> Read:
    for name in target:
        check_numbers(table, name, corpus)
        if table[name].nunique() < 2:
            raise SettingsError(
                f"--target: {name!r} is {table[name].iloc[0]} for all {len(table)} utterances of "
                f"{corpus}; expected numbers that differ."
            )
    return Read(table, "numbers", tuple(target))


def _read_shares(table: pd.DataFrame, target: Sequence[str], corpus: str) -> Read:
    """A column for each class: shares, percent, or counts of votes."""
    if len(target) < 2:
        raise SettingsError(
            f"--target names 1 column of shares, {target[0]!r}; expected one for each class, two "
            "or more. One column of votes is --target-kind votes."
        )
    for name in target:
        check_numbers(table, name, corpus)
        if below := int((table[name] < 0).sum()):
            raise SettingsError(
                f"--target: in {corpus}, {counted(below, 'value', of=len(table))} of {name!r} "
                f"{agreeing(below, 'is')} below 0; expected shares or counts of votes."
            )
        if not table[name].any():
            raise SettingsError(
                f"--target: no utterance of {corpus} has a share of {name!r}; leave it out."
            )
    values = table[list(target)].to_numpy(np.float64)
    sums = values.sum(1)
    if (values % 1).any() and (odd := np.abs(sums / np.median(sums) - 1) > 0.02).any():
        log.warning(
            "%s: the shares of %s do not sum to %.3g as most do (%s first); all are divided by "
            "their sum",
            *(corpus, counted(odd.sum(), "utterance", of=len(table)), np.median(sums)),
            table.key[odd].iloc[0],
        )
    return Read(table, "shares", tuple(target))


def _read_votes(table: pd.DataFrame, target: Sequence[str], corpus: str) -> Read:
    """A column of words for each rater, or several votes in one with ";" between."""
    said = {
        name: table[name].map(lambda each: "" if _is_empty(each) else _as_class(each))
        for name in target
    }
    table = table.assign(**said)
    rows = table[list(target)].itertuples(index=False, name=None)
    names = tuple(sorted({word for row in rows for word in votes_in(row)}))
    return Read(table, "votes", names)


KINDS: dict[str, Callable[[pd.DataFrame, Sequence[str], str], Read]] = {
    "classes": _read_classes,
    "numbers": _read_numbers,
    "shares": _read_shares,
    "votes": _read_votes,
}


def learned(
    table: pd.DataFrame,
    target: Sequence[str],
    *,
    corpus: str,
    kind: str = "auto",
    loss: str = "ccc",
    names: Sequence[str] = (),
    tell: bool = True,
) -> Learned:
    """Choose the objective from the columns, and leave out utterances without a target.

    Args:
        table: of utterances.
        target: as for `read_target`.
        corpus: for messages.
        kind: as for `read_target`.
        loss: of numbers, ccc or mse.
        names: of classes or votes, only these; from a stage that has read the target and has said
            what is left out. By default all.
        tell: as for `read_target`.

    Raises:
        SettingsError: as `read_target`; or there are classes that cannot be learned; with counts.
    """
    tell = tell and not names
    found = read_target(table, target, corpus=corpus, kind=kind, tell=tell)
    if found.kind == "numbers":
        return Learned(found.table, found.names, OBJECTIVES[loss])
    if found.kind == "classes":
        [name] = target
        table = found.table[found.table[name].isin(names)] if names else found.table
        return Learned(table, _classes(table, name, corpus), CLASSIFICATION)
    kept = tuple(names) or found.names
    table = found.table
    if found.kind == "votes":
        table = table[votes_of(table[list(target)], kept).any(1)]
    _check_shares(table, target, kept, corpus, tell=tell)
    return Learned(table, kept, DISTRIBUTION)


def _check_shares(
    table: pd.DataFrame, target: Sequence[str], names: Sequence[str], corpus: str, *, tell: bool
) -> None:
    """Refuse distributions that nothing can be learned of, and tell of those without agreement."""
    shown = ",".join(target)
    if not 2 <= len(names) <= MOST_CLASSES:
        raise SettingsError(
            f"--target: classes in {shown} of {corpus}: {len(names)}; expected 2 to {MOST_CLASSES}."
        )
    shares = DISTRIBUTION.targets(table[list(target)], names)
    labels = most_frequent(shares)
    n_none = int((labels == NO_LABEL).sum())
    there = np.unique(labels[labels != NO_LABEL])
    if len(there) < 2:
        raise SettingsError(
            f"--target: {counted(n_none, 'utterance', 'has', of=len(table))} no single most "
            f"frequent label in {shown} ({corpus}), and the others have "
            f"{counted(len(there), 'label')}; expected two or more to tell apart."
        )
    if n_none and tell:
        log.info(
            "%s: %s no single most frequent label in %s: learned, and counted in the JSD, not in "
            "macro-F1",
            *(corpus, counted(n_none, "utterance", "has", of=len(table)), shown),
        )


def _with_target(
    table: pd.DataFrame, target: Sequence[str], kind: str, corpus: str, *, tell: bool
) -> pd.DataFrame:
    """The utterances that have every column (of votes: any); the others are counted and named."""
    columns = table[list(target)]
    empty = columns.isna() | (columns.astype(str) == "")
    empty = empty.all(axis=1) if kind == "votes" else empty.any(axis=1)
    if kind == "shares":
        numeric = all(map(pd.api.types.is_numeric_dtype, columns.dtypes))
        empty |= (columns == 0).all(axis=1) if numeric else False
    shown = ",".join(target)
    if empty.mean() >= 0.5:
        raise SettingsError(
            f"--target: {counted(empty.sum(), 'utterance', of=len(table))} of {corpus} "
            f"{agreeing(empty.sum(), 'has')} no {shown}; "
            "expected more than half of them to have it."
        )
    if empty.any() and tell:
        first = ", ".join(table.key[empty][:3])
        log.warning(
            "%s: %s no %s; left out: %s%s",
            *(corpus, counted(empty.sum(), "utterance", "has", of=len(table)), shown, first),
            ", ..." if empty.sum() > 3 else "",
        )
    return table[~empty] if empty.any() else table  # a copy takes memory


def _is_empty(value: object) -> bool:
    return value is None or value != value or value == ""


def _check_words(table: pd.DataFrame, name: str, corpus: str) -> None:
    """Refuse numbers with a few words among them, which nobody means as classes unasked."""
    are_numbers = pd.to_numeric(table[name], errors="coerce").notna()
    if 0.5 <= are_numbers.mean() < 1:
        words = table[name][~are_numbers]
        raise SettingsError(
            f"--target: in {corpus}, {counted(are_numbers.sum(), 'value', of=len(table))} of "
            f"{name!r} {agreeing(are_numbers.sum(), 'is')} numbers and {len(words)} "
            f"{agreeing(len(words), 'is')} text (the first is {words.iloc[0]!r}); expected one "
            "kind. Correct it with --labels, or take all as classes with --target-kind classes."
        )


def check_numbers(table: pd.DataFrame, name: str, corpus: str) -> None:
    """Refuse a column with words or infinite values in it; empty cells may be there.

    Raises:
        SettingsError: with counts.
    """
    if not pd.api.types.is_numeric_dtype(table[name]):
        numbers = pd.to_numeric(table[name], errors="coerce")
        words = table[name][numbers.isna()]
        raise SettingsError(
            f"--target: in {corpus}, {counted(len(words), 'value', of=len(table))} of {name!r} "
            f"{agreeing(len(words), 'is')} no numbers (the first is {words.iloc[0]!r}); expected "
            "numbers alone"
            + (", or words alone with --target-kind classes." if len(words) < len(table) else ".")
        )
    if n := int(np.isinf(table[name]).sum()):
        first = table.key[np.isinf(table[name])].iloc[0]
        raise SettingsError(
            f"--target: in {corpus}, {counted(n, 'value', of=len(table))} of {name!r} "
            f"{agreeing(n, 'is')} infinite ({first!r} first); expected numbers. Correct it with "
            "--labels, or leave the cell empty."
        )


def _classes(table: pd.DataFrame, name: str, corpus: str) -> tuple[str, ...]:
    """Its classes; each must be there twice, to be both learned and tested."""
    counts = table[name].value_counts()
    classes = tuple(sorted(counts.index))
    flag = "" if (name,) == EMOTION else "--target: "
    if len(classes) < 2:
        raise SettingsError(
            f"{flag}{corpus} has {len(classes)} {name} to tell apart ({', '.join(classes)}); "
            "expected two or more."
        )
    if len(classes) > MOST_CLASSES and name not in NAMED:
        raise SettingsError(
            f"{flag}{corpus} has {len(classes)} values of {name!r}; expected at most "
            f"{MOST_CLASSES} classes. Is it a column of numbers or of texts?"
        )
    if counts.min() < 2:
        advice = "correct it with --labels, or leave the utterance's value empty."
        if (name,) == EMOTION:
            advice = "leave it out with --emotions or merge it with --map."
        raise SettingsError(
            f"{flag}{corpus}: {name} {counts.idxmin()!r} occurs once, so it cannot be both learned "
            f"and tested; {advice}"
        )
    return classes


def _as_class(value: object) -> str:
    """Whole numbers as classes: 3, not 3.0."""
    return f"{value:g}" if isinstance(value, float) else str(value)
