from dataclasses import MISSING, fields

import pytest

from lsmprobe.config import (
    AuditConfig,
    BaselineConfig,
    CorpusConfig,
    ExtractConfig,
    MakeSplitConfig,
    ProbeConfig,
    label_map,
    model_name,
)
from lsmprobe.errors import SettingsError


@pytest.mark.parametrize(
    ("model", "dataset", "expected"),
    [
        ("wav2vec2-large", "demos", "cache/wav2vec2-large/demos.h5"),
        (
            "facebook/hubert-base-ls960",
            "lists/mine.csv",
            "cache/facebook--hubert-base-ls960/mine.h5",
        ),
    ],
)
def test_a_cache_is_named_after_its_model_and_corpus(model, dataset, expected):
    assert ExtractConfig(model=model, dataset=dataset).cache_path.as_posix() == expected


def test_a_folder_is_named_after_itself_with_its_dots(tmp_path):
    (tmp_path / "whisper-tiny.en").mkdir()
    assert model_name(str(tmp_path / "whisper-tiny.en")) == "whisper-tiny.en"
    assert model_name(f"{tmp_path}/whisper-tiny.en/") == "whisper-tiny.en"


def test_random_weights_never_share_a_name_with_trained_ones():
    path = ExtractConfig(model="whisper-small", dataset="emodb", random_init=3).cache_path
    assert path.as_posix() == "cache/whisper-small-random3/emodb.h5"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"runs": 0}, "--runs is 0; expected 1 to"),
        ({"batch_size": 0}, "--batch-size is 0"),
        ({"lr": 0.0}, "--lr is 0.0; expected"),
        ({"dropout": 1.0}, "--dropout is 1.0"),
        ({"lr": float("nan")}, "--lr is nan"),
        ({"weight_decay": -1.0}, "--weight-decay is -1.0"),
        ({"scalar_lr": -1.0}, "--scalar-lr is -1.0"),
        ({"seed": 5_000_000_000}, "--seed is 5000000000"),
        ({"hidden": 100_000_000}, "--hidden is 100000000"),
        ({"map": ("rage",)}, "expected OLD=NEW"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings, message):
    with pytest.raises(SettingsError, match=message):
        ProbeConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_seconds": 0.0}, "--batch-seconds is 0.0"),
        ({"batch_seconds": float("nan")}, "--batch-seconds is nan"),
        ({"dry_run": True, "selftest": True}, "ask for one"),
        ({"max_seconds": 0.01}, "expected 0.025 to"),
        ({"random_init": -1}, "expected 0 to"),
    ],
)
def test_extraction_settings_that_cannot_be_meant_are_refused(settings, message):
    with pytest.raises(SettingsError, match=message):
        ExtractConfig(model="toy", dataset="toy", **settings)


@pytest.mark.parametrize("settings", [{"dataset": "folder:/"}, {"model": ""}, {"dataset": ".csv"}])
def test_a_cache_always_has_a_name(settings):
    with pytest.raises(SettingsError, match="no name to store a cache under"):
        ExtractConfig(**{"model": "toy", "dataset": "toy", **settings})


def test_a_label_cannot_be_mapped_to_two():
    assert label_map(("rage=anger", "joy=happiness")) == {"rage": "anger", "joy": "happiness"}
    with pytest.raises(SettingsError, match="both"):
        label_map(("rage=anger", "rage=fear"))


def test_labels_are_not_merged_in_a_chain():
    with pytest.raises(SettingsError, match=r"'angry' to 'sad' and 'sad' to 'happy'.+=happy"):
        ProbeConfig(map=("angry=sad", "sad=happy"))
    assert label_map(("rage=anger", "anger=anger"))["rage"] == "anger"


def test_a_revision_that_is_asked_for_is_part_of_the_name():
    config = ExtractConfig("openai/whisper-tiny", "emodb", revision="refs/pr/1", random_init=3)
    name = "openai--whisper-tiny@refs--pr--1-random3"
    assert config.cache_path.as_posix() == f"cache/{name}/emodb.h5"
    assert model_name(name) == name  # so that probe.py --model finds it


def test_a_part_is_a_number_of_a_count():
    assert ExtractConfig("toy", "toy", part="0/16").part_of_n == (0, 16)
    assert ExtractConfig("toy", "toy").part_of_n is None
    for part in ("16/16", "-1/3", "1", "a/b", "1/0", "1/2/3", " 1/2"):
        with pytest.raises(SettingsError, match=r"--part is .*; expected I/N"):
            ExtractConfig("toy", "toy", part=part)
    with pytest.raises(SettingsError, match="--replace does not go with --part"):
        ExtractConfig("toy", "toy", part="0/2", replace=True)


@pytest.mark.parametrize("kind", [ExtractConfig, BaselineConfig, AuditConfig, MakeSplitConfig])
def test_every_command_reads_a_corpus_by_the_same_flags(kind):
    flags = {field.name: field.default for field in fields(CorpusConfig)}
    assert flags.items() <= {field.name: field.default for field in fields(kind)}.items()
    config = kind(
        **{field.name: "speaker" for field in fields(kind) if field.default is MISSING},
        where=("dataset=crema_d", "dataset=emodb"),
        columns=("emotion=label,speaker=speaker_id",),
    )
    assert config.reading["where"] == {"dataset": ("crema_d", "emodb")}
    assert config.reading["columns"] == {"emotion": "label", "speaker": "speaker_id"}


def test_a_selection_of_a_data_set_has_a_cache_of_its_own():
    def path(**selection):
        return ExtractConfig("toy", "hf:amu-cai/CAMEO", **selection).cache_path.as_posix()

    assert path() == "cache/toy/CAMEO.h5"
    assert path(where=("dataset=crema_d",)) == "cache/toy/CAMEO-crema_d.h5"
    assert path(hf_split="a/b") == "cache/toy/CAMEO-a_b.h5"
    with pytest.raises(SettingsError, match="--where got 'crema_d'; expected COLUMN=VALUE"):
        path(where=("crema_d",))
    with pytest.raises(SettingsError, match="--columns got 'label'; expected OURS=THEIRS"):
        ExtractConfig("toy", "toy", columns=("label",))
    with pytest.raises(SettingsError, match="--columns names 'emotion' twice"):
        ExtractConfig("toy", "toy", columns=("emotion=a,emotion=b",))
