"""Trials on a real Slurm of this machine alone, which they start and stop."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import assert_as_undisturbed, waited_for
from recipes import recipe, typed, write_corpora

from lsmprobe.cache.reader import FeatureCache
from lsmprobe.cluster.slurm_script import slurm_script
from lsmprobe.config import SlurmScriptConfig

ROOT = Path(__file__).parents[1]
SCRIPT = Path(__file__).with_name("one_node_slurm.sh")
NEEDED = ("slurmctld", "slurmd", "sbatch", "munged")
LACKING = [name for name in NEEDED if not shutil.which(name)]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(LACKING), reason=f"no Slurm here: {', '.join(LACKING)} not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="a Slurm of one's own needs root"),
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """That of programs which use the Slurm."""
    folder = tmp_path_factory.mktemp("slurm")
    started = subprocess.run([SCRIPT, "start", folder], capture_output=True, text=True)
    if started.returncode:
        subprocess.run([SCRIPT, "stop", folder], check=True)
        pytest.skip(f"Slurm does not start here: {started.stderr.strip()}")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    own = {"SLURM_CONF": f"{folder}/slurm.conf", "PATH": path, "PYTHONPATH": str(ROOT)}
    yield {**os.environ, **own, "OMP_NUM_THREADS": "1"}
    subprocess.run([SCRIPT, "stop", folder], check=True)


@pytest.fixture
def clips(tmp_path, write_wav, rng):
    """2000 clips of 0.2 s, one after the other in one file."""
    write_wav(tmp_path / "mine" / "all.wav", rng.normal(size=2000 * 3200) * 0.1)
    rows = ["path,emotion,speaker,start,end"]
    for n in range(2000):
        start = n * 0.2
        rows.append(f"all.wav,{('anger', 'fear')[n % 2]},s{n // 200},{start:.1f},{start + 0.2:.1f}")
    path = tmp_path / "mine" / "mine.csv"
    path.write_text("\n".join(rows) + "\n")
    return str(path)


def queue(environment):
    command = ["squeue", "-h", "-r", "-o", "%i %T"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return said.stdout.split("\n")[:-1]


def test_an_array_is_stopped_queued_again_cancelled_and_finished(environment, clips, tmp_path):
    settings = {"store": "pooled", "batch_seconds": 0.001}
    config = SlurmScriptConfig(
        "toy", clips, parts=2, cache_dir=tmp_path / "c", device="cpu", cores=1, **settings
    )
    (tmp_path / "job.sh").write_text(slurm_script(config))

    def sbatch(*flags):
        command = ["sbatch", "--parsable", *flags, "job.sh"]
        said = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        return said.stdout.strip()

    path = tmp_path / "c" / "toy" / "mine.h5"
    first = path.with_name("mine.part-00-of-02.h5")
    second = path.with_name("mine.part-01-of-02.h5")
    job = sbatch()
    waited_for(first.exists, "part 0 begins")
    # what Slurm does itself at so many seconds before a time limit
    signalled = ["scancel", "--signal=USR1", "--batch", f"{job}_0"]
    subprocess.run(signalled, env=environment, check=True)
    waited_for(second.exists, "part 1 begins")
    subprocess.run(["scancel", f"{job}_1"], env=environment, check=True)
    waited_for(lambda: not queue(environment), "the array ends")
    assert FeatureCache(first).is_finished
    assert FeatureCache(second, allow_unfinished=True).files[0].done.sum() < 1000
    missing = ["lsmprobe", "cache", "ls", "--missing", "--cache-dir", tmp_path / "c"]
    said = subprocess.run(missing, env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == "--array=1 of --part I/2"
    sbatch("--array=1")
    waited_for(lambda: not queue(environment), "the rest ends")
    assert_as_undisturbed(path, clips, tmp_path, store="pooled")


def test_both_stages_run_in_jobs_that_dask_starts(environment, clips, tmp_path):
    pytest.importorskip("dask_jobqueue")
    here = ["--cache-dir", tmp_path / "c", "--device", "cpu", "--cluster", "slurm"]
    jobs = ["--workers", "2", "--cores", "1", "--memory", "2GB", "--walltime", "00:30:00"]

    def lsmprobe(*command):
        return subprocess.run(
            ["lsmprobe", *command, *here, *jobs],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )

    made = lsmprobe(
        *("extract", "--model", "toy", "--dataset", clips, "--parts", "2", "--store", "pooled")
    )
    assert made.returncode == 0, made.stderr
    assert "2000 of 2000 clips" in made.stdout
    assert "distributed" not in made.stderr and "Register worker" not in made.stderr
    assert_as_undisturbed(tmp_path / "c" / "toy" / "mine.h5", clips, tmp_path, store="pooled")
    probed = lsmprobe("probe", "--runs", "2", "--epochs", "2", "--head", "linear")
    assert probed.returncode == 0, probed.stderr
    assert len(list((tmp_path / "results" / "toy" / "mine").glob("*.json"))) == 2
    waited_for(lambda: not queue(environment), "no job is left")


def test_the_recipe_of_an_array(environment, tmp_path):
    write_corpora(tmp_path, "msp.csv")
    said = typed(recipe("A Slurm array, nothing else installed"), tmp_path, environment)
    assert "--array=1 of --part I/2\n" in said
    folder = tmp_path / "cache" / "toy"
    assert {file.name for file in folder.iterdir()} == {"msp.h5", "msp.labels.csv"}
    assert FeatureCache(folder / "msp.h5").is_finished


def test_the_recipe_of_slurm_through_dask(environment, tmp_path):
    pytest.importorskip("dask_jobqueue")
    write_corpora(tmp_path, "msp.csv")
    typed(recipe("Slurm through Dask"), tmp_path, environment)
    for model in ("toy", "logmel"):
        assert FeatureCache(tmp_path / "cache" / model / "msp.h5").is_finished
        assert len(list((tmp_path / "results" / model / "msp").glob("linear-*.json"))) == 1
    waited_for(lambda: not queue(environment), "no job is left")
