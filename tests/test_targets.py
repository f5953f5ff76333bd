import numpy as np
import pandas as pd
import pytest
from conftest import utterance_table

from lsmprobe.corpora.audio import audio_hash
from lsmprobe.errors import AudioError, ResultsError, SettingsError
from lsmprobe.layers import targets
from lsmprobe.layers.targets import energy_db, find_target, measure_acoustics, pitch_hz


def tone(hz, amplitude=0.5, seconds=0.5):
    """A voice-like sum of harmonics."""
    t = np.arange(int(16_000 * seconds)) / 16_000
    wave = sum(np.sin(2 * np.pi * hz * n * t) / n for n in range(1, 6))
    return (amplitude * wave / np.abs(wave).max()).astype(np.float32)


@pytest.fixture
def voices(tmp_path, write_wav):
    """Three clips: 110 Hz, 220 Hz, and 220 Hz at a tenth of its amplitude."""
    table = utterance_table(["a", "b", "b"], ["anger", "fear", "fear"], [25, 25, 25])
    waves = [tone(110), tone(220), tone(220, 0.05)]
    table["path"] = [
        str(write_wav(tmp_path / "wav" / key, wave))
        for key, wave in zip(table.key, waves, strict=True)
    ]
    return table.assign(sha256=table.path.map(audio_hash))


def test_a_word_is_a_class_wherever_it_is_known(tmp_path):
    table = utterance_table(["a"] * 5, ["fear", "anger", "fear", "anger", "fear"], [5] * 5)
    emotion = find_target("emotion", table, tmp_path / "a.csv")
    assert emotion.classes == ("anger", "fear")
    assert emotion.truth.tolist() == [1, 0, 1, 0, 1]
    assert not emotion.is_number
    table = table.assign(gender=["male", "", "female", "female", "male"], grade=[2.0, 1, 1, 2, 3])
    gender = find_target("gender", table, tmp_path / "a.csv")
    assert gender.rows.tolist() == [0, 2, 3, 4]
    assert gender.truth.tolist() == [1, 0, 0, 1]
    whole = find_target("grade", table[:4], tmp_path / "a.csv", kind="classes")
    assert (whole.classes, whole.truth.tolist()) == (("1", "2"), [1, 0, 0, 1])


def test_several_columns_of_numbers_are_one_target(tmp_path):
    table = utterance_table(["a"] * 4, ["fear"] * 4, [50, 100, 25, 75])
    table = table.assign(arousal=[1.0, 2.0, np.nan, 3.0], pitch=[7.0, 8.0, 9.0, 6.0])
    found = find_target("arousal, duration", table, tmp_path / "a.csv")
    assert found.name == "arousal,duration"
    assert found.rows.tolist() == [0, 1, 3]
    assert found.truth.tolist() == [[1.0, 1.0], [2.0, 2.0], [3.0, 1.5]]
    own = find_target("pitch", table, tmp_path / "a.csv")  # a column goes before a measurement
    assert own.truth.tolist() == [7.0, 8.0, 9.0, 6.0]


def test_codes_for_missing_values_among_numbers_are_named(tmp_path, caplog):
    table = pd.DataFrame({"key": [f"{n:03d}" for n in range(8)], "emotion": "x", "speaker": "y"})
    far = "2 of 7 values are -999 in arousal, far outside the others (1 to 5)"
    for low, is_far in ((1.0, True), (-995.0, False)):
        caplog.clear()
        ratings = [-999.0, -999.0, *(low + n for n in range(5)), np.nan]
        found = find_target("arousal", table.assign(arousal=ratings), tmp_path / "none.csv")
        assert len(found.rows) == 7  # what is NaN is left out
        assert (far in caplog.text) == ("far outside" in caplog.text) == is_far


def test_the_duration_is_in_the_table(tmp_path):
    table = utterance_table(["a", "b", "c"], ["fear"] * 3, [50, 100, 25])
    duration = find_target("duration", table, tmp_path / "a.csv")
    assert duration.is_number
    assert duration.truth.tolist() == [1.0, 2.0, 0.5]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gender", r"target: toy has 1 gender to tell apart \(male\); expected two or more"),
        ("sentence", "target: 4 of 4 utterances of toy have no sentence; expected more than half"),
        (
            "duration",
            "target: 'duration' is 0.1 for all 4 utterances of toy; expected numbers that",
        ),
        ("genre", "target: toy has no column 'genre'; did you mean gender.* labels=.FILE.csv"),
        ("pich", "has no column 'pich'; did you mean pitch"),
        ("half", "target: 2 of 4 utterances of toy have no half; expected more than half"),
        ("emotion,half", "target names 2|have no emotion,half"),
        ("duration,duration", "expected a column, or several with commas, each once"),
    ],
)
def test_a_target_that_cannot_be_told_apart_is_refused_with_counts(tmp_path, name, message):
    table = utterance_table(["a", "b"] * 2, ["fear", "anger"] * 2, [5] * 4, gender="male")
    table = table.assign(half=[1.0, np.nan, 2.0, np.nan])
    with pytest.raises(SettingsError, match=message):
        find_target(name, table, tmp_path / "a.csv", corpus="toy")


def test_a_full_scale_sine_has_minus_three_decibels():
    sine = np.sin(2 * np.pi * 100 * np.arange(16_000) / 16_000).astype(np.float32)
    assert energy_db(sine) == pytest.approx(-3.01, abs=0.01)
    assert energy_db(sine / 10) == pytest.approx(-23.01, abs=0.01)
    assert energy_db(0 * sine) == -np.inf


def test_silence_has_no_energy_to_learn(tmp_path, voices, caplog):
    csv = tmp_path / "made.csv"
    measure_acoustics(voices, csv)
    kept = pd.read_csv(csv, dtype={"sha256": str})
    kept.loc[1, "energy_db"] = -np.inf
    kept.to_csv(csv, index=False)
    assert find_target("energy", voices, csv).rows.tolist() == [0, 2]
    assert "1 of 3 utterances has no energy; left out: 001.wav" in caplog.text


@pytest.mark.parametrize("hz", [80.0, 220.0, 500.0])
def test_the_pitch_of_a_voice_is_found_within_a_quarter_semitone(hz):
    assert abs(12 * np.log2(pitch_hz(tone(hz)) / hz)) < 0.25


def test_noise_has_no_pitch(rng):
    assert np.isnan(pitch_hz(rng.normal(size=8000).astype(np.float32)))


def test_energy_and_pitch_are_measured_once(tmp_path, voices):
    csv = tmp_path / "results" / "acoustics" / "made.csv"
    measured = measure_acoustics(voices, csv)
    assert measured.key.tolist() == voices.key.tolist()
    assert measured.energy_db[1] - measured.energy_db[2] == pytest.approx(20, abs=0.01)
    np.testing.assert_allclose(measured.pitch_hz, [110, 220, 220], rtol=0.02)
    for path in (tmp_path / "wav").iterdir():
        path.unlink()
    again = measure_acoustics(voices[::-1].reset_index(drop=True), csv)
    pd.testing.assert_frame_equal(again[::-1].reset_index(drop=True), measured)
    pitch = find_target("pitch", voices, csv)
    np.testing.assert_allclose(pitch.truth, 12 * np.log2(measured.pitch_hz / 100))


def test_other_audio_of_the_same_name_is_measured_again(tmp_path, voices, write_wav):
    csv = tmp_path / "made.csv"
    measure_acoustics(voices, csv)
    write_wav(voices.path[0], tone(330))
    with pytest.raises(AudioError, match=r"000\.wav has changed since it was extracted"):
        measure_acoustics(voices, tmp_path / "none.csv")  # its features are those of the old audio
    other = voices.assign(sha256=voices.path.map(audio_hash))
    assert measure_acoustics(other, csv).pitch_hz[0] == pytest.approx(330, rel=0.02)
    assert len(pd.read_csv(csv)) == 3


def test_only_the_part_that_was_extracted_is_measured(tmp_path, voices, write_wav):
    write_wav(voices.path[0], np.concatenate([tone(300), tone(110), tone(440)]))
    voices = voices.assign(sha256=voices.path.map(audio_hash))
    part = voices.assign(start_s=[0.5, 0, 0], end_s=[1.5, 0.5, 0.5], samples=8000)
    assert measure_acoustics(part, tmp_path / "a.csv").pitch_hz[0] == pytest.approx(110, rel=0.02)


def test_missing_audio_is_one_line_and_what_was_measured_is_kept(tmp_path, voices, monkeypatch):
    csv = tmp_path / "made.csv"
    (tmp_path / "wav" / voices.key[2]).unlink()
    with pytest.raises(AudioError, match=r"002\.wav.* Put the corpus back .* leave these targets"):
        find_target("energy", voices, csv)
    assert pd.read_csv(csv).key.tolist() == voices.key[:2].tolist()
    monkeypatch.setattr(targets, "pitch_hz", lambda waveform: 1 / 0)  # nothing is measured twice
    assert len(measure_acoustics(voices[:2], csv)) == 2


def test_an_utterance_without_pitch_is_left_out(tmp_path, voices, monkeypatch, caplog):
    pitches = iter([100.0, float("nan"), 200.0])
    monkeypatch.setattr(targets, "pitch_hz", lambda waveform: next(pitches))
    pitch = find_target("pitch", voices, tmp_path / "made.csv")
    assert pitch.rows.tolist() == [0, 2]
    np.testing.assert_allclose(pitch.truth, [0, 12])
    assert "1 of 3 utterances has no pitch; left out: 001.wav" in caplog.text


def test_a_foreign_table_is_refused(tmp_path, voices):
    csv = tmp_path / "made.csv"
    csv.write_text("name,loudness\n")
    with pytest.raises(ResultsError, match="is not a table of key, sha256"):
        find_target("energy", voices, csv)
