"""Everything that the records of an experiment hold, as items: classes, groups and errors."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lsmprobe.atomic import write_then_rename
from lsmprobe.errors import ResultsError, counted, nearest
from lsmprobe.probing.table import head_title
from lsmprobe.report.figures import draw_confusion, save_figure
from lsmprobe.report.recorded_caches import Caches
from lsmprobe.report.typeset import (
    DASH,
    Heading,
    Item,
    Picture,
    Table,
    as_markdown,
    as_text,
    head_and_layer,
    interval,
    number,
    score,
)
from lsmprobe.results.alarms import Alarm
from lsmprobe.results.breakdown import (
    answers_of,
    confusion_of,
    duration_bins,
    largest_errors,
    records_of,
    scores_by_group,
    scores_by_output,
    worst_group,
)
from lsmprobe.results.find import find_runs
from lsmprobe.results.measures import Measure, measure_of, target_of
from lsmprobe.results.records import load_record, split_of
from lsmprobe.results.score_table import interval_of_records
from lsmprobe.results.scores import STATISTICS

USUAL = ("speaker", "gender", "sentence", "duration")  # what test utterances are grouped by
N_ERRORS = 10
Record = Mapping[str, Any]


def experiments_named(names: Sequence[str], results_dir: Path) -> list[list[Record]]:
    """The records that these names mean, run by run, one list for each experiment.

    Raises:
        ResultsError: a name that nothing has.
    """
    paths = dict.fromkeys(path for name in names for path in find_runs(name, results_dir))
    experiments: dict[str, list[Record]] = {}
    for path in paths:
        record = load_record(path)
        experiments.setdefault(record["experiment"], []).append(record)
    return [sorted(records_of(own), key=lambda r: r["seed"]) for own in experiments.values()]


def save_scores(items: Sequence[Item], folder: Path) -> Path:
    """Write FOLDER/scores.md, and the numbers of each table in full as CSV; the first's path.

    Raises:
        OSError: a file cannot be written.
    """
    for table in items:
        if isinstance(table, Table):
            numbers = table.data.to_csv(index=False).encode()
            write_then_rename(folder / f"{table.name}.csv", numbers)
    path = folder / "scores.md"
    write_then_rename(path, ("\n\n".join(map(as_markdown, items)) + "\n").encode())
    return path


def format_items(items: Sequence[Item]) -> str:
    """For the terminal."""
    return "\n\n".join(map(as_text, items))


def items_of_runs(
    records: Sequence[Record],
    *,
    caches: Caches | None = None,
    by: Sequence[str] = (),
    folder: Path | None = None,
) -> list[Item]:
    """What the runs of one experiment answered, broken down.

    Args:
        records: of the runs.
        caches: where gender, sentence, duration, clips and further columns are looked up.
        by: further columns of the table of utterances to group by.
        folder: where the confusion matrix is drawn; without it, it is a table alone.

    Raises:
        ResultsError: a column that the table of utterances does not have.
    """
    first, measure = records[0], measure_of(records[0])
    caches = caches or Caches(None)
    known = caches.table(first)
    alarms = [alarm for record in records for alarm in caches.alarms_of(record)]
    items: list[Item] = [Heading(_name(first)), _opening(records, measure, alarms)]
    if measure.classes:
        items.append(_confusion_item(records))
        if folder is not None:
            path = folder / "confusion.png"
            for kind in (".pdf", ".png"):
                save_figure(draw_confusion(answers_of(records)), path.with_suffix(kind))
            items.append(Picture("Confusion matrix: percent of each true class.", path))
    items.append(_output_item(records, measure))
    for column, groups in _groupings(records, known, by).items():
        items.append(_group_item(records, measure, column, groups))
    items.append(_error_item(records, measure, known))
    return items


def _name(record: Record) -> str:
    head = head_and_layer(head_title(record["head"]), record["layer"])
    target = ",".join(target_of(record))
    learned = "" if target == "emotion" else f", target {target}"
    return f"{record['model']} on {record['corpus']}, {head}{learned}"


def _opening(records: Sequence[Record], measure: Measure, alarms: Sequence[Alarm]) -> str:
    first = records[0]
    values = [record["scores"][measure.score] for record in records]
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    found = interval_of_records(records)
    decimals = measure.decimals
    constant = float(np.mean([record["scores"][measure.constant] for record in records]))
    keys = {one["key"] for record in records for one in record["predictions"]}
    speakers = {one["speaker"] for record in records for one in record["predictions"]}
    others = [_beside_constant(records, measure, *pair) for pair in measure.references.items()]
    lines = [
        f"{counted(len(records), 'run')} of experiment {first['experiment']}, split "
        f"{split_of(first)}: {measure.title} {score(np.mean(values), spread, decimals)}, "
        f"95% interval {interval(found.low, found.high, decimals=decimals)} (over {found.over}); "
        f"the best constant answer has {number(constant, decimals=decimals)}.",
        *others,
        f"Tested on {counted(len(keys), 'utterance')} of {counted(len(speakers), 'speaker')}.",
    ]
    if first["cache"]["identity"].get("random_init") is not None:
        lines.append("The model's weights are random.")
    notes = [note for record in records for note in record["split"]["notes"]]
    said = dict.fromkeys([*notes, *(alarm.text for alarm in alarms)])
    lines += [f"{text.rstrip('.')}." for text in said]
    return " ".join(lines)


def _beside_constant(records: Sequence[Record], measure: Measure, score: str, column: str) -> str:
    """A further score that has an interval and a best constant answer of its own."""
    value, constant = (
        float(np.mean([record["scores"][name] for record in records])) for name in (score, column)
    )
    found = interval_of_records(records, score=score)
    decimals = measure.decimals_of(score)
    return (
        f"{STATISTICS[score].title} {number(value, decimals=decimals)}, 95% interval "
        f"{interval(found.low, found.high, decimals=decimals)}; the best constant answer has "
        f"{number(constant, decimals=decimals)}."
    )


def _confusion_item(records: Sequence[Record]) -> Table:
    counts = confusion_of(records)
    n_none = sum(len(record["predictions"]) for record in records) - int(counts.to_numpy().sum())
    none = f"; {counted(n_none, 'answer')} to utterances without one label left out"
    rows = counts.map(str).rename_axis(None, axis=1).reset_index(names="true class")
    data = counts.rename_axis(None, axis=1).reset_index()
    over = "" if len(records) == 1 else f", summed over {len(records)} runs"
    caption = f"Confusion matrix: utterances of a class by the answer{over}{none * (n_none > 0)}."
    return Table("confusion", caption, rows, 1, [], data)


def _output_item(records: Sequence[Record], measure: Measure) -> Table:
    data, what = scores_by_output(records), measure.output
    titles = {name: each.title for name, each in measure.output_scores(0).items()}
    rows = pd.DataFrame({what: data.name, "utterances": data.n.map(lambda n: f"{n:g}")})
    for name, title in titles.items():
        rows = rows.assign(**_shown(data, name, title, measure.decimals))
    notes = [_spread_note(records)]
    return Table(f"by-{what}", f"Scores of each {what}.", rows, 1, notes, data)


def _group_item(
    records: Sequence[Record], measure: Measure, column: str, groups: Mapping[str, Any]
) -> Table:
    data = scores_by_group(records, groups)
    rows = pd.DataFrame(
        {column: data.group, "utterances": data.n.map(str), "speakers": data.speakers.map(str)}
    )
    for name in measure.group_scores:
        title = STATISTICS[name].title
        rows = rows.assign(**_shown(data, name, title, measure.decimals_of(name)))
    first = measure.group_scores[0]
    notes = [_spread_note(records)]
    if (worst := worst_group(data, first)) is not None:
        row = data[data.group == worst].iloc[0]
        ends = interval(row[f"{first}_low"], row[f"{first}_high"], decimals=measure.decimals)
        notes.insert(
            0,
            f"Worst: {worst}, {STATISTICS[first].title} "
            f"{number(row[first], decimals=measure.decimals)} ({ends}). The lowest of several "
            "groups is low by chance too: compare the intervals.",
        )
    return Table(f"by-{column}", f"Scores by {column}.", rows, 1, notes, data)


def _shown(data: pd.DataFrame, name: str, title: str, decimals: int) -> dict[str, list[str]]:
    """Two columns: mean with spread, and the interval."""
    means = [score(*each, decimals) for each in zip(data[name], data[f"{name}_std"], strict=True)]
    ends = [
        interval(low, high, decimals=decimals)
        for low, high in zip(data[f"{name}_low"], data[f"{name}_high"], strict=True)
    ]
    return {title: means, f"{title}, 95% interval": ends}


def _spread_note(records: Sequence[Record]) -> str:
    several = f"Mean ± standard deviation (ddof 1) over {len(records)} runs. "
    return (several if len(records) > 1 else "") + (
        "Intervals: 95%, bootstrap over speakers, then utterances; with one or two speakers over "
        "utterances only."
    )


def _groupings(
    records: Sequence[Record], known: pd.DataFrame, by: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """By the name of a grouping: key of an utterance -> its group."""
    speaker = {one["key"]: one["speaker"] for record in records for one in record["predictions"]}
    tested = known[known.index.isin(set(speaker))] if len(known) else known
    found: dict[str, dict[str, Any]] = {"speaker": speaker}
    for column in dict.fromkeys([*USUAL[1:], *by]):
        if column == "duration" and "seconds" in tested:
            groups = duration_bins(tested.seconds)
        elif column in tested:
            groups = tested[column]
        elif column in USUAL:
            continue
        else:
            raise ResultsError(
                f"--by: the cache of {records[0]['corpus']} has no column {column!r}; "
                f"{nearest(column, list(known.columns))}"
                if len(known)
                else f"--by {column} needs the cache that was probed; name its --cache-dir."
            )
        groups = groups[groups.notna() & (groups.astype(str) != "")]
        if len(set(groups)) > 1 or column in by:
            found[column] = groups.to_dict()
    return found


def _error_item(records: Sequence[Record], measure: Measure, known: pd.DataFrame) -> Table:
    data = largest_errors(records, N_ERRORS)
    if "path" in known:
        data["clip"] = data.key.map(known.path)
    rows = pd.DataFrame({"utterance": data.key, "speaker": data.speaker})
    for title, (column, decimals) in measure.error_columns(data, records[0]["classes"]).items():
        if column == "runs":
            rows[title] = [f"{n} of {len(records)}" for n in data.runs]
        elif decimals is None:
            rows[title] = data[column].replace("", DASH)
        else:
            rows[title] = [number(value, decimals=decimals) for value in data[column]]
    rows["clip"] = data["clip"].fillna(DASH) if "clip" in data else DASH
    return Table("errors", measure.errors, rows, 2, [], data)
