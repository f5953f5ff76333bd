"""Damaged and crafted caches, read in a process that may die: refused, named or harmless."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import xxhash
from conftest import utterance_table, write_cache
from harness import KINDS, Damage, verdicts, verdicts_on
from hypothesis import given, settings
from hypothesis import strategies as st

FRAMES = [3, 5, 1, 4]
STORED = [("frames", "float16"), ("frames", "bfloat16"), ("pooled", "float32")]

# As docs/cache-format.md says, written once more.
PLANNED = ["key", "path", "emotion", "speaker", "gender", "sentence", "split", "start_s", "end_s"]
PLANNED += ["seconds", "samples", "frames", "offset"]


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    """A small finished cache of each kind."""
    table = utterance_table(["a", "b", "c", "d"], ["joy", "rage", "joy", "fear"], FRAMES)
    generator = torch.Generator().manual_seed(0)
    states = [torch.randn(3, n, 5, generator=generator) for n in FRAMES]
    folder = tmp_path_factory.mktemp("caches")
    for store, dtype in STORED:
        write_cache(folder / f"{store}-{dtype}.h5", table, states, store=store, dtype=dtype)
    return [folder / f"{store}-{dtype}.h5" for store, dtype in STORED]


SHARE = st.floats(0, 1, exclude_max=True)
DAMAGES = st.lists(
    st.builds(
        Damage,
        kind=st.sampled_from(KINDS),
        where=SHARE,
        length=st.one_of(st.just(0.0), SHARE.map(lambda share: share**4)),
        seed=st.integers(0, 2**32 - 1),
    ),
    min_size=1,
    max_size=30,
)


@pytest.mark.slow
@settings(max_examples=5)  # make faults damages thousands
@given(which=st.integers(0, len(STORED) - 1), damages=DAMAGES)
def test_damage_of_any_kind(caches, tmp_path_factory, which, damages):
    found = verdicts(caches[which], damages, tmp_path_factory.mktemp("found"))
    assert len(found) == len(damages)


# Crafted files


def as_type(name, kind):
    """The dataset with elements of another type, which HDF5 has and a cache has not."""

    def edit(file):
        shape = file[name].shape
        del file[name]
        space = h5py.h5s.create_simple(shape)
        plain = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plain.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        h5py.h5d.create(file.id, name.encode(), kind, space, dcpl=plain)

    return edit


def made_with(name, **how):
    """The dataset stored in another way."""

    def edit(file):
        values = file[name][:]
        del file[name]
        file.create_dataset(name, data=values, **how)

    return edit


def filtered(number, flags):
    """Behind a filter that this machine may not have."""

    def edit(file):
        del file["layers/01"]
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_chunk((2, 5))
        made.set_filter(number, flags, (1,))
        space = h5py.h5s.create_simple((sum(FRAMES), 5))
        h5py.h5d.create(file.id, b"layers/01", h5py.h5t.IEEE_F16LE, space, dcpl=made)

    return edit


def compact(file):
    values = file["utterances/done"][:]
    del file["utterances/done"]
    made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple(values.shape)
    h5py.h5d.create(file.id, b"utterances/done", h5py.h5t.STD_U8LE, space, dcpl=made).write(
        h5py.h5s.ALL, h5py.h5s.ALL, values
    )


def external(file):
    """More of another file than there is."""
    del file["utterances/sha256"]
    places = [("/etc/passwd", 0, h5py.h5f.UNLIMITED)]
    file.create_dataset("utterances/sha256", (4,), "S64", external=places)


def virtual(file):
    """Of this file itself."""
    layout = h5py.VirtualLayout((sum(FRAMES), 5), "<f2")
    layout[:] = h5py.VirtualSource(".", "layers/00", (sum(FRAMES), 5))
    del file["layers/01"]
    file.create_virtual_dataset("layers/01", layout)


def linked(name, link):
    def edit(file):
        del file[name]
        file[name] = link(file)

    return edit


def attribute(name, value):
    return lambda file: file.attrs.create(name, value)


def consistent(**columns):
    """A table of other values that adds up: only what it says is wrong."""

    def edit(file):
        table = {name: file["utterances"][name][:] for name in PLANNED}
        table = {n: columns[n](v) if n in columns else v for n, v in table.items()}
        for name, values in table.items():
            column = file["utterances"][name].id
            values = np.ascontiguousarray(values, column.dtype)
            column.write(h5py.h5s.ALL, h5py.h5s.ALL, values, mtype=column.get_type())
        identity = json.loads(file.attrs["identity"])
        state = xxhash.xxh3_64(json.dumps(identity, sort_keys=True).encode())
        for name in PLANNED:
            state.update(np.ascontiguousarray(table[name]).tobytes())
        file.attrs["plan_checksum"] = np.bytes_(f"{state.intdigest():016x}")

    return edit


def wrapped(frames):
    """Lengths beyond all measure, whose sum comes round to the right one."""
    return np.array([2**62, 2**62, 2**62, 2**62 + int(frames.sum())], np.int64)


def running_sum(frames):
    return np.cumsum(frames) - frames


def constant(value):
    return lambda old: np.full_like(old, value)


LINKS = {
    "another name for a dataset": linked("layers/01", lambda file: file["layers/00"]),
    "another name for a group": linked("pooled", lambda file: file["utterances"]),
    "a group within itself": linked("layers/01", lambda file: file["layers"]),
    "the root within itself": linked("layers/01", lambda file: file["/"]),
    "a soft link to nowhere": linked("layers/01", lambda _: h5py.SoftLink("/nowhere")),
    "a soft link to itself": linked("layers/01", lambda _: h5py.SoftLink("/layers/01")),
    "an external link to itself": linked("pooled", lambda _: h5py.ExternalLink(".", "/pooled")),
    "a named type": linked("layers/01", lambda _: np.dtype("<f2")),
}
TYPES = {
    "references to objects": h5py.h5t.STD_REF_OBJ,
    "references to regions": h5py.h5t.STD_REF_DSETREG,
    "numbers of any count": h5py.h5t.vlen_create(h5py.h5t.STD_I64LE),
    "text of any length": h5py.h5t.py_create(h5py.string_dtype(), logical=True),
    "compound": h5py.h5t.py_create(np.dtype([("a", "<f2"), ("b", "<i8")])),
    "arrays": h5py.h5t.py_create(np.dtype(("<f2", (2, 2)))),
    "complex": h5py.h5t.py_create(np.dtype("<c8")),
    "bits": h5py.h5t.STD_B16LE,
    "opaque": h5py.h5t.py_create(np.dtype("V2")),
    "truth values": h5py.h5t.py_create(np.dtype(bool), logical=True),
    "enumerated": h5py.h5t.py_create(h5py.enum_dtype({"a": 0}, "<u2"), logical=True),
    "other floats": h5py.h5t.IEEE_F16BE,
}
CRAFTED = (
    LINKS
    | {f"{name} in layers/01": as_type("layers/01", kind) for name, kind in TYPES.items()}
    | {f"{name} in done": as_type("utterances/done", kind) for name, kind in TYPES.items()}
    | {
        "lzf": made_with("layers/01", compression="lzf"),
        "shuffled": made_with("layers/01", shuffle=True),
        "growing": made_with("layers/01", maxshape=(None, 5)),
        "an unknown filter": filtered(32_000, h5py.h5z.FLAG_OPTIONAL),
        "compact": compact,
        "external": external,
        "virtual": virtual,
        "no value as version": attribute("version", h5py.Empty("i8")),
        "several versions": attribute("version", [1, 1]),
        "a version that is none": attribute("version", float("nan")),
        "identities": attribute("identity", [b"{}", b"{}"]),
        "an identity that is a list": attribute("identity", b"[[1, 2]]"),
        "a deep identity": attribute("identity", b"[" * 50_000),
        "an identity that is no text": attribute("identity", b"\xff\xfe"),
        "a type that is none": attribute("dtype", b"object"),
        "wrapped lengths": consistent(
            frames=wrapped, offset=lambda _: running_sum(wrapped(np.array(FRAMES)))
        ),
        "negative lengths": consistent(
            frames=lambda _: np.array([-6, 14, 1, 4]), offset=lambda _: running_sum([-6, 14, 1, 4])
        ),
        "keys that are the same": consistent(key=constant(b"001.wav")),
        "keys with null bytes": consistent(key=lambda old: np.char.replace(old, b".", b"\0")),
    }
)
HARMLESS = {
    "further attributes": lambda file: [file.attrs.create(f"a{n}", n) for n in range(2_000)],
    "another maker": attribute("made_by", b"someone"),
}


def test_crafted_files_are_refused_and_harmless_ones_read(caches, tmp_path):
    whole, paths = caches[0], []
    for number, edit in enumerate((CRAFTED | HARMLESS).values()):
        paths.append(Path(shutil.copy(whole, tmp_path / f"{number}.h5")))
        with h5py.File(paths[-1], "r+") as file:
            edit(file)
    found = dict(zip(CRAFTED | HARMLESS, verdicts_on(paths, whole, tmp_path), strict=True))
    assert {found[name] for name in HARMLESS} == {"harmless"}
    assert {name: said for name, said in found.items() if name in CRAFTED} == dict.fromkeys(
        CRAFTED, "refused"
    )


def test_what_stands_before_or_after_a_cache(caches, tmp_path):
    good = caches[0].read_bytes()
    contents = {
        "a block before": bytes(512) + good,
        "a script before": b"#!/bin/sh\n".ljust(512) + good,
        "half": good[: len(good) // 2],
        "one byte less": good[:-1],
        "twice": good * 2,
        "nothing": b"",
        "its first bytes": good[:8],
    }
    paths = [tmp_path / f"{number}.h5" for number in range(len(contents))]
    for path, content in zip(paths, contents.values(), strict=True):
        path.write_bytes(content)
    found = dict(zip(contents, verdicts_on(paths, caches[0], tmp_path), strict=True))
    assert found.pop("twice") == "harmless"
    assert set(found.values()) == {"refused"}
