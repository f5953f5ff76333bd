"""A few dozen trials of each kind; `make faults` makes thousands."""

import os
import shutil
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from harness import (
    JOBS,
    Command,
    MountError,
    filled,
    interrupted,
    kills,
    limited,
    lose_rights,
    make_lab,
    random_damages,
    replaced,
    trials,
    twins,
    verdicts,
    watched,
)

import lsmprobe

pytestmark = pytest.mark.slow  # processes, mounts and kills
SEED = 1


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return make_lab(tmp_path_factory.mktemp("lab"))


def test_nothing_is_lost_to_kill_9(lab):
    assert kills(lab, 24, SEED)["kills"] >= 24


@pytest.mark.parametrize("job", [job for job in JOBS if job != "extraction"])
def test_nothing_is_lost_to_kill_9_in_other_commands(lab, job):
    kills(lab, 4, SEED, job)


def test_a_cache_stays_until_its_replacement_is_finished(lab):
    assert trials(replaced, lab, 2, SEED)["kills"] > 1


def test_ctrl_c_and_sigterm_keep_what_is_done_and_say_so(lab):
    trials(interrupted, lab, 6, SEED)


def test_two_extractions_of_one_file_do_not_meet(lab):
    trials(twins, lab, 3, SEED)


def test_a_reader_sees_only_what_is_right_while_the_file_is_written(lab):
    assert trials(watched, lab, 2, SEED)["readings"] > 4


def test_a_limit_on_the_size_of_files_is_one_clear_line(lab):
    trials(limited, lab, 3, SEED)


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_disk_that_fills_up_is_one_clear_line(lab, kind):
    try:
        trials(partial(filled, kind=kind), lab, 3, SEED)
    except MountError as error:
        pytest.skip(f"only root may mount a filesystem: {error}")


def test_a_folder_that_cannot_be_written_is_one_clear_line(lab):
    needed = [*Path(lsmprobe.__file__).parents, *Path(sys.prefix).parents]
    if os.geteuid() == 0 and not all(folder.stat().st_mode & 0o001 for folder in needed):
        pytest.skip("lies where only root can read it, and permissions do not bind root")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copytree(lab.corpus, folder / "clips")  # where anyone may read it
        lab = replace(lab, corpus=folder / "clips")
        assert Command(folder, lab.extraction(folder / "there")).end().status == 0
        before = lab.file(folder / "there").read_bytes()
        lab.file(folder / "there").parent.chmod(0o555)
        lab.file(folder / "there").chmod(0o444)
        (folder / "empty").mkdir(mode=0o555)
        for cache_dir in ("there", "empty"):
            command = lab.extraction(Path(cache_dir))
            said = Command(folder, command, [partial(lose_rights, folder)]).end().line()
            assert "cannot be written: Permission denied" in said
        assert lab.file(folder / "there").read_bytes() == before
        lab.file(folder / "there").parent.chmod(0o755)


def test_damage_is_refused_or_named_or_harmless(lab, tmp_path):
    damages = random_damages(lab.reference, 400, f"{SEED}")
    found = verdicts(lab.reference, damages, tmp_path)
    assert len(found) == 400
    assert {"refused", "named"} <= set(found)


@pytest.mark.parametrize("name", ["two words", "a\nb", "für", os.fsdecode(b"\xff"), "-rf", "%s{}"])
def test_a_folder_may_have_any_name(lab, tmp_path, name):
    cache_dir = tmp_path / name
    ended = Command(tmp_path, lab.extraction(cache_dir)).end()
    assert (ended.status, "12 of 12 clips" in ended.out) == (0, True), ended.err
    assert lab.file(cache_dir).read_bytes() == lab.reference.read_bytes()
    with lab.file(cache_dir).open("r+b") as file:
        file.truncate(5000)
    assert "truncated" in Command(tmp_path, lab.extraction(cache_dir)).end().line()
