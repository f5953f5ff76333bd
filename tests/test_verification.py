import numpy as np
import pytest

from lsmprobe.cache import FeatureCache
from lsmprobe.config import ProbeConfig
from lsmprobe.errors import CacheError
from lsmprobe.probing import probe
from lsmprobe.verification import verify_once


def flip_a_bit(path, name, row=3):
    """In the first byte of an utterance's features."""
    file = FeatureCache(path).files[0]
    member = file.members[name]
    with path.open("r+b") as raw:
        raw.seek(member.offset + row * member.dtype.itemsize * int(np.prod(member.shape[1:])))
        byte = raw.read(1)
        raw.seek(-1, 1)
        raw.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("name", ["pooled/mean", "layers/03"])
def test_nothing_is_learned_from_damaged_features(tmp_path, planted_cache, name):
    path = planted_cache()
    flip_a_bit(path, name)
    config = ProbeConfig(
        head="linear",
        epochs=1,
        runs=1,
        device="cpu",
        cache_dir=tmp_path / "cache",
        results_dir=tmp_path / "results",
    )
    with pytest.raises(CacheError, match=r"1 damaged utterances \('0.*verify .* --repair"):
        probe(config)
    assert not list((tmp_path / "results").rglob("*linear*"))


def test_a_file_is_read_whole_once_and_again_when_it_has_changed(planted_cache, monkeypatch):
    path = planted_cache()
    read = []
    from lsmprobe import verification

    whole = verification.verify_cache
    monkeypatch.setattr(verification, "verify_cache", lambda p: read.append(p) or whole(p))
    verify_once(path)
    verify_once(path)
    assert read == [path]
    flip_a_bit(path, "pooled/std")
    with pytest.raises(CacheError, match="damaged"):
        verify_once(path)
    with pytest.raises(CacheError, match="damaged"):
        verify_once(path)
    assert len(read) == 3
