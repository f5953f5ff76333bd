"""encoder.py and checkpoints.py against transformers alone, with hooks that the tests place."""

import json
import math
import pickle
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from small_models import FAMILIES, GROUP, make_checkpoint, noise, write_weights
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from lsmprobe.cache.plan import decisive
from lsmprobe.corpora.audio import SAMPLE_RATE
from lsmprobe.errors import AudioError, ModelError
from lsmprobe.extraction.backbones import ConvolutionBackbone
from lsmprobe.extraction.encoder import MIN_SAMPLES, Encoder, is_out_of_memory
from lsmprobe.extraction.exactness import batches_exactly, largest_difference, precision_deviation
from lsmprobe.extraction.load import load_encoder
from lsmprobe.extraction.models import SPEECH_MODELS

WHISPER_TINY = Path(__file__).parents[2] / "shared" / "models" / "whisper-tiny.en"
CONVOLUTIONAL = [name for name in FAMILIES if name not in ("w2v-bert", "whisper")]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """The folder of a family's small checkpoint, made once; tests that change it copy it."""
    made = {}

    def get(family):
        if family not in made:
            made[family] = make_checkpoint(tmp_path_factory.mktemp("model"), FAMILIES[family])
        return made[family]

    return get


@pytest.fixture(scope="session")
def encoder(checkpoint):
    """The encoder of a family's small checkpoint, loaded once per setting."""
    loaded = {}

    def get(family, **settings):
        key = (family, *sorted(settings.items()))
        if key not in loaded:
            loaded[key] = load_encoder(str(checkpoint(family)), **settings)
        return loaded[key]

    return get


@pytest.fixture
def folder(tmp_path):
    """A checkpoint of its own, to be damaged."""
    return make_checkpoint(tmp_path / "mine", FAMILIES[GROUP])


def scale(layer):
    return layer.square().mean().sqrt()


def largest_relative(first, second):
    """The largest difference of two stacks of layers, against each layer's root mean square."""
    assert first.shape == second.shape
    return max(float((a - b).abs().max() / scale(b)) for a, b in zip(first, second, strict=True))


def by_transformers(folder, inputs):
    """Hidden states of one utterance by hooks on each block, and last_hidden_state."""
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    model = model.encoder if hasattr(model, "decoder") else model
    blocks = model.layers if isinstance(model, WhisperEncoder) else model.encoder.layers
    seen = []

    def tensor(value):
        return (value[0] if isinstance(value, tuple) else value)[0].clone()

    blocks[0].register_forward_pre_hook(lambda _, args: seen.append(tensor(args)))
    for block in blocks:
        block.register_forward_hook(lambda _, args, output: seen.append(tensor(output)))
    with torch.no_grad():
        output = model(**inputs)
    return seen, output.last_hidden_state[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_are_what_enters_and_leaves_the_blocks_of_the_model_alone(
    family, checkpoint, encoder
):
    [waveform] = noise(9_000)
    extractor = transformers.AutoFeatureExtractor.from_pretrained(checkpoint(family))
    inputs = extractor(waveform, sampling_rate=SAMPLE_RATE, return_tensors="pt")
    seen, last = by_transformers(checkpoint(family), inputs)
    [hidden] = encoder(family).hidden_states([waveform])
    frames = hidden.shape[1]
    assert frames == {"w2v-bert": 27, "whisper": 29}.get(family, 27)
    expected = torch.stack([*seen[:-1], last])[:, :frames]
    assert largest_relative(hidden, expected) < 1e-5
    assert (encoder(family).n_layers, encoder(family).dim) == (3, 32)


@pytest.mark.parametrize(
    ("family", "context"), [*((name, "window") for name in FAMILIES), ("whisper", "utterance")]
)
def test_a_batch_changes_the_states_of_none(family, context, encoder):
    encoder = encoder(family, whisper_context=context)
    waveforms = noise(20_000, 7_777, 600, 12_345, 3_200)
    assert encoder.batches_exactly
    for alone, together in zip(waveforms, encoder.hidden_states(waveforms), strict=True):
        assert largest_relative(together, encoder.hidden_states([alone])[0]) < 1e-5


@settings(max_examples=10)
@given(
    family=st.sampled_from([*FAMILIES]),
    lengths=st.lists(st.integers(560, 6_000), min_size=2, max_size=5),
    context=st.sampled_from(["window", "utterance"]),
)
def test_a_batch_of_any_lengths_changes_the_states_of_none(family, lengths, context, encoder):
    encoder = encoder(family, whisper_context=context)
    assert max(largest_difference(encoder, noise(*lengths))) < 1e-5


@settings(max_examples=25)
@given(
    family=st.sampled_from([*FAMILIES]),
    samples=st.integers(560, 40_000),
    context=st.sampled_from(["window", "utterance"]),
)
def test_frames_are_known_beforehand(family, samples, context, encoder):
    encoder = encoder(family, whisper_context=context)
    [hidden] = encoder.hidden_states(noise(samples))
    assert hidden.shape == (4, encoder.n_frames(samples), 32)
    assert hidden.dtype == torch.float32
    assert hidden.isfinite().all()
    assert abs(encoder.n_frames(samples) - samples / 320) < 2  # 20 ms each, but for the ends


def test_frames_of_real_sizes(encoder):
    for samples, frames in [
        (400, 1),
        (719, 1),
        (720, 2),
        (16_000, 49),
        (16_080, 50),
        (160_000, 499),
    ]:
        assert encoder(GROUP).n_frames(samples) == frames
        assert encoder("whisper").n_frames(samples) == math.ceil(samples / 320)
    assert [encoder("w2v-bert").n_frames(n) for n in (400, 559, 560, 879, 880)] == [0, 0, 1, 1, 2]
    assert encoder(GROUP).n_frames(0) == 0


def test_transformers_own_padded_batch_is_far_off_where_this_one_is_not(checkpoint, encoder):
    short, long = noise(5_000, 16_000)
    extractor = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True)
    inputs = extractor([short, long], sampling_rate=16_000, padding=True, return_tensors="pt")
    model = transformers.AutoModel.from_pretrained(checkpoint(GROUP)).eval()
    with torch.no_grad():
        padded = model(**inputs).last_hidden_state[0]
    [alone] = encoder(GROUP).hidden_states([short])
    assert largest_relative(padded[None, : alone.shape[1]], alone[-1:]) > 0.1


class LeakyBackbone(ConvolutionBackbone):
    """One that forgets the mask."""

    def states(self, batch, real):
        return super().states(batch, None)


@pytest.mark.parametrize("family", CONVOLUTIONAL)
def test_a_model_that_cannot_be_batched_runs_one_by_one(family, encoder):
    good = encoder(family)
    leaky = Encoder(LeakyBackbone(good.backbone.network), good.normalise, good.identity)
    assert max(largest_difference(leaky, noise(16_000, 5_000))) > 1e-3
    assert not batches_exactly(leaky)
    leaky.batches_exactly = batches_exactly(leaky)
    assert largest_difference(leaky, noise(16_000, 5_000)) == [0.0] * 4


def test_the_largest_difference_is_a_share_of_the_layer(encoder):
    class Constant(ConvolutionBackbone):
        """Layer l is 2 everywhere, and in a batch of several 1 % more at layer 3."""

        def states(self, batch, real):
            layer = torch.full((*batch.shape[:2], 32), 2.0)
            return [layer, layer, layer, layer * (1.01 if len(batch) > 1 else 1)]

    good = encoder(GROUP)
    constant = Encoder(Constant(good.backbone.network), False, good.identity)
    assert largest_difference(constant, noise(900, 800)) == pytest.approx([0, 0, 0, 0.01], rel=1e-4)


def test_no_waveforms_no_states(encoder):
    assert encoder(GROUP).hidden_states([]) == []


def test_a_waveform_stays_as_it_is(encoder):
    [waveform] = noise(4_000)
    before = waveform.copy()
    encoder(GROUP).hidden_states([waveform])
    np.testing.assert_array_equal(waveform, before)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_waveform_below_one_frame_is_an_error(family, encoder):
    least = 560 if family == "w2v-bert" else MIN_SAMPLES
    encoder = encoder(family)
    assert encoder.hidden_states(noise(least))[0].shape[1] >= 1
    with pytest.raises(AudioError, match=f"{least - 1} samples at 16 kHz; .* needs {least} "):
        encoder.hidden_states(noise(8_000, least - 1))


# Memory


class CrampedBackbone:
    """Another backbone on a device that holds so many padded frames at once."""

    def __init__(self, backbone, n_frames, error):
        self.backbone, self.most, self.error = backbone, n_frames, error
        self.tried = []

    def __getattr__(self, name):
        return getattr(self.backbone, name)

    def states(self, batch, real):
        self.tried.append(len(batch) * batch.shape[1])
        if self.tried[-1] > self.most:
            raise self.error
        return self.backbone.states(batch, real)


def cramped(encoder, n_frames, error):
    backbone = CrampedBackbone(encoder.backbone, n_frames, error)
    return Encoder(backbone, encoder.normalise, encoder.identity)


GPU_IS_FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize(
    "error",
    [
        GPU_IS_FULL,
        RuntimeError("MPS backend out of memory (MPS allocated: 17 GB)."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: not enough memory"),
        MemoryError("Unable to allocate 3 GiB for an array"),
    ],
)
@pytest.mark.parametrize("family", [GROUP, "whisper"])
def test_a_batch_that_memory_does_not_hold_runs_in_halves(family, error, encoder, caplog):
    waveforms = noise(*[40_000, 16_000, 16_000, 9_000] * 2)  # Whisper: of 1 to 3 windows
    small = cramped(encoder(family), 260, error)
    for alone, together in zip(waveforms, small.hidden_states(waveforms), strict=True):
        assert largest_relative(together, encoder(family).hidden_states([alone])[0]) < 1e-5
    assert max(small.backbone.tried) > 260
    small.backbone.tried.clear()
    small.hidden_states(waveforms)
    assert max(small.backbone.tried) <= 260, "what was too large once is not tried again"
    assert caplog.text.count("memory does not hold a batch of") == 1


@settings(max_examples=25)
@given(
    lengths=st.lists(st.integers(560, 40_000), min_size=1, max_size=9), most=st.integers(125, 500)
)
def test_halves_come_in_the_order_of_the_waveforms(lengths, most, encoder):
    waveforms = noise(*lengths)
    for family in (GROUP, "whisper"):
        halves = cramped(encoder(family), most, GPU_IS_FULL).hidden_states(waveforms)
        for half, whole in zip(halves, encoder(family).hidden_states(waveforms), strict=True):
            assert largest_relative(half, whole) < 1e-5


@pytest.mark.parametrize(
    ("family", "advice"),
    [(GROUP, r"--device\.$"), ("whisper", r"--device or --whisper-context utterance\.$")],
)
def test_a_clip_that_memory_does_not_hold_is_one_clear_line(family, advice, encoder):
    small = cramped(encoder(family), 20, GPU_IS_FULL)
    expected = rf"^memory does not hold .* one clip at a time; .* 1\.5 s\..*--max-seconds.*{advice}"
    with pytest.raises(ModelError, match=expected):
        small.hidden_states(noise(8_000, 24_000))


def test_other_errors_are_not_taken_for_a_lack_of_memory(encoder):
    small = cramped(encoder(GROUP), 20, RuntimeError("CUDA error: device-side assert triggered"))
    expected = r"^model\d* \(3 blocks of dimension 32\) does not run on .* 1\.5 s: .*-side assert"
    with pytest.raises(ModelError, match=expected):
        small.hidden_states(noise(8_000, 24_000))
    assert len(small.backbone.tried) == 1


def test_this_machines_own_lack_of_memory_is_recognised():
    for library in (torch, np):
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            library.empty(2**60, dtype=library.int8)
        assert is_out_of_memory(caught.value)


# Whisper


def test_audio_longer_than_a_window_is_its_windows_joined(encoder):
    [waveform] = noise(40_000)  # two and a half windows
    [hidden] = encoder("whisper").hidden_states([waveform])
    pieces = encoder("whisper").hidden_states([waveform[:16_000], waveform[16_000:32_000]])
    assert hidden.shape[1] == 125
    assert largest_relative(hidden[:, :100], torch.cat(pieces, dim=1)) < 1e-5
    [rest] = encoder("whisper").hidden_states([waveform[32_000:]])
    assert largest_relative(hidden[:, 100:], rest) < 1e-5


def test_whisper_on_the_audios_own_length_is_whisper_made_for_that_length(checkpoint, encoder):
    """An own-length encoder in transformers: as many positions as frames, the same weights."""
    [waveform] = noise(7_000)  # 21.9 frames
    config = transformers.WhisperConfig.from_pretrained(checkpoint("whisper"))
    config.max_source_positions = 22
    short = WhisperEncoder(config).eval()
    whole = transformers.AutoModel.from_pretrained(checkpoint("whisper")).encoder.state_dict()
    whole["embed_positions.weight"] = whole["embed_positions.weight"][:22]
    short.load_state_dict(whole)
    extractor = transformers.WhisperFeatureExtractor()
    inputs = extractor(waveform, sampling_rate=16_000, max_length=22 * 320, return_tensors="pt")
    with torch.no_grad():
        last = short(**inputs).last_hidden_state
    [hidden] = encoder("whisper", whisper_context="utterance").hidden_states([waveform])
    assert largest_relative(hidden[-1:], last) < 1e-5
    [window] = encoder("whisper").hidden_states([waveform])
    assert largest_relative(hidden, window) > 1e-2


def test_costs_are_what_is_computed(encoder):
    assert encoder(GROUP).cost_s(24_000) == 1.5
    assert encoder("w2v-bert").cost_s(24_000) == 1.5
    assert [encoder("whisper").cost_s(n) for n in (400, 16_000, 16_001)] == [1, 1, 2]
    assert encoder("whisper", whisper_context="utterance").cost_s(24_000) == 1.5


needs_whisper_tiny = pytest.mark.skipif(
    not WHISPER_TINY.is_dir(), reason="the weights of whisper-tiny.en are not beside the project"
)


@needs_whisper_tiny
def test_real_whisper_agrees_with_transformers():
    encoder = load_encoder(str(WHISPER_TINY))
    [waveform] = noise(45_000)
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(WHISPER_TINY)
    inputs = extractor(waveform, sampling_rate=SAMPLE_RATE, return_tensors="pt")
    model = transformers.WhisperModel.from_pretrained(WHISPER_TINY, dtype=torch.float32).eval()
    with torch.no_grad():
        output = model.encoder(**inputs, output_hidden_states=True)
    expected = torch.cat([*output.hidden_states[:-1], output.last_hidden_state])
    [hidden] = encoder.hidden_states([waveform])
    assert hidden.dtype == torch.float32  # though the checkpoint is float16
    assert hidden.shape == (5, 141, 384)
    assert largest_relative(hidden, expected[:, :141]) < 1e-5
    assert encoder.cost_s(45_000) == 30


@needs_whisper_tiny
def test_real_whisper_hears_45_seconds_as_two_windows():
    encoder = load_encoder(str(WHISPER_TINY))
    long, short = noise(45 * SAMPLE_RATE, 3 * SAMPLE_RATE)
    together = encoder.hidden_states([long, short])
    assert [h.shape for h in together] == [(5, 2250, 384), (5, 150, 384)]
    [second] = encoder.hidden_states([long[30 * SAMPLE_RATE :]])
    assert largest_relative(together[0][:, 1500:], second) < 1e-5
    [alone] = encoder.hidden_states([short])
    assert largest_relative(together[1], alone) < 1e-5


@needs_whisper_tiny
def test_real_whisper_batches_exactly_at_its_own_length():
    encoder = load_encoder(str(WHISPER_TINY), whisper_context="utterance")
    assert encoder.batches_exactly
    together = encoder.hidden_states(noise(48_000, 16_000, 7_001))
    for waveform, hidden in zip(noise(48_000, 16_000, 7_001), together, strict=True):
        [alone] = encoder.hidden_states([waveform])
        for a, b in zip(hidden, alone, strict=True):
            assert scale(a - b) < 1e-5 * scale(b)


# What goes in


@given(gain=st.floats(0.1, 10), offset=st.floats(-0.5, 0.5))
@settings(max_examples=5)
def test_zscore_forgets_gain_and_offset_and_none_keeps_them(gain, offset, encoder):
    family = "wav2vec2, layer norm"
    [waveform] = noise(5_000)
    changed = (gain * waveform + offset).astype(np.float32)
    first, second = encoder(family, input_norm="zscore").hidden_states([waveform, changed])
    assert largest_relative(first, second) < 0.02  # the epsilon beside a small variance
    [quiet] = encoder(family, input_norm="none").hidden_states([waveform])
    [loud] = encoder(family, input_norm="none").hidden_states([waveform * 4])
    assert largest_relative(quiet, loud) > 0.05


def test_the_checkpoint_decides_whether_its_input_is_normalised(tmp_path):
    folder = make_checkpoint(tmp_path, FAMILIES["wav2vec2, layer norm"])
    [waveform] = noise(5_000)
    for flag, same_as in ((True, "zscore"), (False, "none")):
        transformers.Wav2Vec2FeatureExtractor(do_normalize=flag).save_pretrained(folder)
        [asked] = load_encoder(str(folder)).hidden_states([waveform])
        [told] = load_encoder(str(folder), input_norm=same_as).hidden_states([waveform])
        torch.testing.assert_close(asked, told)


# Weights


def test_random_weights_follow_from_the_seed_and_need_no_checkpoint_weights(folder):
    (folder / "model.safetensors").unlink()
    first = load_encoder(str(folder), random_init=3)
    torch.rand(7)  # whatever else was drawn
    again = load_encoder(str(folder), random_init=3)
    other = load_encoder(str(folder), random_init=4)
    assert first.identity == again.identity
    assert first.identity["random_init"] == 3
    assert first.identity["weights_sha256"] != other.identity["weights_sha256"]
    waveforms = noise(4_000)
    assert torch.equal(first.hidden_states(waveforms)[0], again.hidden_states(waveforms)[0])
    assert (
        largest_relative(first.hidden_states(waveforms)[0], other.hidden_states(waveforms)[0]) > 0.1
    )


def what_decides(folder):
    """The identity without what may differ: the hashes of the files."""
    return decisive(load_encoder(str(folder)).identity)


def test_the_hash_is_of_the_values_whatever_file_they_come_from(folder):
    published = load_encoder(str(folder))
    weights = load_file(folder / "model.safetensors")
    write_weights({k: v.half() for k, v in weights.items()}, folder / "model.safetensors")
    halved = load_encoder(str(folder))
    assert halved.hidden_states(noise(900))[0].dtype == torch.float32
    assert halved.identity["weights_sha256"] != published.identity["weights_sha256"]
    (folder / "model.safetensors").unlink()
    torch.save({k: v.half().float() for k, v in weights.items()}, folder / "pytorch_model.bin")
    assert what_decides(folder) == decisive(halved.identity)


def test_weight_norm_under_its_old_names_is_found(folder):
    expected = what_decides(folder)
    weights = load_file(folder / "model.safetensors")
    old = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): values
        for name, values in weights.items()
    }
    assert set(old) != set(weights)
    (folder / "model.safetensors").unlink()
    torch.save({f"wav2vec2.{k}": v for k, v in old.items()}, folder / "pytorch_model.bin")
    assert what_decides(folder) == expected


def test_whispers_encoder_is_found_in_a_model_that_transcribes(checkpoint, tmp_path):
    whole = transformers.WhisperModel.from_pretrained(checkpoint("whisper"))
    transcriber = transformers.WhisperForConditionalGeneration(whole.config)
    transcriber.model.load_state_dict(whole.state_dict())
    transcriber.save_pretrained(tmp_path)
    transformers.WhisperFeatureExtractor().save_pretrained(tmp_path)
    there, here = load_encoder(str(checkpoint("whisper"))), load_encoder(str(tmp_path))
    assert there.identity["weights_sha256"] == here.identity["weights_sha256"]


def test_the_mask_embedding_of_pretraining_may_be_missing(folder):
    expected = what_decides(folder)
    weights = load_file(folder / "model.safetensors")
    del weights["masked_spec_embed"]
    write_weights(weights, folder / "model.safetensors")
    assert what_decides(folder) == expected


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda w: w.pop("encoder.layers.1.attention.q_proj.weight"), "lacks 1 weight .*q_proj"),
        (lambda w: w.update({"encoder.layer_norm.bias": torch.zeros(3)}), "cannot be read"),
    ],
)
def test_weights_that_are_not_all_there_are_an_error(damage, message, folder):
    weights = load_file(folder / "model.safetensors")
    damage(weights)
    write_weights(weights, folder / "model.safetensors")
    with pytest.raises(ModelError, match=message) as caught:
        load_encoder(str(folder))
    assert "\n" not in str(caught.value)


class Intruder:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_code_in_a_pickle_does_not_run(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    torch.save({"x": Intruder(tmp_path / "ran")}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="the weights of mine cannot be read"):
        load_encoder(str(folder))
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Intruder(tmp_path / "ran")))
    with pytest.raises(ModelError, match="the weights of mine cannot be read"):
        load_encoder(str(folder))
    assert not (tmp_path / "ran").exists()


def test_code_beside_a_checkpoint_does_not_run(folder, tmp_path):
    expected = load_encoder(str(folder)).identity
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "code.C", "AutoModel": "code.M"}
    (folder / "config.json").write_text(json.dumps(config))
    assert load_encoder(str(folder)).identity == expected
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("family", [GROUP, "wavlm, stable layer norm", "w2v-bert", "whisper"])
def test_half_precision_is_near(family, precision, encoder):
    waveforms = noise(8_000, 3_000)
    half = encoder(family, precision=precision).hidden_states(waveforms)
    full = encoder(family).hidden_states(waveforms)
    for a, b in zip(half, full, strict=True):
        assert a.dtype == getattr(torch, precision)
        assert scale(a.float() - b) < 0.05 * scale(b)


@pytest.mark.parametrize("family", [GROUP, "whisper"])
def test_the_deviation_of_half_precision_is_what_the_states_say(family, encoder):
    waveforms, full = noise(8_000, 3_000), encoder(family)
    assert precision_deviation(full, full, waveforms) == [0.0] * 4
    half = encoder(family, precision="bfloat16")
    found = precision_deviation(half, full, waveforms)
    for layer in range(4):
        rounded, exact = half.hidden_states(waveforms), full.hidden_states(waveforms)
        a, b = (torch.cat([h[layer].float() for h in each]) for each in (rounded, exact))
        assert found[layer] == pytest.approx(float((a - b).abs().max() / scale(b)))
    assert 1e-4 < max(found) < 1
    assert max(precision_deviation(encoder(family, precision="float16"), full, waveforms)) < max(
        found
    ), "float16 has three more bits"


def test_the_users_torch_settings_come_back(encoder):
    torch.set_float32_matmul_precision("high")
    try:
        encoder(GROUP).hidden_states(noise(900))
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


# The table


def test_the_toy_hears_how_loud_and_how_high():
    toy = load_encoder("toy")
    assert toy.identity["random_init"] == 0
    assert toy.identity == load_encoder("toy", random_init=0).identity
    assert toy.batches_exactly
    seconds = np.arange(16_000) / SAMPLE_RATE
    tones = {
        (hertz, gain): (gain * np.sin(2 * np.pi * hertz * seconds)).astype(np.float32)
        for hertz in (120, 240)
        for gain in (0.05, 0.2)
    }
    means = dict(zip(tones, [h.mean(1) for h in toy.hidden_states([*tones.values()])], strict=True))
    for other in ((120, 0.2), (240, 0.05)):
        for a, b in zip(means[120, 0.05], means[other], strict=True):
            assert scale(a - b) > 0.01 * scale(a)


def test_the_table_names_its_sources_and_pins_what_it_can():
    for name, row in SPEECH_MODELS.items():
        assert row.name == name
        assert "arXiv:" in row.source
        assert (row.hub_id is None) == (row.config is not None)
        assert row.revision == "main" or len(bytes.fromhex(row.revision)) == 20


def test_the_identity_is_plain_and_names_no_path(folder):
    identity = load_encoder(str(folder.resolve()), input_norm="none").identity
    assert identity["model"] == "mine"
    assert json.loads(json.dumps(identity)) == identity
    assert str(folder.parent) not in json.dumps(identity)
    assert identity["whisper_context"] is None
    assert identity["normalised"] is False
    assert identity["revision"] is None


# Models that cannot be had


def change_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def test_what_does_not_run_here_is_named(folder):
    change_config(folder, model_type="bert")
    with pytest.raises(
        ModelError, match="mine is a model of type 'bert'; expected one of wav2vec2"
    ):
        load_encoder(str(folder))
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json of mine cannot be read"):
        load_encoder(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"has no config\.json; expected what"):
        load_encoder(str(folder))


def test_without_a_preprocessor_the_user_must_say(folder):
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="--input-norm none or zscore"):
        load_encoder(str(folder))
    load_encoder(str(folder), input_norm="none")


def test_another_sample_rate_is_an_error(folder):
    transformers.Wav2Vec2FeatureExtractor(sampling_rate=8_000).save_pretrained(folder)
    with pytest.raises(ModelError, match="mine hears 8000 Hz; expected 16000"):
        load_encoder(str(folder))


def test_unknown_names_meet_the_nearest():
    with pytest.raises(ModelError, match="'wavelm-large'; did you mean wavlm-large"):
        load_encoder("wavelm-large")
    with pytest.raises(ModelError, match="'log-mel'; did you mean logmel"):
        load_encoder("log-mel")
    for nothing in ("./not-there", "/not/there", "~/not-there", "wavlm base"):
        with pytest.raises(ModelError, match=r"no model is called .* Or give a local folder"):
            load_encoder(nothing)
    with pytest.raises(ModelError, match="the Hugging Face hub has no model a--b/c"):
        load_encoder("a--b/c")
    with pytest.raises(ModelError, match="not on the hub, so it has no revision"):
        load_encoder("toy", revision="main")


# The hub


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_offline_and_not_cached_is_one_line(hub_cache):
    for model in ("xls-r", "someone/some-model"):
        with pytest.raises(ModelError, match="is not in the local cache") as caught:
            load_encoder(model)
        assert "\n" not in str(caught.value)


def test_offline_and_cached_just_loads(hub_cache, checkpoint):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = hub_cache / "models--someone--some-model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots").mkdir()
    (repository / "snapshots" / commit).symlink_to(checkpoint(GROUP))
    identity = load_encoder("someone/some-model").identity
    assert identity["hub_id"] == identity["model"] == "someone/some-model"
    assert identity["revision"] == commit
    local = load_encoder(str(checkpoint(GROUP))).identity
    assert identity["weights_sha256"] == local["weights_sha256"]
