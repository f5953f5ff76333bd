"""What a head learns: columns of the table of utterances, as classes or as numbers."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from lsmprobe.errors import SettingsError, agreeing, counted, nearest
from lsmprobe.probing.objectives import CLASSIFICATION, OBJECTIVES, Objective
from lsmprobe.results.measures import EMOTION

MOST_CLASSES = 100  # more are names of clips or whole texts rather than classes
log = logging.getLogger(__name__)


class Learned(NamedTuple):
    """The utterances that have a target, and what is learned of them."""

    table: pd.DataFrame
    names: tuple[str, ...]  # classes, or columns of numbers
    objective: Objective


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
    names: tuple[str, ...]  # its classes, or columns of numbers


def read_target(
    table: pd.DataFrame,
    target: Sequence[str],
    *,
    corpus: str,
    kind: str = "auto",
    tell: bool = True,
) -> Read:
    """What a target's columns hold: classes, or numbers.

    Args:
        table: of utterances.
        target: one or more columns of it; several must be numbers.
        corpus: for messages.
        kind: classes, numbers, or auto: numbers are numbers, words are classes.
        tell: whether utterances without a target, which are left out, are told of in the log.

    Raises:
        SettingsError: a column is missing, half empty or mixed, or of numbers that do not differ;
            with counts.
    """
    for name in target:
        if name not in table.columns:
            known = [c for c in table.columns if c != "key"]
            raise SettingsError(
                f"--target: {corpus} has no column {name!r}; {nearest(name, known)} "
                "Add columns with --labels FILE.csv."
            )
    table = _with_target(table, target, corpus, tell=tell)
    numeric = [name for name in target if pd.api.types.is_numeric_dtype(table[name])]
    if kind == "numbers" or (kind == "auto" and (len(target) > 1 or numeric)):
        for name in target:
            _check_numbers(table, name, corpus)
        return Read(table, "numbers", tuple(target))
    if len(target) > 1:
        raise SettingsError(
            f"--target names {len(target)} columns as classes; expected one, or numbers."
        )
    [name] = target
    if kind == "auto" and tuple(target) != EMOTION:
        _check_words(table, name, corpus)
    table = table.assign(**{name: table[name].map(_as_class)})
    return Read(table, "classes", tuple(sorted(set(table[name]))))


def learned(
    table: pd.DataFrame,
    target: Sequence[str],
    *,
    corpus: str,
    kind: str = "auto",
    loss: str = "ccc",
    names: Sequence[str] = (),
) -> Learned:
    """Choose the objective from the columns, and leave out utterances without a target.

    Args:
        table: of utterances.
        target: as for `read_target`.
        corpus: for messages.
        kind: as for `read_target`.
        loss: of numbers, ccc or mse.
        names: of classes, only these; from a stage that has read the target and has said what is
            left out. By default all.

    Raises:
        SettingsError: as `read_target`; or there are classes that cannot be learned; with counts.
    """
    found = read_target(table, target, corpus=corpus, kind=kind, tell=not names)
    if found.kind == "numbers":
        return Learned(found.table, found.names, OBJECTIVES[loss])
    [name] = target
    table = found.table[found.table[name].isin(names)] if names else found.table
    return Learned(table, _classes(table, name, corpus), CLASSIFICATION)


def _with_target(
    table: pd.DataFrame, target: Sequence[str], corpus: str, *, tell: bool
) -> pd.DataFrame:
    """The utterances that have every column; the others are counted and named."""
    columns = table[list(target)]
    empty = (columns.isna() | (columns.astype(str) == "")).any(axis=1)
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
            "%s: %s no %s and left out: %s%s",
            *(corpus, counted(empty.sum(), "utterance", "has", of=len(table)), shown, first),
            ", ..." if empty.sum() > 3 else "",
        )
    return table[~empty]


def _check_words(table: pd.DataFrame, name: str, corpus: str) -> None:
    """Refuse numbers with a few words among them, which nobody means as classes unasked."""
    are_numbers = pd.to_numeric(table[name], errors="coerce").notna()
    if 0.5 <= are_numbers.mean() < 1:
        words = table[name][~are_numbers]
        raise SettingsError(
            f"--target: in {corpus}, {are_numbers.sum()} of {len(table)} values of {name!r} are "
            f"numbers and {len(words)} {agreeing(len(words), 'is')} text (the first is "
            f"{words.iloc[0]!r}); expected one kind. Correct it with --labels, or "
            "take all as classes with --target-kind classes."
        )


def _check_numbers(table: pd.DataFrame, name: str, corpus: str) -> None:
    if not pd.api.types.is_numeric_dtype(table[name]):
        numbers = pd.to_numeric(table[name], errors="coerce")
        words = table[name][numbers.isna()]
        raise SettingsError(
            f"--target: in {corpus}, {counted(len(words), 'value', of=len(table))} of {name!r} "
            f"{agreeing(len(words), 'is')} no numbers (the first is {words.iloc[0]!r}); expected "
            "numbers alone"
            + (", or words alone with --target-kind classes." if len(words) < len(table) else ".")
        )
    if table[name].nunique() < 2:
        raise SettingsError(
            f"--target: {name!r} is {table[name].iloc[0]} for all {len(table)} utterances of "
            f"{corpus}; expected numbers that differ."
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
    if len(classes) > MOST_CLASSES and (name,) != EMOTION:
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
