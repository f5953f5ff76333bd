"""How long the commands take to start: --help, and probe.py up to its first epoch.

Each is a fresh process, timed from outside; for comparison, one that only imports torch. Both of
these leave at once, without tidying up what torch has loaded: no training waits for that.

    python benchmarks/start_up.py [--quick] [--json FILE]
"""

import lsmprobe  # noqa: F401  before torch, which reads once how its threads are to wait

# isort: split
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import tyro
from machine import machine, medians, write_json
from synthetic import clip_seconds, utterance_table, write_cache

ROOT = Path(__file__).parents[1]
# probe.py, which exits where its training would begin.
UNTIL_TRAINING = """
import os, sys
from lsmprobe import cli, commands
config, run = commands.COMMANDS["probe"]
def until_training(asked):
    from lsmprobe.probing import stage
    stage.fit = lambda *args, **kwargs: os._exit(0)
    return run(asked)
commands.COMMANDS["probe"] = config, until_training
cli.run_script("probe")
sys.exit("nothing was trained")
"""


@dataclass(frozen=True)
class Config:
    """Time the start of the commands."""

    repeats: int = 5
    """Rounds; the median counts."""
    quick: bool = False
    """One round."""
    json: Path | None = None
    """Write the figures here too."""


def run(*arguments: str | Path) -> None:
    """A fresh interpreter, to its end."""
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, cwd=ROOT)


def main(config: Config) -> None:
    """Measure and print."""
    if config.quick:
        config = replace(config, repeats=1)
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_cache(folder / "noise" / "made.h5", utterance_table(clip_seconds(100), 10), 3, 16)
        flags = ("--cache-dir", folder, "--results-dir", folder / "results")
        ways = {
            "import_torch_s": lambda: run("-c", "import os, torch; os._exit(0)"),
            "extract_help_s": lambda: run("extract.py", "--help"),
            "probe_help_s": lambda: run("probe.py", "--help"),
            "until_first_epoch_s": lambda: run("-c", UNTIL_TRAINING, *flags),
        }
        figures = medians(ways, config.repeats)
    for what, value in figures.items():
        print(f"{what:22} {value:.2f} s")
    write_json(config.json, figures)


if __name__ == "__main__":
    main(tyro.cli(Config))
