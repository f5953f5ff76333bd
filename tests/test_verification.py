import shutil

import numpy as np
import pytest
from test_cache import fill, plan_of

from lsmprobe.cache.export import export_cache
from lsmprobe.cache.parts import verified_mark
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.cache.verify import verify_once
from lsmprobe.cache.writer import CacheWriter
from lsmprobe.config import ProbeConfig
from lsmprobe.errors import CacheError
from lsmprobe.layers.health import layer_health
from lsmprobe.layers.probes import probe_layers
from lsmprobe.layers.projection import project_layer
from lsmprobe.layers.similarity import layer_similarity
from lsmprobe.layers.weights import layer_drops, layer_shares
from lsmprobe.probing.stage import probe
from lsmprobe.results.records import load_results


def flip_a_bit(path, name, row=3):
    """In the first byte of an utterance's features."""
    file = FeatureCache(path).files[0]
    member = file.members[name]
    with path.open("r+b") as raw:
        raw.seek(member.offset + row * member.dtype.itemsize * int(np.prod(member.shape[1:])))
        byte = raw.read(1)
        raw.seek(-1, 1)
        raw.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("head", ["linear", "nonlinear"])
def test_nothing_is_learned_from_damaged_means(tmp_path, planted_cache, head):
    path = planted_cache()
    flip_a_bit(path, "pooled/mean")
    config = ProbeConfig(
        head=head,
        epochs=1,
        runs=1,
        device="cpu",
        cache_dir=tmp_path / "cache",
        results_dir=tmp_path / "results",
    )
    with pytest.raises(CacheError, match=r"1 damaged utterance \('0.*verify .* --repair"):
        probe(config)
    assert not list((tmp_path / "results").rglob("*linear*"))


@pytest.mark.parametrize(
    "use",
    [
        probe_layers,
        layer_health,
        layer_similarity,
        lambda cache: project_layer(cache, 2),
        lambda cache: export_cache(cache.path, cache.path.with_name("out")),
    ],
    ids=["probe", "health", "similarity", "projection", "export"],
)
def test_no_number_comes_from_damaged_features(planted_cache, use):
    path = planted_cache()
    cache = FeatureCache(path)
    flip_a_bit(path, "pooled/mean")
    with pytest.raises(CacheError, match=r"1 damaged utterance \('0.*verify .* --repair"):
        use(cache)
    assert not path.with_name("out.npy").exists()


@pytest.mark.parametrize(
    ("use", "name"), [(layer_shares, "pooled/std"), (layer_drops, "layers/03")]
)
def test_weights_are_not_explained_by_damaged_features(tmp_path, planted_cache, use, name):
    path = planted_cache()
    folders = {"cache_dir": tmp_path / "cache", "results_dir": tmp_path / "results"}
    probe(ProbeConfig(head="multilayer", epochs=1, runs=1, device="cpu", **folders))
    flip_a_bit(path, name)
    with pytest.raises(CacheError, match="1 damaged utterance"):
        use(FeatureCache(path), load_results(tmp_path / "results"))


def test_an_unfinished_cache_may_be_looked_at(tmp_path):
    path = tmp_path / "m" / "c.h5"
    with CacheWriter.open(path, plan_of()) as writer:
        fill(writer, range(4))
    assert len(layer_health(FeatureCache(path, allow_unfinished=True))) == 3
    with CacheWriter.open(path, plan_of()) as writer:
        fill(writer)
    flip_a_bit(path, "pooled/mean")
    with pytest.raises(CacheError, match="1 damaged"):
        layer_health(FeatureCache(path))


def test_a_folder_that_takes_no_mark_is_read_once_by_a_process(planted_cache, monkeypatch):
    from lsmprobe.cache import verify

    path, read = planted_cache(), []
    whole = verify.verify_cache
    monkeypatch.setattr(verify, "verify_cache", lambda p, **_: read.append(p) or whole(p))
    verified_mark(path).mkdir()  # nothing can be written there
    for _ in range(3):
        verify_once(FeatureCache(path))
    assert read == [path]


def test_a_cache_replaced_since_it_was_opened_is_told(planted_cache, tmp_path):
    path = planted_cache()
    cache = FeatureCache(path)
    planted_cache(folder=tmp_path / "new").replace(path)
    with pytest.raises(CacheError, match="was replaced in the meantime"):
        layer_health(cache)


def test_a_file_is_read_whole_once_and_again_when_it_has_changed(planted_cache, monkeypatch):
    path = planted_cache()
    read = []
    from lsmprobe.cache import verify

    whole = verify.verify_cache
    monkeypatch.setattr(verify, "verify_cache", lambda p, **_: read.append(p) or whole(p))
    verify_once(FeatureCache(path))
    verify_once(FeatureCache(path))
    assert read == [path]
    flip_a_bit(path, "pooled/std")
    with pytest.raises(CacheError, match="damaged"):
        verify_once(FeatureCache(path))
    with pytest.raises(CacheError, match="damaged"):
        verify_once(FeatureCache(path))
    assert len(read) == 3


def test_a_cache_under_the_name_of_another_is_said_once(tmp_path, planted_cache, caplog):
    identity = {"model": "owner/planted", "corpus": "made", "random_init": None}
    path = planted_cache(identity=identity)
    places = ("owner--planted@main/made.h5", "planted-random0/made.h5", "other/made.h5")
    for place in (*places, "owner--planted/mine.h5", "owner--planted/mine.h5"):
        copied = tmp_path / place
        copied.parent.mkdir(exist_ok=True)
        shutil.copy(path, copied)
        verify_once(FeatureCache(copied))
    said = [each.message for each in caplog.records if "was made of" in each.message]
    assert said == [
        f"{tmp_path / 'other/made.h5'} was made of made by owner/planted; its numbers are shown as "
        "those of made by other. If it was not renamed on purpose, put the right file there.",
        f"{tmp_path / 'owner--planted/mine.h5'} was made of made by owner/planted; its numbers are "
        "shown as those of mine by owner--planted. If it was not renamed on purpose, put the right "
        "file there.",
    ]
