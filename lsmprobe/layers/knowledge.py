"""Everything that a layer may know, compared with the control with random weights."""

import glob
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import pandas as pd

from lsmprobe.arguments import Within, checked
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.errors import AudioError, SettingsError
from lsmprobe.layers.curves import keep_curve
from lsmprobe.layers.probes import (
    ControlName,
    TargetName,
    curve_of_target,
    find_asked,
    whole_speakers,
)
from lsmprobe.layers.regression import NormName
from lsmprobe.layers.targets import TARGETS, labels_of
from lsmprobe.progress import Progress, automatic
from lsmprobe.results.scores import ScoreName

CONSTANT = "best constant answer"
SHUFFLED = "shuffled answers"
log = logging.getLogger(__name__)


@checked
def what_layers_know(
    cache: FeatureCache | str | Path,
    targets: Sequence[TargetName | str] | None = None,
    *,
    feature_norm: NormName = "zscore",
    split: str = "auto",
    labels: str | Path | None = None,
    score: ScoreName = "macro_f1",
    shuffles: Annotated[int, Within(0, 1000)] = 1,
    control: ControlName = "labels",
    random_weights: bool = True,
    results_dir: str | Path = "results",
    progress: Progress = automatic,
) -> pd.DataFrame:
    """The same probe for everything there is to know, layer by layer.

    Args:
        cache: whose layers.
        targets: as in `probe_layers`; by default all that need no column of one's own. What this
            corpus lacks of these is named in the log.
        feature_norm: as in `probe_layers`.
        split: of all targets but the speaker, which is split at random. `auto` is as `probe_layers`
            has it for targets other than the emotion, so that all are tested on the same speakers.
        labels: as in `probe_layers`.
        score: of classes, as in `probe_layers`; numbers have R^2, so that all are in percent.
        shuffles: as in `probe_layers`.
        control: as in `probe_layers`.
        random_weights: probe the control model too, the same architecture with random weights,
            where its cache lies beside this one.
        results_dir: as in `probe_layers`.
        progress: as in `probe_layers`.

    Returns:
        As `probe_layers`, one row per model, target and layer.

    Raises:
        LsmprobeError: as `probe_layers`.
    """
    cache = FeatureCache.of(cache)
    caches = [cache, *(control_caches(cache) if random_weights else ())]
    tables = []
    asked = TARGETS if targets is None else targets
    for name in progress(asked, desc="what layers know", unit="target", delay=5):
        try:
            for one in caches:
                utterances, found = find_asked(
                    one, name, "auto", labels, results_dir, progress, together=targets or ()
                )
                spec = split if found.name != "speaker" else "random"
                curve = curve_of_target(
                    one,
                    utterances,
                    found,
                    told=labels_of({}, labels),
                    metric="r2" if found.is_number else score,
                    feature_norm=feature_norm,
                    split=whole_speakers(utterances) if spec == "auto" else spec,
                    split_seed=0,
                    shuffles=shuffles,
                    control=control,
                    progress=progress,
                )
                keep_curve(curve, results_dir)
                tables.append(curve)
        except (SettingsError, AudioError) as error:
            if targets is not None:
                raise
            log.warning("skipping %s: %s", name, str(error).removeprefix("target: "))
    return pd.concat(tables, ignore_index=True)


def control_caches(cache: FeatureCache) -> list[FeatureCache]:
    """The caches of the same architecture with random weights that lie beside this one."""
    folder, name = cache.path.parent, glob.escape(f"{cache.model}-random")
    paths = sorted(folder.parent.glob(f"{name}*/{glob.escape(cache.path.name)}"))
    caches = [FeatureCache(path) for path in paths]
    return [one for one in caches if one.identity.get("random_init") is not None]


def knowledge_table(knowledge: pd.DataFrame) -> pd.DataFrame:
    """Scores, layers by targets; below each model what guessing scores.

    The last two rows of a model are the best constant answer, and the probe's own answers shuffled
    against the truth (mean over layers): half of all genders are guessed, a constant answer has
    a macro-F1 of a third.

    Args:
        knowledge: what `what_layers_know` returned.
    """
    tables = {}
    for model, rows in knowledge.groupby("model", sort=False):
        tables[model] = rows.pivot_table("score", "layer", "target", sort=False)
        for name, column in ((CONSTANT, "constant"), (SHUFFLED, "shuffled")):
            tables[model].loc[name] = rows.groupby("target")[column].mean()
    return pd.concat(tables, names=["model", "layer"])


def knowledge_sentences(knowledge: pd.DataFrame) -> list[str]:
    """What each layer knows, a line each: `Layer 5: emotion 71, sentence 98, speaker 64`.

    Args:
        knowledge: what `what_layers_know` returned; of several models each line begins with its.
    """
    several = len(knowledge["model"].unique()) > 1
    lines = []
    for (model, layer), rows in knowledge.groupby(["model", "layer"], sort=False):
        which = f"{model}, layer {layer}" if several else f"Layer {layer}"
        known = ", ".join(f"{row.target} {row.score:.0f}" for row in rows.itertuples())
        lines.append(f"{which}: {known}")
    return lines
