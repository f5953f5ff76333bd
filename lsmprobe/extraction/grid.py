"""Several models on several corpora: each corpus is read once, one bar counts all of the audio."""

import logging
from collections.abc import Hashable, Sequence
from dataclasses import fields
from functools import partial
from typing import Any

import pandas as pd
from tqdm.contrib.logging import logging_redirect_tqdm

from lsmprobe.config import CorpusConfig, ExtractConfig
from lsmprobe.errors import LsmprobeError
from lsmprobe.extraction.plan import planned_utterances
from lsmprobe.extraction.stage import Summary, extract
from lsmprobe.progress import Progress, automatic, forwarded

READ_BY = (*(field.name for field in fields(CorpusConfig)), "dataset", "max_seconds")
log = logging.getLogger(__name__)


def extract_all(
    configs: Sequence[ExtractConfig], *, progress: Progress = automatic
) -> tuple[list[Summary], dict[str, Exception]]:
    """Extract one after the other, as `extract` does; what fails does not stop the others.

    Args:
        configs: what is extracted, such as `ExtractGridConfig(...).cells`.
        progress: how it is shown: one bar for all of them.

    Returns:
        A summary of each that was extracted, and by what failed its error.
    """
    corpora, failures = read_once(configs)
    summaries = []
    todo = [config for config in configs if named(config) not in failures]
    samples = [int(corpora[reading(config)].samples.sum()) for config in todo]
    with (
        logging_redirect_tqdm(),
        progress(
            total=sum(samples),
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}",
            disable=not todo,
        ) as bar,
    ):
        for n, config in enumerate(todo):
            bar.set_description(named(config), refresh=False)
            inner = forwarded(partial(_move_to, bar, sum(samples[:n])), bar.set_postfix_str)
            try:
                utterances = corpora[reading(config)]
                summaries.append(extract(config, progress=inner, utterances=utterances))
            except Exception as error:
                failures |= failure(named(config), error)
            _move_to(bar, sum(samples[: n + 1]), 0)  # what was there before counts too
    return summaries, failures


def _move_to(bar: Any, start: int, count: int) -> None:
    """The bar of all, at so many samples of the extraction that begins at `start`."""
    bar.update(start + count - bar.n)


def read_once(
    configs: Sequence[ExtractConfig],
) -> tuple[dict[Hashable, pd.DataFrame], dict[str, Exception]]:
    """Every corpus, by how it is read, and by what cannot be extracted for it the error."""
    corpora: dict[Hashable, pd.DataFrame | Exception] = {}
    failures: dict[str, Exception] = {}
    for config in configs:
        if reading(config) not in corpora:
            try:
                corpora[reading(config)] = planned_utterances(config)
            except Exception as error:
                corpora[reading(config)] = error
        found = corpora[reading(config)]
        if isinstance(found, Exception):
            failures |= failure(named(config), found)
    return {k: v for k, v in corpora.items() if isinstance(v, pd.DataFrame)}, failures


def reading(config: ExtractConfig) -> Hashable:
    """What decides the table of utterances: equal for models that run on one corpus."""
    return tuple(getattr(config, name) for name in READ_BY)


def named(config: ExtractConfig) -> str:
    """An extraction, for messages."""
    return f"{config.cache_path.parent.name} on {config.cache_path.stem}"


def failure(what: str, error: Exception) -> dict[str, Exception]:
    """An error to be told at the end, and now too if it is none that a user can act on."""
    if not isinstance(error, LsmprobeError):
        log.error("%s failed", what, exc_info=error)
    return {what: error}
