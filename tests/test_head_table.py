"""A head is a row, a normalisation is a row: one of a user's own is as good as those built in."""

import ast
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import lsmprobe
from lsmprobe.cli import main
from lsmprobe.config import HEAD_NAMES, ProbeConfig
from lsmprobe.errors import ResultsError, SettingsError
from lsmprobe.experiments.prediction import probabilities
from lsmprobe.probing import table
from lsmprobe.probing.heads import mean_per_utterance
from lsmprobe.probing.record import saved_probe
from lsmprobe.probing.stage import probe
from lsmprobe.report.score_lines import format_scores
from lsmprobe.results.records import load_head, load_predictions, load_record, load_results

PACKAGE = Path(lsmprobe.__file__).parent


class Deep(nn.Module):
    def __init__(self, dim, n_outputs, hidden):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(dim, hidden), nn.Tanh(), nn.Dropout(0.3), nn.Linear(hidden, n_outputs)
        )

    def forward(self, frames, lengths):
        return self.net(mean_per_utterance(frames, lengths))


@pytest.fixture(params=["means", pytest.param("frames", marks=pytest.mark.slow)])
def deep(request):
    yield lsmprobe.register_head(
        "deep",
        lambda n_layers, dim, n_outputs, settings: Deep(dim, n_outputs, settings["hidden"]),
        title="Deep",
        reads=request.param,
        settings=("hidden",),
    )
    table.unregister_head("deep")


def config(folder, **changes):
    usual = {"runs": 2, "epochs": 15, "hidden": 32, "lr": 5e-3, "split": "kfold:5", "layer": 3}
    folders = {"cache_dir": folder / "cache", "results_dir": folder / "results"}
    return ProbeConfig(**(folders | usual | changes))


def test_a_head_of_ones_own_trains_is_recorded_reported_and_predicts(
    tmp_path, planted_cache, deep, capsys
):
    planted_cache(layer=5)
    results = probe(config(tmp_path, head="deep", layer=None))
    assert set(results["head"]) == {"deep"} and set(results["layer"]) == {5}
    assert results["macro_f1"].min() > 60  # four classes, planted linearly
    assert "deep" in format_scores(load_results(tmp_path / "results"))
    with pytest.raises(SystemExit, match="0"):
        main(["report", "--results-dir", str(tmp_path / "results")])
    assert "Deep" in capsys.readouterr().out
    path = Path(results["path"][0])
    record, tensors = load_record(path), load_head(path)
    assert record["settings"]["hidden"] == 32 and "dropout" not in record["settings"]
    from lsmprobe.cache.reader import FeatureCache

    cache = FeatureCache(tmp_path / "cache" / "planted" / "made.h5")
    said = load_predictions(path)
    first = said.iloc[0]
    row = int(np.flatnonzero(cache.utterances["key"] == first["key"])[0])
    states = [cache.frames(row, layer).astype(np.float32) for layer in cache.layers]
    probes = [saved_probe(record, tensors, fold=0)]  # that fold tested the first utterance
    answer = probabilities(record, probes, torch.from_numpy(np.stack(states)))
    np.testing.assert_allclose(answer, first.filter(like="p_").astype(float), atol=2e-3)


def test_a_head_of_ones_own_draws_alike_on_any_number_of_cores(
    tmp_path, planted_cache, deep, threads
):
    """It draws from torch's global generator, which heads that train side by side would share."""
    planted_cache(layer=3)
    said = []
    for cores in (1, 2):
        threads(cores)
        folder = tmp_path / str(cores)
        results = probe(config(tmp_path, head="deep", runs=3, epochs=2, results_dir=folder))
        said.append([load_predictions(Path(path)).filter(like="p_") for path in results["path"]])
    for one, two in zip(*said, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-3)


def test_a_head_that_is_not_registered_is_refused_and_its_records_still_read(
    tmp_path, planted_cache, deep
):
    planted_cache(layer=3)
    results = probe(config(tmp_path, head="deep", runs=1, epochs=1))
    table.unregister_head("deep")
    with pytest.raises(SettingsError, match=r"--head is 'deep'; expected one of 'all', 'linear'"):
        config(tmp_path, head="deep")
    assert len(load_results(tmp_path / "results")) == 1
    with pytest.raises(ResultsError, match="register_head"):
        saved_probe(load_record(Path(results["path"][0])), {})


def test_the_papers_heads_cannot_be_replaced():
    for name in (*table.PAPER_HEADS, "all"):
        with pytest.raises(SettingsError, match="which is taken"):
            lsmprobe.register_head(name, lambda *_: nn.Identity())


def test_the_names_that_flags_take_are_those_of_the_table():
    assert list(table.HEADS) == HEAD_NAMES == list(table.BUILT_IN)
    norms = ProbeConfig.__dataclass_fields__["feature_norm"].type
    assert set(norms.__args__) == set(table.NORMS)


def test_a_layer_goes_with_no_head_that_weighs_layers(tmp_path, planted_cache):
    planted_cache()
    with pytest.raises(SettingsError, match="--layer does not go with --head multilayer"):
        probe(config(tmp_path, head="multilayer"))


def test_a_record_from_before_the_width_was_recorded_is_still_read(tmp_path, planted_cache):
    planted_cache()
    results = probe(config(tmp_path, head="all", runs=1, epochs=1, layer=None, split="speaker"))
    for path in map(Path, results["path"]):
        record = load_record(path)
        old = saved_probe({k: v for k, v in record.items() if k != "dim"}, load_head(path))
        new = saved_probe(record, load_head(path))
        assert json.dumps(str(old)) == json.dumps(str(new))


@pytest.mark.parametrize(
    "source", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_no_module_but_the_table_knows_a_head_or_a_normalisation_by_its_name(source):
    """Where a head's name is compared with a string, adding a row is no longer enough."""
    names = {"linear", "nonlinear", "multilayer", "layernorm"}
    if source.name == "table.py" and source.parent.name == "probing":
        return
    for node in ast.walk(ast.parse(source.read_text("utf-8"))):
        if isinstance(node, ast.Compare):
            for side in (node.left, *node.comparators):
                within = ast.walk(side)
                found = {n.value for n in within if isinstance(n, ast.Constant)} & names
                assert not found, f"line {node.lineno} compares with {found}"
