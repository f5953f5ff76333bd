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

from lsmprobe.machine import say_where_cores_are_taken

Steps: TypeAlias = Iterator[int]
"""A training that is gone through step by step; each yields how many epochs ended with it."""


def trainings_at_a_time(device: str) -> int:
    """How many trainings go on at a time, if there are as many: on a CPU torch's threads."""
    return torch.get_num_threads() if device == "cpu" else 1


def side_by_side(
    trainings: Sequence[Steps], at_a_time: int, on_epoch: Callable[[], object]
) -> None:
    """Go through trainings that do not depend on each other, each by a step in its turn.

    Args:
        trainings: at least one; none of them has begun.
        at_a_time: how many train at a time; torch's threads are divided among them.
        on_epoch: called in this thread, once for each epoch that ends.

    Raises:
        Exception: what a training raised; the others are left where they are.
    """
    threads = torch.get_num_threads()
    at_a_time = min(at_a_time, len(trainings))
    of_each = max(1, threads // at_a_time)
    waiting = deque(trainings)

    def report(ended: int) -> None:
        for _ in range(ended):
            on_epoch()
        if of_each > 1:
            say_where_cores_are_taken(of_each * at_a_time)

    if at_a_time == 1:
        _go_through(waiting, report)
        return
    news: SimpleQueue[int | BaseException | None] = SimpleQueue()  # None: a thread has ended
    given_up = Event()

    def work() -> None:
        try:
            torch.set_num_threads(of_each)  # for the operations of this thread
            _go_through(waiting, news.put, given_up)
            news.put(None)
        except BaseException as error:
            news.put(error)

    working = [Thread(target=work, name=f"train-{n}", daemon=True) for n in range(at_a_time)]
    try:
        for thread in working:
            thread.start()
        running = len(working)
        while running:
            item = news.get()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                running -= 1
            else:
                report(item)
    finally:
        given_up.set()
        try:
            for thread in working:
                if thread.ident is not None:  # else it could not start
                    thread.join()
            # An error holds its frames, these what is trained from, and its thread's the queue.
            item = None
            while not news.empty():
                news.get()
        finally:
            torch.set_num_threads(threads)  # for threads that are yet to come


def _go_through(
    waiting: deque[Steps], report: Callable[[int], object], given_up: Event | None = None
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
            if ended:
                report(ended)
            break
