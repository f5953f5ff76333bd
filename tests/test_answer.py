"""The short report: it answers first, stays short, and what it says is what the records hold."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from conftest import utterance_table, write_cache
from simulated import simulated_record, write_grid, write_records

from lsmprobe.cache.reader import FeatureCache
from lsmprobe.cli import main
from lsmprobe.config import ReportConfig
from lsmprobe.errors import ResultsError
from lsmprobe.layers.answers import best_layer
from lsmprobe.layers.curves import keep_curve, load_curves
from lsmprobe.layers.probes import probe_layers
from lsmprobe.layers.recorded import recorded_curves
from lsmprobe.report.comparable import Comparable, chosen_of
from lsmprobe.report.figures import draw_layer_curve, draw_layer_weights
from lsmprobe.report.make import make_report, write_page
from lsmprobe.report.page import show
from lsmprobe.report.results_list import list_lines
from lsmprobe.report.runs import read_runs
from lsmprobe.report.sweep import curve_table, format_sweeps
from lsmprobe.results.records import load_results, run_id

FLIPS = {"class_weights": "none", "scheduler": "none", "epoch_choice": "last", "lr": 1e-3}
HEADS = (("linear", 4), ("nonlinear", 4), ("multilayer", None))


def record(model, corpus, head, layer, seed, *, kind="loso", n_test=42, **settings):
    """A simulated record of an experiment of its own."""
    made = simulated_record(model, corpus, head, seed, layer, n_test=n_test)
    made["settings"] |= settings
    made["experiment"] = run_id({"all": [model, corpus, head, layer, kind, settings]})
    made["split"] |= {"kind": kind}
    if kind != "loso":
        made["split"]["hash"] = run_id({"kind": kind}) * 5
    return made


def evening(models=("a", "b"), corpora=("north", "south"), seeds=(0, 1)):
    """Four caches, three heads, two normalisations, sweeps, flips, another split and transfer."""
    for model in models:
        for corpus in corpora:
            for seed in seeds:
                for norm in ("none", "zscore"):
                    yield record(model, corpus, "multilayer", None, seed, feature_norm=norm)
                    yield record(model, corpus, "nonlinear", 4, seed, feature_norm=norm)
                    for layer in range(5):
                        yield record(model, corpus, "linear", layer, seed, feature_norm=norm)
                for name, value in FLIPS.items():
                    for head, layer in HEADS:
                        yield record(model, corpus, head, layer, seed, **{name: value})
                yield record(model, corpus, "linear", 4, seed, kind="speaker")
                for other in corpora:
                    if other != corpus:
                        names = f"{corpus}-to-{other}"
                        yield record(model, names, "linear", 4, seed, kind="transfer")


@pytest.fixture(autouse=True, scope="module")
def _blank_figures():
    """Figures are drawn, and not rendered: that is what takes the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lsmprobe.report.shown.save_figure", _blank)
        yield
    plt.close("all")


def _blank(ax, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    plt.close(ax.figure)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two caches of one run each: what is quick to report."""
    made = evening(models=("a", "b"), corpora=("north",), seeds=(0,))
    across = [record("a", "north-to-south", "linear", 4, 0, kind="transfer")]
    return write_records(tmp_path_factory.mktemp("small"), [*made, *across])


@pytest.fixture(scope="module")
def said(folder):
    return make_report(ReportConfig(results_dir=folder))


@pytest.mark.slow
def test_a_whole_evening_is_at_most_120_lines(tmp_path):
    text = make_report(ReportConfig(results_dir=write_records(tmp_path, evening())))
    assert len(text.splitlines()) <= 120


def test_it_answers_first(said):
    assert len(said.splitlines()) <= 100
    first = " ".join(said.split("\n\n")[1].split())
    assert first.startswith("north: of 28 experiments ")
    for words in ("is best on validation", "95% interval", "best constant answer", "Next is"):
        assert words in first


def test_each_part_is_there_once_and_captions_are_sentences(said):
    text = " ".join(said.split())
    for caption in (
        "Layer curves of north, emotion.",
        "Which layer",
        "Scores in percent",
        "Answers of ",
        "Mistaken most often:",
        "How far the best of a corpus",
        "Layer weights of Multi-Layer",
        "What single choices move",
        "Across corpora",
    ):
        assert caption in text
    assert said.count("What single choices move") == 1
    assert "[" not in said.split("Written into")[0]  # no Python list in a caption
    assert "Table 2" not in said
    assert "north → south" in text


def test_what_is_best_is_chosen_on_validation_among_what_may_be_compared(folder):
    every = Comparable.of(read_runs(ReportConfig(results_dir=folder))).every
    compared = every[every.main]
    assert set(compared.split) == {"loso"}
    assert set(compared.recipe) == {""}
    assert set(every.recipe[~every.main]) == {"", *(f"{k}: {v}" for k, v in FLIPS.items())}
    best = chosen_of(compared, ["corpus"])
    for row in best.itertuples():
        assert row.validation == compared[compared.corpus == row.corpus].validation.max()


def test_the_flags_narrow_it_and_the_page_alike(folder, tmp_path):
    config = {"results_dir": folder, "out": tmp_path}
    text = make_report(ReportConfig(**config, model=("a",), feature_norm=("zscore",)))
    assert "zscore" in text and " b " not in text
    assert "Runs on other splits" not in text
    with pytest.raises(SystemExit, match="0"):
        main(
            ["report", "--html", "--results-dir", str(folder), "--out", str(tmp_path)]  # noqa: RUF005
            + ["--split", "speaker", "--model", "b"]
        )
    page = (tmp_path / "report.html").read_text()
    assert "1 run of 1 experiment: b on north." in page
    assert "is best on validation" in page
    with pytest.raises(ResultsError, match="no run is of the paper's protocol"):
        make_report(ReportConfig(**config, protocol="paper", split=("loso",)))


def test_numbers_behind_the_tables_are_whole(folder, said):
    numbers = pd.read_csv(folder / "report" / "layers.csv")
    drawn = recorded_curves(load_results(folder))
    main_recipe = drawn[drawn.split == "loso"]
    assert len(numbers) == len(main_recipe) == 2 * 2 * 5
    assert set(numbers.score.round(6)) == set(main_recipe.score.round(6))
    flips = pd.read_csv(folder / "report" / "flips.csv")
    assert set(flips.choice) == {*FLIPS, "feature_norm"}


def test_a_sweep_ends_with_its_curve_drawn_and_the_layer_by_validation(tmp_path):
    write_grid(
        tmp_path, ["m"], ["c"], seeds=2, layers=range(5), heads=[("linear", n) for n in range(5)]
    )
    results = load_results(tmp_path)
    text = format_sweeps(results, tmp_path)
    assert (tmp_path / "curves" / "curve-c-emotion-macro_f1.png").is_file()
    best = best_layer(recorded_curves(results)).iloc[0]
    assert f"{best.layer} (" in text and f"{best.score:.1f} ± " in text
    two = format_sweeps(results[results.layer < 2], tmp_path)
    assert "No curve: there is no head on 3 layers or more among 4 runs" in two


def test_figures_take_what_load_results_returns(folder):
    results = load_results(folder)
    own = results[(results.model == "a") & (results.corpus == "north")]
    ax = draw_layer_curve(own)
    assert len(ax.get_legend().get_texts()) == 2  # two normalisations of one recipe
    assert draw_layer_weights(results).get_yticklabels()
    with pytest.raises(ResultsError, match="expected some of --head multilayer"):
        draw_layer_weights(results[results["head"] == "linear"])
    with pytest.raises(ResultsError, match="expected what lsmprobe probe --layer all leaves"):
        draw_layer_curve(results[results["head"] == "nonlinear"])


def test_a_sweep_of_other_labels_than_those_of_now_is_marked(folder):
    results = load_results(folder)
    results["alarms"] = [["other-labels"]] * len(results)
    table = curve_table(recorded_curves(results))
    assert "! it learned other labels than its cache holds now." in table.notes
    assert table.rows["its score"].str.startswith("! ").all()


def test_a_curve_of_regressions_is_kept_and_shown(folder, tmp_path):
    curve = recorded_curves(load_results(folder)).query("model == 'a' and corpus == 'north'")
    curve = curve.query("feature_norm == 'none'").drop(columns="settings")
    curve = curve.assign(head="logistic", target="gender", split_seed=0)
    assert keep_curve(curve, tmp_path / "nowhere") is None
    write_records(tmp_path, [record("a", "north", "linear", 4, 0)])
    first, second = keep_curve(curve, tmp_path), keep_curve(curve, tmp_path)
    assert first == second and first.is_file()
    (Path(first).parent / "damaged.csv").write_text("a,b\n1,2\n")
    table, damaged = load_curves(tmp_path)
    assert len(table) == 5 and [path.name for path in damaged] == ["damaged.csv"]
    text = make_report(ReportConfig(results_dir=tmp_path))
    assert "Layer curves of north, gender." in text and "Logistic regression" in text
    assert "damaged.csv" in text


def test_a_curve_of_another_extraction_is_kept_and_drawn_only_where_it_is_the_latest(tmp_path):
    """The cache is made again with other settings, and then the curve."""
    path, results = tmp_path / "cache" / "m" / "c.h5", tmp_path / "results"
    write_records(results, [record("m", "c", "linear", 4, 0)])
    table = utterance_table([*"abcdef"] * 4, ["anger", "sadness"] * 12, [5] * 24)
    states, drawn = torch.randn(24, 3, 5, 4), []
    for identity in ({"model": "m", "precision": name} for name in ("float32", "bfloat16")):
        path.unlink(missing_ok=True)
        write_cache(path, table, states, identity=identity)
        now = probe_layers(path, split="kfold:3", results_dir=results)
        drawn.append(now.cache_hash[0])
        found = read_runs(ReportConfig(results_dir=results, cache_dir=tmp_path / "cache"))
        assert set(found.regressions.cache_hash) == {FeatureCache(path).identity_hash}
    curves, _ = load_curves(results)
    assert set(curves.cache_hash) == set(drawn) and len(set(drawn)) == 2
    assert best_layer(curves).cache_hash.tolist() == curves.cache_hash.unique().tolist()
    assert set(found.old_curves.cache_hash) == {drawn[0]}
    assert "another cache than is there now" in " ".join(
        make_report(ReportConfig(results_dir=results, cache_dir=tmp_path / "cache")).split()
    )


def test_random_weights_are_best_only_among_themselves(tmp_path):
    random = [record("z-random0", "c", "linear", 4, seed) for seed in (0, 1)]
    for one in random:
        one["cache"]["identity"] |= {"random_init": 0}
        one["folds"][0]["history"][0]["validation_score"] = 99.0
    trained = [record("a", "c", "linear", 4, seed) for seed in (0, 1)]
    first = make_report(ReportConfig(results_dir=write_records(tmp_path, random + trained)))
    assert "on a is best on validation" in " ".join(first.split())
    assert "z-random0 (random weights)" in first


def test_the_paper_is_named_only_where_its_protocol_was_run(tmp_path):
    made = record("whisper-small", "emodb", "linear", 12, 0, kind="speaker")
    made["n_layers"] = 13
    write_records(tmp_path, [made])
    text = make_report(ReportConfig(results_dir=tmp_path))
    assert "Beside the paper's Table 3" in text and "87.21 ± 1.11" in text
    made["settings"] |= {"epochs": 3}
    made["experiment"] = "another"
    write_records(tmp_path / "other", [made])
    assert "Beside" not in make_report(ReportConfig(results_dir=tmp_path / "other"))


def test_tables_of_layers_and_learning_curves_are_items_in_a_notebook(folder):
    curve = recorded_curves(load_results(folder))
    assert "<caption>Which layer" in show(curve)._repr_html_()
    runs = [(2, 0, 40.0), (2, 1, 50.0), (8, 0, 70.0), (8, 1, 72.0)]
    growth = pd.DataFrame(runs, columns=["speakers", "seed", "score"]).assign(
        **{"model": "<m>", "corpus": "c", "split": "loso", "head": "multilayer", "layer": pd.NA},
        **{"feature_norm": "none", "clips": 10, "constant": 5.0, "metric": "macro_f1"},
    )
    page = show(growth)._repr_html_()
    assert "45.0 ± 7.1" in page and "71.0 ± 1.4" in page and "Multi-Layer" in page
    assert "&lt;m&gt;" in page and "<m>" not in page


def test_runs_of_before_a_correction_are_not_mixed_with_later_ones(tmp_path):
    """Nothing but the labels (or the cache) and the date of the records differs."""

    def sweep(day, **changes):
        for layer in range(4):
            made = record("a", "north", "linear", layer, 0)
            about = {"layer": layer, "day": day}
            created = f"2026-01-{day:02d}T00:00:00+00:00"
            yield made | {"experiment": run_id(about), "created": created, **changes}

    def labels(digest, file=""):
        return {"labels": {"hash": digest, "file": file}}

    new_cache = {"hash": "c" * 60, "identity": {"model": "a", "random_init": None}}
    records = [
        *sweep(1, **labels("old")),
        *sweep(2, **labels("new")),
        *sweep(3, **labels("own", "own.csv")),
    ]
    write_records(tmp_path, records)
    results = load_results(tmp_path)
    curves = recorded_curves(results)
    assert curves.groupby(["settings", "labels"]).size().tolist() == [4, 4, 4]
    assert set(curves.labels) == {"as in the corpus", "labels: own.csv"}
    every = Comparable.of(read_runs(ReportConfig(results_dir=tmp_path))).every
    hashes = {part: set(every.labels_hash[every[part]]) for part in ("main", "outdated")}
    assert hashes == {"main": {"new"}, "outdated": {"old"}}
    write_records(tmp_path, sweep(4, cache=new_cache, **labels("new")))
    every = Comparable.of(read_runs(ReportConfig(results_dir=tmp_path))).every
    assert set(every.created[every.main]) == {"2026-01-04T00:00:00+00:00"}
    text = " ".join(make_report(ReportConfig(results_dir=tmp_path)).split())
    assert "Not compared: north (12 experiments). Others of the same name learned" in text


def of_store(head, layer, **stored):
    """A record of a cache that was extracted with other settings than the default."""
    made = record("a", "north", head, layer, 0)
    made["experiment"] = run_id({"of": made["experiment"], **stored})
    made["cache"] = {
        "file": "a/north.h5",
        "hash": run_id(stored) * 5,
        "identity": {"model": "a", "random_init": None, **stored},
    }
    return made


STEP_100 = {"frame_step": {"ms": 100.0, "frames": 5.0}}


def test_of_caches_that_store_otherwise_one_is_compared_and_the_others_are_a_choice(tmp_path):
    both = [of_store(*head, **stored) for head in HEADS for stored in ({}, STEP_100)]
    write_records(tmp_path, both)
    every = Comparable.of(read_runs(ReportConfig(results_dir=tmp_path))).every
    assert every.main.sum() == 3
    assert set(every.store[every.main]) == {""}
    text = " ".join(make_report(ReportConfig(results_dir=tmp_path)).split())
    assert "frame-step 100.0" not in text.partition("Scores in percent")[0]
    assert "--frame-step 100.0" in text.partition("What single choices move")[2]
    # Linear reads means, which are the same in both: no choice, and told nowhere else.
    assert "Not compared: north (1 experiment)" in text
    page = write_page(ReportConfig(results_dir=tmp_path)).read_text()
    assert page.count('<span class="below dim">frame-step 100.0</span>') == 3
    lines = list_lines(load_results(tmp_path))
    assert ["frame-step 100.0" in line for line in lines].count(True) == 3


def test_what_is_not_the_default_is_said_of_what_is_best_and_is_not_the_papers(tmp_path):
    """Means for Linear, means of frames for Multi-Layer: what small disks hold."""
    write_records(tmp_path, [of_store("linear", 4), of_store("multilayer", None, **STEP_100)])
    best = Comparable.of(read_runs(ReportConfig(results_dir=tmp_path))).best
    assert best["head"].tolist() == ["multilayer"]
    text = " ".join(make_report(ReportConfig(results_dir=tmp_path)).split())
    assert "best on validation (split loso, norm none, frame-step 100.0)" in text
    assert "a on north, multilayer: frame-step 100.0." in text
    page = write_page(ReportConfig(results_dir=tmp_path)).read_text()
    assert "multilayer, loso, none, frame-step 100.0" in page
    speaker = [
        of_store(head, layer, **STEP_100) | {"split": {**made["split"], "kind": "speaker"}}
        for head, layer in HEADS
        for made in [record("a", "north", head, layer, 0)]
    ]
    papers = tmp_path / "papers"
    write_records(papers, speaker)
    asked = ReportConfig(results_dir=papers, protocol="paper")
    assert set(read_runs(asked).table["head"]) == {"linear"}


def test_what_another_recipe_or_target_scores_is_neither_dropped_nor_mixed_in_silence(tmp_path):
    def across(target, right):
        made = record("a", "north-to-south", "linear", 4, 0, kind="transfer")
        made["folds"][0]["history"][0]["validation_score"] = right
        made["experiment"] = run_id({"of": target})
        for said in made["predictions"]:
            said["truth"] = said["emotion"]
        return made | {"target": [target]}

    records = [record("a", "north", "linear", layer, 0) for layer in (3, 4)]
    records.append(record("a", "north", "linear", 4, 0, lr=1e-3))  # a flip, which has a table
    records.append(record("a", "north", "linear", 4, 0, lr=1e-3, epochs=3))
    write_records(tmp_path, [*records, across("emotion", 50.0), across("gender", 90.0)])
    text = " ".join(make_report(ReportConfig(results_dir=tmp_path)).split())
    other = "Not compared: north (1 experiment) by another recipe than most"
    assert other in text and "lsmprobe report --html shows all" in text
    page = write_page(ReportConfig(results_dir=tmp_path)).read_text()
    assert other in page and "the tables below show them too" in page and "--html" not in page
    table = text.partition("Across corpora")[2]
    assert "a emotion" in table and "a gender" in table
