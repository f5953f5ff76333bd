"""Batches of audio, decoded ahead of the model, and states stored behind it."""

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import pandas as pd

from lsmprobe.config import ExtractConfig
from lsmprobe.corpora.audio import SAMPLE_RATE, Audio, read_audio
from lsmprobe.errors import AudioError
from lsmprobe.progress import Progress

DECODERS = 2  # threads that decode ahead of the model
BATCHES_AHEAD = 4
log = logging.getLogger(__name__)
Item = TypeVar("Item")
Made = TypeVar("Made")


def batches(
    costs: Sequence[float], order: Iterable[int], max_seconds: float
) -> Iterator[list[int]]:
    """Cut `order` into batches of at most `max_seconds`, every utterance counted as the longest.

    Given from long to short, little is padded. An utterance above the bound goes alone.

    >>> list(batches([3.0, 2.0, 2.0, 9.0], [3, 0, 1, 2], max_seconds=6.0))
    [[3], [0, 1], [2]]
    """
    batch: list[int] = []
    for index in order:
        longest = max(costs[i] for i in [*batch, index])
        if batch and longest * (len(batch) + 1) > max_seconds:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def made_ahead(
    pool: ThreadPoolExecutor, make: Callable[[Item], Made], items: Iterable[Item]
) -> Iterator[tuple[Item, Made]]:
    """Each item with what `make` makes of it in a thread, a few items ahead of the consumer."""
    waiting: list[tuple[Item, Future[Made]]] = []
    rest = iter(items)
    while True:
        ahead = itertools.islice(rest, BATCHES_AHEAD - len(waiting))
        waiting += [(item, pool.submit(make, item)) for item in ahead]
        if not waiting:
            return
        item, future = waiting.pop(0)
        yield item, future.result()


class OneBehind:
    """Makes calls in a thread, one at a time, while the caller goes on with what comes next.

    An error comes out of the following call, or of the end of the `with` block, which waits.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._last: Future[None] | None = None

    def call(self, function: Callable[..., None], *args: Any) -> None:
        """Wait for the last call, then begin this one."""
        if self._last:
            self._last.result()
        self._last = self._thread.submit(function, *args)

    def __enter__(self) -> "OneBehind":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._thread.shutdown()
        if self._last and kind is None:
            self._last.result()


def read_batch(
    config: ExtractConfig, table: pd.DataFrame, group: Sequence[int]
) -> list[Audio | None]:
    """The audio of a batch; None where a clip turns out unreadable and that is allowed."""
    audios: list[Audio | None] = []
    for row in table.iloc[list(group)].itertuples():
        try:
            audio = read_audio(
                row.path, start_s=row.start_s, end_s=row.end_s, max_s=config.max_seconds
            )
        except AudioError as error:
            if not config.skip_unreadable:
                raise AudioError(
                    f"{error} Or leave such clips out with --skip-unreadable. What was done is "
                    "kept."
                ) from error
            log.warning("skipping: %s", error)
            audios.append(None)
            continue
        audios.append(audio)
    return audios


class AudioBar:
    """A bar over samples of audio: the time left is right although long clips come first."""

    def __init__(self, table: pd.DataFrame, todo: Sequence[int], progress: Progress) -> None:
        self.samples = table.samples.to_numpy()
        self.n_done = len(table) - len(todo)
        self.n_all = len(table)
        self.n_now = 0
        self.since = time.monotonic()
        self.bar = progress(
            total=int(self.samples[list(todo)].sum()),
            bar_format="{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}",
            disable=not todo,
        )

    def __enter__(self) -> "AudioBar":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def add(self, group: Sequence[int]) -> None:
        """Count the clips of a batch."""
        self.n_now += len(group)
        rate = self.n_now / max(time.monotonic() - self.since, 1e-9)
        samples = int(self.samples[list(group)].sum())
        self.bar.set_postfix_str(
            f"{self.n_done + self.n_now}/{self.n_all} clips, {rate:.3g} clips/s, "
            f"{(self.bar.n + samples) / SAMPLE_RATE / 3600:.3f} h",
            refresh=False,
        )
        self.bar.update(samples)
