"""Splits by what every split must be, and what is said about them."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsmprobe.cache.reader import FeatureCache
from lsmprobe.commands import audit_command, make_split_command
from lsmprobe.config import AuditConfig, MakeSplitConfig
from lsmprobe.errors import SplitError
from lsmprobe.splits.audit import audit, emotion_shares, warnings_of
from lsmprobe.splits.confounds import confounds, told_by
from lsmprobe.splits.file import PARTS, load_split, split_hash
from lsmprobe.splits.kinds import (
    given_split,
    k_fold_speakers,
    leave_one_speaker_out,
    make_split,
    random_split,
    speaker_split,
)

FRACTIONS = {"train": 0.8, "validation": 0.1, "test": 0.1}


def parts_of(fold):
    return {part: getattr(fold, part) for part in PARTS}


def corpus(counts):
    """Speakers and emotions of a table like {"s1": {"anger": 2}}."""
    pairs = [(s, e) for s, row in counts.items() for e, n in row.items() for _ in range(n)]
    return np.array([s for s, _ in pairs]), np.array([e for _, e in pairs])


def even_corpus(n_speakers, each=2):
    row = {"anger": each, "fear": each, "sadness": each}
    return corpus({f"s{number:02}": row for number in range(n_speakers)})


def table(speakers, emotions, **columns):
    keys = [f"wav/{number}.wav" for number in range(len(speakers))]
    return pd.DataFrame({"key": keys, "speaker": speakers, "emotion": emotions, **columns})


@st.composite
def small_corpora(draw, max_speakers=5):
    cell = st.integers(0, 4)
    rows = draw(
        st.lists(
            st.fixed_dictionaries({"anger": st.integers(1, 4), "fear": cell, "sadness": cell}),
            min_size=3,
            max_size=max_speakers,
        )
    )
    return corpus({f"s{number}": row for number, row in enumerate(rows)})


# ------------------------------------------------------------------------------ whole speakers


def test_six_even_speakers_and_the_sentences_about_them():
    speakers = np.repeat(["f1", "f2", "f3", "m1", "m2", "m3"], 98)
    emotions = np.tile(np.repeat(list("abcdefg"), 14), 6)
    genders = np.where(np.char.startswith(speakers, "f"), "female", "male")
    split = speaker_split(speakers, emotions, genders=genders)
    assert split.notes == (
        "6 speakers: the parts hold 67/17/17% of the clips, nearest to 80/10/10; "
        "the test set is one woman",
    )
    assert speaker_split(speakers, emotions).notes[0].endswith("the test set is one speaker")
    man = speaker_split(speakers, emotions, genders=genders, seed=5)
    assert man.notes[0].endswith("% of the clips, near 80/10/10; the test set is one man")


def test_nothing_is_said_where_nothing_is_amiss():
    assert speaker_split(*even_corpus(20)).notes == ()


def test_seeds_come_round_and_say_so():
    speakers, emotions = even_corpus(4)
    first, again = (speaker_split(speakers, emotions, seed=seed) for seed in (1, 5))
    keys = [str(number) for number in range(len(speakers))]
    assert split_hash(first, keys) == split_hash(again, keys)
    assert "seed 5 gives the split of seed 1 again: 4 near-best are known" in again.notes


def test_an_emotion_of_one_speaker_is_trained_on_and_missed_elsewhere():
    speakers, emotions = corpus({"a": {"x": 9, "fear": 1}} | {s: {"x": 9} for s in "bcdef"})
    split = speaker_split(speakers, emotions)
    assert "fear" in emotions[split.folds[0].train]
    for part in ("validation", "test"):
        note = f"{part} has no `fear`: no split of these speakers avoids a gap, 1 of them can give"
        assert any(found.startswith(note) for found in split.notes)


@settings(max_examples=20, deadline=None)
@given(small_corpora(), st.randoms(use_true_random=False))
def test_the_order_of_utterances_does_not_matter(corpus, random):
    speakers, emotions = corpus
    keys = [f"{number}.wav" for number in range(len(speakers))]
    order = random.sample(range(len(keys)), len(keys))
    shuffled = speaker_split(speakers[order], emotions[order])
    here = split_hash(speaker_split(speakers, emotions), keys)
    assert split_hash(shuffled, [keys[number] for number in order]) == here


def test_other_fractions_are_followed():
    split = speaker_split(*even_corpus(10), fractions=(0.6, 0.2, 0.2))
    assert [len(part) for part in parts_of(split.folds[0]).values()] == [36, 12, 12]
    with pytest.raises(SplitError, match=r"expected three above 0 that sum to 1"):
        speaker_split(*even_corpus(10), fractions=(0.8, 0.2, 0.2))


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (
            lambda: speaker_split(*even_corpus(1)),
            r"found 1 speaker; .* need 3\. Use --split random",
        ),
        (lambda: speaker_split(*even_corpus(2)), r"found 2 speakers; .* --split random"),
        (lambda: leave_one_speaker_out(*even_corpus(2)), r"found 2 speakers; .* need 3"),
        (
            lambda: k_fold_speakers(*even_corpus(4), 5),
            r"found 4 .* 5 folds .* need 5.*--split loso",
        ),
        (lambda: k_fold_speakers(*even_corpus(4), 2), r"2 folds leave no training set"),
        (lambda: speaker_split(["a", "", "b"], ["x"] * 3), r"1 of 3 utterances has no speaker"),
        (lambda: speaker_split([], []), r"no utterances"),
        (lambda: random_split(["a"] * 4, ["x", "x", "x", "fear"]), r"`fear` has 1 utterance; "),
        (lambda: given_split(["train", "test", "", ""]), r"holds \(empty\) 2, test 1, train 1;"),
        (lambda: given_split(["train", "dev", "test"]), r"dev 1.*expected train, validation"),
    ],
)
def test_what_cannot_be_split_is_told_in_one_line(split, message):
    with pytest.raises(SplitError, match=message) as error:
        split()
    assert "\n" not in str(error.value)


# --------------------------------------------------------------------------------- many folds


@settings(max_examples=25, deadline=None)
@given(small_corpora(max_speakers=7), st.integers(3, 7))
def test_rotations_test_and_validate_every_utterance_once(corpus, k):
    speakers, emotions = corpus
    made = [leave_one_speaker_out(speakers, emotions)]
    if k <= len(set(speakers)):
        made.append(k_fold_speakers(speakers, emotions, k))
    for split in made:
        for part in ("validation", "test"):
            held = np.concatenate([getattr(fold, part) for fold in split.folds])
            assert sorted(held) == list(range(len(speakers)))
        for fold in split.folds:
            voices = [set(speakers[indices]) for indices in parts_of(fold).values()]
            assert all(voices)
            assert sum(map(len, voices)) == len(set(speakers))


def test_the_next_speaker_is_validation():
    split = leave_one_speaker_out(["b", "c", "a", "c"], ["x"] * 4)
    found = [tuple(part.tolist() for part in parts_of(fold).values()) for fold in split.folds]
    assert found == [([1, 3], [0], [2]), ([2], [1, 3], [0]), ([0], [2], [1, 3])]


def test_folds_are_even_and_keep_what_two_speakers_know_in_training():
    rows = {s: {"x": 9} for s in "abcdefgh"} | {s: {"x": 8, "fear": 1} for s in "ab"}
    speakers, emotions = corpus(rows)
    split = k_fold_speakers(speakers, emotions, 4)
    assert [len(fold.test) for fold in split.folds] == [18] * 4
    for fold in split.folds:
        assert "fear" in emotions[fold.train]
    assert split.notes == ("test has no `fear` in 2 of 4 folds",)


def test_k_folds_of_another_seed_are_other_groups():
    groups = [
        frozenset(tuple(fold.test) for fold in k_fold_speakers(*even_corpus(6), 3, seed=s).folds)
        for s in range(3)
    ]
    assert len(set(groups)) == 3


# ------------------------------------------------------------------------- random, given, make


@settings(max_examples=50)
@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(3, 60), min_size=1), st.integers(0, 9)
)
def test_a_random_split_divides_each_emotion_by_the_fractions(counts, seed):
    emotions = np.repeat(list(counts), list(counts.values()))
    fold = random_split(np.repeat("me", len(emotions)), emotions, seed=seed).folds[0]
    parts = parts_of(fold)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(len(emotions)))
    for emotion, count in counts.items():
        for part, indices in parts.items():
            own = (emotions[indices] == emotion).sum()
            assert own >= 1
            assert abs(own - FRACTIONS[part] * count) < 2 + 1e-9


def test_a_random_split_says_that_it_leaks_and_depends_on_its_seed():
    speakers, emotions = even_corpus(3, each=20)
    found = [random_split(speakers, emotions, seed=seed) for seed in (0, 0, 1)]
    assert found[0].notes[0].startswith("3 of 3 test speakers also in train: the scores leak")
    tests = [tuple(split.folds[0].test) for split in found]
    assert tests[0] == tests[1] != tests[2]


@pytest.mark.parametrize(
    ("spec", "kind", "n_folds"),
    [
        ("auto", "speaker", 1),
        ("speaker", "speaker", 1),
        ("random", "random", 1),
        ("loso", "loso", 6),
        ("kfold:3", "kfold:3", 3),
    ],
)
def test_make_split_knows_every_kind(spec, kind, n_folds):
    speakers, emotions = even_corpus(6)
    split = make_split(spec, table(speakers, emotions, split="", gender="female"), seed=0)
    assert (split.kind, len(split.folds)) == (kind, n_folds)


def test_auto_takes_the_split_that_the_corpus_brings_if_it_is_whole():
    speakers, emotions = even_corpus(6)
    column = ["train"] * 20 + ["validation"] * 4 + ["test"] * 12
    split = make_split("auto", table(speakers, emotions, split=column))
    assert split.kind == "given"
    assert split.folds[0].test.tolist() == list(range(24, 36))
    assert all("is not like the corpus" in note for note in split.notes)


def test_a_given_split_that_shares_speakers_says_that_it_leaks():
    speakers = ["a", "a", "b", "b", "c", ""]
    column = ["train", "test", "train", "validation", "test", "test"]
    split = make_split("given", table(speakers, ["x"] * 6, split=column))
    assert split.notes[0].startswith("1 of 2 test speakers also in train: the scores leak")


def test_parts_may_be_called_as_others_call_them_and_unknown_ones_are_refused():
    speakers, column = ["a", "b", "c"], ["Train", "dev", "test"]
    split = make_split("auto", table(speakers, ["x"] * 3, split=column))
    assert split.kind == "given" and split.folds[0].validation.tolist() == [1]
    odd = table(speakers, ["x"] * 3, split=["train", "holdout", ""])
    with pytest.raises(SplitError, match=r"holds holdout 1; expected train, validation, test"):
        make_split("auto", odd)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("kfold:few", "no number of folds. Say for example kfold:5"),
        ("speakers", "did you mean speaker"),
        ("no/such.json", "No such file"),
        ("given", "split column holds"),
    ],
)
def test_make_split_says_what_it_did_not_understand(spec, message):
    with pytest.raises(SplitError, match=message):
        make_split(spec, table(*even_corpus(4)))


# --------------------------------------------------------------------------------------- audit


def test_the_audit_finds_what_the_parts_share():
    utterances = table(
        ["a", "a", "b", "c"],
        ["x"] * 4,
        sentence=["one", "two", "one", ""],
        sha256=["h1", "h2", "h3", "h3"],
        split=["train", "validation", "test", "test"],
    )
    found = audit(given_split(utterances["split"].tolist()), utterances)
    shared = found[found["shared"] > 0][["fold", "column", "parts", "values"]].to_numpy().tolist()
    assert shared == [
        [0, "speaker", "train, validation", ["a"]],
        [0, "sentence", "train, test", ["one"]],
    ]
    assert len(found) == 9


def test_a_part_that_is_not_like_the_corpus_says_so():
    emotions = ["joy"] * 8 + ["anger"] * 8
    kinds = (["train"] * 4 + ["validation", "validation", "test", "test"]) * 2
    kinds[6] = "train"
    corpus = table([str(n) for n in range(16)], emotions, split=kinds)
    [note] = make_split("given", corpus).notes
    assert note == "test is not like the corpus: 67% of it are `anger`, of the corpus 50%"
    even = corpus.assign(split=(["train"] * 4 + ["validation"] * 2 + ["test"] * 2) * 2)
    assert make_split("given", even).notes == ()


def one_emotion_each(n_speakers=29, n_alike=26, clips=12):
    """Most speakers show one emotion only; the others show all four."""
    emotions = ["anger", "fear", "joy", "sadness"]
    rows = [
        (f"s{speaker}", emotions[speaker % 4 if speaker < n_alike else clip % 4])
        for speaker in range(n_speakers)
        for clip in range(clips)
    ]
    return table([speaker for speaker, _ in rows], [emotion for _, emotion in rows])


def test_a_speaker_who_shows_one_emotion_only_is_a_confound():
    [warning] = warnings_of(one_emotion_each())
    assert warning.startswith("speaker and emotion are nearly one variable here")
    assert warnings_of(one_emotion_each(n_alike=0)) == []
    n = 200
    sentence = ["angry words" if each % 2 else f"{each % 4}" for each in range(n)]
    voices = pd.DataFrame(
        {
            "speaker": [f"s{each // 20}" for each in range(n)],
            "gender": ["female" if each % 2 else "male" for each in range(n)],
            "sentence": sentence,
            "emotion": ["anger" if each % 2 else "joy" for each in range(n)],
        }
    )
    assert [each.column for each in confounds(voices)] == ["gender", "sentence"]


@given(seed=st.integers(0, 10**6), n_values=st.integers(2, 300), n_classes=st.integers(2, 7))
@settings(deadline=None, max_examples=30)
def test_what_has_nothing_to_do_with_the_emotion_tells_nothing(seed, n_values, n_classes):
    """Also where hardly any value recurs, so that without regard to chance each tells its label."""
    rng = np.random.default_rng(seed)
    values, labels = rng.integers(n_values, size=300), rng.integers(n_classes, size=300)
    assert told_by(values, labels) < 0.3
    assert told_by(range(300), labels) == 0
    assert told_by(labels, labels) == pytest.approx(1)


def test_what_a_variable_tells_agrees_with_scikit_learn():
    """Their adjusted mutual information with the labels' entropy as the bound, by enumeration."""
    from sklearn.metrics import mutual_info_score
    from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information

    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=400)
    values = np.where(rng.random(400) < 0.5, labels, rng.integers(4, size=400))
    chance = expected_mutual_information(contingency_matrix(labels, values), 400)
    entropy = mutual_info_score(labels, labels)
    expected = (mutual_info_score(labels, values) - chance) / (entropy - chance)
    assert told_by(values, labels) == pytest.approx(expected, abs=0.01)


def test_speakers_whose_names_differ_in_capitals_or_blanks_are_named():
    corpus = table(["Ann", "ann ", "Bob", "A nn"], ["x"] * 4)
    [warning] = warnings_of(corpus)
    assert warning.startswith("the speakers 'A nn', 'Ann', 'ann ' differ only in capitals")


def test_the_commands_print_emotions_per_part_and_what_is_wrong(tmp_path, capsys, write_wav):
    """A corpus in which each speaker shows one emotion: the split is skewed, and both say so."""
    rng, rows = np.random.default_rng(0), ["path,emotion,speaker"]
    for speaker in range(6):
        for clip in range(speaker + 2):
            name = f"{speaker}{clip}.wav"
            write_wav(tmp_path / name, 0.1 * rng.normal(size=2_000))
            rows.append(f"{name},{'anger' if speaker < 2 else 'joy'},s{speaker}")
    (tmp_path / "emovo.csv").write_text("\n".join(rows))
    make = MakeSplitConfig(
        split="speaker", dataset=str(tmp_path / "emovo.csv"), out=tmp_path / "split.json"
    )
    make_split_command(make)
    made = capsys.readouterr().out
    audit_command(AuditConfig(split="speaker", dataset=str(tmp_path / "emovo.csv")))
    audited = capsys.readouterr().out
    assert "across corpora: Emozionalmente has" in audited
    for said in (made, audited):
        for part in PARTS:
            assert re.search(rf"^{part}: anger \d+%, joy \d+%$", said, re.MULTILINE)
        assert "is not like the corpus: " in said
        assert "speaker and emotion are nearly one variable here" in said


def test_a_split_is_made_of_a_cache_where_its_corpus_is_not_here(planted_cache, tmp_path, capsys):
    path, out = planted_cache(), tmp_path / "split.json"
    asked = {"dataset": path.stem, "cache_dir": path.parents[1], "out": out}
    make_split_command(MakeSplitConfig(split="loso", **asked))
    assert f"{path.stem}: the utterances of {path}" in capsys.readouterr().err
    utterances = FeatureCache(path).utterances
    assert len(load_split(out, utterances.key).folds) == utterances.speaker.nunique()


def test_the_shares_of_emotions_add_up_in_every_part():
    corpus = one_emotion_each()
    shares = emotion_shares(make_split("speaker", corpus), corpus)
    assert list(shares.part.unique()) == ["train", "validation", "test"]
    assert shares.clips.sum() == len(corpus)
    assert shares.groupby("part").percent.sum().tolist() == pytest.approx([100] * 3)


def test_the_audit_of_a_speaker_split_shares_no_speaker():
    speakers, emotions = even_corpus(6)
    found = audit(k_fold_speakers(speakers, emotions, 3), table(speakers, emotions))
    assert found["fold"].tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert (found["shared"] == 0).all()


# ------------------------------------------------------------------------- the corpus's own folds


@given(small_corpora(), st.integers(2, 5))
def test_every_fold_of_a_corpus_is_tested_once(corpus, k):
    speakers, emotions = corpus
    names = sorted(set(speakers))
    own = [str(names.index(speaker) % k) for speaker in speakers]
    rows = table(speakers, emotions, fold=own)
    if len(set(own)) < 2:
        return
    try:
        split = make_split("kfold", rows)
    except SplitError as error:
        assert "one utterance per emotion" in str(error)
        return
    tested = [{own[row] for row in fold.test} for fold in split.folds]
    assert sorted(map(tuple, tested)) == sorted((name,) for name in set(own))
    for fold in split.folds:
        everything = np.concatenate([fold.train, fold.validation, fold.test])
        assert sorted(everything) == list(range(len(own)))
        assert len(fold.train) and len(fold.validation)


def test_folds_may_be_numbers_and_are_chosen_where_every_utterance_has_one():
    speakers = ["a", "b", "c", "d"] * 2
    rows = table(speakers, ["x", "y"] * 4, fold=[1.0, 2.0, 3.0, 10.0] * 2)
    split = make_split("auto", rows)
    assert split.kind == "kfold" and len(split.folds) == 4
    assert [speakers[fold.test[0]] for fold in split.folds] == ["a", "b", "c", "d"]
    rows.loc[0, "fold"] = float("nan")
    assert make_split("auto", rows).kind == "speaker"
    with pytest.raises(SplitError, match="1 of 8 utterances has no fold"):
        make_split("kfold", rows)
    with pytest.raises(SplitError, match="reads the column fold of the corpus, which has none"):
        make_split("kfold", rows.drop(columns="fold"))
    with pytest.raises(SplitError, match="holds '1' alone"):
        make_split("kfold", rows.assign(fold=1))


def test_of_two_folds_and_of_train_and_test_alone_validation_comes_from_train():
    speakers = [*"aabbccdddd"]
    rows = table(speakers, ["x", "y"] * 5, fold=["1"] * 6 + ["2"] * 4)
    split = make_split("kfold", rows)
    first, second = split.folds
    assert list(first.test) == [0, 1, 2, 3, 4, 5] and list(second.test) == [6, 7, 8, 9]
    assert list(first.validation) == [6, 7]  # one of each emotion, of the one speaker that is left
    assert len({speakers[row] for row in second.validation}) == 1
    assert {speakers[r] for r in second.validation}.isdisjoint(speakers[r] for r in second.train)
    assert any("where 2 is test, 1 of 3 train speakers became validation" in n for n in split.notes)
    assert any("where 1 is test, validation is a tenth of the utter" in n for n in split.notes)
    own = make_split("given", rows.assign(split=["train"] * 6 + ["test"] * 4))
    assert own.notes == (
        "the corpus brings no validation: 1 of 3 train speakers became validation",
    )
    assert list(own.folds[0].test) == [6, 7, 8, 9]


def test_no_split_by_speaker_where_speakers_are_not_known():
    table = pd.DataFrame(
        {"key": list("abcd"), "emotion": ["joy", "fear"] * 2, "speaker": ["unknown"] * 3 + ["s1"]}
    )
    for spec in ("auto", "speaker", "loso", "kfold:3"):
        with pytest.raises(SplitError, match="speaker of 3 of 4 utterances is not known"):
            make_split(spec, table)


def test_one_person_by_two_names_is_a_note_of_the_split():
    table = pd.DataFrame({"key": list("abcdef"), "speaker": ["Ann", "ann", "Bo", "Cy", "Di", "Ed"]})
    split = make_split("loso", table.assign(emotion=["x", "y"] * 3))
    assert any("the speakers 'Ann', 'ann' differ only in capitals" in note for note in split.notes)
