"""What a folder of results holds, one line for each experiment."""

import pandas as pd

from lsmprobe.errors import counted
from lsmprobe.probing.table import head_title
from lsmprobe.report.tables import not_default
from lsmprobe.report.typeset import head_and_layer, number, score
from lsmprobe.results.measures import EMOTION, MEASURES
from lsmprobe.results.records import with_target
from lsmprobe.results.score_table import KEYS


def list_lines(results: pd.DataFrame) -> list[str]:
    """The number of each experiment, what it is, and its mean score; by model and corpus.

    Args:
        results: what `load_results` returned.
    """
    return [
        _line(own, str(experiment))
        for (*_, experiment), own in with_target(results).groupby(KEYS, sort=True, dropna=False)
    ]


def _line(runs: pd.DataFrame, experiment: str) -> str:
    first = runs.iloc[0]
    measure = MEASURES[first.measure]
    scores = runs[measure.score]
    what = [f"{first.model} on {first.corpus}"]
    if first.target != ",".join(EMOTION):
        what.append(f"target {first.target}")
    what += [head_and_layer(head_title(first["head"]), first.layer), f"split {first['split']}"]
    if first.get("labels_file"):
        what.append(f"labels {first.labels_file}")
    if first.feature_norm != "none":
        what.append(f"norm {first.feature_norm}")
    what += not_default(first.settings, first.cache_identity, first["head"])
    shown = (
        score(scores.mean(), scores.std(ddof=1), measure.decimals)
        if len(runs) > 1
        else number(scores.iloc[0], decimals=measure.decimals)
    )
    alarms = sorted({code for of_run in runs.alarms for code in of_run})
    flagged = f" ! {', '.join(alarms)}" if alarms else ""
    random = ", random weights" if first.random_weights else ""
    return (
        f"{experiment}  {', '.join(what)}{random}: {measure.title} {shown}, "
        f"{counted(len(runs), 'run')}{flagged}"
    )
