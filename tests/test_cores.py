"""Trainings side by side: in turn, on as many cores as there are, and none goes on after an end."""

import threading

import pytest
import torch

from lsmprobe.probing import cores as cores_module
from lsmprobe.probing.cores import side_by_side


def steps(said, epochs=(0, 1)):
    """A training that says its name with each step, and how many epochs end with it."""
    for ended in epochs:
        said()
        yield ended


def test_as_many_go_on_at_a_time_as_there_are_threads_and_share_them(threads):
    threads(5)
    meeting = threading.Barrier(2, timeout=20)  # whose breaking would be an error
    seen = []

    def training():
        meeting.wait()
        seen.append((threading.current_thread().name, torch.get_num_threads()))
        yield 0
        meeting.wait()

    side_by_side([training(), training()], 5, lambda: None)
    assert len({name for name, _ in seen}) == 2
    assert [each for _, each in seen] == [2, 2]
    assert torch.get_num_threads() == 5


def test_one_at_a_time_trains_in_the_callers_thread(threads):
    threads(3)
    where = []
    training = lambda: steps(lambda: where.append(threading.current_thread()))  # noqa: E731
    side_by_side([training()], 3, lambda: None)
    side_by_side([training(), training()], 1, lambda: None)
    assert set(where) == {threading.main_thread()}


def test_trainings_go_on_in_turn_and_their_epochs_are_reported():
    said, epochs = [], []
    trainings = [steps(lambda name=name: said.append(name)) for name in "abc"]
    side_by_side(trainings, 1, lambda: epochs.append(len(said)))
    assert said == [*"abcabc"]
    assert epochs == [4, 5, 6]


@pytest.mark.parametrize("cores", [1, 2])
def test_what_one_raises_ends_all(threads, cores):
    threads(cores)
    began = threading.Event()
    gone = []

    def fails():
        began.wait(20)
        yield 0
        raise ValueError("a loss")

    def endless():
        while True:
            began.set()
            gone.append(1)
            yield 0

    with pytest.raises(ValueError, match="a loss"):
        side_by_side([endless(), fails()], cores, lambda: None)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("train-")]
    assert gone and torch.get_num_threads() == cores


def test_what_stops_the_caller_stops_them(threads):
    """As Ctrl-C does, which comes to the main thread alone."""
    threads(2)

    def endless():
        while True:
            yield 1

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        side_by_side([endless(), endless()], 2, stop)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("train-")]


@pytest.mark.parametrize(
    ("cores", "trainings", "waiting"), [(4, 1, [4]), (4, 2, [4]), (5, 2, [4]), (2, 2, [])]
)
def test_cores_are_watched_where_threads_share_operations(
    monkeypatch, threads, cores, trainings, waiting
):
    threads(cores)
    seen = set()
    monkeypatch.setattr(cores_module, "say_where_cores_are_taken", seen.add)
    side_by_side([steps(lambda: None) for _ in range(trainings)], cores, lambda: None)
    assert seen == set(waiting)


def test_a_thread_that_cannot_start_is_the_error(monkeypatch, threads):
    """As under a limit on processes; not what comes of it."""
    threads(2)
    start = threading.Thread.start

    def refuse_the_second(thread):
        if thread.name == "train-1":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse_the_second)
    with pytest.raises(RuntimeError, match="can't start"):
        side_by_side([steps(lambda: None), steps(lambda: None)], 2, lambda: None)
    assert torch.get_num_threads() == 2
