"""The report of hand-made records, against numbers worked by hand."""

import json

import numpy as np
import pandas as pd
import pytest

from lsmprobe.cli import main
from lsmprobe.config import ProbeConfig, ReportConfig
from lsmprobe.errors import ResultsError
from lsmprobe.report.make import make_report
from lsmprobe.report.paper import not_the_papers, paper_models, taken_for
from lsmprobe.results.records import record_path, run_id, save_run
from lsmprobe.results.scores import runs_interval

SETTINGS = {name: getattr(ProbeConfig(), name) for name in ("feature_norm", "epochs", "lr")}
EMOTIONS = ["anger", "fear", "sadness"]


@pytest.fixture(autouse=True)
def _no_copies(tmp_path, monkeypatch):
    monkeypatch.setenv("LSMPROBE_DATA", str(tmp_path / "no-corpora"))


@pytest.fixture
def write(tmp_path):
    """Write the record of one run; the test set has `n_speakers`, and the first `n_right` of its
    two dozen answers are right."""

    def write(model, corpus, head, seed, macro_f1, *, n_right=12, n_speakers=1, **changes):
        n_layers = paper_models().get(model, {}).get("n_blocks", 4) + 1
        layer = changes.pop("layer", None if head in ("multilayer", "ast") else n_layers - 1)
        split = {"kind": "speaker", "seed": 0, "hash": f"{corpus}", "notes": []}
        split |= changes.pop("split", {})
        settings = SETTINGS | changes.pop("settings", {})
        known = paper_models().get(model, {})
        identity = {"model": model, "model_type": "whisper", "random_init": None}
        identity["hub_id"] = known.get("hub_id")
        identity |= changes.pop("identity", {})
        decisive = [model, corpus, head, layer, split, settings, identity]
        predictions = []
        for i in range(24):
            emotion = EMOTIONS[i % 3]
            predicted = emotion if i < n_right else EMOTIONS[(i + 1) % 3]
            predictions.append(
                {
                    "key": f"{i}.wav",
                    "speaker": f"s{i % n_speakers}",
                    "emotion": emotion,
                    "predicted": predicted,
                    "probabilities": [0.4, 0.3, 0.3],
                }
            )
        record = {
            "model": model,
            "corpus": corpus,
            "head": head,
            "layer": layer,
            "n_layers": n_layers,
            "layers": [1, 2, 3, 4] if layer is None else [layer],
            "layer_weights": [0.1, 0.2, 0.3, 0.4] if head == "multilayer" else None,
            "seed": seed,
            "experiment": run_id({"all": decisive}),
            "settings": settings,
            "split": split,
            "cache": {"hash": f"{model} {corpus} {identity}", "identity": identity},
            "seconds": 1.0,
            "classes": EMOTIONS,
            "folds": [
                {
                    "n_train": 100,
                    "n_validation": 20,
                    "n_test": 24,
                    "best_epoch": 1,
                    "history": [{"validation_score": float(macro_f1)}],
                }
            ],
            "scores": {
                "macro_f1": float(macro_f1),
                "uar": 50.0,
                "accuracy": 50.0,
                "constant_f1": 16.7,
                "interval": {
                    "low": macro_f1 - 10.0,
                    "high": macro_f1 + 10.0,
                    "over": "utterances only",
                },
            },
            "predictions": predictions,
            "alarms": [],
            **changes,
        }
        results = tmp_path / "results"
        run = run_id({"all": [decisive, seed]})
        path = record_path(results, model, corpus, head, layer, seed, run)
        save_run(path, record, {})
        return path

    return write


@pytest.fixture
def report(tmp_path):
    """Make the whole report; its text, and the numbers of its tables by name."""

    def report(**settings):
        settings = {"full": True} | settings
        text = make_report(ReportConfig(results_dir=tmp_path / "results", **settings))
        folder = tmp_path / "results" / "report"
        numbers = {path.stem: pd.read_csv(path) for path in folder.glob("*.csv")}
        return text, numbers

    return report


def row_of(text, *cells):
    """The one line of the text that begins with these words."""
    lines = [line.split() for line in text.splitlines()]
    found = [line for line in lines if line[: len(cells)] == list(cells)]
    assert len(found) == 1, found
    return " ".join(found[0])


def test_the_tables_are_those_worked_by_hand(write, report):
    for corpus, scores in {"emodb": (70, 74, 78), "emovo": (40, 42, 44)}.items():
        for seed, macro_f1 in enumerate(scores):
            write("whisper-small", corpus, "linear", seed, macro_f1)
    text, numbers = report()
    # The interval of a score is that of the recorded answers of all runs.
    labels = np.arange(24) % 3
    answers = np.where(np.arange(24) < 12, labels, (labels + 1) % 3)
    ends = runs_interval(labels, np.stack([answers] * 3), np.zeros(24), 3)
    low, high = (f"{end:.1f}" for end in (ends.low, ends.high))
    assert row_of(text, "emodb", "whisper-small", "Linear", "74.00", "±", "4.00", low, "to") == (
        f"emodb whisper-small Linear 74.00 ± 4.00 {low} to {high} 16.7 - 3 87.21 ± 1.11 -13.21"
    )
    # 55, 58, 61 are the means of the seeds; distances from 74 and 42 add up as squares.
    below = np.hypot(74 - ends.low, 42 - ends.low) / 2
    above = np.hypot(ends.high - 74, ends.high - 42) / 2
    assert row_of(text, "whisper-small", "Linear", "58.00") == (
        f"whisper-small Linear 58.00 ± 3.00 {58 - below:.1f} to {58 + above:.1f} 16.7 - 3 60.87 ± "
        "0.26* 64.13 -6.13"
    )
    table = numbers["table3"].set_index(["corpus", "model"])
    ours = table.loc[("emovo", "whisper-small")]
    assert (ours.macro_f1, ours["std"], ours.runs, ours.paper) == (42, 2, 3, 41.05)
    assert ours.difference == pytest.approx(0.95)


def test_what_has_not_been_run_is_a_dash(write, report):
    write("whisper-small", "emodb", "linear", 0, 70)
    text, numbers = report()
    assert row_of(text, "xls-r", "Linear") == "xls-r Linear - - - - - 5.43 ± 0.40 - -"
    assert numbers["table3"].macro_f1.notna().sum() == 1
    assert numbers["table2"].macro_f1.notna().sum() == 1


def test_other_splits_and_cache_settings_stand_apart_and_are_named(write, report):
    write("m", "emodb", "linear", 0, 70)
    write("m", "emodb", "linear", 0, 90, split={"kind": "loso", "hash": "x"})
    write("m", "emodb", "linear", 0, 50, identity={"max_seconds": 2.0})
    write("m", "emodb", "linear", 0, 30, settings={"feature_norm": "zscore"})
    text, numbers = report()
    scores = numbers["table2"].dropna(subset="macro_f1").set_index("settings").macro_f1
    assert scores[scores.index.notna()].to_dict() == {
        "split: loso": 90,
        "max_seconds: 2.0": 50,
        "feature_norm: zscore": 30,
    }
    assert scores[scores.index.isna()].tolist() == [70]
    assert "split: loso (experiments: 1)" in " ".join(text.split())


def test_where_one_voice_is_tested_loso_is_recommended_and_its_results_come_first(write, report):
    write("m", "emodb", "linear", 0, 70)
    write("m", "emovo", "linear", 0, 60)
    text = " ".join(report()[0].split())
    assert "emodb, emovo: a split here tests one speaker." in text
    assert "Test every speaker of emodb, emovo: lsmprobe probe --split loso" in text
    write("m", "emodb", "linear", 0, 90, n_speakers=10, split={"kind": "loso", "hash": "x"})
    text = " ".join(report()[0].split())
    assert "Every speaker of emodb was tested too; those results come first." in text
    assert "Test every speaker of emovo: lsmprobe" in text
    assert text.index("split: loso ====") < text.index("The paper's protocol ====")


def test_with_many_test_speakers_nothing_is_recommended(write, report):
    write("m", "emodb", "linear", 0, 70, n_speakers=5)
    assert "--split loso" not in report()[0]


def test_models_with_random_weights_and_alarms_are_marked(write, report):
    alarm = {"code": "one-class", "text": "predicts one and the same of 3 classes."}
    for seed in (0, 1):
        write("m", "emodb", "linear", seed, 10, alarms=[alarm] * seed, identity={"random_init": 0})
    text, numbers = report()
    assert "m (random weights)" in text
    assert "! 10.00 ± 0.00" in text
    sentence = "! m on emodb, Linear: predicts one and the same of 3 classes (1 of 2 runs)."
    assert sentence in text
    best = numbers["table3-best"].iloc[0]
    assert (best.alarms, best.random_weights) == (alarm["text"], True)


def test_only_facts_that_concern_what_is_shown_are_told(write, report):
    write("mine", "emodb", "linear", 0, 10, identity={"model_type": "hubert"})
    write("mine", "own", "linear", 0, 10, identity={"model_type": "hubert"})
    text, _ = report()
    for fact in ("guilt", "2737", "5.43", "Features are not normalised"):
        assert fact in text
    zscored = {"settings": {"feature_norm": "zscore"}, "identity": {"model_type": "hubert"}}
    write("mine", "emodb", "linear", 0, 10, **zscored)
    apart = report()[0].split("feature_norm: zscore\n====")[1]
    for fact in ("guilt", "2737", "5.43", "30 s", "Features are not normalised"):
        assert fact not in apart


def test_what_a_split_cannot_give_is_told_below(write, report):
    note = "6 speakers: the parts hold 67/17/17% of the clips; the test set is one woman"
    write("m", "emovo", "linear", 0, 10, split={"notes": [note]})
    assert f"- emovo: {note}." in report()[0]


def test_heads_and_models_are_compared_on_the_same_utterances(write, report):
    for model, head, n_right in (("a", "linear", 24), ("a", "nonlinear", 0), ("b", "linear", 12)):
        for seed in (0, 1):
            write(model, "emodb", head, seed, 50 + n_right, n_right=n_right, n_speakers=8)
    _, numbers = report()
    heads = numbers["differences-heads"].iloc[0]
    assert (heads.a_head, heads.b_head) == ("linear", "nonlinear")
    assert (heads.difference, heads.low, heads.high) == (100, 100, 100)
    assert heads.p == heads.p_holm == pytest.approx(2 / 2**8)
    models = numbers["differences-models"].iloc[0]
    assert (models.a_model, models.b_model) == ("a", "b")
    assert 40 < models.difference < 60  # half the answers are wrong


def test_a_test_set_of_one_speaker_gives_a_sentence_and_no_p(write, report):
    for model in ("a", "b"):
        write(model, "emovo", "linear", 0, 50)
    text, numbers = report()
    assert numbers["differences-models"].p.isna().all()
    assert "emovo: The test set has 1 speaker" in text


def test_runs_that_share_no_utterances_or_seeds_are_not_compared(write, report):
    write("a", "emodb", "linear", 0, 50)
    write("b", "emodb", "linear", 1, 50)
    text, numbers = report()
    assert numbers["differences-models"].difference.isna().all()
    assert "cannot be paired" in text


def test_everything_is_written_in_three_forms_and_drawn(write, report, tmp_path):
    for seed in (0, 1):
        write("my_model", "emodb", "linear", seed, 50)
        write("my_model", "emodb", "multilayer", seed, 60)
    text, _ = report()
    folder = tmp_path / "results" / "report"
    assert "Written into " + str(folder) in text.replace("\n", " ")
    assert "1 figure as .png and .pdf" in text
    tables = len(list(folder.glob("*.csv")))
    assert f"{tables} tables as .csv and .tex" in text and len(list(folder.glob("*.tex"))) == tables
    assert (folder / "figure2.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "figure2.pdf").read_bytes().startswith(b"%PDF")
    latex = (folder / "table2.tex").read_text()
    assert r"my\_model & Multi-Layer & \textbf{60.00 \ensuremath{\pm} 0.00}" in latex
    assert latex.startswith("% needs \\usepackage{booktabs,longtable}")
    page = (folder / "report.md").read_text()
    assert "| my_model" in page
    assert "](figure2.png)" in page


def test_every_block_has_a_figure_of_its_own_however_long_its_name(write, report, tmp_path):
    many = [f"emotion-{i:03d}" for i in range(40)]
    for settings in ({}, {"map": ["A=c"]}, {"map": ["B=c"]}, {"emotions": many}, {"epochs": 5}):
        write("m", "emodb", "multilayer", 0, 50, settings=settings)
    report()
    figures = sorted(path.name for path in (tmp_path / "results" / "report").glob("figure2*.png"))
    assert len(figures) == 5
    assert {"figure2.png", "figure2-epochs-5.png"} < set(figures)


def test_other_layers_are_counted_and_not_shown_and_other_heads_are(write, report):
    write("m", "emodb", "linear", 0, 50)
    write("m", "emodb", "linear", 0, 99, layer=2)
    write("m", "emodb", "another", 0, 98)
    text, numbers = report()
    assert "Not shown: 1 run on other layers." in text
    assert numbers["table2"].set_index("head").macro_f1.dropna().to_dict() == {
        "linear": 50,
        "another": 98,
    }


def test_one_model_and_corpus_can_be_asked_for(write, report):
    for model in ("a", "b"):
        write(model, "emodb", "linear", 0, 50)
    _, numbers = report(model=("b",), dataset=("emodb",))
    assert numbers["table3-scores"].model.tolist() == ["b"]
    with pytest.raises(ResultsError, match="no run is of --model c; known are: a, b"):
        report(model=("c",))
    write("b", "emovo", "linear", 0, 50)
    with pytest.raises(
        ResultsError, match="no run of all that was asked for: --model a, --dataset emovo"
    ):
        report(model=("a",), dataset=("emovo",))


def test_damaged_records_are_named_and_left_out(write, report, tmp_path):
    write("m", "emodb", "linear", 0, 50)
    cut = write("m", "emodb", "linear", 1, 90)
    cut.write_bytes(cut.read_bytes()[:100])
    empty = write("m", "emodb", "linear", 2, 90)
    record = json.loads(empty.read_text())
    record["folds"][0]["history"] = []
    empty.write_text(json.dumps(record))
    text, numbers = report()
    assert "Damaged records left out: 2" in text
    assert cut.name in text.replace("\n", "")
    assert numbers["table2"].macro_f1.max() == 50


def test_without_records_there_is_one_clear_line(report, tmp_path, capsys):
    with pytest.raises(ResultsError, match="is not a folder; expected the --results-dir"):
        report()
    (tmp_path / "results").mkdir()
    with pytest.raises(ResultsError, match="holds no readable record of a run; expected those of"):
        report()
    with pytest.raises(SystemExit, match=r"^lsmprobe: .* holds no readable record"):
        main(["report", "--results-dir", str(tmp_path / "results")])


def test_the_papers_baseline_is_a_column_and_its_small_form_another(write, report):
    write("ast", "emodb", "ast", 0, 40, settings={"epochs": 25, "lr": 1e-4, "size": "ast"})
    write("ast-tiny", "emodb", "ast", 0, 30, settings={"epochs": 5, "lr": 1e-4})
    text, numbers = report()
    table = numbers["table3"].set_index(["corpus", "model"])
    assert table.loc[("emodb", "ast")].difference == pytest.approx(40 - 46.11)
    tiny = numbers["table3-scores"].query("model == 'ast-tiny'").iloc[0]
    assert (tiny.settings, tiny.macro_f1) == ("epochs: 5", 30)
    assert pd.isna(tiny.paper)
    assert "ast-tiny is a far smaller network" in text


def test_a_model_is_the_papers_by_what_it_is_not_by_its_name(write, report):
    write("whisper-small", "emodb", "linear", 0, 70, n_layers=5, layer=4)
    text, numbers = report()
    assert "-17.2" not in text
    assert "not compared with the paper's whisper-small: 5 layers, the paper's has 13" in text
    own = numbers["table3"].dropna(subset="macro_f1").iloc[0]
    assert own.model == "whisper-small (not the paper's)"
    assert pd.isna(own.paper)


def test_a_model_of_a_folder_is_the_papers_by_name_only_and_that_is_said(write, report):
    write("whisper-small", "emodb", "linear", 0, 70, identity={"hub_id": None})
    text = " ".join(report()[0].split())
    assert "taken for the paper's whisper-small by name only" in text
    assert "-17.21" in text
    write("whisper-small", "emovo", "linear", 0, 70, identity={"hub_id": "me/my-whisper"})
    assert "me/my-whisper repository, the paper's has openai/whisper-small" in " ".join(
        report()[0].split()
    )


def test_a_file_that_is_known_is_the_papers_wherever_it_lay_and_no_other_at_its_revision():
    row = paper_models()["whisper-small"]
    here = {"hub_id": None, "files_sha256": {"model.safetensors": row["sha256"]}}
    assert not_the_papers("whisper-small", here, 13) == taken_for("whisper-small", here) == ""
    pinned = {"hub_id": row["hub_id"], "revision": row["revision"]}
    assert taken_for("whisper-small", pinned) == not_the_papers("whisper-small", pinned, 13) == ""
    other = pinned | {"files_sha256": {"model.safetensors": "0" * 64}}
    assert "another weights file, the paper's has SHA-256 1d77" in not_the_papers(
        "whisper-small", other, 13
    )
    later = other | {"revision": "1" * 40}
    assert not_the_papers("whisper-small", later, 13) == ""
    assert "its revision is 111111111111, known is 973afd24965f" in taken_for(
        "whisper-small", later
    )


def test_merged_labels_add_no_emotions_to_a_corpus(write, report):
    write("m", "emodb", "linear", 0, 70)
    other = {"map": ["fear=bad"], "emotions": []}
    write("m", "emodb", "linear", 0, 60, settings=other, classes=["anger", "bad", "sadness"])
    row = row_of(report()[0], "emodb", "German")
    assert row.endswith("3, 3 after --map or --emotions")


def test_every_record_is_read_once(write, report, monkeypatch):
    for head in ("linear", "nonlinear", "multilayer"):
        for seed in (0, 1, 2):
            write("m", "emodb", head, seed, 50)
    read, reads = json.loads, []
    monkeypatch.setattr(json, "loads", lambda text: reads.append(1) or read(text))
    report()
    assert len(reads) == 9


def test_the_papers_marks_stand_on_its_numbers_and_on_ours(write, tmp_path, report):
    write("whisper-small", "emodb", "linear", 0, 70)
    write("whisper-small", "emodb", "multilayer", 0, 80)
    report()
    page = (tmp_path / "results" / "report" / "report.md").read_text()
    assert "**80.00**" in page  # the best head of a model
    assert "**<u>90.64" not in page
    assert "<u>**90.64 ± 1.47**</u>" in page  # the best of the row, and of the multilingual
    assert "<u>88.84 ± 7.48</u>" in page  # the best of the English-only
    assert "English-only: wav2vec2-base ‡" in page
    assert "**57.50 ± 0.03**" in page


def test_splits_norms_and_the_papers_protocol_can_be_asked_for(write, report):
    write("m", "emodb", "linear", 0, 70)
    write("m", "emodb", "linear", 0, 90, split={"kind": "loso", "hash": "x"})
    write("m", "emodb", "linear", 0, 30, settings={"feature_norm": "zscore"})
    write("m", "aesdd", "linear", 0, 50, target=["gender"])
    of = {
        "split": report(split=("loso",)),
        "norm": report(feature_norm=("zscore",)),
        "paper": report(protocol="paper"),
    }
    found = {name: numbers["table3-scores"].macro_f1.tolist() for name, (_, numbers) in of.items()}
    assert found == {"split": [90], "norm": [30], "paper": [70]}
    with pytest.raises(ResultsError, match="no run is of --feature-norm layernorm; known are"):
        report(feature_norm=("layernorm",))
    with pytest.raises(ResultsError, match="no run is of the paper's protocol"):
        report(split=("loso",), protocol="paper")
    with pytest.raises(ResultsError, match="no run is of the paper's protocol"):
        report(dataset=("aesdd",), protocol="paper")
