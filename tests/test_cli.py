import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, timeout=120
    )


def refused(*arguments, cwd=None):
    """The one line that bad input gets."""
    done = run(*arguments, cwd=cwd)
    assert done.returncode == 1, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("lsmprobe: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]


@pytest.mark.parametrize("script", ["extract", "probe"])
def test_help_lists_the_flags_of_the_contract(script):
    text = run(ROOT / f"{script}.py", "--help").stdout
    flags = {
        "extract": "model dataset data-dir cache-dir store batch-seconds device precision "
        "store-dtype random-init whisper-context input-norm max-seconds dry-run selftest",
        "probe": "model dataset head layer runs split feature-norm cache-dir results-dir device "
        "epochs batch-size lr force",
    }
    for flag in flags[script].split():
        assert f"--{flag} " in text or f"--{flag}\n" in text


def test_unknown_names_get_the_nearest(tmp_path):
    line = refused(ROOT / "extract.py", "--model", "whisper-smal", "--dataset", "toy", cwd=tmp_path)
    assert "whisper-small" in line
    line = refused(ROOT / "extract.py", "--model", "toy", "--dataset", "emodv", cwd=tmp_path)
    assert "emodb" in line


def test_a_corpus_that_is_nowhere_names_both_places(tmp_path):
    line = refused(
        ROOT / "extract.py", "--model", "wav2vec2-large", "--dataset", "demos", cwd=tmp_path
    )
    assert "LSMPROBE_DATA" in line
    assert "data/demos" in line


def test_probing_without_a_cache_says_what_to_run(tmp_path):
    line = refused(ROOT / "probe.py", "--head", "multilayer", cwd=tmp_path)
    assert "extract.py" in line


def test_settings_that_cannot_be_meant_are_one_line(tmp_path):
    assert "--runs is 0" in refused(ROOT / "probe.py", "--runs", "0", cwd=tmp_path)


def test_a_flag_that_does_not_exist_is_refused(tmp_path):
    done = run(ROOT / "probe.py", "--haed", "linear", cwd=tmp_path)
    assert done.returncode == 2
    assert "--haed" in done.stderr
