"""The job file of a Slurm array that extracts a corpus in parts, without an engine."""

import shlex
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from lsmprobe.config import Extraction, SlurmScriptConfig

BEFORE_LIMIT_S = 120  # before the time limit: enough to store what is done and to be queued again


def slurm_script(config: SlurmScriptConfig) -> str:
    """A job file for sbatch: one task for each part, queued again when its time is up.

    Slurm sends USR1 to the shell before the time limit. The shell stops the extraction, which keeps
    what is done, and has the task queued again, where it continues. What scancel ends stays ended.
    """
    name = f"lsmprobe-{config.cell.cache_path.parent.name}-{config.cell.cache_path.stem}"
    asked = {
        "partition": config.queue,
        "account": config.account,
        "time": config.walltime,
        "mem": config.memory,
        "cpus-per-task": config.cores,
        "gres": f"gpu:{config.gpus}" if config.gpus else "",
    }
    lines = [f"#SBATCH --{flag}={value}" for flag, value in asked.items() if value]
    extract = ["lsmprobe", "extract", "--model", config.model, "--dataset", config.dataset]
    command = shlex.join([*extract, *_flags(config)])
    return f"""\
#!/bin/bash
#SBATCH --job-name={shlex.quote(name)}
#SBATCH --array=0-{config.parts - 1}
#SBATCH --signal=B:USR1@{BEFORE_LIMIT_S}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={shlex.quote(name)}-%a.log
{chr(10).join(lines)}
cd {shlex.quote(str(Path.cwd()))} || exit 1
# $! and not a variable: a signal may come before the next line could set it.
stop() {{ trap '' USR1 TERM; [ -z "$!" ] || {{ kill -TERM "$!"; wait "$!"; }}; }}
trap 'stop; scontrol requeue "$SLURM_JOB_ID"; exit 0' USR1
trap 'stop; exit 130' TERM
{command} --part "$SLURM_ARRAY_TASK_ID/{config.parts}" &
wait "$!"
"""


def _flags(config: SlurmScriptConfig) -> list[str]:
    """Whatever of the extraction is not as by default, as flags."""
    flags: list[str] = []
    for field in fields(Extraction):
        value: Any = getattr(config, field.name)
        if field.default is not MISSING and value == field.default:
            continue
        flags.append(f"--{field.name.replace('_', '-')}")
        if isinstance(value, tuple):
            flags += map(str, value)
        elif value is not True:
            flags.append(str(value))
    return flags
