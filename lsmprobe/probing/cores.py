"""Trainings side by side: on a CPU a core for each, instead of all cores for each operation.

A head's operations are small. Shared by all cores they keep the threads waiting for each other,
and where other processes use the cores too, for threads that have no core to run on.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from threading import Event, Thread
from typing import TypeAlias

import torch

from lsmprobe.machine import say_where_cores_are_taken, share_freed_memory

Steps: TypeAlias = Iterator[int]
"""A training that is gone through step by step; each says how many epochs have ended with it."""


def trainings_at_a_time(device: str) -> int:
    """How many trainings go on at a time, if there are as many: on a CPU torch's threads."""
    return torch.get_num_threads() if device == "cpu" else 1


def side_by_side(
    trainings: Sequence[Steps], at_a_time: int, on_epoch: Callable[[], object]
) -> None:
    """Go through trainings that do not depend on each other, each by a step in its turn.

    Args:
        trainings: at least one; none of them has begun.
        at_a_time: as many threads train, and share those that torch has for an operation here.
        on_epoch: called in this thread, once for each epoch that ends.

    Raises:
        Exception: what a training raised; the others are left where they are.
    """
    threads = torch.get_num_threads()
    at_a_time = min(at_a_time, len(trainings))
    of_each = max(1, threads // at_a_time)
    waiting = deque(trainings)

    def tell(ended: int) -> None:
        for _ in range(ended):
            on_epoch()
        if ended and of_each > 1:
            say_where_cores_are_taken(of_each)

    if at_a_time == 1:
        _go_through(waiting, tell)
        return
    news: SimpleQueue[int | BaseException | None] = SimpleQueue()  # None: a thread has ended
    given_up = Event()

    def work() -> None:
        torch.set_num_threads(of_each)  # for the operations of this thread
        try:
            _go_through(waiting, news.put, given_up)
            news.put(None)
        except BaseException as error:
            news.put(error)

    share_freed_memory()
    working = [Thread(target=work, name=f"train-{n}", daemon=True) for n in range(at_a_time)]
    try:
        for thread in working:
            thread.start()
        running = len(working)
        while running:
            told = news.get()
            if isinstance(told, BaseException):
                raise told
            if told is None:
                running -= 1
            else:
                tell(told)
    finally:
        given_up.set()
        for thread in working:
            thread.join()
        torch.set_num_threads(threads)  # for threads that are yet to come


def _go_through(
    waiting: deque[Steps], tell: Callable[[int], object], given_up: Event | None = None
) -> None:
    """Take the training that waits longest, go a step, and put it back, until all are over.

    Several threads may do so at a time: a training that is not waiting is in the hands of one.
    """
    while not (given_up and given_up.is_set()):
        try:
            training = waiting.popleft()
        except IndexError:
            return
        for ended in training:
            waiting.append(training)
            tell(ended)
            break
