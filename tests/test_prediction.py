"""What a saved head says of new audio is what its record says of the same clips."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lsmprobe.cli import main
from lsmprobe.config import ExtractConfig, PredictConfig, ProbeConfig
from lsmprobe.corpora.audio import read_audio
from lsmprobe.errors import AudioError, ModelError, ResultsError, SettingsError
from lsmprobe.experiments.prediction import predict
from lsmprobe.extraction.stage import extract
from lsmprobe.probing.stage import probe
from lsmprobe.results.records import load_predictions, load_record

MAX_S = 0.3
CHANCES = ["p_anger", "p_fear", "p_sadness"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of every kind over 18 noises of up to 0.5 s: name -> the path of the record."""
    import soundfile

    folder, rng = tmp_path_factory.mktemp("noises"), np.random.default_rng(0)
    rows = []
    for i in range(18):
        name = f"{i:02d}.wav"
        noise = 0.1 * rng.normal(size=rng.integers(2_000, 8_000)).clip(-5, 5)
        soundfile.write(folder / name, noise, 16_000, subtype="PCM_16")
        emotion = ("anger", "fear", "sadness")[i % 3]
        votes = f"{emotion};{emotion};fear"
        rows.append({"path": name, "emotion": emotion, "speaker": f"s{i // 6}", "votes": votes})
    pd.DataFrame(rows).to_csv(folder / "noises.csv", index=False)
    extract(
        ExtractConfig(
            model="toy",
            dataset=str(folder / "noises.csv"),
            cache_dir=folder / "cache",
            device="cpu",
            max_seconds=MAX_S,
        )
    )

    def made(**settings):
        quick = {"epochs": 3, "lr": 0.02, "runs": 1, "hidden": 8, "device": "cpu"}
        folders = {"cache_dir": folder / "cache", "results_dir": folder / "results"}
        return probe(ProbeConfig(**quick, **folders, **settings))

    heads = pd.concat(
        [made(), made(feature_norm="zscore"), made(head="linear", split="loso", layer=1)]
    )
    heads = pd.concat([heads, made(head="linear", layer=2, feature_norm="layernorm")])
    [soft] = made(head="linear", layer=1, target="votes", target_kind="votes")["path"]
    named = {f"{r.head}-{r.feature_norm}-{r.split}": Path(r.path) for r in heads.itertuples()}
    return named | {"soft labels": Path(soft)}


@pytest.mark.parametrize(
    "name",
    [
        *(f"{head}-{norm}-speaker" for head in ("nonlinear", "multilayer") for norm in ("none",)),
        *(f"{head}-zscore-speaker" for head in ("linear", "nonlinear", "multilayer")),
        "linear-layernorm-speaker",
        "soft labels",
    ],
)
def test_a_clip_of_the_test_set_gets_the_probabilities_of_the_record(runs, name):
    expected = load_predictions(runs[name])
    clips = [runs[name].parents[3] / key for key in expected["key"]]
    found = predict(runs[name], clips, device="cpu")
    assert list(found.columns) == ["clip", "predicted", *CHANCES]
    # Frame heads were trained on frames stored as float16.
    np.testing.assert_allclose(found[CHANCES], expected[CHANCES], atol=2e-3)
    assert list(found["clip"]) == list(map(str, clips))
    np.testing.assert_allclose(found[CHANCES].sum(axis=1), 1)
    assert [CHANCES[i][2:] for i in found[CHANCES].to_numpy().argmax(1)] == list(found["predicted"])


def test_waveforms_are_as_good_as_files_and_cut_as_the_cache_was(runs):
    record = runs["linear-none-speaker"]
    clips = [record.parents[3] / f"{i:02d}.wav" for i in range(3)]
    of_files = predict(record, clips, device="cpu")
    of_waveforms = predict(record, [read_audio(clip).waveform for clip in clips], device="cpu")
    columns = [name for name in of_files if name != "clip"]
    pd.testing.assert_frame_equal(of_files[columns], of_waveforms[columns])
    assert list(of_waveforms["clip"]) == [0, 1, 2]
    longest = max(len(read_audio(clip).waveform) for clip in clips)
    assert longest > MAX_S * 16_000


def test_folds_are_averaged(runs, caplog):
    """Of three folds each utterance was tested in one; that one is a third of the mean."""
    caplog.set_level("INFO")
    record = runs["linear-none-loso"]
    told = load_predictions(record)
    mean = predict(record, [record.parents[3] / key for key in told["key"]], device="cpu")
    assert "3 folds: the answer is the mean of what their heads say" in caplog.text
    rest = 3 * mean[CHANCES].to_numpy() - told[CHANCES].to_numpy()  # the sum of the other two
    assert (rest > -1e-5).all()
    np.testing.assert_allclose(rest.sum(1), 2, atol=1e-5)
    assert not np.allclose(mean[CHANCES], told[CHANCES], atol=1e-3)


@pytest.fixture
def changed(runs, tmp_path):
    """A copy of a run whose record says something else."""

    def make(change):
        path = runs["linear-none-speaker"]
        record = load_record(path)
        change(record)
        copy = tmp_path / path.name
        copy.write_text(json.dumps(record))
        copy.with_suffix(".safetensors").write_bytes(path.with_suffix(".safetensors").read_bytes())
        return copy

    return make


def test_other_weights_are_refused(changed):
    path = changed(lambda record: record["cache"]["identity"].update(weights_sha256="0" * 64))
    with pytest.raises(ModelError, match="the head was trained on toy with 000000000000"):
        predict(path, [np.zeros(8000)], device="cpu")
    path = changed(lambda record: record["cache"]["identity"].update(random_init=1))
    with pytest.raises(ModelError, match="Name the right one with --model"):
        predict(path, [np.zeros(8000)], device="cpu")


def test_a_folder_has_to_be_named(changed):
    path = changed(lambda record: record["cache"]["identity"].update(model="mine"))
    with pytest.raises(ModelError, match="mine, a folder whose place no record keeps"):
        predict(path, [np.zeros(8000)], device="cpu")
    table = predict(path, [np.random.default_rng(0).normal(size=8000)], model="toy", device="cpu")
    assert len(table) == 1


def test_runs_that_cannot_judge_a_clip_are_refused(changed, tmp_path):
    path = changed(lambda record: record.update(head="ast"))
    with pytest.raises(ResultsError, match="known are: attentive, knn, linear, logistic"):
        predict(path, [])
    path = changed(lambda record: record["settings"].update(target_norm=True))
    with pytest.raises(ResultsError, match="take a run without it"):
        predict(path, [])
    with pytest.raises(ResultsError, match="cannot be read"):
        predict(tmp_path / "nothing.json", [])
    path.with_suffix(".safetensors").unlink()
    path = changed(lambda record: None)
    path.with_suffix(".safetensors").unlink()
    with pytest.raises(ResultsError, match="its trained head cannot be read"):
        predict(path, [])


def test_bad_audio_is_one_line(runs, tmp_path):
    (tmp_path / "empty.wav").touch()
    with pytest.raises(AudioError, match=r"empty\.wav"):
        predict(runs["linear-none-speaker"], [tmp_path / "empty.wav"], device="cpu")
    with pytest.raises(AudioError, match="needs 400"):
        predict(runs["linear-none-speaker"], [np.zeros(10)], device="cpu")


def test_no_clip_is_no_row(runs):
    assert predict(runs["linear-none-speaker"], [], device="cpu").empty
    with pytest.raises(SettingsError, match="got no audio file"):
        PredictConfig(run=Path("x.json"), files=())


def test_the_command_prints_a_table_or_json(runs, capsys):
    record = runs["linear-none-speaker"]
    clip = str(record.parents[3] / "00.wav")
    command = ["predict", "--run", str(record), clip, "--device", "cpu"]
    with pytest.raises(SystemExit) as stopped:
        main(command)
    assert stopped.value.code == 0
    assert capsys.readouterr().out.split()[:5] == [*("clip", "predicted"), *CHANCES]
    with pytest.raises(SystemExit):
        main([*command, "--json"])
    [told] = json.loads(capsys.readouterr().out)
    assert told["clip"] == clip
    assert told["predicted"] == max(told["probabilities"], key=told["probabilities"].get)
    assert sum(told["probabilities"].values()) == pytest.approx(1)
