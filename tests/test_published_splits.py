"""Published splits, read from miniatures of what their owners publish."""

import json
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lsmprobe.cache.reader import FeatureCache
from lsmprobe.commands import audit_command, import_split_command
from lsmprobe.config import AuditConfig, ImportSplitConfig, ProbeConfig
from lsmprobe.errors import SplitError
from lsmprobe.probing import stage
from lsmprobe.probing.stage import probe
from lsmprobe.report.score_lines import format_scores
from lsmprobe.results.records import load_head, load_record
from lsmprobe.splits.file import load_split, save_split
from lsmprobe.splits.kinds import make_split
from lsmprobe.splits.published import SOURCES, Clip, find_clips, import_split


def clone(folder, corpus, folds):
    """A clone of EmoBox with one corpus: of each fold the paths of each list."""
    for number, lists in enumerate(folds, start=1):
        home = folder / "data" / corpus / f"fold_{number}"
        home.mkdir(parents=True)
        for part, paths in lists.items():
            lines = [
                json.dumps({"key": path, "dataset": corpus, "wav": f"downloads/{corpus}/{path}"})
                for path in paths
            ]
            (home / f"{corpus}_{part}_fold_{number}.jsonl").write_text("\n".join(lines) + "\n")
            (home / f"{corpus}_{part}_fold_{number}.json").write_text("{}")
            (home / f"{corpus}_{part}_fold{number}.jsonl").write_text("not read\n")
    return folder


def corpus_of(keys, speakers=None, **columns):
    speakers = speakers or [key.split("/")[-1][0] for key in keys]
    emotions = [("joy", "fear")[n % 2] for n in range(len(keys))]
    return pd.DataFrame({"key": keys, "emotion": emotions, "speaker": speakers, **columns})


def parts(fold, utterances):
    names = ("train", "validation", "test")
    return {name: list(utterances.key.iloc[getattr(fold, name)]) for name in names}


# ------------------------------------------------------------------------- EmoBox


def test_every_fold_of_a_clone_is_read_and_tested_once(tmp_path):
    keys = [f"{speaker}{n}.wav" for speaker in "abcd" for n in range(4)]
    folds = [
        {
            "train": [f"wav/{k}" for k in keys if k[0] not in tested],
            "test": [f"wav/{k}" for k in keys if k[0] in tested],
        }
        for tested in ("a", "bc", "d")
    ]
    home, utterances = clone(tmp_path, "mini", folds), corpus_of(keys)
    split = import_split("emobox", home, "mini", utterances)
    assert [parts(fold, utterances)["test"] for fold in split.folds] == [
        keys[:4],
        keys[4:12],
        keys[12:],
    ]
    assert (split.kind, split.source) == ("emobox", "EmoBox, mini, folds 1 to 3")
    for fold in split.folds:  # validation is whole speakers, since test is
        held = [set(utterances.speaker.iloc[rows]) for rows in (fold.train, fold.validation)]
        assert held[0].isdisjoint(held[1]) and len(held[1]) == 1
    [second] = import_split("emobox", home, "mini", utterances, fold=2).folds
    assert list(second.test) == list(split.folds[1].test)
    own = home / "data" / "mini"  # the folder of the corpus itself, for a corpus called otherwise
    assert len(import_split("emobox", own, "my-copy.csv", utterances).folds) == 3
    with pytest.raises(SplitError, match="EmoBox has of mini folds 1 to 3; --fold 4 is none"):
        import_split("emobox", home, "mini", utterances, fold=4)


def test_what_only_one_side_has_is_counted_and_named(tmp_path, capsys, write_wav):
    """Two lists of which the corpus lacks one clip, and a corpus with two clips of no list."""
    keys = [f"{speaker}{n}.wav" for speaker in "abc" for n in range(5)]
    lists = {"train": ["gone.wav", *(f"{k}" for k in keys if k[1] in "012")]}
    lists |= {"test": [k for k in keys if k[1] == "3"]}
    rng = np.random.default_rng(0)
    for key in keys:
        write_wav(tmp_path / key, 0.1 * rng.normal(size=800))
    rows = [f"{key},{('joy', 'fear')[n % 2]},{key[0]}" for n, key in enumerate(keys)]
    (tmp_path / "mini.csv").write_text("\n".join(["path,emotion,speaker", *rows]))
    out, dataset = tmp_path / "split.json", str(tmp_path / "mini.csv")
    home = clone(tmp_path / "EmoBox", "mini", [lists])
    import_split_command(ImportSplitConfig(source="emobox", folder=home, dataset=dataset, out=out))
    said = capsys.readouterr().out
    assert "1 of 13 clips of EmoBox, mini, fold 1 is not in this corpus, such as gone.wav" in said
    assert "3 of 15 utterances in no part and left out, such as a4.wav, b4.wav, c4.wav" in said
    assert "3 of 3 test speakers also in train: the scores leak" in said
    assert "validation is a tenth of the utterances of train" in said
    kept = json.loads(out.read_text())
    assert (kept["version"], kept["not_found"]) == (2, ["gone.wav"])
    assert kept["folds"][0]["unused"] == ["a4.wav", "b4.wav", "c4.wav"]
    assert audit_command(AuditConfig(split=str(out), dataset=dataset)) == 1


def test_a_clip_is_found_by_as_much_of_its_path_as_tells_it_apart():
    there = ["JE/n1.wav", "KL/n1.wav", "bea/Amused/am_1.wav", "sam/Amused/am_1.wav", "48k/P/x.flac"]
    listed = ["JE_n1.wav", "KL_n1.wav", "bea_Amused/am_1.wav", "other/am_1.wav", "Pe?r/X.WAV"]
    found = find_clips([Clip(path) for path in listed], corpus_of(there))
    assert {clip.path: there[row] for clip, row in found.items()} == {
        "JE_n1.wav": "JE/n1.wav",
        "KL_n1.wav": "KL/n1.wav",
        "bea_Amused/am_1.wav": "bea/Amused/am_1.wav",
        "Pe?r/X.WAV": "48k/P/x.flac",
    }
    decomposed = unicodedata.normalize("NFD", "Oréau/é.wav")
    assert find_clips([Clip(decomposed)], corpus_of(["Oréau/é.wav"])) == {Clip(decomposed): 0}
    pieces = corpus_of(["a.flac#0.0-1.5", "a.flac#1.5-2.0"], start_s=[0.0, 1.5], path="/x/a.flac")
    assert find_clips([Clip("raw/a.flac", 1.5)], pieces) == {Clip("raw/a.flac", 1.5): 1}


def test_lists_that_do_not_fit_are_refused(tmp_path):
    utterances = corpus_of([f"{speaker}{n}.wav" for speaker in "abc" for n in range(4)])

    def read(name, folds, corpus="mini"):
        return import_split("emobox", clone(tmp_path / name, "mini", folds), corpus, utterances)

    with pytest.raises(SplitError, match=r"fold 1 has 1 clip in two parts, first 'a1.wav'"):
        read("1", [{"train": ["a1.wav", "a2.wav"], "test": ["a1.wav"]}])
    train = [f"{speaker}{n}.wav" for speaker in "ac" for n in range(4)]
    twice = {"train": train, "test": ["b1.wav"]}
    with pytest.raises(SplitError, match=r"tests 1 clip in two folds, first 'b1.wav'"):
        read("2", [twice, twice])
    with pytest.raises(SplitError, match="of 1 clip of test none is in this corpus"):
        read("3", [{"train": train, "test": ["z.wav"]}])
    with pytest.raises(SplitError, match=r"holds lists of test; expected mini_train_fold_1.jsonl"):
        read("4", [{"test": ["a1.wav"]}])
    with pytest.raises(SplitError, match="EmoBox has no folds of mimi; did you mean mini"):
        read("5", [twice], corpus="mimi")
    (tmp_path / "5/data/mini/fold_1/mini_test_fold_1.jsonl").write_text('{"wav": "a"}\n')
    with pytest.raises(SplitError, match="after 0 clips comes a line that is none"):
        import_split("emobox", tmp_path / "5", "mini", utterances)
    with pytest.raises(SplitError, match=r"expected a clone of github.com/emo-box/EmoBox"):
        import_split("emobox", tmp_path, "mini", utterances)
    with pytest.raises(SplitError, match="'emo-box' is no source of splits; did you mean emobox"):
        import_split("emo-box", tmp_path, "mini", utterances)


# ------------------------------------------------------------------------- a corpus's own


def sessions():
    speakers = [f"Ses{session}{letter}" for session in (1, 2, 3) for letter in "FM"]
    keys = [f"{speaker}_{n}" for speaker in speakers for n in range(4)]
    named = [key.split("_")[0] for key in keys]
    return corpus_of(keys, named, fold=[name[3] for name in named])


def test_sessions_are_left_out_one_by_one_with_and_without_their_second_speaker(tmp_path):
    utterances = sessions()
    own = import_split("sessions", tmp_path, "iemocap", utterances)
    speakers = [
        {part: set(utterances.speaker.iloc[getattr(fold, part)]) for part in ("validation", "test")}
        for fold in own.folds
    ]
    assert [held["test"] for held in speakers] == [{f"Ses{n}F", f"Ses{n}M"} for n in (1, 2, 3)]
    assert all(len(held["validation"]) == 1 for held in speakers)
    both = import_split("session-speakers", tmp_path, "iemocap", utterances)
    assert len(both.folds) == 6 and both.notes == ()
    first = both.folds[0]
    assert set(utterances.speaker.iloc[first.test]) == {"Ses1F"}
    assert set(utterances.speaker.iloc[first.validation]) == {"Ses1M"}
    assert len(first.train) == 16
    with pytest.raises(SplitError, match="does not say the session of every clip"):
        import_split("sessions", tmp_path, "emodb", utterances.drop(columns="fold"))
    one_voice = utterances.assign(speaker="Ses1F")
    with pytest.raises(SplitError, match="session 1 of iemocap has the speakers Ses1F; expected"):
        import_split("session-speakers", tmp_path, "iemocap", one_voice)


def test_partitions_keep_the_names_of_several_test_sets_and_leave_out_what_has_no_part(tmp_path):
    split = ["train"] * 4 + ["dev"] * 2 + ["Test1"] * 3 + ["Test2"] * 2 + [""]
    utterances = corpus_of([f"{n}.wav" for n in range(12)], split=split)
    found = import_split("partitions", tmp_path, "msp-podcast", utterances)
    assert found.test_sets == ("Test1", "Test2")
    [fold] = found.folds
    assert list(fold.test) == [6, 7, 8, 9, 10] and list(fold.test_sets["Test2"]) == [9, 10]
    with pytest.raises(SplitError, match=r"emodb brings the parts \(none\); expected train and"):
        import_split("partitions", tmp_path, "emodb", utterances.drop(columns="split"))
    assert SOURCES["partitions"].reads_corpus and not SOURCES["emobox"].reads_corpus


# ------------------------------------------------------------------------- several test sets


def two_tests(keys):
    """Speakers 0 to 5 train, 6 validates, 7 is unused; Test1 is 8 and half of 0, Test2 is 9."""
    speaker = np.arange(160) // 16
    train = np.flatnonzero(speaker < 6)
    return {
        "train": [keys[i] for i in train if not (speaker[i] == 0 and i % 2)],
        "validation": [keys[i] for i in np.flatnonzero(speaker == 6)],
        "test": {
            "Test1": [
                keys[i] for i in range(160) if speaker[i] == 8 or (speaker[i] == 0 and i % 2)
            ],
            "Test2": [keys[i] for i in np.flatnonzero(speaker == 9)],
        },
        "unused": [keys[i] for i in np.flatnonzero(speaker == 7)],
    }


def test_test_sets_are_scored_apart_by_heads_that_are_trained_once(
    tmp_path, planted_cache, monkeypatch
):
    cache = FeatureCache(planted_cache())
    path = tmp_path / "split.json"
    path.write_text(json.dumps(two_tests(list(cache.utterances.key))))

    fitted = []
    fit = stage.fit
    monkeypatch.setattr(
        stage, "fit", lambda heads, *a, **b: fitted.append(len(heads)) or fit(heads, *a, **b)
    )

    def run(split, folder="results"):
        dirs = {"cache_dir": tmp_path / "cache", "results_dir": tmp_path / folder}
        quick = {"epochs": 2, "runs": 1, "device": "cpu", "head": "linear"}
        return probe(ProbeConfig(split=split, **dirs, **quick))

    found = run(str(path))
    assert list(found.split) == ["file/Test1", "file/Test2"]
    assert list(found.n_test) == [24, 16]
    assert found.experiment.nunique() == 2
    records = [load_record(Path(row)) for row in found.path]
    assert [record["split"]["test_set"] for record in records] == ["Test1", "Test2"]
    one, other = (load_head(Path(row)) for row in found.path)
    assert all((one[name] == other[name]).all() for name in one)
    assert fitted == [1]  # heads that were trained
    codes = [{alarm["code"] for alarm in record["alarms"]} for record in records]
    assert ["shared-speakers" in each for each in codes] == [True, False]
    notes = [" ".join(record["split"]["notes"]) for record in records]
    assert "1 of 2 test speakers also in train" in notes[0] and "also in train" not in notes[1]
    text = format_scores(found)
    assert "file/Test1" in text and "file/Test2" in text
    assert "shared-speakers in 1 of 1 run (docs/statistics.md): test speakers are also in" in (
        " ".join(text.split())
    )
    again = run(f"{path}/Test2", folder="alone")  # one of them, with the same name of its runs
    assert set(again.experiment) == {records[1]["experiment"]}
    assert list(again.macro_f1) == list(found.macro_f1[1:])
    with pytest.raises(SplitError, match="has no test set 'Test3'"):
        make_split(f"{path}/Test3", cache.utterances)


def test_a_split_with_test_sets_and_unused_clips_comes_back_as_it_was_saved(tmp_path):
    keys = [f"{n}.wav" for n in range(160)]
    (tmp_path / "hand.json").write_text(json.dumps(two_tests(keys)))
    split = load_split(tmp_path / "hand.json", keys)
    save_split(tmp_path / "saved.json", split, keys)
    [fold], [again] = split.folds, load_split(tmp_path / "saved.json", keys[::-1]).folds
    assert {name: len(rows) for name, rows in again.test_sets.items()} == {"Test1": 24, "Test2": 16}
    assert [len(rows) for rows in (again.train, again.validation, again.test)] == [88, 16, 40]
    assert {keys[::-1][i] for i in again.test} == {keys[i] for i in fold.test}
    one = split.testing("Test1")
    save_split(tmp_path / "one.json", one, keys)
    assert load_split(tmp_path / "one.json", keys).apart()[0].name == "file/Test1"
    plain = {"train": keys[:100], "validation": keys[100:120], "test": keys[120:]}
    (tmp_path / "plain.json").write_text(json.dumps(plain))
    save_split(tmp_path / "same.json", load_split(tmp_path / "plain.json", keys), keys)
    assert json.loads((tmp_path / "same.json").read_text())["version"] == 1
