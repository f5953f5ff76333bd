import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsmprobe import atomic
from lsmprobe.atomic import write_then_rename


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=3))
def test_what_is_written_is_there_and_nothing_beside_it(tmp_path_factory, contents):
    path = tmp_path_factory.mktemp("files") / "new" / "folder" / "file.json"
    for content in contents:
        write_then_rename(path, content)
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch, step):
    def fail(*_):
        raise OSError(28, "No space left on device")

    path = tmp_path / "file.json"
    write_then_rename(path, b"old")
    monkeypatch.setattr(*((atomic.os, step) if step == "fsync" else (type(path), step)), fail)
    with pytest.raises(OSError, match="No space left"):
        write_then_rename(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_kill_leaves_the_old_file_and_what_is_hidden(tmp_path):
    path = tmp_path / "file.json"
    write_then_rename(path, b"old")
    code = (
        "import os, pathlib, sys; from lsmprobe import atomic\n"
        "atomic.os.fsync = lambda _: os.kill(os.getpid(), 9)\n"
        "atomic.write_then_rename(pathlib.Path(sys.argv[1]), b'new')"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(path)])
    assert killed.returncode == -9
    assert path.read_bytes() == b"old"
    assert [p.name[0] for p in tmp_path.iterdir() if p != path] == ["."]
    write_then_rename(path, b"new")
    assert path.read_bytes() == b"new"
