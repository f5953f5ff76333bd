"""The recipes of docs/cluster.md, with something small in the place of what they name."""

import re
import subprocess
from pathlib import Path

import numpy as np
import soundfile

PAGE = Path(__file__).parents[1] / "docs" / "cluster.md"
TOYS = {  # what a line names -> what is there instead
    r"wav2vec2-large": "toy",
    r"whisper-small|xls-r-300m": "logmel",
    r"emodb emovo": "emodb.csv emovo.csv --parts 2",
    r"--parts 32": "--parts 2",
    r"msp.csv --cluster": "msp.csv --parts 2 --cluster",
    r"--queue (gpu|cpu)": "--queue main",
    r"--gpus 1 ": "",
    r"--cores \d": "--cores 1",
    r"--memory \d+": "--memory 2",
    r"--workers 8": "--workers 2",
    r"^sbatch job.sh": "sbatch --array=0 job.sh",  # so that there is a part to miss
    r"--array=3,7-9": "--array=1",
    r"^lsmprobe probe": "lsmprobe probe --head linear --runs 1 --epochs 2",
    r"lp\.ProbeConfig\(\)": 'lp.ProbeConfig(head="linear", runs=1, epochs=2)',
}
INSTEAD = """set -euo pipefail
pip() { true; }  # what it installs is here
sbatch() { command sbatch --wait "$@"; }
"""


def recipe(heading, language=""):
    """What a section of the page says to type, made small."""
    section = re.search(rf"^## {heading}\n(.*?)(?=^## )", PAGE.read_text("utf-8"), re.M | re.S)
    assert section, f"{PAGE} has no section {heading!r}"
    [block] = re.findall(rf"^```{language}\n(.*?)^```", section[1], re.M | re.S)
    for named, instead in TOYS.items():
        block = re.sub(named, instead, block, flags=re.M)
    return block


def typed(block, folder, environment):
    """Type a block in a folder: what it prints."""
    run = subprocess.run(
        ["bash", "-c", INSTEAD + block],
        cwd=folder,
        env={**environment, "HOME": str(folder)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def write_corpora(folder, *names):
    """Manifests of 40 clips, each a piece of one file, by four speakers."""
    rng = np.random.default_rng(0)
    soundfile.write(folder / "all.wav", rng.normal(size=40 * 4800) * 0.1, 16_000)
    rows = ["path,emotion,speaker,start,end"]
    for n in range(40):
        start = 0.3 * n
        rows.append(f"all.wav,{('anger', 'fear')[n % 2]},s{n // 8},{start:.1f},{start + 0.3:.1f}")
    for name in names:
        (folder / name).write_text("\n".join(rows) + "\n")
