"""Labels are not features: correcting one costs no forward pass, and is never lost in silence."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import utterance_table, write_cache
from hypothesis import given
from hypothesis import strategies as st

from lsmprobe.cache.catalogue import cache_info
from lsmprobe.cache.export import export_cache
from lsmprobe.cache.labels import (
    labels_path,
    read_labels,
    read_own_labels,
    with_labels,
    write_labels,
    written_mark,
)
from lsmprobe.cache.layout import LABELS
from lsmprobe.cache.lock import sole_writer
from lsmprobe.cache.merge import merge_cache
from lsmprobe.cache.parts import replacement_path
from lsmprobe.cache.prune import prunable_in
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.cache.verify import verify_cache
from lsmprobe.config import ExtractConfig, ProbeConfig, ReportConfig, TransferConfig
from lsmprobe.errors import CacheError, SettingsError
from lsmprobe.extraction import stage
from lsmprobe.extraction.stage import extract
from lsmprobe.layers.probes import probe_layers
from lsmprobe.probing.stage import probe
from lsmprobe.report.answer import curve_items
from lsmprobe.report.comparable import Comparable
from lsmprobe.report.recorded_caches import Caches
from lsmprobe.report.results_list import list_lines
from lsmprobe.report.runs import read_runs
from lsmprobe.report.scores_of_run import items_of_runs
from lsmprobe.results.alarms import OTHER_LABELS
from lsmprobe.results.records import load_record


@pytest.fixture
def corpus(tmp_path, write_wav, rng):
    """A manifest of 4 speakers x 2 emotions x 2 clips of a tenth of a second, to be changed."""
    rows = []
    for number in range(16):
        name = f"{number:02d}.wav"
        write_wav(tmp_path / "clips" / name, rng.normal(size=1600) * 0.1)
        emotion = ("anger", "fear")[number % 2]
        rows.append({"path": name, "emotion": emotion, "speaker": f"s{number // 4}"})

    def write(**columns):
        """Write the manifest with some cells, {row: value}, or whole columns, changed."""
        table = pd.DataFrame(rows)
        for name, cells in columns.items():
            if isinstance(cells, dict):
                table.loc[list(cells), name] = list(cells.values())
            else:
                table[name] = cells
        table.to_csv(tmp_path / "clips" / "mine.csv", index=False)
        return tmp_path / "clips" / "mine.csv"

    return write


@pytest.fixture
def run(tmp_path):
    def run(manifest, **settings):
        return extract(
            ExtractConfig(
                model="toy", dataset=str(manifest), cache_dir=tmp_path / "cache", **settings
            )
        )

    return run


def probed(tmp_path, **settings):
    usual = {"head": "linear", "runs": 1, "epochs": 1, "split": "kfold:4"}
    folders = {"cache_dir": tmp_path / "cache", "results_dir": tmp_path / "results"}
    return probe(ProbeConfig(**(usual | folders | settings)))


def test_a_corrected_label_costs_no_forward_pass_and_is_said(
    tmp_path, corpus, run, monkeypatch, caplog
):
    path = run(corpus()).path
    caplog.set_level("INFO")
    before = path.read_bytes()
    first = probed(tmp_path)
    monkeypatch.setattr(stage, "read_batch", None)  # no audio is decoded, so nothing is computed
    summary = run(corpus(emotion={0: "fear"}, speaker={5: "s9"}, accent=["de"] * 16))
    assert summary.n_tried == 0
    assert "2 clips changed ('00.wav' emotion 'anger' → 'fear'; " in caplog.text
    assert "'05.wav' speaker 's1' → 's9'" in caplog.text
    assert "accent is new" in caplog.text
    assert path.read_bytes() == before
    table = FeatureCache(path).utterances
    assert (table.emotion[0], table.speaker[5], table.accent[3]) == ("fear", "s9", "de")
    second = probed(tmp_path)
    assert set(first.experiment).isdisjoint(second.experiment)
    assert set(first.labels_hash).isdisjoint(second.labels_hash)
    assert set(first.cache_hash) == set(second.cache_hash)
    assert len(list((tmp_path / "results" / "toy" / "mine").glob("*.json"))) == 2  # both are kept
    run(corpus())
    assert probed(tmp_path).experiment.tolist() == first.experiment.tolist()  # as it was


def test_what_counts_are_the_labels_that_are_there_now_not_the_latest_runs(tmp_path, corpus, run):
    caches, results = tmp_path / "cache", tmp_path / "results"
    path = run(corpus()).path
    usual = probed(tmp_path)
    curves = [probe_layers(path, target, results_dir=results) for target in ("emotion", "energy")]
    assert set(curves[0].labels_hash) == set(usual.labels_hash)  # as records have it
    run(corpus(emotion={0: "fear"}))
    between = probed(tmp_path)
    probe_layers(path, results_dir=results)
    run(corpus())  # as it was
    found = read_runs(ReportConfig(results_dir=results, cache_dir=caches))
    every = Comparable.of(found).every.set_index("experiment")
    assert not every.outdated[usual.experiment[0]] and every.outdated[between.experiment[0]]
    assert set(found.regressions.labels_hash) == {*curves[0].labels_hash, *curves[1].labels_hash}
    assert len(found.old_curves) == len(curves[0])
    text = "\n".join(list_lines(Caches(caches).told_results(results)))
    assert [line[:12] for line in text.splitlines() if OTHER_LABELS in line] == [
        *between.experiment
    ]
    said = items_of_runs([load_record(Path(between.path[0]))], caches=Caches(caches))[1]
    assert "it learned other labels than its cache holds now" in said
    assert "Not drawn: curves of probe_layers of mine (1 curve)" in " ".join(
        item for item in curve_items(found, [], tmp_path / "out") if isinstance(item, str)
    )


def test_after_any_run_its_cache_holds_the_labels_that_it_learned(tmp_path, corpus, run):
    columns = {
        "valence": [f"{n}.5" for n in range(16)],
        "arousal": [f"{n % 5}" for n in range(15)] + [""],
        "word": ["a;a;b", "b"] * 8,
        "a": ["0.25", "0.75"] * 8,
        "b": ["0.75", "0.25"] * 8,
    }
    path = run(corpus(emotion={2: "joy", 9: "joy"}, **columns)).path
    asked = (
        {"map": ("joy=fear",)},
        {"emotions": ("anger", "fear")},
        {"target": "speaker", "split": "random"},
        {"target": "arousal", "target_kind": "classes"},
        {"target": "valence,arousal", "regression_loss": "mse"},
        {"target": "word", "target_kind": "votes"},
        {"target": "a,b", "target_kind": "shares"},
    )
    caches = Caches(path.parents[1])
    for settings in asked:
        [file] = probed(tmp_path, **settings).path
        assert caches.has_labels_of(load_record(Path(file))) is True, settings
    of_a_file = load_record(Path(file)) | {"labels": {"hash": "", "file": "own.csv"}}
    assert caches.has_labels_of(of_a_file) is None
    for target, kind in (("speaker", "auto"), ("valence,arousal", "auto"), ("arousal", "classes")):
        curve = probe_layers(path, target, target_kind=kind, results_dir=tmp_path / "no")
        assert caches.has_labels_of_curve(curve.iloc[0]) is True, target


def test_the_labels_of_another_corpus_with_the_same_keys_are_refused(
    tmp_path, corpus, run, rng, write_wav
):
    for n in range(16):
        write_wav(tmp_path / "clips" / f"{n:02d}.wav", rng.normal(size=1600 + 200 * n) * 0.1)
    path = run(corpus()).path
    table = labels_path(path)
    same = pd.read_csv(table, dtype=str).replace("anger", "rage")
    same.assign(samples=same.samples.astype(int).clip(upper=2000)).to_csv(table, index=False)
    # As of another model's cache whose clips were cut at a length.
    assert "rage" in set(FeatureCache(path).utterances.emotion)
    same.assign(samples=[*same.samples[::-1]]).to_csv(table, index=False)
    with pytest.raises(CacheError, match=r"16 of 16 clips have another length there \('00.wav'"):
        FeatureCache(path).utterances  # noqa: B018
    replacement_path(path).touch()
    assert len(FeatureCache(path).utterances) == 16  # its audio is being replaced


def test_further_columns_come_back_as_text_or_as_numbers(corpus, run):
    valence, notes = [round(0.1 * n, 1) for n in range(16)], [f'"{n}",\n' for n in range(16)]
    columns = {"valence": valence, "note": notes}
    path = run(corpus(**columns, half=[""] + ["1"] * 15)).path
    table = FeatureCache(path).utterances
    np.testing.assert_allclose(table.valence, columns["valence"], rtol=0, atol=0)
    assert np.isnan(table.half[0]) and set(table.half[1:]) == {1.0}
    assert table.note[1] == '"1",'  # a manifest's cells are stripped
    path = run(corpus(samples=["1"] * 16)).path  # a name that a cache keeps for itself
    assert set(FeatureCache(path).utterances.own_samples) == {1.0}


def test_names_that_look_like_numbers_stay_names_and_do_not_change_by_themselves(
    corpus, run, caplog
):
    caplog.set_level("INFO")
    columns = {
        "rater": [f"{n % 3:02d}" for n in range(16)],
        "session": [f"1_{n}" for n in range(16)],
        "identifier": [str(12345678901234567890 + n) for n in range(16)],
        "valence": ["0.50"] * 16,
    }
    manifest = corpus(**columns)
    path = run(manifest).path
    table = FeatureCache(path).utterances
    for name in ("rater", "session", "identifier"):
        assert list(table[name]) == columns[name]
    assert set(table.valence) == {0.5}
    run(manifest)
    assert "changed" not in caplog.text


TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)


@given(
    labels=st.lists(st.tuples(*[TEXTS] * 6), min_size=1, max_size=4),
    numbers=st.lists(st.floats(allow_infinity=False), min_size=4, max_size=4),
)
def test_whatever_a_label_is_it_is_read_as_it_was_written(tmp_path_factory, labels, numbers):
    cache = tmp_path_factory.mktemp("labels") / "c.h5"
    table = pd.DataFrame(labels, columns=[*LABELS, "more"], dtype=object)
    keys = [f"{n}\r\n'\udcff.wav" for n in range(len(table))]
    table.insert(0, "key", pd.Series(keys, dtype=object))
    table["number"] = numbers[: len(table)]
    write_labels(cache, table, None)
    read = read_labels(labels_path(cache))
    assert list(read.index) == list(table.key)
    for name in LABELS:
        assert list(read[name]) == list(table[name])
    assert read["number"].dtype == float or table["number"].isna().all()
    if read["number"].dtype == float:
        np.testing.assert_array_equal(read["number"], table["number"])


def test_a_table_that_is_missing_or_damaged_is_never_replaced_by_another_truth(
    tmp_path, corpus, run, caplog
):
    path = run(corpus()).path
    run(corpus(emotion={0: "fear"}))
    labels = labels_path(path)
    kept = labels.read_bytes()
    labels.unlink()
    for use in (lambda: FeatureCache(path).utterances, lambda: verify_cache(path)):
        with pytest.raises(CacheError, match=r"mine\.labels\.csv is missing"):
            use()
    with pytest.raises(CacheError, match=r"mine\.labels\.csv is missing"):
        probed(tmp_path)
    for damage, found in (
        (kept[: len(kept) // 2], "row|lacks|not a valid CSV"),
        (b"", "has the columns none"),
        (kept + kept.splitlines(keepends=True)[1], "has 1 key twice"),
        (b"\n".join(kept.splitlines()[:-1]) + b"\n", "lacks 1 key"),
    ):
        labels.write_bytes(damage)
        with pytest.raises(CacheError, match=found):
            FeatureCache(path).utterances  # noqa: B018
    run(corpus(emotion={0: "fear"}))
    assert "written again from the corpus" in caplog.text or labels.read_bytes() == kept
    assert labels.read_bytes() == kept


def test_a_cache_of_before_the_table_has_its_own_labels_until_one_was_written(tmp_path):
    table = utterance_table(["a", "b"], ["anger", "fear"], [3, 3])
    states = [np.zeros((1, 3, 2), np.float32)] * 2
    import torch

    path = write_cache(tmp_path / "m" / "c.h5", table, [torch.from_numpy(s) for s in states])
    assert list(FeatureCache(path).utterances.emotion) == ["anger", "fear"]
    changed = write_labels(
        path, table.assign(emotion="joy"), table.set_index("key")[list(LABELS)], mark=True
    )
    assert len(changed.keys) == 2
    assert list(FeatureCache(path).utterances.emotion) == ["joy", "joy"]
    labels_path(path).unlink()
    assert written_mark(path).exists()
    with pytest.raises(CacheError, match="is missing, which holds the labels"):
        FeatureCache(path).utterances  # noqa: B018


def test_a_table_that_lacks_a_column_or_an_emotion_is_not_filled_from_the_hdf5_file(corpus, run):
    path = run(corpus()).path
    table = pd.read_csv(labels_path(path), dtype=str, keep_default_na=False)
    table.drop(columns="emotion").to_csv(labels_path(path), index=False)
    with pytest.raises(CacheError, match=r"mine\.labels\.csv lacks the column emotion"):
        FeatureCache(path).utterances  # noqa: B018
    table.assign(speaker="").to_csv(labels_path(path), index=False)
    with pytest.raises(CacheError, match=r"16 clips without speaker \('00\.wav' first\)"):
        FeatureCache(path).utterances  # noqa: B018


def test_a_mark_that_a_kill_prevented_is_set_by_the_next_run(tmp_path):
    table = utterance_table(["a"], ["anger"], [3])
    cache = tmp_path / "c.h5"
    write_labels(cache, table, None)
    write_labels(cache, table, None, mark=True)  # nothing differs
    assert written_mark(cache).exists()


def test_cells_of_a_table_of_labels_mean_what_they_mean_in_a_manifest(tmp_path, corpus, run):
    path = run(corpus()).path
    own = tmp_path / "own.csv"
    table = FeatureCache(path).utterances[["key", "emotion"]]
    said = table.assign(emotion=["anger ", " fear"] * 8, t=["a ", "b"] * 8)
    said.to_csv(own, index=False)
    read = read_own_labels(own)
    assert (set(read.emotion), set(read.t)) == ({"anger", "fear"}, {"a", "b"})
    said.assign(emotion=["None", *said.emotion[1:]]).to_csv(own, index=False)
    with pytest.raises(CacheError, match=r"1 clip without emotion \('00\.wav' first\)"):
        probed(tmp_path, labels=own)


def test_labels_from_a_file_join_by_key(tmp_path, corpus, run):
    path = run(corpus()).path
    table = FeatureCache(path).utterances[["key", "emotion"]]
    own = tmp_path / "own.csv"
    shuffled = table.assign(emotion=["joy", "sadness"] * 8).sample(frac=1, random_state=0)
    shuffled.to_csv(own, index=False)
    results = probed(tmp_path, labels=own)
    assert load_record(Path(results["path"][0]))["classes"] == ["joy", "sadness"]
    usual = probed(tmp_path)
    assert set(results.experiment).isdisjoint(usual.experiment)
    assert set(results.labels_hash).isdisjoint(usual.labels_hash)
    assert (set(results.labels_file), set(usual.labels_file)) == ({"own.csv"}, {""})
    table.iloc[1:].to_csv(own, index=False)
    with pytest.raises(CacheError, match=r"own\.csv lacks 1 key \('00\.wav' first\)"):
        probed(tmp_path, labels=own)
    pd.concat([table, table.iloc[:1].assign(key="x.wav")]).to_csv(own, index=False)
    with pytest.raises(CacheError, match=r"has 1 key, which the cache does not have \('x\.wav'"):
        probed(tmp_path, labels=own)
    pd.concat([table, table.iloc[:2]]).to_csv(own, index=False)
    with pytest.raises(CacheError, match=r"has 2 keys twice \('00\.wav' first\)"):
        probed(tmp_path, labels=own)
    table.rename(columns={"emotion": "Emotion"}).to_csv(own, index=False)
    with pytest.raises(CacheError, match="has a column 'Emotion'; expected 'emotion'"):
        probed(tmp_path, labels=own)
    table.rename(columns={"emotion": "label"}).to_csv(own, index=False)
    with pytest.raises(CacheError, match="has the columns key, label; expected at least one of"):
        probed(tmp_path, labels=own)
    with pytest.raises(CacheError, match="cannot be read"):
        probed(tmp_path, labels=tmp_path / "nowhere.csv")
    with pytest.raises(SettingsError, match="is not a folder, and transfer reads"):
        TransferConfig(labels=own)


def test_another_runs_labels_are_written_once_that_run_is_over(corpus, run, caplog):
    path = run(corpus()).path
    before = labels_path(path).read_bytes()
    with sole_writer(path), pytest.raises(CacheError, match="is being written by another process"):
        run(corpus(emotion={3: "anger"}))
    assert labels_path(path).read_bytes() == before
    run(corpus(emotion={3: "anger"}))
    assert labels_path(path).read_bytes() != before


def test_an_emptied_label_does_not_ask_for_another_extraction(corpus, run):
    run(corpus())
    with pytest.raises(CacheError, match=r"1 clip without an emotion .* \('03\.wav' first\)"):
        run(corpus(emotion={3: ""}), skip_unlabelled=True)
    assert run(corpus(emotion={3: "unclear"})).n_tried == 0


def test_parts_additions_merge_prune_export_and_info_know_the_table(tmp_path, corpus, run):
    manifest = corpus(accent=["de"] * 16)
    for part in ("0/2", "1/2"):
        run(manifest, part=part)
    manifest = corpus(accent=["en"] * 16, emotion={3: "anger"})
    for part in ("0/2", "1/2"):  # a corrected label is no other list of utterances
        assert run(manifest, part=part).n_tried == 0
    path = tmp_path / "cache" / "toy" / "mine.h5"
    merge_cache(path, remove_parts=True)
    cache = FeatureCache(path)
    assert cache.utterances.emotion[3] == "anger" and set(cache.utterances.accent) == {"en"}
    assert cache_info(path)["labels"] == "mine.labels.csv, with accent"
    export_cache(path, tmp_path / "out")
    exported = pd.read_csv(tmp_path / "out.csv")
    assert set(exported.accent) == {"en"}
    assert prunable_in(tmp_path / "cache") == {}
    shutil.copy(path, tmp_path / "alone.h5")
    path.unlink()
    left = {file.name for file in prunable_in(tmp_path / "cache")}
    assert left == {"mine.labels.csv", ".mine.h5.verified"}


def test_a_clip_that_left_the_corpus_keeps_its_label(tmp_path, corpus, run):
    path = run(corpus()).path
    table = FeatureCache(path).utterances
    write_labels(path, table.iloc[2:], table.set_index("key")[list(LABELS)])
    assert list(FeatureCache(path).utterances.key) == list(table.key)


def test_columns_of_the_cache_itself_are_not_taken_from_a_table(tmp_path):
    table = utterance_table(["a"], ["anger"], [3])
    labels = pd.DataFrame({"frames": ["9"], "emotion": ["joy"]}, index=pd.Index(table.key))
    joined = with_labels(table, labels, tmp_path / "x.csv")
    assert joined.frames.tolist() == [3] and joined.emotion.tolist() == ["joy"]


def test_the_table_is_plain_csv(corpus, run):
    path = run(corpus()).path
    with labels_path(path).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {
        "key": "00.wav",
        "emotion": "anger",
        "speaker": "s0",
        "gender": "",
        "sentence": "",
        "split": "",
        "samples": "1600",
    }
