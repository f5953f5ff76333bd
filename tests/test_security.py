"""What a stranger's file can do: be refused, at worst. docs/reliability.md lists the promises."""

import ast
import json
import pickle
import pkgutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers
from simulated import simulated_record

from lsmprobe.cli import main
from lsmprobe.corpora.read import read_corpus
from lsmprobe.errors import CorpusError, LsmprobeError, ModelError, SplitError
from lsmprobe.extraction.checkpoints import find_checkpoint, read_config
from lsmprobe.extraction.load import load_encoder
from lsmprobe.extraction.models import MODEL_TYPES
from lsmprobe.extraction.network import random_network
from lsmprobe.results.records import load_head, save_run
from lsmprobe.splits.file import load_split

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lsmprobe"
SOURCES = [*sorted(PACKAGE.rglob("*.py")), ROOT / "extract.py", ROOT / "probe.py"]

RUN_WHAT_THEY_READ = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "subprocess"}
STARTS_PROGRAMS = {
    PACKAGE / "corpora" / "containers.py",  # ffmpeg
    PACKAGE / "cluster" / "task.py",  # this Python
}
FUNCTIONS = {"eval", "exec", "compile", "__import__"}
METHODS = {"read_pickle", "to_pickle", "system", "popen", "unsafe_load"}


class Intruder:
    """A pickle that leaves a trace when it is read."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


# Our own code


def called(node):
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def is_true(keywords, name):
    return getattr(keywords.get(name), "value", None) is True


def test_the_audit_reads_every_file():
    """Found by another way than the list that the audit walks: what Python itself would import."""
    importable = {
        Path(module.module_finder.path, module.name.rpartition(".")[2])
        for module in pkgutil.walk_packages([str(PACKAGE)], "lsmprobe.")
    }
    read = {path.with_suffix("") for path in SOURCES} | {path.parent for path in SOURCES}
    assert len(importable) > 60
    assert importable - read == set()


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_code_runs_what_it_reads(source):
    for node in ast.walk(ast.parse(source.read_text("utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            found = {name.partition(".")[0] for name in names} & RUN_WHAT_THEY_READ
            assert found <= ({"subprocess"} if source in STARTS_PROGRAMS else set())
        if not isinstance(node, ast.Call):
            continue
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        owner = getattr(getattr(node.func, "value", None), "id", "")
        forbidden = FUNCTIONS if isinstance(node.func, ast.Name) else METHODS
        assert called(node) not in forbidden, ast.unparse(node)
        assert "trust_remote_code" not in keywords
        assert "shell" not in keywords
        assert "allow_pickle" not in keywords
        if called(node) == "from_pretrained":
            assert is_true(keywords, "local_files_only"), ast.unparse(node)
        if owner == "torch" and called(node) == "load":
            assert is_true(keywords, "weights_only"), ast.unparse(node)


def test_weights_are_read_as_weights_only():
    tree = ast.parse((PACKAGE / "extraction" / "network.py").read_text("utf-8"))
    [reader] = [node for node in ast.walk(tree) if getattr(node, "name", "") == "read_network"]
    [load] = [node for node in ast.walk(reader) if getattr(node, "attr", "") == "from_pretrained"]
    [call] = [n for n in ast.walk(reader) if isinstance(n, ast.Call) and n.func is load]
    assert is_true({keyword.arg: keyword.value for keyword in call.keywords}, "weights_only")


def test_what_a_name_holds_stays_within_the_line_of_a_message():
    with pytest.raises(SystemExit) as caught:
        main(["extract", "--model", "toy", "--dataset", "no\nsuch\x1b[2J\udcff.csv"])
    assert str(caught.value.code).isprintable()
    assert r"no\nsuch\x1b[2J\udcff.csv" in str(caught.value.code)


# Checkpoints (code beside one and in its pickle: test_encoders.py)


SMALL = {"num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 16, "conv_dim": [8] * 7}
SMALL |= {
    "num_attention_heads": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}
PROGRAM = "someone/kernels"
NAMES_A_PROGRAM = {
    "attn_implementation": PROGRAM,
    "_attn_implementation": PROGRAM,
    "_attn_implementation_internal": PROGRAM,
    "_attn_implementation_autoset": True,
    "attn_implementation_internal": PROGRAM,
    "experts_implementation": PROGRAM,
    "_experts_implementation": PROGRAM,
    "_experts_implementation_internal": PROGRAM,
    "auto_map": {"AutoModel": "code.M"},
    "custom_pipelines": {"x": {"impl": "code.P"}},
    "kernel_config": {"kernel_mapping": {"RMSNorm": PROGRAM}},
    "fusion_config": {"x": PROGRAM},
    "per_layer_config": {"0": {"_attn_implementation": PROGRAM}},
    "quantizer": [{"attn_implementation": PROGRAM}],
    "encoder_config": {"attn_implementation": PROGRAM, "layers": [{"_attn_implementation": "x"}]},
    "sub_configs": {"encoder_config": {"_attn_implementation_internal": PROGRAM}},
    "transformers_weights": "../elsewhere.safetensors",
    "distributed_config": {"tp_plan": "auto"},
    "name_or_path": PROGRAM,
}


def checkpoint(folder, **written):
    config = transformers.Wav2Vec2Config(**SMALL).to_dict() | written
    (folder / "config.json").write_text(json.dumps(config))
    return find_checkpoint(str(folder), None, with_weights=True)


@pytest.mark.parametrize("kind", MODEL_TYPES)
@pytest.mark.parametrize("field", NAMES_A_PROGRAM)
def test_a_config_cannot_name_a_program_of_the_hub(kind, field, tmp_path):
    named = {field: NAMES_A_PROGRAM[field], "model_type": kind}
    (tmp_path / "config.json").write_text(json.dumps(named))
    config = read_config(find_checkpoint(str(tmp_path), None, with_weights=True))
    assert config._attn_implementation in ("sdpa", "eager")
    assert config._experts_implementation is None
    plain = transformers.CONFIG_MAPPING[kind](attn_implementation=config._attn_implementation)
    assert vars(config) == vars(plain)


def test_no_program_is_asked_for_when_a_network_is_made(tmp_path, monkeypatch):
    """As if the package that fetches such programs were installed."""
    asked = []
    hub_kernels = transformers.integrations.hub_kernels
    monkeypatch.setattr(hub_kernels, "is_kernels_available", lambda *_, **__: True)
    monkeypatch.setattr(hub_kernels, "get_kernel", lambda *args, **_: asked.append(args))
    config = read_config(checkpoint(tmp_path, **NAMES_A_PROGRAM))
    network = random_network(config, seed=0)
    network.save_pretrained(tmp_path / "weights")
    written = json.loads((tmp_path / "config.json").read_text()) | {"model_type": "wav2vec2"}
    (tmp_path / "weights" / "config.json").write_text(json.dumps(written))
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "weights")
    encoder = load_encoder(str(tmp_path / "weights"))
    assert encoder.backbone.network.config._attn_implementation == "sdpa"
    assert asked == []


def test_a_field_of_the_architecture_holds_a_number_a_word_or_a_list(tmp_path):
    nested = {"hidden_act": {"attn_implementation": PROGRAM}}
    with pytest.raises(ModelError, match=r"hidden_act is .*; expected a number, word or list"):
        read_config(checkpoint(tmp_path, **nested))


def test_quantised_weights_are_refused(tmp_path):
    quantised = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}
    with pytest.raises(ModelError, match="quantised weights; expected floating point"):
        read_config(checkpoint(tmp_path, **quantised))


# Corpora (manifests that leave their folder: test_own_corpora.py; archives: test_download.py)


@pytest.fixture
def database(tmp_path):
    """A good audformat database of one clip, by its files."""
    pytest.importorskip("audformat")
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "a.wav").touch()
    tables = {
        "emotion": "file,emotion\n{file},joy\n",
        "speaker": "file,speaker\n{file},anna\n",
    }

    def write(file="a.wav", extra="", table="emotion"):
        names = [table, "speaker"]
        header = "name: mine\nsource: here\nusage: other\nschemes:\n"
        header += "".join(f"  {name}: {{dtype: str}}\n" for name in tables)
        header += "tables:\n"
        for name, scheme in zip(names, tables, strict=True):
            header += f"  {name}:\n    type: filewise\n"
            header += f"    columns:\n      {scheme}: {{scheme_id: {scheme}}}\n"
            if "/" not in name:
                (folder / f"db.{name}.csv").write_text(tables[scheme].format(file=file))
        (folder / "db.yaml").write_text(header + extra)
        return f"audformat:{folder}"

    return write


@pytest.mark.filterwarnings("ignore")  # audformat's own
def test_a_database_cannot_run_what_it_brings(database, tmp_path):
    trace = tmp_path / "ran"
    assert list(read_corpus(database()).key) == ["a.wav"]
    (tmp_path / "mine" / "db.emotion.pkl").write_bytes(pickle.dumps(Intruder(trace)))
    assert list(read_corpus(database()).key) == ["a.wav"]
    with pytest.raises(CorpusError, match="not an audformat database"):
        read_corpus(database(extra=f"x: !!python/object/apply:os.mkdir [{trace}]\n"))
    with pytest.raises(CorpusError, match=r"a table is called '\.\./elsewhere'"):
        read_corpus(database(table="../elsewhere"))
    assert not trace.exists()


@pytest.mark.filterwarnings("ignore")  # audformat's own
@pytest.mark.parametrize("file", ["../a.wav", "/etc/hostname", "x/../../a.wav"])
def test_a_database_cannot_leave_its_folder(database, tmp_path, file):
    (tmp_path / "a.wav").touch()
    with pytest.raises(CorpusError, match="leaves the folder"):
        read_corpus(database(file))


@pytest.mark.filterwarnings("ignore")  # datasets' own
def test_a_data_set_cannot_name_files_elsewhere(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    audio = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    text = {name: datasets.Value("string") for name in ("emotion", "speaker")}
    for path, is_inside in {"/etc/hostname": False, "../x.wav": False, "in/a.wav": True}.items():
        rows = {"audio": [{"bytes": None, "path": path}], "emotion": ["joy"], "speaker": ["anna"]}
        mine = tmp_path / f"mine{is_inside}{len(path)}"
        mine.mkdir()
        if is_inside:
            (mine / path).parent.mkdir()
            (mine / path).touch()
        data = datasets.Dataset.from_dict(rows, features=datasets.Features(audio=audio, **text))
        data.to_parquet(str(mine / "train.parquet"))
        if is_inside:
            assert list(read_corpus(f"hf:{mine}").path) == [str(mine / path)]
        else:
            with pytest.raises(CorpusError, match="leaves the folder"):
                read_corpus(f"hf:{mine}")


# Results and splits (records that hold anything: test_results.py)


def recorded(folder, head):
    """The path of a record that does not say which head lies beside it, as older ones do not."""
    path = folder / "run.json"
    save_run(path, simulated_record("model", "corpus", "linear", 0, 1), {})
    path.with_suffix(".safetensors").write_bytes(head)
    return path


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 100,
        (2**62).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (80).to_bytes(8, "little")
        + b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4]}}'.ljust(80)
        + bytes(4),
        pickle.dumps(Intruder(Path("never"))),
    ],
)
def test_a_trained_head_that_is_none_is_refused(tmp_path, content):
    path = recorded(tmp_path, content)
    with pytest.raises(LsmprobeError, match="its trained head cannot be read") as caught:
        load_head(path)
    assert "\n" not in str(caught.value)
    assert not Path("never").exists()


def test_a_trained_head_is_tensors_and_nothing_else(tmp_path):
    head = {"0.classify.weight": torch.ones(2, 3)}
    loaded = load_head(recorded(tmp_path, safetensors.torch.save(head)))
    np.testing.assert_array_equal(loaded["0.classify.weight"], np.ones((2, 3)))


@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000,
        '{"train": ' * 50_000,
        '{"train": ["a"], "validation": ["b"], "test": [NaN]}',
        '{"train": ["a"], "validation": ["b"], "test": {"c": 1}}',
        '{"folds": [[]]}',
        '{"folds": [{"train": 1e999}]}',
    ],
)
def test_a_split_file_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "split.json").write_text(content)
    with pytest.raises(SplitError) as caught:
        load_split(tmp_path / "split.json", ["a", "b", "c"])
    assert "\n" not in str(caught.value)
