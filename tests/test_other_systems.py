"""Where Windows has no modules for locks and limits: reading, probing and analysis need none."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from lsmprobe import machine
from lsmprobe.cache import lock
from lsmprobe.errors import CacheError

HIDDEN = """
    import os, sys
    import h5py, matplotlib.pyplot, pandas, psutil, sklearn, torch  # what they use here is theirs
    from concurrent.futures import process
    sys.modules["fcntl"] = sys.modules["resource"] = None  # as if they were not there
    for name in ("pwrite", "pread", "posix_fallocate", "fstatvfs", "geteuid"):
        delattr(os, name)
"""


@pytest.fixture
def elsewhere(monkeypatch):
    for module, names in ((machine, ("resource",)), (lock, ("fcntl",))):
        for name in names:
            monkeypatch.delattr(module, name)
    monkeypatch.setattr(machine, "_libc", None, raising=False)


def test_writing_is_refused_in_one_line_and_the_rest_goes_on(elsewhere, tmp_path):
    with (
        pytest.raises(CacheError, match="expected Linux or macOS") as error,
        lock.sole_writer(tmp_path / "a.h5"),
    ):
        pass
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())
    assert not lock.is_being_written(tmp_path / "a.h5")
    assert machine.free_memory("cpu") > 0
    machine.keep_freed_memory()


@pytest.mark.slow
def test_a_cache_is_read_probed_and_analysed_without_them(tmp_path, planted_cache):
    path = planted_cache(layer=3)
    code = (
        HIDDEN
        + f"""
    import lsmprobe as lp
    from lsmprobe.cli import main
    cache = lp.FeatureCache({str(path)!r})
    cache.frames(0, 1)
    lp.best_layer(lp.probe_layers(cache, split="loso"))
    sys.argv = ["lsmprobe", "probe", "--cache-dir", {str(tmp_path / "cache")!r},
        "--results-dir", {str(tmp_path / "results")!r},
        *"--head linear --layer 3 --runs 1 --epochs 2 --split loso".split()]
    try:
        main()
    except SystemExit as end:
        assert not end.code, end.code
    sys.argv = ["lsmprobe", "demo", "--folder", {str(tmp_path / "demo")!r}]
    main()
    """
    )
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, cwd=tmp_path
    )
    assert list(Path(tmp_path / "results").rglob("*.json")), done.stderr
    assert done.returncode != 0 and "expected Linux or macOS" in done.stderr.splitlines()[-1]
