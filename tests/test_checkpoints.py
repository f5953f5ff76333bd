"""Checkpoints as other programs leave them: used whole, or refused in one line that says why."""

import json
import logging
import shutil

import pytest
import torch
import transformers
import transformers.integrations.peft
from safetensors.torch import load_file
from small_models import FAMILIES, GROUP, STABLE_NORM, make_checkpoint, noise, write_weights

from lsmprobe.errors import ModelError
from lsmprobe.extraction.load import load_encoder

HUBERT = "hubert, stable layer norm"
RANK = 4


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    folders = {}

    def get(family):
        if family not in folders:
            folders[family] = make_checkpoint(tmp_path_factory.mktemp("made"), FAMILIES[family])
        return folders[family]

    return get


@pytest.fixture
def copy(made, tmp_path):
    """A family's checkpoint, to be changed."""

    def get(family=STABLE_NORM):
        return shutil.copytree(made(family), tmp_path / "mine", dirs_exist_ok=True)

    return get


def change_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def change_weights(folder, change):
    weights = change(load_file(folder / "model.safetensors"))
    write_weights(weights, folder / "model.safetensors")


def refused(folder, match, **settings):
    with pytest.raises(ModelError, match=match) as caught:
        load_encoder(str(folder), **settings)
    said = str(caught.value)
    assert "\n" not in said
    assert "weights_only" not in said
    assert "weights-only" not in said
    return said


# Adapters of fine-tuning that are not merged


def lora(suffix=".weight", prefix="base_model.model."):
    """What peft (or loralib, without a suffix and a prefix) trains for q and v of each block."""
    sizes = {"A": (RANK, 32), "B": (32, RANK)}
    return {
        f"{prefix}encoder.layers.{block}.attention.{name}_proj.lora_{side}{suffix}": torch.ones(
            size
        )
        for block in range(3)
        for name in "qv"
        for side, size in sizes.items()
    }


def put_lora_beside(folder):
    write_weights(lora(), folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "base_model_name_or_path": "base", "r": RANK}
    settings |= {"target_modules": ["q_proj", "v_proj"], "lora_alpha": 8, "task_type": None}
    (folder / "adapter_config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize("peft", [False, True], ids=["without peft", "with peft"])
@pytest.mark.parametrize("family", [STABLE_NORM, HUBERT])
def test_a_lora_beside_the_weights_is_refused(family, peft, copy, monkeypatch):
    monkeypatch.setattr(transformers.integrations.peft, "is_peft_available", lambda: peft)
    folder = copy(family)
    put_lora_beside(folder)
    refused(folder, r"mine holds an adapter \(adapter_config\.json\).* Merge it and save the whole")
    (folder / "adapter_config.json").unlink()
    refused(folder, r"mine holds an adapter \(adapter_model\.safetensors\)")
    (folder / "adapter_model.safetensors").unlink()
    load_encoder(str(folder))


def test_a_lora_alone_is_refused_as_one(copy):
    folder = copy()
    put_lora_beside(folder)
    (folder / "config.json").unlink()
    (folder / "model.safetensors").unlink()
    refused(folder, "mine holds an adapter .*merge_and_unload")


def test_a_lora_does_not_matter_to_random_weights(copy):
    folder = copy()
    expected = load_encoder(str(folder), random_init=1).identity
    put_lora_beside(folder)
    assert load_encoder(str(folder), random_init=1).identity == expected


def as_peft_trains(weights):
    """The state of a model that peft has wrapped: every name changes, q and v lie deeper."""
    wrapped = {}
    for name, values in weights.items():
        deeper = any(f".{each}_proj." in name for each in "qv")
        inner = name.replace("_proj.", "_proj.base_layer.") if deeper else name
        wrapped[f"base_model.model.{inner}"] = values
    return wrapped | lora(suffix=".default.weight")


@pytest.mark.parametrize(
    "change",
    [
        as_peft_trains,
        lambda weights: weights | lora(suffix="", prefix=""),
        lambda weights: (
            {f"wav2vec2.{name}": values for name, values in weights.items()}
            | lora(suffix="", prefix="wav2vec2.")
        ),
        lambda weights: (
            weights | {"encoder.layers.0.attention.q_proj.lora_magnitude_vector": torch.ones(32)}
        ),
    ],
    ids=["peft", "loralib", "loralib in a model with a head", "DoRA"],
)
def test_a_lora_inside_the_weights_is_refused(change, copy):
    folder = copy()
    change_weights(folder, change)
    refused(folder, "^mine: .* would not be used .*: an adapter, such as a LoRA, .* Merge it and")


def test_a_lora_of_whisper_is_refused_and_one_of_its_decoder_passes(copy, made):
    folder = copy("whisper")
    expected = load_encoder(str(made("whisper"))).identity["weights_sha256"]
    name = "decoder.layers.0.self_attn.q_proj.lora_A"
    change_weights(folder, lambda weights: weights | {name: torch.ones(4, 32)})
    assert load_encoder(str(folder)).identity["weights_sha256"] == expected
    name = "encoder.layers.0.self_attn.q_proj.lora_A"
    change_weights(folder, lambda weights: weights | {name: torch.ones(4, 32)})
    refused(folder, "an adapter, such as a LoRA")


# Weights that the config does not mention


def test_attention_adapters_that_the_config_does_not_mention_are_refused(copy):
    folder = copy("mms")
    change_config(folder, adapter_attn_dim=None)
    refused(folder, "attention adapters, .* Set adapter_attn_dim there")


@pytest.mark.parametrize("family", [GROUP, HUBERT, "w2v-bert", "whisper"])
def test_blocks_that_the_config_does_not_mention_are_refused(family, copy):
    folder = copy(family)
    change_config(folder, num_hidden_layers=2, encoder_layers=2)
    refused(folder, "they have 3 blocks, and its config.json says 2. Correct num_hidden_layers")


def test_any_other_weight_of_the_encoder_is_refused(copy):
    folder = copy("hubert, batch norm")
    change_config(folder, conv_pos_batch_norm=False)
    refused(folder, r"would not be used \(encoder\.pos_conv_embed\.batch_norm.*that belongs to")


WITH_HEADS = {
    "wav2vec2": "Wav2Vec2ForPreTraining Wav2Vec2ForCTC Wav2Vec2ForXVector "
    "Wav2Vec2ForSequenceClassification Wav2Vec2ForAudioFrameClassification",
    "hubert": "HubertForCTC HubertForSequenceClassification",
    "wavlm": "WavLMForCTC WavLMForXVector WavLMForSequenceClassification",
    "unispeech-sat": "UniSpeechSatForPreTraining UniSpeechSatForXVector",
    "wav2vec2-conformer": "Wav2Vec2ConformerForPreTraining Wav2Vec2ConformerForXVector",
    "wav2vec2-bert": "Wav2Vec2BertForCTC Wav2Vec2BertForXVector",
    "data2vec-audio": "Data2VecAudioForCTC Data2VecAudioForXVector",
    "whisper": "WhisperForAudioClassification WhisperForConditionalGeneration",
}
NARROW = {"tdnn_dim": [8] * 5, "classifier_proj_size": 8, "xvector_output_dim": 8, "vocab_size": 16}
NARROW |= {"use_weighted_layer_sum": True, "codevector_dim": 8, "proj_codevector_dim": 8}
NARROW |= {"num_codevectors_per_group": 4, "num_clusters": 4}


@pytest.mark.parametrize("name", " ".join(WITH_HEADS.values()).split())
def test_heads_projectors_quantizers_and_decoders_pass_and_are_named(name, tmp_path, caplog):
    kind = getattr(transformers, name)
    config = next(c for c in FAMILIES.values() if name in WITH_HEADS[c["model_type"]].split())
    config = kind.config_class(**{**config, **NARROW})
    model = kind(config)
    model.save_pretrained(tmp_path)
    getattr(transformers, extractor_of(config)).from_dict({}).save_pretrained(tmp_path)
    with caplog.at_level(logging.INFO):
        network = load_encoder(str(tmp_path)).backbone.network
    base = getattr(model, model.base_model_prefix, None)
    base = base.get_encoder() if hasattr(base, "decoder") else base
    base = model.encoder if base is None else base
    for weight, values in network.state_dict().items():
        if weight != "masked_spec_embed":
            assert torch.equal(values, base.state_dict()[weight]), weight
    assert "weights are no part of the encoder and so not used: " in caplog.text


def extractor_of(config):
    from lsmprobe.extraction.models import MODEL_TYPES

    return MODEL_TYPES[config.model_type].extractor


# Adapters behind the last block


@pytest.mark.parametrize("family", ["w2v-bert", STABLE_NORM])
def test_an_adapter_behind_the_last_block_is_left_out_and_said(family, tmp_path, caplog):
    config = FAMILIES[family] | {"add_adapter": True, "output_hidden_size": 32}
    folder = make_checkpoint(tmp_path / "mine", config)
    [waveform] = noise(9_000)
    with caplog.at_level(logging.INFO):
        encoder = load_encoder(str(folder))
    assert "mine has an adapter behind its last block (add_adapter)" in caplog.text
    model = transformers.AutoModel.from_pretrained(folder).eval()
    assert model.adapter is not None
    own = model.encoder.state_dict()
    for name, values in encoder.backbone.network.encoder.state_dict().items():
        assert torch.equal(values, own[name])
    seen = []
    model.encoder.register_forward_hook(lambda *args: seen.append(args[-1].last_hidden_state[0]))
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    inputs = extractor(waveform, sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        model(**inputs)
    last = encoder.hidden_states([waveform])[0][-1]
    torch.testing.assert_close(last, seen[0][: len(last)], rtol=0, atol=1e-5)


# Attention adapters of a language (MMS)


@pytest.fixture
def mms(copy):
    """A model that transcribes, with the adapters of one more language beside it."""
    folder = copy("mms")
    torch.manual_seed(4)
    model = transformers.Wav2Vec2ForCTC(transformers.Wav2Vec2Config.from_pretrained(folder))
    model.save_pretrained(folder)
    torch.manual_seed(5)
    german = {name: torch.randn_like(each) for name, each in model._get_adapters().items()}
    write_weights(german, folder / "adapter.deu.safetensors")
    return folder


@pytest.mark.parametrize("language", [None, "deu"])
def test_the_adapters_of_a_language_are_those_that_transformers_loads(language, mms, caplog):
    [waveform] = noise(9_000)
    model = transformers.Wav2Vec2ForCTC.from_pretrained(mms).eval()
    if language:
        model.load_adapter(language, local_files_only=True)
    with caplog.at_level(logging.INFO):
        encoder = load_encoder(str(mms), adapter=language, input_norm="none")
    with torch.no_grad():
        expected = model.wav2vec2(torch.from_numpy(waveform)[None]).last_hidden_state[0]
    torch.testing.assert_close(encoder.hidden_states([waveform])[0][-1], expected)
    assert encoder.identity.get("adapter") == language
    assert ("those inside its weights are used" in caplog.text) == (language is None)


def test_an_adapter_that_is_not_there_or_does_not_fit_is_one_line(mms, copy):
    refused(mms, r"mine has no adapter\.fra\.safetensors; there is adapter\.deu", adapter="fra")
    refused(mms, r"--adapter is '\.\./deu'; expected a language", adapter="../deu")
    refused(mms, "with random weights has no attention adapters", adapter="deu", random_init=0)
    german = mms / "adapter.deu.safetensors"
    weights = load_file(german)
    first = next(name for name in weights if "adapter_layer" in name)
    write_weights({**weights, first: torch.ones(3, 3)}, german)
    refused(mms, "adapter.deu.safetensors of mine does not fit the model", adapter="deu")
    write_weights({name: each for name, each in weights.items() if name != first}, german)
    refused(mms, r"holds \d+ weights of attention adapters; expected the \d+ ", adapter="deu")
    german.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    refused(mms, "^adapter.deu.safetensors of mine is a Git LFS pointer", adapter="deu")
    refused(copy(), "mine has no attention adapters; leave --adapter out", adapter="deu")
    with pytest.raises(ModelError, match="toy has no attention adapters"):
        load_encoder("toy", adapter="deu")


# Preprocessors of other models


def test_whisper_with_the_mel_bins_of_another_model_is_one_line(copy):
    folder = copy("whisper")
    transformers.WhisperFeatureExtractor(feature_size=128, chunk_length=1).save_pretrained(folder)
    refused(folder, "mine: its preprocessor makes 128 mel bins, and its weights expect 80. Put")


def test_w2v_bert_with_the_mel_bins_of_another_model_is_one_line(copy):
    folder = copy("w2v-bert")
    transformers.SeamlessM4TFeatureExtractor(feature_size=40, num_mel_bins=40).save_pretrained(
        folder
    )
    refused(folder, "mine: its preprocessor makes 40 mel bins, and its weights expect 80. Put")


def test_a_network_that_does_not_run_is_one_line_with_model_and_shapes(copy):
    encoder = load_encoder(str(copy()))
    encoder.backbone.network.feature_projection.projection = torch.nn.Linear(7, 32)
    expected = r"^mine \(3 blocks of dimension 32\) does not run on clips of up to 0\.1 s: .*7x32"
    with pytest.raises(ModelError, match=expected) as caught:
        encoder.hidden_states(noise(1_600))
    assert "\n" not in str(caught.value)


# Files that are something else

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"
FOUND = {
    "LFS": (LFS, r"is a Git LFS pointer, not {what}; run: git lfs pull\."),
    "HTML": (b"<!DOCTYPE html><title>404</title>", r"is an HTML or XML page, not {what} .*again\."),
    "empty": (b"", r"is empty \(0 bytes\); copy or download it again\."),
    "zip": (b"PK\x03\x04" + bytes(99), r"is a zip archive, not {what}; unpack it\."),
    "gzip": (b"\x1f\x8b" + bytes(99), r"is a gzip archive, not {what}; unpack it\."),
    "zeros": (bytes(999), r"begins with nothing but zero bytes"),
}


@pytest.mark.parametrize("content", FOUND)
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin", "config.json"])
def test_a_file_of_a_checkpoint_that_is_something_else_is_named(file, content, copy):
    folder = copy()
    (folder / "model.safetensors").unlink()
    written, expected = FOUND[content]
    (folder / file).write_bytes(written)
    what = "a config" if file == "config.json" else "weights"
    refused(folder, f"^{file} of mine {expected.format(what=what)}")


def test_an_index_or_a_shard_that_is_something_else_is_named(copy):
    folder = copy()
    model = transformers.AutoModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    whole = load_encoder(str(folder)).identity
    shards[1].rename(folder / "kept")
    refused(folder, f"mine lacks {shards[1].name}, which its model.safetensors.index.json lists")
    shards[1].write_bytes(LFS)
    refused(folder, f"^{shards[1].name} of mine is a Git LFS pointer, not weights")
    (folder / "kept").replace(shards[1])
    assert load_encoder(str(folder)).identity == whole
    index = folder / "model.safetensors.index.json"
    listed = json.loads(index.read_text())
    index.write_text(json.dumps({"weight_map": {"x": "../elsewhere.safetensors"}}))
    refused(folder, r"index\.json names files elsewhere; expected")
    index.write_text(json.dumps(listed)[:99])
    refused(folder, r"index\.json is not an index of weights; fetch it again")
    index.write_bytes(LFS)
    refused(folder, "^model.safetensors.index.json of mine is a Git LFS pointer, not an index")


def test_a_preprocessor_that_is_something_else_is_named(copy):
    folder = copy()
    (folder / "preprocessor_config.json").write_bytes(LFS)
    refused(folder, "^preprocessor_config.json of mine is a Git LFS pointer, not a config")


def test_no_weights_at_all_is_said(copy):
    folder = copy()
    (folder / "model.safetensors").rename(folder / "tf_model.h5")
    refused(folder, "mine has no weights: expected model.safetensors or pytorch_model.bin")


def test_weights_that_are_cut_off_are_one_line(copy):
    folder = copy()
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    refused(folder, "the weights of mine cannot be read")


def test_a_whole_model_in_the_place_of_weights_is_one_line_without_advice_to_run_it(copy):
    folder = copy()
    (folder / "model.safetensors").unlink()
    torch.save(torch.nn.Linear(3, 3), folder / "pytorch_model.bin")
    refused(folder, r"cannot be read: the file holds torch\.nn\.\S*Linear, and weights are tensors")
