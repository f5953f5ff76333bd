"""Tiny inputs, made on the spot.

Every call into lsmprobe has its types and axes checked, a third of the suite's time; `make test`
leaves that to `make test-all` (and the types to mypy) by TYPES=trusted.
"""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "agg")
# The suite runs in as many processes as there are cores: threads would only be in the way.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from jaxtyping import install_import_hook

if os.environ.get("TYPES") != "trusted":
    install_import_hook("lsmprobe", "beartype.beartype")

import lsmprobe  # noqa: F401  before torch, which reads once how its threads are to wait

# isort: split
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from hypothesis import settings

from lsmprobe.cache.plan import CachePlan
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.cache.verify import damaged_rows
from lsmprobe.cache.writer import CacheWriter
from lsmprobe.config import ExtractConfig
from lsmprobe.errors import TrainingError
from lsmprobe.extraction.stage import extract
from lsmprobe.probing import stage
from lsmprobe.progress import silent

torch.set_num_threads(1)
settings.register_profile("suite", deadline=None, derandomize="CI" in os.environ, max_examples=40)
settings.load_profile("suite")


def pytest_make_parametrize_id(val, argname):
    """Bytes give a test no name: an archive holds the time it was made, another in each worker."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  for libraries that draw from the global generator


@pytest.fixture(autouse=True)
def _signals_restored():
    """What a command that ends in this process makes of signals, no other test meets."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _figures_closed():
    """What one test draws, no other counts."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture
def threads():
    """Set how many threads torch has; afterwards it has those of before."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def utterance_table(speakers, emotions, frames, gender=""):
    """The table of docs/design.md for made-up utterances of 20 ms per frame."""
    n = len(speakers)
    keys = [f"{i:03d}.wav" for i in range(n)]
    return pd.DataFrame(
        {
            "key": keys,
            "path": [f"nowhere/{key}" for key in keys],
            "emotion": list(emotions),
            "speaker": list(speakers),
            "gender": [gender] * n,
            "sentence": [""] * n,
            "start_s": [np.nan] * n,
            "end_s": [np.nan] * n,
            "split": [""] * n,
            "samples": [int(f) * 320 for f in frames],
            "seconds": [int(f) * 0.02 for f in frames],
            "frames": [int(f) for f in frames],
        }
    )


def write_cache(path, table, states, *, store="frames", dtype="float16", identity=None, first=0):
    """A finished cache of given hidden states, one (layers, frames, dim) tensor per utterance.

    The hashes of the audio, which there is none of, are numbers that start at `first`.
    """
    n_layers, _, dim = states[0].shape
    plan = CachePlan(
        utterances=table,
        n_layers=n_layers,
        dim=dim,
        store=store,
        dtype=dtype,
        identity=identity or {"model": path.parent.name, "random_init": None},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with CacheWriter.open(path, plan) as writer:
        for index, hidden in enumerate(states):
            writer.write(index, hidden, f"{first + index:064x}")
    return path


def planted(path, layer, strength, **kwargs):
    """A cache in which one layer holds the emotion, linearly, and no other layer holds it."""
    generator = torch.Generator().manual_seed(1)
    directions = torch.nn.functional.normalize(torch.randn(4, 16, generator=generator))
    names = ["anger", "happiness", "neutrality", "sadness"]
    rows = [(f"s{s:02d}", e) for s in range(10) for e in range(4) for _ in range(4)]
    lengths = torch.randint(5, 10, (len(rows),), generator=generator).tolist()
    states = []
    for (_, emotion), length in zip(rows, lengths, strict=True):
        hidden = torch.randn(6, length, 16, generator=generator)
        hidden[layer] += strength * directions[emotion]
        states.append(hidden)
    table = utterance_table([s for s, _ in rows], [names[e] for _, e in rows], lengths)
    return write_cache(path, table, states, **kwargs)


@pytest.fixture(scope="session")
def planted_caches(tmp_path_factory):
    """Those that were made already: a copy costs a hundredth of writing one."""
    return tmp_path_factory.mktemp("planted"), {}


@pytest.fixture
def planted_cache(tmp_path, planted_caches):
    """Make a cache in which one layer holds the emotion, linearly, and no other layer holds it.

    10 speakers x 4 emotions x 4 utterances of 5 to 9 frames; layers 0 to 5; unit noise everywhere,
    and in the planted layer a direction of its own per emotion.
    """
    shared, made = planted_caches

    def make(layer=3, folder=tmp_path / "cache", strength=2.0, **kwargs):
        asked = repr((layer, strength, sorted(kwargs.items())))
        if asked not in made:
            path = shared / str(len(made)) / "planted" / "made.h5"
            made[asked] = planted(path, layer, strength, **kwargs)
        target = folder / "planted" / "made.h5"
        target.parent.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copyfile(made[asked], target))

    return make


@pytest.fixture
def write_wav():
    """Write a mono WAV of samples within [-1, 1]."""

    def write(path, samples, sample_rate=16_000):
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, sample_rate, subtype="PCM_16")
        return path

    return write


@pytest.fixture
def breaks_down(monkeypatch):
    """Make the training of some members fail as it does where a loss is not finite."""
    fit = stage.fit

    def make(does):
        def broken(members, *args, **settings):
            if any(map(does, members)):
                raise TrainingError("the loss is not finite")
            return fit(members, *args, **settings)

        monkeypatch.setattr(stage, "fit", broken)

    return make


def waited_for(look, what="", timeout_s=400):
    """What is there in the end."""
    until = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < until, what or look
        time.sleep(0.1)
    return found


def assert_as_undisturbed(path, dataset, folder, **settings):
    """Equal to the cache of one undisturbed process, but for rounding; nothing lies beside it."""
    where = {"cache_dir": folder / "undisturbed", "device": "cpu"}
    one = FeatureCache(extract(ExtractConfig("toy", dataset, **where, **settings)).path)
    other = FeatureCache(path)
    assert other.is_finished
    assert not any(damaged_rows(file, silent) for file in other.files)
    columns = ["key", "sha256", "emotion", "speaker"]
    pd.testing.assert_frame_equal(one.utterances[columns], other.utterances[columns])
    np.testing.assert_allclose(one.pooled, other.pooled, rtol=1e-3, atol=1e-4)
    assert {file.suffix for file in path.parent.iterdir()} == {".h5", ".csv"}
    assert list(path.parent.parent.glob(".*.mark")) == []
