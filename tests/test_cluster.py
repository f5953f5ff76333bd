"""Pieces, what hands them out, and what becomes of them where processes are lost."""

import io
import json
import os
import shlex
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import utterance_table, waited_for, write_cache
from hypothesis import given, settings
from hypothesis import strategies as st
from recipes import recipe
from tqdm import tqdm

from lsmprobe import cli
from lsmprobe.cache.file import CacheFile
from lsmprobe.cache.lock import sole_writer
from lsmprobe.cache.parts import part_path, plan_part
from lsmprobe.cache.plan import CachePlan
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.cache.verify import damaged_rows
from lsmprobe.cache.writer import CacheWriter
from lsmprobe.cluster import runner, stages, worker
from lsmprobe.cluster.engines import SYSTEMS, Engine, job_settings, opened, slots
from lsmprobe.cluster.pieces import Piece, pieces_of_extraction, read_table, write_table
from lsmprobe.cluster.runner import LOST, run_pieces, shared_by_all
from lsmprobe.cluster.slurm_script import slurm_script
from lsmprobe.cluster.stages import STAGES
from lsmprobe.cluster.task import do_piece
from lsmprobe.commands import list_caches_command
from lsmprobe.config import (
    ClusterFlags,
    ExtractConfig,
    ListCachesConfig,
    ProbeConfig,
    SensitivityConfig,
    SlurmScriptConfig,
    TransferConfig,
)
from lsmprobe.corpora.utterances import UNLABELLED
from lsmprobe.errors import CacheError, SettingsError
from lsmprobe.extraction import resume
from lsmprobe.extraction.plan import planned_utterances
from lsmprobe.extraction.resume import planned_files
from lsmprobe.progress import silent

ROOT = Path(__file__).parents[1]
EXTRACTION = ExtractConfig("toy", "a/mine.csv", data_dir=Path("x"), map=("rage=anger",))


# The planner


@settings(max_examples=25)
@given(
    st.lists(st.integers(0, 500), min_size=1, max_size=30).filter(any),
    st.integers(1, 12),
)
def test_the_pieces_are_parts_without_an_empty_one_and_hold_all_audio(samples, n_parts):
    pieces = pieces_of_extraction(EXTRACTION, np.array(samples), [], n_parts)
    assert 1 <= len(pieces) <= n_parts
    assert sum(piece.size for piece in pieces) == sum(samples)
    assert all(piece.size for piece in pieces)
    assert len({piece.name for piece in pieces}) == len(pieces)
    if len(pieces) > 1:
        parts = [piece.config.part for piece in pieces]
        assert parts == [f"{n}/{len(pieces)}" for n in range(len(pieces))]


def test_what_is_there_decides_how_a_cache_is_continued():
    path, samples = EXTRACTION.cache_path, np.full(100, 1600)

    def parts(*there):
        pieces = pieces_of_extraction(EXTRACTION, samples, there, 4)
        return [piece.config.part for piece in pieces]

    assert parts() == ["0/4", "1/4", "2/4", "3/4"]
    assert parts(path) == [""]
    assert parts(path, part_path(path, 0, 2)) == [""]
    assert parts(part_path(path, 1, 3)) == ["0/3", "1/3", "2/3"]


@pytest.mark.parametrize(
    "config",
    [
        EXTRACTION,
        ProbeConfig(model=("toy",), labels=Path("mine.csv"), layer="all", scalar_lr=None),
        TransferConfig(emotions=("anger", "fear")),
        SensitivityConfig(cache_dir=Path("elsewhere")),
    ],
)
def test_a_piece_travels_as_json(config):
    piece = Piece("named", config, 7, ("a.json",), 3)
    assert Piece.from_json(json.loads(json.dumps(piece.to_json()))) == piece


def test_a_corpus_that_was_read_once_is_the_same_in_each_process(tmp_path, write_wav, rng):
    write_wav(tmp_path / "ä.wav", rng.normal(size=4000) * 0.1)
    rows = "ä.wav,anger,s1,,\nä.wav,fear,s2,0.1,0.2\nä.wav,,s2,0.05,\n"
    text = f"path,emotion,speaker,start,end\n{rows}"
    (tmp_path / "mine.csv").write_text(text, "utf-8")
    config = ExtractConfig("toy", str(tmp_path / "mine.csv"), skip_unlabelled=True)
    table = planned_utterances(config)
    write_table(tmp_path / "mine.npz", table)
    kept = read_table(tmp_path / "mine.npz")
    assert kept.attrs == table.attrs
    assert kept.attrs[UNLABELLED]
    columns = list(kept.columns)
    pd.testing.assert_frame_equal(kept, table[columns], check_dtype=False)
    assert set(CachePlan(kept.assign(frames=1), 1, 1, "pooled", "float32", {}).columns)


def test_a_piece_of_stage_2_is_what_one_read_serves(planted_cache, tmp_path):
    planted_cache()
    config = ProbeConfig(cache_dir=tmp_path / "cache", results_dir=tmp_path / "r", runs=2, epochs=1)
    pieces, failures = STAGES[ProbeConfig].plan(config, silent)
    assert failures == {}
    assert [piece.name for piece in pieces] == [
        "planted on made, means 0",
        "planted on made, frames 1",
    ]
    heads = [{Path(record).name.partition("-")[0] for record in piece.records} for piece in pieces]
    assert heads == [{"linear"}, {"nonlinear", "multilayer"}]
    assert [piece.size for piece in pieces] == [2, 4]


def test_the_longest_piece_of_a_grid_begins_first(tmp_path, monkeypatch):
    speakers = [f"s{n // 2}" for n in range(12)]
    for model, frames in (("a", 20), ("b", 60), ("c", 40)):
        table = utterance_table(speakers, ["anger", "fear"] * 6, [frames] * 12)
        hidden = [torch.randn(2, frames, 32) for _ in range(12)]
        write_cache(tmp_path / "cache" / model / "made.h5", table, hidden)
    order = []

    def run_none(pieces, *_, **__):
        order.extend(piece.name for piece in pieces)
        return {}, {}

    monkeypatch.setattr(stages, "run_pieces", run_none)
    config = ProbeConfig(cache_dir=tmp_path / "cache", results_dir=tmp_path / "r", runs=1)
    assert stages.train_on(ThreadPoolExecutor(1), config, progress=silent) == {}
    means = [f"{model} on made, means 0" for model in "abc"]
    assert order == [f"{model} on made, frames 1" for model in "bca"] + means


# Handing out


class Answers:
    """In the place of a process: each piece's answers, one per attempt."""

    def __init__(self, **answers):
        self.answers = answers

    def __call__(self, order):
        return self.answers[order["piece"]["name"]].pop(0)


def handed_out(tmp_path, run, names):
    bars = []

    def bar(iterable=None, **settings):
        bars.append(tqdm(iterable, **(settings | {"file": io.StringIO(), "disable": False})))
        return bars[-1]

    pieces = [Piece(name, EXTRACTION, 10) for name in names]
    with ThreadPoolExecutor(2) as pool, shared_by_all(tmp_path, [tmp_path]) as shared:
        found = run_pieces(pieces, Engine(pool, "threads", 2), shared, progress=bar, run=run)
    assert bars[0].n == bars[0].total == 10 * len(names)
    return found


def test_a_piece_that_is_lost_is_handed_out_again_and_one_that_fails_is_not(tmp_path):
    run = Answers(
        whole=[{"done": 1}],
        preempted=[{"lost": "signal 9"}] * (LOST - 1) + [{"done": 2}],
        hopeless=[{"lost": "signal 9"}] * LOST,
        broken=[{"failed": "clip 7 cannot be read."}],
    )
    answers, failures = handed_out(tmp_path, run, ["whole", "preempted", "hopeless", "broken"])
    assert answers == {"whole": 1, "preempted": 2}
    assert set(failures) == {"hopeless", "broken"}
    assert "clip 7 cannot be read. Log: " in str(failures["broken"])
    assert f"lost {LOST} times: signal 9" in str(failures["hopeless"])
    assert list(tmp_path.glob(".*.mark")) == []


def test_an_engine_that_breaks_is_a_piece_that_is_lost(tmp_path):
    def run(order):
        raise RuntimeError("the engine broke")

    _, failures = handed_out(tmp_path, run, ["one"])
    assert "RuntimeError: the engine broke" in str(failures["one"])


def test_every_process_of_a_machine_has_a_gpu_of_its_own():
    def none():
        return 0

    assert slots(2, "auto", {}, none) == [{}, {}]
    assert slots(2, "cuda", {}, lambda: 2) == [
        {"CUDA_VISIBLE_DEVICES": "0"},
        {"CUDA_VISIBLE_DEVICES": "1"},
    ]
    assert slots(1, "auto", {"CUDA_VISIBLE_DEVICES": "MIG-7,3"}, none) == [
        {"CUDA_VISIBLE_DEVICES": "MIG-7"}
    ]
    with pytest.raises(SettingsError, match=r"local:3: found 2 GPUs.*local:2, or --device cpu"):
        slots(3, "auto", {}, lambda: 2)


@pytest.mark.parametrize("where", ["local:0", "local:", "local:x", "somewhere", "slrum"])
def test_a_cluster_that_makes_no_sense_is_refused(where):
    with (
        pytest.raises(SettingsError, match="expected local:N"),
        opened(where, ClusterFlags(), "cpu"),
    ):
        pass


GPU_JOB = ClusterFlags(
    queue="long", account="lab", cores=8, memory="32GiB", walltime="04:00:00", gpus=2
)
PLAIN_JOB = ClusterFlags(queue="long", account="lab", walltime="04:00:00")


def job_script(system, flags):
    """Written by dask_jobqueue, which needs no batch system for that."""
    jobqueue = pytest.importorskip("dask_jobqueue")
    job = getattr(jobqueue, SYSTEMS[system].kind).job_cls
    return job("tcp://here:1", name="worker", **job_settings(system, flags)).job_script()


@pytest.mark.parametrize(
    ("system", "flags", "lines"),
    [
        (
            "slurm",
            GPU_JOB,
            """#SBATCH -p long
#SBATCH -A lab
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH -t 04:00:00
#SBATCH --gres=gpu:2""",
        ),
        (
            "pbs",
            GPU_JOB,
            """#PBS -q long
#PBS -A lab
#PBS -l select=1:ncpus=8:ngpus=2:mem=32GB
#PBS -l walltime=04:00:00""",
        ),
        ("pbs", replace(GPU_JOB, gpus=0), "#PBS -l select=1:ncpus=8:mem=32GB"),
        (
            "lsf",
            GPU_JOB,
            """#BSUB -q long
#BSUB -P "lab"
#BSUB -n 8
#BSUB -M 34359739
#BSUB -W 04:00
#BSUB -gpu "num=2\"""",
        ),
        (
            "sge",
            PLAIN_JOB,
            """#$ -q long
#$ -P lab
#$ -l h_rt=04:00:00
#$ -l gpu=1,h_vmem=4G
#$ -pe smp 8""",
        ),
    ],
)
def test_a_job_asks_its_system_for_what_the_flags_say(system, flags, lines, in_a_file):
    in_a_file("sge", cores=8, memory="32GB", **{"resource-spec": "gpu=1,h_vmem=4G"})
    in_a_file("sge", **{"job-extra-directives": ["-pe smp 8"]})
    script = job_script(system, flags).splitlines()
    assert [line for line in lines.splitlines() if line not in script] == [], script
    assert "\n".join(script).count("gpu") == lines.count("gpu")
    assert "--nthreads 1 --memory-limit 0" in script[-1]


def test_what_a_site_has_written_down_stays_beside_the_gpus(in_a_file):
    in_a_file("slurm", **{"job-extra-directives": ["--constraint=a100"]})
    script = job_script("slurm", GPU_JOB)
    assert "#SBATCH --constraint=a100\n#SBATCH --gres=gpu:2\n" in script
    in_a_file("pbs", cores=4, memory="8GiB")
    assert "select=1:ncpus=4:ngpus=1:mem=8192MB\n" in job_script("pbs", ClusterFlags(gpus=1))


def test_ctrl_c_stays_what_it_is_beside_the_library_of_batch_systems():
    """In a process of its own, since the library does it once."""
    pytest.importorskip("dask_jobqueue")
    program = """
import signal
from lsmprobe.cluster.engines import _dask_jobqueue
_dask_jobqueue()
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(("asked", "level"), [({}, "ERROR"), ({"DASK_LOGGING__X": "info"}, "INFO")])
def test_dask_tells_of_no_connection_unless_its_configuration_says_how_it_logs(asked, level):
    """In a process of its own, since the library reads that once."""
    pytest.importorskip("distributed")
    program = """
import logging
from lsmprobe.cluster.engines import _quiet_dask
_quiet_dask()
print(logging.getLevelName(logging.getLogger("distributed.scheduler").getEffectiveLevel()))
"""
    command = [sys.executable, "-c", program]
    said = subprocess.run(
        command, env={**os.environ, **asked}, capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == level


def test_what_each_site_calls_by_its_own_name_is_to_be_written_into_the_file():
    pytest.importorskip("dask")
    with pytest.raises(SettingsError, match=r"sge cannot take --memory, --gpus.*--cluster-file"):
        job_settings("sge", ClusterFlags(memory="8GB", gpus=1))


@pytest.fixture
def in_a_file():
    """Write into Dask's configuration, as --cluster-file does."""
    dask = pytest.importorskip("dask")
    pytest.importorskip("dask_jobqueue")
    with ExitStack() as held:

        def write(system, **settings):
            more = {f"jobqueue.{system}.{name}": value for name, value in settings.items()}
            held.enter_context(dask.config.set(more))

        yield write


# The worker


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"version": "0.0.0"}, "expected 0.0.0, as where the command runs"),
        ({"folders": [["/nowhere/cache", ".mark"]]}, "does not see /nowhere/cache"),
        ({"cwd": "/nowhere"}, "does not see /nowhere"),
    ],
)
def test_a_worker_that_is_not_fit_says_so_in_one_line(tmp_path, changed, message):
    with shared_by_all(tmp_path, [tmp_path]) as shared:
        worker.check_place(shared)
        with pytest.raises(SettingsError, match=message):
            worker.check_place(shared | changed)


def test_what_a_killed_command_left_is_removed_by_the_next_one(tmp_path):
    killed = subprocess.Popen(["true"])
    killed.wait()
    with shared_by_all(tmp_path, [tmp_path / "cache"]) as alive:
        [mark] = (tmp_path / "cache").glob(".*.mark")
        left = tmp_path / ".20260101-000000-abcdef.mark"
        left.write_text(f"{os.uname().nodename} {killed.pid}")
        elsewhere = tmp_path / "cache" / ".20260101-000000-123456.mark"
        elsewhere.write_text(f"another-host {killed.pid}")
        logs = tmp_path / "logs" / "20260101-000000-abcdef"
        logs.mkdir()
        for name in ("0.npz", "0.progress", "0.log"):
            (logs / name).touch()
        with shared_by_all(tmp_path, [tmp_path / "cache"]):
            assert not left.exists()
            assert [file.name for file in logs.iterdir()] == ["0.log"]
            assert mark.exists()
            worker.check_place(alive)
    assert [*tmp_path.glob(".*.mark"), *(tmp_path / "cache").glob(".*.mark")] == [elsewhere]


def test_secrets_do_not_travel(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_xyz")
    monkeypatch.setenv("HF_HOME", "/models")
    with shared_by_all(tmp_path, [tmp_path]) as shared:
        assert shared["environment"]["HF_HOME"] == "/models"
        assert "hf_xyz" not in json.dumps(shared)


# Two attempts at one file


def plan_of(n=8):
    table = utterance_table(["s0"] * n, ["anger"] * n, [3] * n)
    return CachePlan(table, 2, 4, "frames", "float32", {"model": "made"})


def states(index, seed=0):
    return torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(100 * seed + index))


def test_a_zombie_cannot_damage_what_its_successor_writes(tmp_path):
    path, plan = tmp_path / "m" / "c.h5", plan_of()
    zombie = CacheWriter.open(path, plan, "run-1")
    for index in (0, 1):
        zombie.write(index, states(index), f"{index:064x}")
    zombie.flush()
    zombie.write(2, states(2), f"{2:064x}")  # nobody hears of it: it stops before it says so
    with CacheWriter.open(path, plan, "run-1") as successor:
        assert successor.remaining == [2, 3, 4, 5, 6, 7]
        for index in successor.remaining:
            successor.write(index, states(index), f"{index:064x}")
    sound = path.read_bytes()
    for index in (3, 4):  # it wakes up
        zombie.write(index, states(index, seed=9), f"{index:064x}")
    with pytest.raises(CacheError, match="deleted or replaced in the meantime"):
        zombie.close()
    assert path.read_bytes() == sound
    with CacheWriter.open(tmp_path / "whole.h5", plan) as whole:
        for index in whole.remaining:
            whole.write(index, states(index), f"{index:064x}")
    assert FeatureCache(path).is_finished
    assert FeatureCache(path).identity_hash == FeatureCache(whole.path).identity_hash
    assert damaged_rows(CacheFile(path), silent) == []
    assert [p.name for p in path.parent.iterdir()] == ["c.h5"]


def test_a_part_is_compared_with_few_files_however_many_there_are(tmp_path, monkeypatch):
    path, plan, opened_files = tmp_path / "m" / "c.h5", plan_of(40), []
    monkeypatch.setattr(
        resume, "CacheFile", lambda file: opened_files.append(file) or CacheFile(file)
    )
    for number in range(20):
        [(mine, part)] = planned_files(path, plan, (number, 20))
        CacheWriter.open(mine, part).close()
    assert len(opened_files) == 19
    with pytest.raises(CacheError, match="dim was 4, is now 5"):
        planned_files(path, replace(plan, dim=5), (7, 20))
    with pytest.raises(CacheError, match="cut from another list of utterances"):
        planned_files(path, plan_of(41), (7, 20))


def test_a_part_that_is_replaced_while_it_is_looked_at_is_looked_at_again(tmp_path, monkeypatch):
    """By its next attempt, which continues in a copy."""
    path, plan = tmp_path / "m" / "c.h5", plan_of()
    CacheWriter.open(part_path(path, 0, 2), plan_part(plan, 0, 2)).close()
    opened_once = []

    def first_in_the_middle(file):
        opened_once.append(file)
        if len(opened_once) == 1:
            raise CacheError(f"{file} was replaced in the meantime. Open it again.")
        return CacheFile(file)

    monkeypatch.setattr(resume, "CacheFile", first_in_the_middle)
    assert planned_files(path, plan, (1, 2))[0][0] == part_path(path, 1, 2)
    assert len(opened_once) == 2


def test_a_damaged_clip_is_not_carried_into_the_next_attempt(tmp_path):
    path, plan = tmp_path / "m" / "c.h5", plan_of()
    with CacheWriter.open(path, plan, "run-1") as first:
        for index in (0, 1, 5):
            first.write(index, states(index), f"{index:064x}")
    place = CacheFile(path).members["pooled/mean"]
    with path.open("r+b") as file:
        file.seek(place.offset + place.row_nbytes)
        file.write(b"\xff")
    with CacheWriter.open(path, plan, "run-1") as second:
        assert second.remaining == [1, 2, 3, 4, 6, 7]


def test_only_the_same_command_takes_a_lock_away(tmp_path, monkeypatch):
    monkeypatch.setattr("lsmprobe.cache.lock.PATIENCE_S", 0)
    path = tmp_path / "c.h5"
    with sole_writer(path, "run-1"):
        with pytest.raises(CacheError, match="being written by another process"), sole_writer(path):
            pass
        with pytest.raises(CacheError, match="being written"), sole_writer(path, "run-2"):
            pass
        with sole_writer(path, "run-1"):
            pass
    with sole_writer(path), pytest.raises(CacheError), sole_writer(path, "run-1"):
        pass


# Without an engine


def test_parts_that_are_missing_or_unfinished_are_listed_as_an_array(tmp_path, capsys):
    path, plan = tmp_path / "m" / "c.h5", plan_of(20)
    for number in (0, 1, 4):
        part = plan_part(plan, number, 5)
        with CacheWriter.open(part_path(path, number, 5), part) as writer:
            for index in writer.remaining[: 1 if number == 1 else None]:
                writer.write(index, states(index), f"{index:064x}")
    list_caches_command(ListCachesConfig(tmp_path, missing=True))
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition("/m/")[2] for line in lines[:-1]] == [
        "c.part-01-of-05.h5: 1 of 4 clips",
        "c.part-02-of-05.h5: not there",
        "c.part-03-of-05.h5: not there",
    ]
    assert lines[-1] == "--array=1-3 of --part I/5"


@pytest.fixture
def job(tmp_path):
    """Start a job file as Slurm does, among programs that only write down how they are called."""

    def start(**settings):
        programs = tmp_path / "bin"
        programs.mkdir()
        said = tmp_path / "said"
        for name, then in (
            ("scontrol", ""),
            ("lsmprobe", "for i in $(seq 100); do sleep 0.05; done"),
        ):
            (programs / name).write_text(
                "#!/bin/bash\ntrap 'echo stopped >> $SAID; exit 130' TERM\n"
                f'echo {name} "$@" >> $SAID\n{then}\n'
            )
            (programs / name).chmod(0o755)
        config = SlurmScriptConfig("a model", "lists/mine.csv", parts=4, **settings)
        file = tmp_path / "job.sh"
        file.write_text(slurm_script(config))
        environment = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_JOB_ID": "17", "SAID": str(said)}
        path = f"{programs}:{os.environ['PATH']}"
        run = subprocess.Popen(["bash", file], env={**os.environ, **environment, "PATH": path})
        waited_for(said.exists)
        return run, said

    return start


def test_a_job_file_says_what_is_asked_for(tmp_path):
    config = SlurmScriptConfig(
        "toy", "emodb", parts=16, walltime="04:00:00", gpus=1, store="pooled", map=("a=b", "c d=e")
    )
    text = slurm_script(config)
    assert "#SBATCH --array=0-15\n" in text
    assert "#SBATCH --time=04:00:00\n#SBATCH --gres=gpu:1\n" in text
    asked = "lsmprobe extract --model toy --dataset emodb --map a=b 'c d=e' --store pooled --part"
    assert asked in text
    with pytest.raises(SettingsError, match="drop --part"):
        SlurmScriptConfig("toy", "emodb", parts=2, part="0/2")


def test_a_job_file_is_asked_for_by_flags_as_the_page_says(capsys):
    asked, _, _ = recipe("A Slurm array, nothing else installed").partition(" > job.sh")
    with pytest.raises(SystemExit) as left:
        cli.main(shlex.split(asked.replace("\\\n", ""))[1:])
    assert left.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith("#!/bin/bash\n")
    assert "lsmprobe extract --model toy --dataset msp.csv --part" in said


def test_a_job_whose_time_is_up_stops_its_extraction_and_is_queued_again(job):
    run, said = job(store="pooled")
    run.send_signal(signal.SIGUSR1)
    assert run.wait(60) == 0
    assert said.read_text().splitlines() == [
        "lsmprobe extract --model a model --dataset lists/mine.csv --store pooled --part 3/4",
        "stopped",
        "scontrol requeue 17",
    ]


def test_a_job_that_is_cancelled_stays_so(job):
    run, said = job()
    run.terminate()
    assert run.wait(60) == 130
    assert said.read_text().splitlines()[1:] == ["stopped"]


def test_a_task_without_a_process_of_its_own_is_told_apart(tmp_path):
    """What a process that ends by itself, or cannot begin, is to whoever hands it out."""
    with shared_by_all(tmp_path, [tmp_path]) as shared:
        engine = Engine(ThreadPoolExecutor(1), "a thread", 1, 1)
        order = runner._order(Piece("p", EXTRACTION, 1), 0, engine, shared)
        assert (
            "cannot write /nowhere/x.log" in do_piece(order | {"log": "/nowhere/x.log"})["failed"]
        )
