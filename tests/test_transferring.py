"""Transfer between made-up languages: what is shared, what is refused, what transfers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import utterance_table

from lsmprobe.cache.labels import write_labels
from lsmprobe.cache.plan import CachePlan
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.cache.writer import CacheWriter
from lsmprobe.cli import main
from lsmprobe.config import TransferConfig
from lsmprobe.corpora.overlap import stated_overlaps
from lsmprobe.errors import CacheError, SettingsError, TrainingError
from lsmprobe.experiments.transfers import (
    JoinedCache,
    differences,
    planned_pairs,
    transfer,
    transfer_all,
)
from lsmprobe.probing.run import make_task_split
from lsmprobe.probing.stage import probe
from lsmprobe.probing.task import read_task
from lsmprobe.report.figures import draw_transfer, draw_transfer_layers
from lsmprobe.report.recorded_caches import Caches
from lsmprobe.report.transfer import (
    format_transfer,
    save_transfer,
    transfer_items,
    transfer_layers,
    transfer_matrix,
)
from lsmprobe.report.typeset import as_html, as_latex, as_markdown, as_text
from lsmprobe.results.records import load_head, load_record, load_results

THREE = ("anger", "fear", "sadness")
LAYERS, DIM = 2, 16
LEARN = {"epochs": 15, "lr": 1e-2}  # enough for the cues here


@pytest.fixture
def language(tmp_path):
    """A cache of a made-up language: layer 1 holds the emotion, in directions drawn from a seed.

    5 speakers x 4 utterances of 3 to 5 frames per emotion; in layer 0 there is noise alone.
    """

    def make(name, cue=0, emotions=THREE, shift=0.0, scale=1.0, audio=None, sentence="", **changed):
        generator = torch.Generator().manual_seed(sum(map(ord, name)))
        directions = torch.nn.functional.normalize(
            torch.randn(9, DIM, generator=torch.Generator().manual_seed(cue))
        )
        known = sorted({*THREE, "boredom", "joy", "surprise", "guilt", "rage"})
        rows = [(f"s{s}", e) for s in range(5) for e in emotions for _ in range(4)]
        lengths = torch.randint(3, 6, (len(rows),), generator=generator).tolist()
        table = utterance_table([s for s, _ in rows], [e for _, e in rows], lengths)
        table["sentence"] = sentence
        about = {"store": "frames", "dtype": "float16", **changed}
        made = {"store": about.pop("store"), "dtype": about.pop("dtype")}
        identity = {"model": "made", "random_init": None, "weights_sha256": "aa", **about}
        plan = CachePlan(table, LAYERS, DIM, identity={**identity, "corpus": name}, **made)
        path = tmp_path / "cache" / "made" / f"{name}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        with CacheWriter.open(path, plan) as writer:
            for index, ((_, emotion), length) in enumerate(zip(rows, lengths, strict=True)):
                hidden = torch.randn(LAYERS, length, DIM, generator=generator)
                hidden[1] += 5 * directions[known.index(emotion)]
                tag = f"{audio or name}{index}".encode().hex()
                writer.write(index, scale * hidden + shift, tag.rjust(64, "0"))
        return path

    return make


@pytest.fixture
def config(tmp_path):
    def make(**settings):
        quick = {"epochs": 1, "runs": 1, "device": "cpu", "hidden": 16, "head": "linear"}
        folders = {"cache_dir": tmp_path / "cache", "results_dir": tmp_path / "results"}
        return TransferConfig(**{**quick, **folders, **settings})

    return make


def across(table):
    return table[table["source"] != table["target"]]


# ------------------------------------------------------------------------------------ scores


def test_a_shared_cue_transfers_and_another_does_not(language, config):
    language("north", cue=0)
    language("south", cue=0)
    language("island", cue=8)
    table = transfer(config(**LEARN))
    matrix = transfer_matrix(table)
    assert list(matrix.index) == list(matrix.columns) == ["island", "north", "south"]
    assert matrix.loc["north", "south"] > 90
    assert matrix.loc["south", "north"] > 90
    # Chance is 33 %; by bad luck a direction may resemble that of another emotion.
    assert matrix.loc["north", "island"] < 60
    assert matrix.loc["island", "south"] < 60
    assert (np.diag(matrix) > 90).all()
    north_south = table[(table["source"] == "north") & (table["target"] == "south")].iloc[0]
    assert north_south["within_f1"] == matrix.loc["south", "south"]
    assert north_south["n_test"] == 5 * 3 * 4  # the whole target
    assert (table["random_weights"] == False).all()  # noqa: E712


def test_the_layer_that_holds_the_cue_is_the_one_that_transfers(language, config):
    language("north")
    language("south")
    table = transfer(config(layer="all", **LEARN))
    layers = transfer_layers(table)
    assert list(layers.index) == [
        "north → south",
        "south → north",
        "within north",
        "within south",
    ]
    assert list(layers.columns) == [0, 1]
    assert (layers[1] > 90).all()
    assert (layers[0][:2] < 60).all()  # chance is 33 %
    assert "layer by layer" in format_transfer(table)


@pytest.mark.parametrize("head", ["nonlinear", "multilayer"])
def test_frame_heads_read_the_frames_of_both_corpora(language, config, head):
    language("north", cue=2)
    language("south", cue=2)
    assert (across(transfer(config(head=head, **LEARN)))["macro_f1"] > 90).all()


def test_the_source_is_trained_on_as_its_own_split_says_and_the_target_not_at_all(
    language, config, tmp_path
):
    language("north")
    language("south", cue=8)
    transfer(config())
    [path] = (tmp_path / "results" / "made" / "north-to-south").glob("*.json")
    record, head = load_record(path), load_head(path)
    within = probe(replace(config(), dataset=("north",), emotions=THREE))
    # The same training set, seed and recipe make the same head, whatever it is tested on.
    own = load_head(Path(within["path"].iloc[0]))
    for name, tensor in own.items():
        torch.testing.assert_close(head[name], tensor)
    speakers = {one["speaker"] for one in record["predictions"]}
    assert speakers == {f"south/s{s}" for s in range(5)}
    assert record["split"]["kind"] == "transfer"
    assert record["settings"]["source"] == "north"
    assert record["split"]["notes"][0].startswith("north -> south: anger, fear, sadness; left out")


def test_a_run_that_breaks_down_costs_no_other(language, config, breaks_down):
    language("north")
    language("south")
    breaks_down(lambda member: member.layers == (0,))
    table, failures = transfer_all(config(layer="all"))
    assert len(table) == 4 and set(table["layer"]) == {1}
    assert table["within_f1"].notna().all()
    assert sorted(failures) == [
        *(
            "made, north -> south, linear on layer 0, seed 0",
            "made, south -> north, linear on layer 0, seed 0",
        ),
        *(
            "made, within north, linear on layer 0, seed 0",
            "made, within south, linear on layer 0, seed 0",
        ),
    ]
    with pytest.raises(TrainingError, match="not finite"):
        transfer(config(layer="all"))


def test_runs_that_are_there_are_not_trained_again(language, config, monkeypatch):
    language("north")
    language("south")
    first = transfer(config())
    monkeypatch.setattr("lsmprobe.probing.stage.fit", None)
    pd.testing.assert_frame_equal(transfer(config()), first)


def test_transfer_is_an_experiment_of_its_own_among_the_results(language, config, tmp_path):
    language("north")
    language("south")
    transfer(config())
    results = load_results(tmp_path / "results")
    assert sorted(results["corpus"]) == ["north", "north-to-south", "south", "south-to-north"]
    assert (results["split"] == "transfer").sum() == 2
    assert results["experiment"].is_unique


# --------------------------------------------------------------------------- what is compared


def test_a_transfer_knows_whether_both_caches_still_hold_its_labels(language, config):
    paths = [language(name) for name in ("north", "south")]
    asked = config(map=("anger=rage",))
    transfer(asked)
    results = load_results(asked.results_dir)
    records = [load_record(Path(path)) for path in results.path[results.split == "transfer"]]
    assert len(records) == 2

    def told():
        return {Caches(paths[0].parents[1]).has_labels_of(record) for record in records}

    assert told() == {True}
    labels = FeatureCache(paths[1]).utterances
    write_labels(paths[1], labels.assign(speaker=labels.speaker + "?"), None)
    assert told() == {False}
    paths[1].unlink()
    assert told() == {None}


def test_emotions_are_intersected_by_hand(language, config, caplog):
    caplog.set_level("INFO")
    language("emodb", emotions=("anger", "boredom", "fear"))
    language("emovo", emotions=("anger", "fear", "joy", "surprise"))
    language("demos", emotions=("guilt", "joy"))
    pairs, failures = planned_pairs(config())
    assert failures == {}
    found = {(pair.source, pair.target): pair.classes for pair in pairs}
    assert found == {
        ("emodb", "emovo"): ("anger", "fear"),
        ("emovo", "emodb"): ("anger", "fear"),
    }
    said = "emodb -> emovo: anger, fear; left out of the source: boredom; "
    said += "of the target: joy, surprise"
    assert said in caplog.messages
    told = [line for line in caplog.messages if line.startswith("skipping made, emodb -> demos")]
    assert told == [
        "skipping made, emodb -> demos: they share 0 emotions; "
        "emodb -> demos: nothing shared; left out of the source: anger, boredom, fear; "
        "of the target: guilt, joy"
    ]
    assert any("emovo -> demos: they share 1 emotion;" in line for line in caplog.messages)


def test_labels_may_be_merged_and_chosen_over_all_corpora(language, config):
    language("north", emotions=("anger", "fear", "sadness"))
    language("south", emotions=("rage", "fear", "sadness"))
    pairs, _ = planned_pairs(config(map=("rage=anger",), emotions=("anger", "fear")))
    assert {pair.classes for pair in pairs} == {("anger", "fear")}
    table = transfer(config(map=("rage=anger",)))
    assert set(table["classes"]) == {"anger, fear, sadness"}
    with pytest.raises(SettingsError, match="--emotions: no corpus has 'feer'; did you mean fear"):
        planned_pairs(config(emotions=("feer", "anger")))
    with pytest.raises(SettingsError, match="--map: no corpus has 'wrath'"):
        planned_pairs(config(map=("wrath=anger",)))


def test_a_diagonal_that_is_not_comparable_is_missing(language, config):
    language("a", emotions=("anger", "fear", "sadness"))
    language("b", emotions=("anger", "fear", "sadness"))
    language("c", emotions=("anger", "fear"))
    table = transfer(config())
    matrix = transfer_matrix(table)
    assert np.isnan(matrix.loc["a", "a"])  # three emotions with b, two with c
    assert not np.isnan(matrix.loc["c", "c"])
    assert matrix.notna().to_numpy().sum() == 7
    assert "within a (anger, fear, sadness)" in transfer_layers(table).index
    common = transfer_matrix(transfer(config(emotions=("anger", "fear"))))
    assert common.notna().to_numpy().all()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"weights_sha256": "bb"}, "weights_sha256 is aa and bb"),
        ({"dtype": "float32"}, "dtype is float16 and float32"),
        ({"layer_convention": "other"}, "layer_convention is None and other"),
    ],
)
def test_caches_of_two_models_are_refused_with_what_differs(language, config, changed, said):
    language("north")
    language("south", **changed)
    with pytest.raises(CacheError, match=said):
        transfer(config())
    table, failures = transfer_all(config())
    assert table.empty
    assert sorted(failures) == ["made, north -> south", "made, south -> north"]


def test_names_and_versions_do_not_tell_models_apart(language):
    one, other = language("north"), language("south", hub_id="a/b", versions={"torch": "9"})
    assert differences(FeatureCache(one), FeatureCache(other)) == []


def test_two_copies_of_one_corpus_are_no_pair(language, config, caplog):
    language("demos", audio="demos")
    language("demos-8", audio="demos")
    with pytest.raises(CacheError, match="no pair of corpora can be made"):
        planned_pairs(config())
    assert "60 clips are in both" in caplog.text


def test_one_corpus_is_too_few(language, config):
    language("north")
    with pytest.raises(
        CacheError, match=r"made has north\. Run lsmprobe extract on another corpus"
    ):
        transfer(config())


def test_a_pooled_cache_serves_the_linear_head(language, config):
    language("north")
    language("south", store="pooled")
    table = transfer(config(head="all"))
    assert set(table["head"]) == {"linear"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"split": "loso"}, "--split loso does not go with transfer"),
        ({"resplit": True}, "--resplit does not go with transfer"),
        ({"target_norm": True}, "--feature-norm is none; expected zscore"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(config, settings, said):
    with pytest.raises(SettingsError, match=said):
        config(**settings)


# --------------------------------------------------------------------------- other targets


@pytest.fixture
def labelled(language, config, tmp_path):
    """Two corpora with one cue, and a folder with what further columns say of them."""
    folder = tmp_path / "own"
    folder.mkdir()

    def make(**columns):
        for number, name in enumerate(("north", "south")):
            table = FeatureCache(language(name)).utterances
            own = {
                each: [of(row, number) for row in table.itertuples()]
                for each, of in columns.items()
            }
            table[["key", "emotion"]].assign(**own).to_csv(folder / f"{name}.csv", index=False)
        return {"labels": folder, **LEARN}

    return make


def test_numbers_transfer_on_one_scale_and_another_scale_is_said(labelled, config, caplog):
    level = {name: float(at) for at, name in enumerate(THREE, start=1)}
    asked = labelled(
        valence=lambda row, number: level[row.emotion],
        stretched=lambda row, number: level[row.emotion] * (1 + number),
    )
    table = transfer(config(target="valence", **asked))
    assert set(table.learned) == {"valence"} and set(table.measure) == {"numbers"}
    assert (transfer_matrix(table) > 0.7).all(axis=None)
    assert across(table).within_ccc.notna().all() and (table.constant_ccc == 0).all()
    assert "target valence, layer 1" in format_transfer(table) and "CCC." in format_transfer(table)
    assert "not one scale" not in caplog.text
    planned_pairs(config(target="stretched", **asked))
    assert "stretched, 1 to 3 and 2 to 6, which are not one scale" in caplog.text
    names = {path.name for path in save_transfer(table, config().results_dir)}
    assert all(name.startswith("transfer-valence-none-") for name in names)


def test_classes_of_another_column_are_matched_by_name(labelled, config, caplog):
    caplog.set_level("INFO")
    groups = ({"anger": "hot", "fear": "cold", "sadness": "cold"}, dict.fromkeys(THREE, "cold"))
    groups[1]["anger"], groups[1]["fear"] = "hot", "mild"
    asked = labelled(group=lambda row, number: groups[number][row.emotion])
    table = transfer(config(target="group", **asked))
    assert set(table.classes) == {"cold, hot"} and table.macro_f1[0] > 90
    assert "group: cold, hot; left out of the source: none; of the target: mild" in caplog.text
    own = transfer(config(target="group", emotions=("anger", "sadness"), **asked))
    assert set(across(own).n_test) == {40}  # the target's clips of these emotions
    default = transfer(config(**LEARN))
    assert set(default.learned) == {"emotion"} and default.within_f1.notna().all()


def test_votes_transfer_as_distributions_over_the_classes_that_both_corpora_have(
    labelled, config, caplog
):
    caplog.set_level("INFO")
    also = ("; boredom", "")  # in the north, somebody hears boredom in everything
    asked = labelled(votes=lambda row, n: f"{row.emotion}; {row.emotion}; fear{also[n]}")
    table = transfer(config(target="votes", target_kind="votes", **asked))
    assert set(table.classes) == {"anger, fear, sadness"}
    assert "fear, sadness; left out of the source: boredom; of the target: none" in caplog.text
    assert (table.jsd < 0.6 * table.constant_jsd).all() and across(
        table
    ).within_plurality_f1.notna().all()
    assert "macro-F1 in percent" in format_transfer(table)


def test_a_column_that_is_not_alike_in_both_corpora_is_one_line(labelled, config):
    kind = labelled(
        mixed=lambda row, number: (row.speaker, 1 + (row.emotion == "fear"))[number],
        half=lambda row, number: row.speaker if number or row.emotion == "fear" else "",
    )
    with pytest.raises(SettingsError, match=r"classes in north; numbers in south; expected one"):
        planned_pairs(config(target="mixed", **kind))
    table, failures = transfer_all(config(target="half", **kind))
    assert table.empty
    assert "40 of 60 utterances of north have no half" in str(failures["made on north"])
    with pytest.raises(SettingsError, match="not a folder, and transfer reads"):
        config(labels=kind["labels"] / "north.csv")


# ------------------------------------------------------------------------ two caches as one


@pytest.fixture
def joined(language, config):
    def make(*, align, store="frames"):
        language("north")
        language("south", shift=40.0, scale=5.0, store=store)
        tasks = []
        for name in ("north", "south"):
            path = config().cache_dir / "made" / f"{name}.h5"
            tasks.append(read_task(config(), "made", name, path))
        split = make_task_split("speaker", tasks[0], seed=0, results_dir=config().results_dir)
        [fold] = split.folds
        rows = np.concatenate([fold.train, fold.validation])
        return *tasks, fold, rows, JoinedCache(tasks[0], rows, fold.train, tasks[1], align=align)

    return make


def test_a_joined_cache_hands_out_what_its_caches_hold(joined):
    north, south, _, rows, cache = joined(align=False)
    np.testing.assert_array_equal(
        cache.pooled, np.concatenate([north.cache.pooled[rows], south.cache.pooled])
    )
    np.testing.assert_array_equal(cache.frames(1, 1), north.read(int(rows[1]), 1))
    np.testing.assert_array_equal(cache.frames(len(rows) + 7, 0), south.read(7, 0))


def test_alignment_standardises_each_corpus_with_its_own_statistics(joined):
    north, south, fold, rows, cache = joined(align=True)
    # By hand: after the training set's z-score, the target has mean 0 and deviation 1 as well.
    train = north.pooled[fold.train].numpy()
    seen = (cache.pooled[len(rows) :] - train.mean(0)) / train.std(0)
    np.testing.assert_allclose(seen.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(seen.std(0), 1, atol=1e-4)
    trained = np.concatenate([north.read(int(i), 1) for i in fold.train]).astype(float)
    frames = np.concatenate([cache.frames(len(rows) + i, 1) for i in range(60)]).astype(float)
    seen = (frames - trained.mean(0)) / trained.std(0)
    np.testing.assert_allclose(seen.mean(0), 0, atol=5e-3)  # stored as float16
    np.testing.assert_allclose(seen.std(0), 1, atol=5e-3)
    assert cache.frames(len(rows), 1).dtype == south.read(0, 1).dtype
    np.testing.assert_array_equal(cache.pooled[: len(rows)], north.cache.pooled[rows])


def test_adaptation_makes_up_for_another_scale(language, config):
    language("north")
    language("south", shift=40.0, scale=5.0)
    plain = across(transfer(config(feature_norm="zscore", **LEARN)))
    adapted = across(transfer(config(feature_norm="zscore", target_norm=True, **LEARN)))
    assert (plain["macro_f1"] < 60).all()
    assert (adapted["macro_f1"] > 90).all()
    assert adapted["target_norm"].all()


# ------------------------------------------------------------------------------ looking at it


def test_a_matrix_is_of_one_head_and_layer(language, config):
    language("north")
    language("south")
    table = transfer(config(layer="all"))
    with pytest.raises(SettingsError, match="several values of layer"):
        transfer_matrix(table)
    assert transfer_matrix(table[table["layer"] == 1]).shape == (2, 2)


def test_figures_and_files(language, config, tmp_path):
    language("north")
    language("south")
    table = transfer(config())
    ax = draw_transfer(transfer_matrix(table))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("tested on", "trained on")
    cells = [float(text.get_text()) for text in ax.texts]
    np.testing.assert_allclose(cells, transfer_matrix(table).to_numpy().ravel().round())
    sweep = transfer(config(layer="all"))
    assert draw_transfer_layers(transfer_layers(sweep)).get_xlabel() == "layer"
    written = save_transfer(pd.concat([table, sweep]), tmp_path / "out")
    assert [path.suffix for path in written] == [".csv", ".png"]
    assert written[1].stem == f"{written[0].stem}-made-linear-layers"
    assert all(path.stat().st_size > 0 for path in written)
    assert save_transfer(table, tmp_path / "out")[0] == written[0]
    assert not written[1].exists()  # a figure of layers that the table no longer has
    other = save_transfer(table.assign(feature_norm="zscore"), tmp_path / "out")
    assert written[0].exists() and other[0] != written[0]


def _apart(items):
    """Tables, and sentences."""
    sentences = [item for item in items if isinstance(item, str)]
    return [item for item in items if not isinstance(item, str)], sentences


def test_a_matrix_is_an_item_in_every_form(language, config):
    language("north")
    language("south")
    matrices, [said, *_] = _apart(transfer_items(transfer(config())))
    assert said.startswith("Means over 1 run;")
    for form in (as_text, as_markdown, as_latex, as_html):
        [drawn] = map(form, matrices)
        assert "north" in drawn and "trained" in drawn


def test_the_command_prints_a_matrix_and_what_failed(language, tmp_path, capsys):
    language("north")
    language("south")
    command = ["transfer", "--head", "linear", "--epochs", "1", "--runs", "1", "--device", "cpu"]
    command += ["--cache-dir", str(tmp_path / "cache"), "--results-dir", str(tmp_path / "results")]
    with pytest.raises(SystemExit) as stopped:
        main(command)
    out = capsys.readouterr().out
    assert stopped.value.code == 0
    assert out.startswith("made, linear, layer 1, from a row's corpus to a column's: macro-F1 in")
    assert "features: none; tested on the whole target" in " ".join(out.split())
    assert str(tmp_path / "results" / "transfer" / "transfer-none-") in out
    language("island", weights_sha256="bb")
    with pytest.raises(SystemExit) as stopped:
        main(command)
    said = capsys.readouterr()
    assert stopped.value.code == 1
    assert "made, north -> island: " in said.err
    assert "weights_sha256 is aa and bb" in said.err
    assert "south" in said.out


def test_text_that_two_corpora_share_is_said(language, config, caplog):
    caplog.set_level("INFO")
    language("mine", sentence="Il gatto dorme.")
    language("yours", sentence="il gatto dorme")
    language("emovo", sentence="b1")
    language("theirs", sentence="b1")  # a code, which agrees by chance
    language("emozionalmente", sentence="Gli operai si alzano presto.")
    pairs, _ = planned_pairs(config())
    said = {f"{pair.source} -> {pair.target}": pair.note for pair in pairs}
    assert "1 sentence in both corpora: 'il gatto dorme'" in said["mine -> yours"]
    assert "Emozionalmente has three sentences of EMOVO" in said["emovo -> emozionalmente"]
    assert "1 sentence in both corpora: 'gli operai" in said["emovo -> emozionalmente"]
    assert "in both corpora" not in said["emovo -> theirs"]
    shared = "anger, fear, sadness; left out of the source: none; of the target: none"
    assert said["mine -> emovo"] == f"mine -> emovo: {shared}"
    assert said["mine -> yours"] in caplog.messages


def test_a_collection_overlaps_with_its_parts_and_a_part_of_it_with_that_corpus_alone():
    assert [fact.what for fact in stated_overlaps("CAMEO", "cafe")] == ["audio"]
    assert [fact.what for fact in stated_overlaps("cafe", "CAMEO-cafe")] == ["audio"]
    for one, other in (("CAMEO-crema_d", "cremad"), ("cremad-voice", "cameo"), ("x", "CAMEO")):
        facts = stated_overlaps(one, other)
        assert [fact.what for fact in facts] == ["audio"] * (one != "x"), one
    assert stated_overlaps("CAMEO-crema_d", "cafe") == []
    assert stated_overlaps("emodb", "emovo") == []
    assert [fact.what for fact in stated_overlaps("emofilm-en", "emofilm-it")] == ["text"]
    assert stated_overlaps("emofilm-it", "emofilm-it") == []
    assert "CMU ARCTIC" in stated_overlaps("emovdb")[0].text
    assert {fact.corpora[0] for fact in stated_overlaps("oreau")} == {"cameo"}
