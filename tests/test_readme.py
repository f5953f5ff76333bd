"""The README's Python runs as it stands, on a small cache; its commands are ones that are read."""

import re
import shlex
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from conftest import utterance_table, write_cache

from lsmprobe import cli
from lsmprobe.config import ProbeConfig
from lsmprobe.probing.stage import probe

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
FENCED = re.findall(r"^```(\w*)\n(.*?)^```", README, re.M | re.S)
BLOCKS = [block for language, block in FENCED if language == "python"]
COMMANDS = [
    line.partition(" #")[0]
    for language, block in FENCED
    if not language
    for line in block.splitlines()
    if line.startswith("lsmprobe ")
]
LAYERS, DIM = 10, 4


@pytest.mark.slow
def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    """In the place of Whisper small on EmoDB: noise of ten layers, six speakers, three emotions."""
    rows = [(f"s{s}", e) for s in range(6) for e in ("anger", "fear", "sadness") for _ in range(2)]
    table = utterance_table(*map(list, zip(*rows, strict=True)), [5] * len(rows))
    states = [torch.randn(LAYERS, 5, DIM) for _ in rows]
    write_cache(tmp_path / "cache" / "whisper-small" / "emodb.h5", table, states)
    monkeypatch.chdir(tmp_path)
    probe(ProbeConfig(head="multilayer", epochs=1, runs=1))
    assert BLOCKS
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), {})
    assert len(plt.get_fignums()) == block.count("lp.draw_")
    plt.close("all")


def test_the_flags_of_every_command_of_the_readme_are_read(monkeypatch):
    """Read alone: the commands need corpora, models and hours."""
    monkeypatch.setattr(cli, "_exit_with", lambda read_flags: read_flags())
    assert COMMANDS
    for command in COMMANDS:
        cli.main(shlex.split(command)[1:])
