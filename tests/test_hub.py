"""hub.py through huggingface_hub itself, against a hub on this machine."""

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
import transformers
from local_hub import COMMIT, local_hub
from small_models import FAMILIES, STABLE_NORM, make_checkpoint, noise
from tqdm import tqdm

from lsmprobe.cache.reader import FeatureCache
from lsmprobe.errors import ModelError
from lsmprobe.extraction import hub
from lsmprobe.extraction.load import load_encoder
from lsmprobe.extraction.models import SPEECH_MODELS, SpeechModel

MODEL = "someone/small"
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("published"), FAMILIES[STABLE_NORM])


@pytest.fixture
def server(tmp_path, monkeypatch, published):
    """A hub with one model, and an empty cache."""
    constants = huggingface_hub.constants
    with local_hub() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.endpoint)
        template = running.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 4096)  # what is kept at a break
        monkeypatch.setattr("time.sleep", lambda _: None)  # between attempts
        huggingface_hub.close_session()
        running.folders[MODEL] = shutil.copytree(published, tmp_path / "repository")
        yield running
        huggingface_hub.close_session()


def identity_of(folder):
    found = load_encoder(str(folder)).identity
    return {name: found[name] for name in ("weights_sha256", "normalised", "model_type")}


def refused(match, model=MODEL, **settings):
    with pytest.raises(ModelError, match=match) as caught:
        load_encoder(model, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_model_is_downloaded_and_its_files_are_in_the_identity(server, published):
    identity = load_encoder(MODEL).identity
    assert {name: identity[name] for name in identity_of(published)} == identity_of(published)
    assert (identity["hub_id"], identity["revision"]) == (MODEL, COMMIT)
    assert identity["files_sha256"] == {WEIGHTS: sha256(published / WEIGHTS)}


def test_what_is_here_is_not_fetched_again(server):
    first = load_encoder(MODEL).identity
    server.requests.clear()
    assert load_encoder(MODEL).identity == first
    assert server.asked() == [f"/api/models/{MODEL}/revision/main"]
    assert load_encoder(MODEL, revision=COMMIT).identity == first


def test_a_second_run_needs_no_hub(server, monkeypatch):
    first = load_encoder(MODEL).identity
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.close_session()
    server.requests.clear()
    assert load_encoder(MODEL).identity == first
    assert load_encoder(MODEL, revision="main").identity == first
    assert load_encoder(MODEL, revision=COMMIT).identity == first
    assert server.requests == []
    refused("at revision v1 is not in the local cache", revision="v1")
    refused("someone/other at revision main is not in the local cache", model="someone/other")


def test_a_hub_that_is_gone_leaves_what_was_downloaded(server, monkeypatch):
    first = load_encoder(MODEL).identity
    nobody = "http://127.0.0.1:9"  # a port where nobody answers
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", nobody)
    assert load_encoder(MODEL).identity == first
    refused("not in the local cache, .* hub cannot be reached", model="someone/other")


def test_a_description_alone_is_no_model_when_offline(server, monkeypatch):
    load_encoder(MODEL, random_init=0)
    assert not any(WEIGHTS in path for path in server.asked())
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.close_session()
    load_encoder(MODEL, random_init=0)
    refused("is not in the local cache, or not all that is needed of it")


def test_a_row_of_the_table_does_not_ask_again(server, monkeypatch):
    row = SpeechModel("small", MODEL, "arXiv:0", revision=COMMIT)
    monkeypatch.setitem(SPEECH_MODELS, "small", row)
    first = load_encoder("small").identity
    server.requests.clear()
    assert load_encoder("small").identity == first
    assert server.requests == []


@pytest.mark.parametrize("revision", ["v1", "main", COMMIT])
def test_a_revision_is_the_commit_that_it_names(revision, server):
    assert load_encoder(MODEL, revision=revision).identity["revision"] == COMMIT


def test_what_the_hub_does_not_have_or_give_is_one_line(server):
    refused("has no revision 'v2' of someone/small; expected a branch", revision="v2")
    refused("hub has no model someone/other, or shows it only after", model="someone/other")
    server.gated.add(MODEL)
    refused(f"ask for access on https://huggingface.co/{MODEL}, then run `hf auth login`")
    server.gated.clear()
    server.private.add(MODEL)
    refused("or shows it only after `hf auth login`")


def test_no_more_is_fetched_than_is_read(server, published):
    for name in ("pytorch_model.bin", "tf_model.h5", "README.md", "vocab.json"):
        (server.folders[MODEL] / name).write_bytes(b"x" * 99)
    load_encoder(MODEL)
    fetched = {path.rpartition("/")[2] for path in server.asked("GET") if "/resolve/" in path}
    assert fetched == {"config.json", "preprocessor_config.json", WEIGHTS}


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
def test_weights_in_shards_are_fetched_whole(safe, server, published):
    folder = server.folders[MODEL]
    model = transformers.AutoModel.from_pretrained(published)
    (folder / WEIGHTS).unlink()
    if safe:
        model.save_pretrained(folder, max_shard_size="20KB")
    else:
        save_shards(model, folder)
    identity = load_encoder(MODEL).identity
    assert identity["weights_sha256"] == identity_of(published)["weights_sha256"]
    held = sorted(path.name for path in folder.glob("*model*"))
    assert len(held) > 2
    assert sorted(identity["files_sha256"]) == held


def save_shards(model, folder):
    """As transformers 4 wrote them."""
    import torch

    names = sorted(model.state_dict())
    halves = names[::2], names[1::2]
    weight_map = {}
    for number, half in enumerate(halves, 1):
        file = f"pytorch_model-{number:05d}-of-00002.bin"
        torch.save({name: model.state_dict()[name] for name in half}, folder / file)
        weight_map |= dict.fromkeys(half, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def test_a_connection_that_breaks_continues_where_it_broke(server, published):
    server.breaks_after = (published / WEIGHTS).stat().st_size // 3
    identity = load_encoder(MODEL).identity
    assert identity["files_sha256"] == {WEIGHTS: sha256(published / WEIGHTS)}
    ranges = [asked for _, path, asked in server.requests if path.endswith(WEIGHTS) and asked]
    assert len(ranges) >= 2


def test_a_connection_that_stays_broken_is_one_line_and_keeps_what_came(server, published):
    server.breaks_after = 0
    said = refused(f"{WEIGHTS} of someone/small cannot be downloaded|cannot be downloaded")
    assert "run the same command to continue" in said
    server.breaks_after = None
    assert load_encoder(MODEL).identity["files_sha256"] == {WEIGHTS: sha256(published / WEIGHTS)}


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_a_damaged_download_is_named_with_the_command_that_fetches_it_again(name, server):
    server.damages.add(name)
    said = refused(f"{name} of {MODEL} is damaged on this disk: its SHA-.*, and the hub lists")
    assert refused("is damaged") == said, "it is not used later on either"
    server.damages.clear()
    words = said.partition("Run: ")[2].split()
    assert words[:3] == ["hf", "download", MODEL]
    assert words[4:] == ["--revision", COMMIT, "--force-download"]
    huggingface_hub.hf_hub_download(MODEL, words[3], revision=COMMIT, force_download=True)
    load_encoder(MODEL)


def test_a_copy_that_is_damaged_later_is_noticed_offline_too(server, tmp_path, monkeypatch):
    load_encoder(MODEL)
    [file] = (tmp_path / "hub").rglob(f"snapshots/*/{WEIGHTS}")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.resolve().write_bytes(content)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.close_session()
    refused(f"{WEIGHTS} of {MODEL} is damaged on this disk")


def test_the_tables_hash_decides_what_the_weights_are(server, published, monkeypatch):
    right = SpeechModel("small", MODEL, "arXiv:0", COMMIT, sha256=sha256(published / WEIGHTS))
    monkeypatch.setitem(SPEECH_MODELS, "small", right)
    load_encoder("small")
    wrong = SpeechModel("small", MODEL, "arXiv:0", COMMIT, sha256="0" * 64)
    monkeypatch.setitem(SPEECH_MODELS, "small", wrong)
    refused(f"{WEIGHTS} of {MODEL} is not the file that is known under this name", model="small")
    load_encoder(MODEL, revision="v1")


def test_an_adapter_of_a_repository_is_refused(server):
    (server.folders[MODEL] / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    refused("someone/small holds an adapter", model=MODEL)


def test_the_adapters_of_a_language_are_fetched_or_named(server, tmp_path):
    import torch
    from safetensors.torch import save_file

    server.folders[MODEL] = make_checkpoint(tmp_path / "mms", FAMILIES["mms"])
    own = load_encoder(MODEL).backbone.network.state_dict()
    adapters = {name: torch.ones_like(own[name]) for name in own if "adapter_layer" in name}
    save_file(adapters, tmp_path / "mms" / "adapter.deu.safetensors")
    refused(r"no file adapter\.due\.safetensors; did you mean adapter\.deu", adapter="due")
    network = load_encoder(MODEL, adapter="deu").backbone.network
    for name in adapters:
        assert torch.equal(network.state_dict()[name], adapters[name])


def test_one_bar_counts_the_bytes_that_are_fetched(server, published):
    shown = io.StringIO()
    bars = []

    def progress(*args, **settings):
        bars.append(tqdm(*args, **settings, file=shown, mininterval=0))
        return bars[-1]

    server.breaks_after = (published / WEIGHTS).stat().st_size // 2
    load_encoder(MODEL, progress=progress)
    [bar] = bars
    names = ("config.json", "preprocessor_config.json", WEIGHTS)
    assert bar.n == bar.total == sum((published / name).stat().st_size for name in names)
    assert bar.unit == "B"
    assert "someone/small" in shown.getvalue()
    load_encoder(MODEL, progress=progress)
    assert bars == [bar], "nothing is fetched, so nothing is shown"


def test_the_listing_is_that_of_the_hub(server, published):
    commit, sizes = hub.listing(MODEL, "main")
    assert commit == COMMIT
    assert sizes == {path.name: path.stat().st_size for path in published.iterdir()}


def test_every_known_hash_is_one():
    known = [row.sha256 for row in SPEECH_MODELS.values() if row.sha256]
    assert all(re.fullmatch("[0-9a-f]{64}", each) for each in known)
    assert len(set(known)) == len(known)
    for row in SPEECH_MODELS.values():
        assert row.sha256 is None or row.revision != "main"
        assert row.hub_id is None or row.revision != "main"


def command(running, home, **environment):
    """`python extract.py` as a process with a hub and a home; its standard error."""
    flags = f"--model {MODEL} --dataset {home / 'mine.csv'} --cache-dir {home / 'cache'}"
    done = subprocess.run(
        [sys.executable, Path(__file__).parents[1] / "extract.py", *flags.split()],
        capture_output=True,
        text=True,
        cwd=home,
        timeout=600,
        env=os.environ
        | {"HF_ENDPOINT": running.endpoint, "HF_HOME": str(home / "hf"), "HF_HUB_OFFLINE": "0"}
        | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def home(tmp_path, write_wav):
    """A corpus of two clips; what lies there is deleted afterwards, since it may be large."""
    for name, samples in zip("ab", noise(8_000, 6_000), strict=True):
        write_wav(tmp_path / f"{name}.wav", samples)
    (tmp_path / "mine.csv").write_text("path,emotion,speaker\na.wav,joy,s\nb.wav,rage,t\n")
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


def first_and_second(running, home):
    """The bar of the first command's download; the second one, offline, asks nobody."""
    said = command(running, home)
    assert "HTTP" not in said and "127.0.0.1" not in said
    bars = [line for line in re.split(r"[\r\n]", said) if line.startswith(f"{MODEL}: 100%")]
    assert len(bars) == 1, said
    [cache] = (home / "cache").rglob("*.h5")
    cache.rename(home / "first.h5")
    running.requests.clear()
    again = command(running, home, HF_HUB_OFFLINE="1")
    assert running.requests == [] and "B/s" not in again
    first, second = FeatureCache(home / "first.h5"), FeatureCache(cache)
    assert first.identity_hash == second.identity_hash
    assert first.identity["files_sha256"] == second.identity["files_sha256"]
    return bars[0], first.identity["files_sha256"]


@pytest.mark.slow
def test_the_first_command_downloads_with_one_bar_and_the_second_works_offline(home, published):
    with local_hub() as running:
        running.folders[MODEL] = published
        bar, _ = first_and_second(running, home)
    assert re.search(r"\d+k/\d+k \[.*B/s\]", bar), bar


@pytest.mark.slow
def test_a_checkpoint_of_real_size_without_safetensors_goes_the_same_way(home):
    """As wav2vec2-base is published: 380 MB, with the head of its pretraining, random here."""
    import torch

    folder = home / "repository"
    config = transformers.Wav2Vec2Config()
    model = transformers.Wav2Vec2ForPreTraining(config)
    old = {".parametrizations.weight.original0": ".weight_g"}
    old |= {".parametrizations.weight.original1": ".weight_v"}
    config.save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(folder)
    weights = model.state_dict()
    for name in list(weights):
        for new, before in old.items():
            if name.endswith(new):
                weights[name.removesuffix(new) + before] = weights.pop(name)
    torch.save(weights, folder / "pytorch_model.bin")
    assert 379e6 < (folder / "pytorch_model.bin").stat().st_size < 382e6
    with local_hub() as running:
        running.folders[MODEL] = folder
        bar, files = first_and_second(running, home)
    assert re.search(r"380M/380M \[.*B/s\]", bar), bar
    assert files == {"pytorch_model.bin": sha256(folder / "pytorch_model.bin")}
