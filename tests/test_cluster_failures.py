"""Both stages in real processes which are killed, stopped, given up, or meet a broken clip.

Each trial ends in the cache and the records of one undisturbed process, with no leftovers.
"""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile
from conftest import assert_as_undisturbed, waited_for

from lsmprobe.cache.parts import part_path
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.cli import INTERRUPTED
from lsmprobe.cluster.engines import DASK
from lsmprobe.cluster.stages import extract_on, train_on
from lsmprobe.config import ExtractGridConfig, ProbeConfig
from lsmprobe.extraction.grid import extract_all
from lsmprobe.probing.stage import probe_all
from lsmprobe.progress import silent

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SLOWLY = {"store": "pooled", "batch_seconds": 0.001}  # clip by clip
N_MANY = 1000


@pytest.fixture
def clips(tmp_path, write_wav, rng):
    rows = ["path,emotion,speaker,rater"]
    for n in range(24):
        write_wav(tmp_path / "mine" / f"{n:02d}.wav", rng.normal(size=1600 + 160 * n) * 0.1)
        rows.append(f"{n:02d}.wav,{('anger', 'fear')[n % 2]},s{n // 4},r{n % 3}")
    path = tmp_path / "mine" / "mine.csv"
    path.write_text("\n".join(rows) + "\n")
    return str(path)


@pytest.fixture
def many(clips):
    """Enough clips that a part takes a while: each a piece of one file."""
    rows = [f"23.wav,{('anger', 'fear')[n % 2]},s{n % 5},{n * 1e-4:.4f},\n" for n in range(N_MANY)]
    path = Path(clips).with_name("many.csv")
    path.write_text("path,emotion,speaker,start,end\n" + "".join(rows))
    return str(path)


def records(folder):
    """Every record, but for when, how long and where it was made."""
    found = {}
    for path in sorted(folder.rglob("*-seed*.json")):
        record = json.loads(path.read_text())
        for name in ("seconds", "created"):
            record.pop(name, None)
        found[path.relative_to(folder).as_posix()] = record
    return found


def differences(one, other, where=""):
    """Where two records differ by more than the rounding of another process."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [w for k in one for w in differences(one[k], other[k], f"{where}/{k}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        both = zip(one, other, strict=True)
        return [w for i, (a, b) in enumerate(both) for w in differences(a, b, f"{where}/{i}")]
    if isinstance(one, float) and isinstance(other, float):
        return (
            [] if one == pytest.approx(other, rel=1e-3, abs=1e-5) else [f"{where}: {one} {other}"]
        )
    return [] if one == other else [f"{where}: {one} {other}"]


def begun(path):
    """Whether one of two parts is being filled; seen at once, neither is complete."""
    return any(part.exists() for part in parts_of(path))


def parts_of(path):
    return [part_path(path, number, 2) for number in range(2)]


def extraction(many, folder, where):
    command = [sys.executable, ROOT / "extract.py", "--model", "toy", "--dataset", many]
    command += ["--cache-dir", folder, "--device", "cpu", "--store", "pooled", "--parts", "2"]
    return [*map(str, command), "--batch-seconds", "0.001", "--cluster", where]


def pieces_in(process):
    """The processes that do pieces for a process."""
    found = []
    with suppress(psutil.NoSuchProcess):
        for each in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # it has just ended
                if "lsmprobe.cluster.worker" in each.cmdline():
                    found.append(each)
    return found


def test_both_stages_in_local_processes_are_those_of_one_process(clips, tmp_path):
    """And a model that is not there is named once, and a broken clip with its name."""

    def extraction(folder, models=("toy",), datasets=(clips,)):
        where = {"cache_dir": tmp_path / folder, "device": "cpu", "store_dtype": "float32"}
        return ExtractGridConfig(models, datasets, **where).cells

    alone, _ = extract_all(extraction("a"))
    summaries, failures = extract_on(
        "local:2", extraction("b", ("toy", "nosuch-model")), parts=3, progress=silent
    )
    assert list(failures) == ["nosuch-model on mine, part 0 of 3 and 2 more"]
    [summary] = summaries
    assert (summary.n_done, summary.n_utterances, summary.n_tried) == (24, 24, 24)
    one, other = FeatureCache(alone[0].path), FeatureCache(summary.path)
    assert other.is_finished
    assert len(other.files) == 3
    assert one.utterances.drop(columns="path").equals(other.utterances.drop(columns="path"))
    assert "rater" in one.utterances
    for i in range(24):
        np.testing.assert_allclose(one.frames(i, 2), other.frames(i, 2), rtol=1e-4, atol=1e-5)
    again, _ = extract_on("local:2", extraction("b"), progress=silent)
    assert again[0].n_tried == 0

    def asked(kind, results, **more):
        where = {"cache_dir": tmp_path / "b", "results_dir": tmp_path / results, "device": "cpu"}
        return kind(runs=2, epochs=2, hidden=8, **where, **more)

    assert train_on("local:2", asked(ProbeConfig, "r2"), progress=silent) == {}
    there = sorted((tmp_path / "r2").rglob("*-seed*.json"))
    assert len(there) == 6
    results, _ = probe_all(asked(ProbeConfig, "r2"), only=())
    probe_all(asked(ProbeConfig, "r1"))
    assert len(results) == 6
    one, other = records(tmp_path / "r1"), records(tmp_path / "r2")
    assert one.keys() == other.keys()
    differing = {path: differences(one[path], other[path]) for path in one}
    assert not any(differing.values()), differing


@pytest.mark.parametrize("how", ["SIGKILL", "Ctrl-C", "SIGKILL of the command"])
def test_what_is_killed_or_stopped_is_finished_in_the_end(many, tmp_path, how):
    """The process of a piece is killed: another does it. The command is stopped or killed: nothing
    runs on, and the same command finishes."""
    path = tmp_path / "c" / "toy" / "many.h5"
    disturbed(extraction(many, tmp_path / "c", "local:2"), how, lambda: begun(path))
    assert_as_undisturbed(path, many, tmp_path, store="pooled")

    def probing(results):
        where = {"cache_dir": tmp_path / "c", "results_dir": tmp_path / results, "device": "cpu"}
        return ProbeConfig(head="linear", runs=2, epochs=200, resplit=True, **where)

    command = [sys.executable, ROOT / "probe.py", "--cache-dir", tmp_path / "c", "--device", "cpu"]
    command += ["--results-dir", tmp_path / "r2", "--head", "linear", "--runs", "2", "--resplit"]
    command += ["--epochs", "200", "--cluster", "local:2"]
    logs = tmp_path / "r2" / "logs"

    def training():
        return any(", on cpu" in log.read_text() for log in logs.glob("*/*.log"))

    disturbed(list(map(str, command)), how, training)
    probe_all(probing("r1"))
    one, other = records(tmp_path / "r1"), records(tmp_path / "r2")
    assert len(one) == 2
    assert one.keys() == other.keys()
    assert not any(differences(one[path], other[path]) for path in one)
    assert {file.suffix for file in logs.glob("*/*")} <= {".log", ""}  # "": stop
    assert list((tmp_path / "r2").glob(".*.mark")) == []


def disturbed(command, how, has_begun):
    """Run a command, disturb it in the middle of a piece, and see it finish, or finish it."""
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    waited_for(has_begun)
    children = pieces_in(run)
    if how == "SIGKILL":
        children[0].kill()
        _, said = run.communicate(timeout=400)
        assert (run.returncode, "is handed out again: signal 9" in said) == (0, True), said
        return
    run.send_signal(signal.SIGINT if how == "Ctrl-C" else signal.SIGKILL)
    run.communicate(timeout=120)
    assert run.returncode == (INTERRUPTED if how == "Ctrl-C" else -signal.SIGKILL)
    assert psutil.wait_procs(children, 0 if how == "Ctrl-C" else 60)[1] == []
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr


def test_a_broken_clip_is_named_and_stops_or_blames_nobody_else(clips, tmp_path):
    """Its header is sound, so that it breaks in the middle of a part."""
    rng = np.random.default_rng(0)
    broken = Path(clips).with_name("05.flac")
    soundfile.write(broken, rng.normal(size=30_000) * 0.1, 16_000)
    content = bytearray(broken.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 2000] = bytes(2000)
    broken.write_bytes(content)
    Path(clips).write_text(Path(clips).read_text().replace("05.wav", "05.flac"))
    where = {"cache_dir": tmp_path / "c", "device": "cpu", "store": "pooled"}
    [config] = ExtractGridConfig(("toy",), (clips,), **where).cells
    [summary], failures = extract_on("local:2", [config], parts=4, progress=silent)
    [(what, error)] = failures.items()
    assert "part" in what
    assert "05.flac" in str(error)
    log = Path(str(error).rpartition("Log: ")[2])
    assert "05.flac" in log.read_text()
    unfinished = [
        part
        for part in (part_path(summary.path, number, 4) for number in range(4))
        if not FeatureCache(part, allow_unfinished=True).is_finished
    ]
    assert len(unfinished) == 1
    [config] = ExtractGridConfig(("toy",), (clips,), skip_unreadable=True, **where).cells
    [summary], failures = extract_on("local:2", [config], progress=silent)
    assert (failures, summary.skipped) == ({}, ("05.flac",))
    assert_as_undisturbed(summary.path, clips, tmp_path, store="pooled", skip_unreadable=True)


@contextmanager
def dask_programs(folder):
    """Start `dask scheduler` and `dask worker` as a person does; all end with the block."""
    distributed = pytest.importorskip("distributed")
    where, started = folder / "scheduler.json", []
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

    def start(program, *flags):
        module = f"{distributed.__name__}.cli.dask_{program}"
        command = [sys.executable, "-m", module, "--scheduler-file", where, "--no-dashboard"]
        started.append(subprocess.Popen([*command, *flags], **quiet))
        return started[-1]

    def scheduler():
        where.unlink(missing_ok=True)
        found = start("scheduler", "--host", "127.0.0.1", "--port", "0")
        waited_for(where.exists)
        return found

    def worker():
        return start("worker", "--nthreads", "1", "--memory-limit", "0")

    with ExitStack() as held:
        try:
            yield str(where), scheduler, worker
        finally:
            for process in reversed(started):
                process.terminate()
            for process in started:
                held.callback(process.wait, 120)


@pytest.mark.parametrize("how", ["a worker's time is up", "the scheduler is killed", "Ctrl-C"])
def test_a_dask_cluster_that_loses_someone_is_finished_in_the_end(many, tmp_path, how):
    path = tmp_path / "c" / "toy" / "many.h5"
    with dask_programs(tmp_path) as (where, scheduler, worker):
        head, workers = scheduler(), [worker(), worker()]
        command = extraction(many, tmp_path / "c", where)
        impatient = {**os.environ, "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s"}
        run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=impatient)
        waited_for(lambda: begun(path))
        pieces = [(each, piece) for each in workers for piece in pieces_in(each)]
        if how == "a worker's time is up":  # as a batch system says it; then the next job begins
            leaving, piece = pieces[0]
            leaving.terminate()
            worker()
            _, said = run.communicate(timeout=400)
            assert run.returncode == 0, said
            assert psutil.wait_procs([piece], 60)[1] == []
        else:
            if how == "Ctrl-C":
                run.send_signal(signal.SIGINT)
            else:
                head.kill()
            _, said = run.communicate(timeout=400)
            assert psutil.wait_procs([piece for _, piece in pieces], 120)[1] == []
            if how == "Ctrl-C":
                assert run.returncode == INTERRUPTED
            else:
                assert (run.returncode, "is gone. Finished work is kept" in said) == (1, True), said
                assert "Traceback" not in said
                scheduler()
                worker()
                worker()
            again = subprocess.run(command, capture_output=True, text=True)
            assert again.returncode == 0, again.stderr
    assert_as_undisturbed(path, many, tmp_path, store="pooled")


@pytest.mark.filterwarnings("default")  # those of Dask, at its end
def test_a_worker_that_is_given_up_and_wakes_up_damages_nothing(many, tmp_path):
    """A Dask worker and its process stop in the middle of a part; another worker takes it over."""
    dask = pytest.importorskip("dask")
    distributed = pytest.importorskip("distributed")
    where = {"cache_dir": tmp_path / "c", "device": "cpu"}
    [config] = ExtractGridConfig(("toy",), (many,), **where, **SLOWLY).cells
    with (
        dask.config.set({**DASK, "distributed.scheduler.worker-ttl": "15s"}),
        distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
        ThreadPoolExecutor(1) as thread,
    ):
        run = thread.submit(extract_on, client, [config], parts=2, progress=silent)
        waited_for(lambda: begun(config.cache_path))
        process = pieces_in(psutil.Process())[0]
        stopped = [process, process.parent()]
        for each in stopped:
            each.suspend()
        [summary], failures = run.result(timeout=400)
        sound = [part.read_bytes() for part in parts_of(config.cache_path)]
        for each in stopped:
            with suppress(psutil.NoSuchProcess):
                each.resume()
        psutil.wait_procs([process], timeout=60)
    assert (summary.n_done, failures) == (N_MANY, {})
    assert [part.read_bytes() for part in parts_of(config.cache_path)] == sound
    assert_as_undisturbed(config.cache_path, many, tmp_path, store="pooled")
