import subprocess
import sys

import numpy as np
import psutil
import pytest

from lsmprobe.machine import announce, control_group_limits, free_memory, keep_freed_memory


def test_free_memory_is_no_more_than_the_machine_has():
    assert 0 < free_memory("cpu") <= psutil.virtual_memory().total


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps to this limit")
def test_a_limit_on_the_address_space_is_kept():
    code = (
        "import resource; from lsmprobe.machine import free_memory, psutil;"
        "limit = psutil.Process().memory_info().vms + 2**28;"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit));"
        "assert 0 < free_memory('cpu') <= 2**28"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_limits_of_both_versions_of_control_groups_and_of_the_groups_around_them(tmp_path):
    groups, root = tmp_path / "cgroup", tmp_path / "fs"
    limits = {
        "memory/job/memory.limit_in_bytes": "7000",
        "memory/memory.limit_in_bytes": "9223372036854771712",
        "slice/memory.max": "5000",
        "slice/scope/memory.max": "max",
    }
    for name, text in limits.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    groups.write_text("5:cpu,cpuacct:/job\n4:memory:/job\n0::/slice/scope\n")
    assert control_group_limits(groups, root) == [7000, 9223372036854771712, 5000]


def test_where_there_are_no_control_groups_there_is_no_limit(tmp_path):
    assert control_group_limits(tmp_path / "none", tmp_path) == []


def test_advice_changes_no_value(tmp_path, rng):
    keep_freed_memory()
    values = rng.normal(size=(300, 64))
    values.tofile(tmp_path / "values")
    mapped = np.memmap(tmp_path / "values", values.dtype, "r").reshape(values.shape)[7:290, 3:]
    announce(mapped)
    np.testing.assert_array_equal(mapped, values[7:290, 3:])
