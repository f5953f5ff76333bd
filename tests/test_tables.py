"""The paper's tables from hand-made runs, against numbers worked by hand."""

import hashlib
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsmprobe.config import ProbeConfig
from lsmprobe.report.paper import paper_table
from lsmprobe.report.tables import (
    experiments,
    in_order,
    mean_layer_weights,
    on_last_layer,
    pairs,
    shared_corpora,
    table2,
    table3,
)

NINE = paper_table(1).corpus.tolist()
DEFAULTS = {
    "emotions": [],
    "map": [],
    **{
        name: getattr(ProbeConfig(), name)
        for name in ("feature_norm", "epochs", "lr", "class_weights", "hidden", "scalar_lr")
    },
}


def run(model, corpus, head, seed, macro_f1, **changes):
    """A run as `tables.experiments` takes it; `changes` also of its settings and its cache."""
    row = {
        "model": model,
        "random_weights": False,
        "corpus": corpus,
        "head": head,
        "layer": None if head in ("multilayer", "ast") else 4,
        "layers": [1, 2, 3, 4] if head == "multilayer" else [4],
        "layer_weights": [0.1, 0.2, 0.3, 0.4] if head == "multilayer" else None,
        "n_layers": 5,
        "seed": seed,
        "split": "speaker",
        "split_seed": 0,
        "split_notes": [],
        "split_hash": f"split of {corpus}",
        "cache_hash": f"{model} {corpus}",
        "settings": DEFAULTS | changes.pop("settings", {}),
        "cache_identity": {
            "model_type": "whisper" if "whisper" in model else "wav2vec2",
            "input_norm": "checkpoint",
            "max_seconds": None,
            "versions": {"torch": "2"},
        }
        | changes.pop("cache_identity", {}),
        "macro_f1": float(macro_f1),
        "macro_f1_low": macro_f1 - 3.0,
        "macro_f1_high": macro_f1 + 4.0,
        "constant_f1": 5.0,
        "interval_over": "utterances only",
        "validation_f1": float(macro_f1),
        "alarms": [],
        "path": "nowhere.json",
        **changes,
    }
    decisive = [row[name] for name in ("split_hash", "cache_hash", "settings", "layer")]
    row["experiment"] = hashlib.sha256(str(decisive).encode()).hexdigest()[:12]
    return row


def cells_of(*rows):
    return experiments(pd.DataFrame(rows).astype({"layer": "Int64"}))


def one(table, **where):
    """The one row that is asked for."""
    for name, value in where.items():
        table = table[table[name] == value]
    assert len(table) == 1, where
    return table.iloc[0]


def test_an_experiment_is_the_mean_of_its_runs():
    cell = cells_of(*(run("m", "emodb", "linear", s, f1) for s, f1 in enumerate([40, 44, 48])))
    assert len(cell) == 1
    cell = cell.iloc[0]
    assert (cell.macro_f1, cell["std"], cell.runs) == (44, 4, 3)  # ddof 1
    assert (cell.low, cell.high) == (41, 48)
    assert cell.block == ""


def test_a_run_that_is_there_twice_counts_once():
    rows = [run("m", "emodb", "linear", s, f1) for s, f1 in enumerate([40, 44])]
    cell = cells_of(*rows, rows[1] | {"path": "a-copy.json"}).iloc[0]
    assert (cell.macro_f1, cell.runs) == (42, 2)


def test_one_run_has_no_deviation():
    assert math.isnan(cells_of(run("m", "emodb", "linear", 0, 40)).iloc[0]["std"])


def test_table_2_is_the_one_worked_by_hand():
    """Two corpora; means over them of seeds 0 to 2 are 50, 54, 58: 54 ± 4."""
    scores = {"emodb": [60, 64, 68], "emovo": [40, 44, 48]}
    cells = cells_of(
        *(
            run("whisper-small", corpus, "linear", seed, f1)
            for corpus, of_corpus in scores.items()
            for seed, f1 in enumerate(of_corpus)
        )
    )
    row = one(
        table2(cells, paper_table(2), paper_table(3), full=True),
        model="whisper-small",
        head="linear",
    )
    assert (row.macro_f1, row["std"], row.runs) == (54, 4, 3)
    assert row.low == pytest.approx(54 - math.sqrt(3**2 + 3**2) / 2)
    assert row.high == pytest.approx(54 + math.sqrt(4**2 + 4**2) / 2)
    assert row.constant_f1 == 5
    assert (row.paper, row.paper_std) == (60.87, 0.26)  # over nine corpora
    assert row.paper_same == pytest.approx((87.21 + 41.05) / 2)
    assert row.difference == pytest.approx(54 - 64.13)


def test_over_all_nine_corpora_the_difference_is_from_table_2():
    cells = cells_of(*(run("xls-r", corpus, "linear", 0, 10) for corpus in NINE))
    row = one(
        table2(cells, paper_table(2), paper_table(3), full=True), model="xls-r", head="linear"
    )
    assert row.paper_same == row.paper == 5.43
    assert row.difference == pytest.approx(10 - 5.43)


def test_on_other_corpora_there_is_nothing_to_differ_from():
    cells = cells_of(*(run("xls-r", c, "multilayer", 0, 10) for c in ("emodb", "mine")))
    table = table2(cells, paper_table(2), paper_table(3), full=False)
    row = one(table, model="xls-r", head="multilayer")
    assert row.paper == 40.89
    assert math.isnan(row.paper_same)
    assert math.isnan(row.difference)


def test_table_2_is_over_the_corpora_that_all_have():
    cells = cells_of(
        run("a", "emodb", "linear", 0, 10),
        run("a", "emovo", "linear", 0, 50),
        run("b", "emodb", "linear", 0, 20),
        run("b", "emodb", "multilayer", 0, 30),
    )
    assert shared_corpora(cells) == ["emodb"]
    table = table2(cells, paper_table(2), paper_table(3), full=False)
    assert one(table, model="a", head="linear").macro_f1 == 10
    assert math.isnan(one(table, model="a", head="multilayer").macro_f1)  # not run
    assert set(table["head"]) == {"linear", "multilayer"}


def test_without_a_shared_corpus_nothing_is_averaged():
    cells = cells_of(run("a", "emodb", "linear", 0, 10), run("b", "emovo", "linear", 0, 20))
    table = table2(cells, paper_table(2), paper_table(3), full=True)
    assert table.macro_f1.isna().all()
    assert len(table) == 3 * 8  # the paper's six models, and two


def test_only_seeds_that_every_corpus_has_are_averaged():
    cells = cells_of(
        *(run("a", "emodb", "linear", seed, 10) for seed in (0, 1)),
        *(run("a", "emovo", "linear", seed, f1) for seed, f1 in ((1, 30), (2, 90))),
    )
    row = table2(cells, paper_table(2), paper_table(3), full=False).iloc[0]
    assert (row.macro_f1, row.runs) == (20, 1)


def test_what_has_not_been_run_is_missing():
    table = table3(cells_of(run("xls-r", "emodb", "multilayer", 0, 60)), paper_table(3), full=True)
    assert len(table) == 63
    assert table.macro_f1.notna().sum() == 1
    row = one(table, corpus="emodb", model="xls-r")
    assert (row["head"], row.macro_f1, row.paper, row.paper_std) == ("multilayer", 60, 67.39, 4.33)
    assert row.difference == pytest.approx(-7.39)
    assert table.corpus.drop_duplicates().tolist() == NINE
    assert table.model.drop_duplicates().tolist()[0] == "ast"


def test_table_3_shows_the_head_of_the_family():
    cells = cells_of(
        *(
            run(model, "emodb", head, 0, f1)
            for model in ("whisper-tiny", "hubert-base")
            for head, f1 in (("linear", 10), ("multilayer", 20))
        ),
        run("logmel", "emodb", "linear", 0, 30, n_layers=1),
        run("ast-tiny", "emodb", "ast", 0, 40, n_layers=1),
    )
    table = table3(cells, paper_table(3), full=False).set_index("model")
    assert table["head"].to_dict() == {
        "whisper-tiny": "linear",
        "hubert-base": "multilayer",
        "logmel": "linear",
        "ast-tiny": "ast",
    }
    assert table.macro_f1.to_dict() == {
        "whisper-tiny": 10,
        "hubert-base": 20,
        "logmel": 30,
        "ast-tiny": 40,
    }
    assert table.paper.isna().all()  # ast-tiny is not the paper's AST


def test_the_papers_baseline_stands_beside_ours():
    table = table3(cells_of(run("ast", "emodb", "ast", 0, 50)), paper_table(3), full=True)
    assert one(table, corpus="emodb", model="ast").difference == pytest.approx(50 - 46.11)


def test_the_best_head_is_chosen_on_validation():
    cells = cells_of(
        run("whisper-tiny", "emodb", "linear", 0, 90, validation_f1=50.0),
        run("whisper-tiny", "emodb", "nonlinear", 0, 70, validation_f1=60.0),
    )
    row = table3(cells, paper_table(3), full=False).iloc[0]
    assert (row["head"], row.macro_f1) == ("linear", 90)
    assert (row.best_head, row.best_macro_f1, row.best_validation_f1) == ("nonlinear", 70, 60)


SETTINGS = [
    ({}, ""),
    ({"settings": {"feature_norm": "zscore"}}, "feature_norm: zscore"),
    ({"settings": {"epochs": 5}}, "epochs: 5"),
    ({"split": "loso", "split_hash": "other"}, "split: loso"),
    ({"split_seed": 1, "split_hash": "other"}, "split_seed: 1"),
    ({"cache_identity": {"max_seconds": 3.0}, "cache_hash": "other"}, "max_seconds: 3.0"),
]


@pytest.mark.parametrize(("changes", "block"), SETTINGS)
def test_a_block_is_named_by_what_is_not_as_in_the_paper(changes, block):
    cells = cells_of(
        run("m", "emodb", "linear", 0, 10), run("m", "emodb", "linear", 0, 90, **changes)
    )
    assert set(cells.block) == {"", block}
    if changes:
        assert cells.set_index("block").macro_f1.to_dict() == {"": 10, block: 90}


def test_a_new_split_for_every_run_is_one_experiment():
    rows = [
        run("m", "emodb", "linear", s, f1, split_seed=s, split_hash=str(s), experiment="e")
        for s, f1 in enumerate([40, 48])
    ]
    cells = cells_of(*(row | {"experiment": "e"} for row in rows))
    assert (cells.iloc[0].macro_f1, cells.iloc[0].block) == (
        44,
        "split_seed: another one for each run",
    )


def test_two_splits_of_a_corpus_stand_apart():
    cells = cells_of(
        run("a", "emodb", "linear", 0, 10, split_hash="1111111122"),
        run("b", "emodb", "linear", 0, 20, split_hash="3333333344"),
        run("a", "emovo", "linear", 0, 30),
    )
    assert cells.set_index("macro_f1").block.to_dict() == {
        10: "split of emodb: 11111111",
        20: "split of emodb: 33333333",
        30: "",
    }


@pytest.mark.parametrize("other", [("emovo", "linear"), ("emodb", "multilayer")])
def test_two_revisions_of_a_model_stand_apart_on_whatever_corpora_and_heads(other):
    old, new = ({"cache_identity": {"weights_sha256": digest * 64}} for digest in "ab")
    cells = cells_of(
        run("m", "emodb", "linear", 0, 40, **old),
        run("m", *other, 0, 60, **new),
        run("n", "emodb", "linear", 0, 50),
        run("n", "emovo", "linear", 0, 50),
    )
    blocks = cells.groupby("model").block.agg(list).to_dict()
    assert blocks == {"m": ["weights of m: aaaaaaaa", "weights of m: bbbbbbbb"], "n": ["", ""]}


def test_two_experiments_of_one_cell_stand_apart_by_what_differs():
    cells = cells_of(
        run("m", "emodb", "linear", 0, 10, cache_identity={"weights_sha256": "a" * 64}),
        run(
            "m",
            "emodb",
            "linear",
            0,
            20,
            cache_hash="other",
            cache_identity={"weights_sha256": "b" * 64, "versions": {"torch": "3"}},
        ),
    )
    assert sorted(cells.block) == [f"weights_sha256: {'a' * 12}", f"weights_sha256: {'b' * 12}"]
    unknown = cells_of(
        run("m", "emodb", "linear", 0, 10, cache_hash="1"),
        run("m", "emodb", "linear", 0, 20, cache_hash="2"),
    )
    assert all(block.startswith("cache: ") for block in unknown.block)
    assert len(set(unknown.block)) == 2


@pytest.mark.slow
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b"]),
            st.sampled_from(["emodb", "emovo"]),
            st.sampled_from(["linear", "multilayer"]),
            st.sampled_from(["none", "zscore"]),
            st.sampled_from(["11111111", "22222222"]),
            st.sampled_from(["cache 1", "cache 2"]),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_nothing_that_differs_is_ever_in_one_cell_or_one_row(choices):
    rows = [
        run(m, c, h, 0, 10, settings={"feature_norm": norm}, split_hash=split, cache_hash=cache)
        for m, c, h, norm, split, cache in choices
    ]
    cells = cells_of(*rows)
    assert cells.runs.sum() == len(set(choices))  # nothing is lost, nothing is averaged
    assert not cells.duplicated(["block", "model", "corpus", "head"]).any()
    for _, own in cells.groupby(["block", "corpus"]):
        assert len(set(own.split_hash)) == 1


def test_other_layers_than_the_last_are_not_of_the_papers_kind():
    rows = pd.DataFrame(
        [run("m", "emodb", "linear", 0, 1, layer=layer) for layer in (0, 3, 4)]
        + [run("m", "emodb", "multilayer", 0, 1)]
    ).astype({"layer": "Int64"})
    assert on_last_layer(rows).tolist() == [False, False, True, True]


def test_layer_weights_are_averaged_over_corpora_then_over_runs():
    weights = {
        ("emodb", 0): [0.2, 0.8],
        ("emodb", 1): [0.4, 0.6],
        ("emovo", 0): [0.4, 0.6],
        ("emovo", 1): [0.4, 0.6],
    }
    rows = [
        run("m", corpus, "multilayer", seed, 50, layer_weights=own, layers=[1, 2])
        for (corpus, seed), own in weights.items()
    ]
    only_here = run("m", "cafe", "multilayer", 0, 50, layer_weights=[1.0, 0.0], layers=[1, 2])
    other = [run("n", c, "multilayer", 0, 50) for c in ("emodb", "emovo")]  # four layers
    table = mean_layer_weights(cells_of(*rows, only_here, *other))
    mine = table[table.model == "m"]
    np.testing.assert_allclose(mine.weight, [0.35, 0.65])  # of 0.3, 0.4 and of 0.7, 0.6
    np.testing.assert_allclose(mine["std"], np.std([0.3, 0.4], ddof=1))
    assert mine.runs.tolist() == [2, 2]
    np.testing.assert_allclose(table.groupby("model").weight.sum(), 1)
    assert table.groupby("model").size().to_dict() == {"m": 2, "n": 4}


def test_without_multilayer_there_are_no_weights():
    assert mean_layer_weights(cells_of(run("m", "emodb", "linear", 0, 50))).empty


def test_heads_are_compared_within_a_model_and_best_heads_between_models():
    cells = cells_of(
        *(
            run(model, "emodb", head, 0, 50, validation_f1=validation)
            for model in ("a", "b")
            for head, validation in (("multilayer", 3.0), ("linear", 2.0), ("nonlinear", 1.0))
        ),
        run("a", "emovo", "linear", 0, 50),
    )
    table = pairs(cells)
    heads = table[(table.between == "heads") & (table.a_model == "a")]
    assert heads[["a_head", "b_head"]].to_numpy().tolist() == [
        ["linear", "nonlinear"],
        ["linear", "multilayer"],
        ["nonlinear", "multilayer"],
    ]
    assert set(heads.corpus) == {"emodb"}
    models = table[table.between == "models"]
    names = ["corpus", "a_model", "a_head", "b_model", "b_head"]
    assert models[names].to_numpy().tolist() == [["emodb", "a", "multilayer", "b", "multilayer"]]


def test_alarms_of_equal_code_are_one_with_the_number_of_runs():
    alarms = [
        [("not-above-constant", "its interval, from 1.0")],
        [("not-above-constant", "its interval, from 2.0"), ("flat-over-time", "layer 4")],
    ]
    cell = cells_of(*(run("m", "c", "linear", s, 5, alarms=a) for s, a in enumerate(alarms))).iloc[
        0
    ]
    assert cell.alarms == {"its interval, from 1.0": 2, "layer 4": 1}


@given(st.lists(st.sampled_from("abcdef")), st.lists(st.sampled_from("defghi")))
def test_the_order_is_the_papers_then_the_alphabet(ours, papers):
    ordered = in_order(ours, papers, full=True)
    assert sorted(ordered) == sorted({*ours, *papers})
    assert ordered[: len(set(papers))] == list(dict.fromkeys(papers))
    assert in_order(ours, papers) == [name for name in ordered if name in ours]


def test_smaller_stores_stand_in_blocks_of_their_own_where_they_change_the_numbers():
    identity = {
        "store_dtype": "int8",
        "frame_step": {"ms": 100.0, "frames": 5.0},
        "stored_layers": [2, 4],
    }
    heads = ("linear", "nonlinear", "multilayer")
    runs = (run("m", "emodb", head, 0, 50, cache_identity=identity) for head in heads)
    blocks = cells_of(*runs).set_index("head").block
    assert blocks["linear"] == ""
    assert blocks["nonlinear"] == "store_dtype: int8, frame_step: 100.0"
    assert blocks["multilayer"] == f"{blocks['nonlinear']}, layers: [2, 4]"
