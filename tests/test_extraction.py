import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lsmprobe.cache.merge import merge_cache
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.cache.verify import verify_cache
from lsmprobe.cache.writer import CacheWriter, outgoing
from lsmprobe.config import ExtractConfig, ProbeConfig
from lsmprobe.errors import CacheError, CorpusError, LsmprobeError, SettingsError
from lsmprobe.extraction import ahead, plan, stage
from lsmprobe.extraction.ahead import OneBehind, batches, made_ahead
from lsmprobe.extraction.encoder import Encoder
from lsmprobe.extraction.load import load_encoder
from lsmprobe.extraction.rehearsal import dry_run, selftest
from lsmprobe.extraction.stage import extract
from lsmprobe.layers.weights import layer_weights
from lsmprobe.probing.stage import probe

ROOT = Path(__file__).parents[1]
EMOTIONS = {"anger": 250.0, "happiness": 500.0, "neutrality": 1000.0, "sadness": 2000.0}  # Hz


@pytest.fixture
def manifest(tmp_path, write_wav, rng):
    """A corpus of tones in noise: 6 speakers x 4 emotions x 2 clips of 0.1 to 0.5 s; a tone's
    frequency is its emotion."""

    def make(speakers=6, takes=2, folder=tmp_path / "tones"):
        rows = []
        for speaker in range(speakers):
            for emotion, frequency in EMOTIONS.items():
                for take in range(takes):
                    seconds = rng.uniform(0.1, 0.5)
                    t = np.arange(int(16_000 * seconds)) / 16_000
                    tone = np.sin(2 * np.pi * frequency * t) * rng.uniform(0.1, 0.5)
                    name = f"s{speaker}-{emotion}-{take}.wav"
                    write_wav(folder / name, tone + rng.normal(size=len(t)) * 0.02)
                    rows.append({"path": name, "emotion": emotion, "speaker": f"s{speaker}"})
        path = folder / "tones.csv"
        pd.DataFrame(rows).to_csv(path, index=False)
        return path

    return make


def config(tmp_path, manifest, **settings):
    return ExtractConfig(
        **{
            "model": "toy",
            "dataset": str(manifest),
            "cache_dir": tmp_path / "cache",
            "device": "cpu",
            "store_dtype": "float32",
            **settings,
        }
    )


def test_the_cache_holds_what_the_model_gives_for_each_utterance_alone(tmp_path, manifest):
    from lsmprobe.corpora.audio import read_audio

    summary = extract(config(tmp_path, manifest(speakers=2), batch_seconds=2.0))
    assert (summary.n_done, summary.n_utterances) == (16, 16)
    cache, encoder = FeatureCache(summary.path), load_encoder("toy")
    for i, path in enumerate(cache.utterances.path):
        [alone] = encoder.hidden_states([read_audio(path).waveform])
        for layer in cache.layers:
            scale = float(alone[layer].square().mean().sqrt())
            difference = np.abs(cache.frames(i, layer) - alone[layer].numpy()).max()
            assert difference <= 1e-5 * scale
        torch.testing.assert_close(
            torch.tensor(np.array(cache.pooled[i])), alone.mean(1), atol=1e-5, rtol=1e-4
        )


def test_what_is_odd_about_the_clips_is_counted_at_the_end(tmp_path, manifest, write_wav, rng):
    """Whose channels cancel each other, say: what is left of these clips is a whisper."""
    path = manifest(speakers=1)
    for clip in sorted(path.parent.glob("*.wav"))[:5]:
        voice = 0.2 * rng.normal(size=4_000).clip(-3, 3)
        write_wav(clip, np.stack([voice, -0.99 * voice], 1))
    summary = extract(config(tmp_path, path))
    assert len(summary.odd["opposite phase"]) == 5
    assert (
        "opposite phase in 5: s0-anger-0.wav, s0-anger-1.wav, s0-happiness-0.wav and 2 more"
    ) in str(summary)


def test_extracting_again_does_nothing(tmp_path, manifest):
    settings = config(tmp_path, manifest(speakers=1))
    path = extract(settings).path
    before = path.read_bytes()
    again = extract(settings)
    assert again.hours == 0
    assert "nothing was left to do" in str(again)
    assert path.read_bytes() == before


def test_other_settings_are_refused_with_what_differs(tmp_path, manifest):
    path = manifest(speakers=1)
    extract(config(tmp_path, path))
    with pytest.raises(CacheError, match="input_norm"):
        extract(config(tmp_path, path, input_norm="zscore"))
    with pytest.raises(CacheError, match="max_seconds"):
        extract(config(tmp_path, path, max_seconds=0.2))


def rewrite(wav, rng):
    """Other noise of the same length."""
    content = wav.read_bytes()
    wav.write_bytes(content[:44] + rng.integers(-99, 99, (len(content) - 44) // 2, "<i2").tobytes())


def test_changed_audio_is_noticed_though_it_is_as_long_as_before(tmp_path, manifest, rng):
    path = manifest(speakers=1)
    before = extract(config(tmp_path, path)).path.read_bytes()
    rewrite(path.parent / "s0-anger-1.wav", rng)
    with pytest.raises(
        CacheError, match=r"audio: 1 changed \('s0-anger-1\.wav' first\).*--replace"
    ):
        extract(config(tmp_path, path))
    [cache] = (tmp_path / "cache").rglob("*.h5")
    assert cache.read_bytes() == before


def test_replace_keeps_the_old_cache_until_the_new_one_is_finished(
    tmp_path, manifest, rng, monkeypatch
):
    path = manifest(speakers=2)
    old = config(tmp_path, path)
    first = FeatureCache(extract(old).path).identity_hash
    same = config(tmp_path, path, replace=True)
    assert "nothing was left to do" in str(extract(same))  # nothing differs, so nothing is replaced

    new = config(tmp_path, path, max_seconds=0.2, batch_seconds=0.5, replace=True)
    write, left = CacheWriter.write, [5]

    def stopped(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        write(*arguments)

    monkeypatch.setattr(CacheWriter, "write", stopped)
    with pytest.raises(KeyboardInterrupt):
        extract(new)
    monkeypatch.undo()
    assert FeatureCache(old.cache_path).identity_hash == first
    summary = extract(new)
    assert summary.n_tried == 16 - 5  # it continues
    replaced = FeatureCache(new.cache_path)
    assert (summary.path, summary.n_done) == (new.cache_path, 16)
    assert replaced.identity["max_seconds"] == 0.2
    assert [file.name for file in new.cache_path.parent.glob("*.h5")] == [new.cache_path.name]
    whole = FeatureCache(extract(config(tmp_path / "b", path, max_seconds=0.2)).path)
    assert replaced.identity_hash == whole.identity_hash
    assert "nothing was left to do" in str(extract(new))


def test_a_replacement_that_was_begun_otherwise_starts_again(tmp_path, manifest, rng, caplog):
    path = manifest(speakers=1)
    cache = extract(config(tmp_path, path)).path
    begun = cache.with_name(f".{cache.stem}.replacement.h5")
    extract(config(tmp_path / "b", path, max_seconds=0.3)).path.rename(begun)
    summary = extract(config(tmp_path, path, max_seconds=0.2, replace=True))
    assert summary.n_tried == 8
    assert "starting again" in caplog.text
    assert FeatureCache(cache).identity["max_seconds"] == 0.2


def test_a_damaged_cache_can_be_replaced(tmp_path, manifest):
    settings = config(tmp_path, manifest(speakers=1))
    path = extract(settings).path
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CacheError, match="damaged or no cache"):
        extract(settings)
    assert extract(config(tmp_path, settings.dataset, replace=True)).n_tried == 8
    assert FeatureCache(path).is_finished


def test_new_clips_are_extracted_alone_and_stand_beside_the_others(tmp_path, manifest):
    path = manifest(speakers=2)
    table = pd.read_csv(path)
    table.iloc[[0, 1, 2, 5, 9]].to_csv(path, index=False)
    cache = extract(config(tmp_path, path)).path
    before = cache.read_bytes()
    table.to_csv(path, index=False)
    summary = extract(config(tmp_path, path))
    assert (summary.n_tried, summary.n_done) == (11, 16)
    assert cache.read_bytes() == before
    files = sorted(file.name for file in cache.parent.iterdir())
    assert files == ["tones.added-01.h5", "tones.h5", "tones.labels.csv"]
    whole = FeatureCache(extract(config(tmp_path / "b", path)).path)
    assert FeatureCache(cache).identity_hash == whole.identity_hash
    assert "nothing was left to do" in str(extract(config(tmp_path, path)))
    merge_cache(cache, remove_parts=True)
    assert "nothing was left to do" in str(extract(config(tmp_path, path)))
    table.iloc[1:].to_csv(path, index=False)
    with pytest.raises(CacheError, match=r"utterances: 1 gone"):
        extract(config(tmp_path, path))


def test_parts_make_the_cache_that_one_run_makes(tmp_path, manifest, rng):
    path = manifest(speakers=2)
    whole = FeatureCache(extract(config(tmp_path / "b", path)).path)
    parts = [extract(config(tmp_path, path, part=f"{number}/3")) for number in (2, 0)]
    assert parts[0].path.name == "tones.part-02-of-03.h5"
    with pytest.raises(CacheError, match=r"of its 3 parts there is no 1\. .*--part 1/3"):
        extract(config(tmp_path, path))
    parts.append(extract(config(tmp_path, path, part="1/3")))
    assert sum(summary.n_done for summary in parts) == 16
    cache = FeatureCache(config(tmp_path, path).cache_path)
    assert cache.identity_hash == whole.identity_hash
    for i in range(16):
        np.testing.assert_allclose(cache.frames(i, 4), whole.frames(i, 4), atol=1e-4)
    assert "nothing was left to do" in str(extract(config(tmp_path, path, part="1/3")))
    assert "nothing was left to do" in str(extract(config(tmp_path, path)))

    with pytest.raises(CacheError, match=r"part-00-of-03.h5 is there, beside which --part 0/2"):
        extract(config(tmp_path, path, part="0/2"))
    with pytest.raises(CacheError, match=r"max_seconds was None, is now 0\.2"):
        extract(config(tmp_path, path, part="1/3", max_seconds=0.2))
    rewrite(Path(cache.utterances.path[0]), rng)
    with pytest.raises(CacheError, match="audio: 1 changed"):
        extract(config(tmp_path, path, part="0/3"))


def test_parts_of_a_corpus_that_grew_meanwhile_are_refused_at_once(tmp_path, manifest):
    path = manifest(speakers=2)
    table = pd.read_csv(path)
    table.iloc[:12].to_csv(path, index=False)
    extract(config(tmp_path, path, part="0/2"))
    table.to_csv(path, index=False)
    with pytest.raises(CacheError, match="another list of utterances"):
        extract(config(tmp_path, path, part="1/2"))


def test_what_verify_marked_is_extracted_again_and_nothing_else(tmp_path, manifest):
    settings = config(tmp_path, manifest(speakers=1))
    path = extract(settings).path
    before = FeatureCache(path)
    content = bytearray(path.read_bytes())
    content[before.files[0].members["pooled/mean"].offset] ^= 1
    path.write_bytes(content)
    assert verify_cache(path, repair=True).damaged == ("s0-anger-0.wav",)
    assert extract(settings).n_tried == 1
    assert verify_cache(path).damaged == ()
    assert FeatureCache(path).identity_hash == before.identity_hash


def test_half_precision_says_how_far_it_moves_the_states(tmp_path, manifest, caplog):
    caplog.set_level("INFO")
    settings = config(tmp_path, manifest(speakers=1), precision="bfloat16")
    extract(settings)
    [line] = [line for line in caplog.messages if "moves the states" in line]
    deviation = float(line.split("at most ")[1].split(" ")[0])
    assert 1e-4 < deviation < 1
    assert float(line.split("it takes ")[1].split(" ")[0]) > 0
    caplog.clear()
    extract(settings)
    assert "moves the states" not in caplog.text


def test_a_longer_utterance_is_cut_at_max_seconds(tmp_path, manifest):
    cache = FeatureCache(extract(config(tmp_path, manifest(speakers=1), max_seconds=0.2)).path)
    assert cache.utterances.seconds.max() == 0.2
    assert cache.utterances.frames.max() <= 10


def test_parts_of_a_file_are_utterances_of_their_own(tmp_path, write_wav, rng):
    samples = rng.normal(size=16_000) * 0.1
    write_wav(tmp_path / "long.wav", samples)
    (tmp_path / "parts.csv").write_text(
        "path,emotion,speaker,start,end\nlong.wav,anger,a,0,0.5\nlong.wav,sadness,b,0.5,1.0\n"
    )
    cache = FeatureCache(extract(config(tmp_path, tmp_path / "parts.csv")).path)
    assert cache.utterances.seconds.tolist() == [0.5, 0.5]
    assert np.abs(cache.frames(0, 0) - cache.frames(1, 0)).max() > 0.1


def test_an_unreadable_clip_stops_before_anything_is_done_or_is_skipped_on_purpose(
    tmp_path, manifest, caplog
):
    path = manifest(speakers=1)
    (path.parent / "s0-anger-0.wav").write_bytes(b"")
    with pytest.raises(CorpusError, match=r"1 of 8 clips.*s0-anger-0\.wav.*--skip-unreadable"):
        extract(config(tmp_path, path))
    assert not (tmp_path / "cache").exists()
    summary = extract(config(tmp_path, path, skip_unreadable=True))
    assert summary.skipped == ("s0-anger-0.wav",)
    assert "1 unreadable and skipped: s0-anger-0.wav" in str(summary)
    cache = FeatureCache(summary.path)
    assert len(cache.utterances) == 7
    assert cache.missing.key.tolist() == ["s0-anger-0.wav"]


def test_a_clip_that_fails_on_the_way_keeps_what_was_done(tmp_path, manifest):
    path = manifest(speakers=1)
    silent = path.parent / "s0-anger-0.wav"
    silent.write_bytes(silent.read_bytes()[:44] + bytes(silent.stat().st_size - 44))
    with pytest.raises(LsmprobeError, match=r"s0-anger-0\.wav.*--skip-unreadable"):
        extract(config(tmp_path, path, batch_seconds=0.01))
    [cache] = (tmp_path / "cache").rglob("*.h5")
    done = FeatureCache(cache, allow_unfinished=True)
    assert not done.is_finished
    summary = extract(config(tmp_path, path, skip_unreadable=True))
    assert summary.skipped == ("s0-anger-0.wav",)
    assert FeatureCache(cache).is_finished


def test_a_clip_that_was_skipped_is_tried_again(tmp_path, manifest, write_wav, rng):
    path = manifest(speakers=1)
    clip = path.parent / "s0-anger-0.wav"
    good = clip.read_bytes()
    clip.write_bytes(good[:44] + bytes(len(good) - 44))  # silent
    assert extract(config(tmp_path, path, skip_unreadable=True)).skipped == ("s0-anger-0.wav",)
    with pytest.raises(LsmprobeError, match="silent"):
        extract(config(tmp_path, path))
    clip.write_bytes(good)
    summary = extract(config(tmp_path, path))
    assert (summary.n_done, summary.skipped) == (8, ())


def test_a_clip_without_room_in_the_file_stays_out_though_it_was_mended(tmp_path, manifest, caplog):
    path = manifest(speakers=1)
    clip = path.parent / "s0-anger-0.wav"
    good = clip.read_bytes()
    clip.write_bytes(b"")
    first = extract(config(tmp_path, path, skip_unreadable=True))
    clip.write_bytes(good)
    again = extract(config(tmp_path, path))
    assert again.skipped == first.skipped == ("s0-anger-0.wav",)
    assert "was unreadable when" in caplog.text


def test_clips_too_short_for_the_model_are_named_before_anything_is_done(
    tmp_path, manifest, write_wav, rng, monkeypatch
):
    path = manifest(speakers=1)
    write_wav(path.parent / "s0-anger-0.wav", rng.normal(size=450) * 0.1)
    encoder = load_encoder("toy")
    encoder.min_samples = 560  # as w2v-bert
    monkeypatch.setattr(plan, "load_encoder", lambda *_, **__: encoder)
    with pytest.raises(CorpusError, match=r"1 of 8 clips.*560 samples.*s0-anger-0\.wav"):
        extract(config(tmp_path, path))
    assert not (tmp_path / "cache").exists()
    assert extract(config(tmp_path, path, skip_unreadable=True)).skipped == ("s0-anger-0.wav",)


def test_a_corpus_of_silence_is_an_error_however_it_is_asked(tmp_path, write_wav):
    for name in "abc":
        write_wav(tmp_path / f"{name}.wav", np.zeros(8000))
    lines = ["path,emotion,speaker", *(f"{name}.wav,anger,{name}" for name in "abc")]
    (tmp_path / "silent.csv").write_text("\n".join(lines))
    settings = config(tmp_path, tmp_path / "silent.csv", skip_unreadable=True)
    for command in (extract, dry_run, selftest):
        with pytest.raises(CorpusError, match="none of 3 clips"):
            command(settings)


def test_an_upgraded_library_does_not_turn_a_cache_away(tmp_path, manifest, monkeypatch):
    path = manifest(speakers=1)
    first = extract(config(tmp_path, path)).path
    identity = FeatureCache(first).identity_hash
    monkeypatch.setattr(plan, "__version__", "9.9.9")
    again = extract(config(tmp_path, path))
    assert again.hours == 0
    assert FeatureCache(again.path).identity_hash == identity
    assert FeatureCache(again.path).identity["versions"]["lsmprobe"] != "9.9.9"


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path, manifest):
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="file"):
        extract(config(tmp_path, manifest(speakers=1), cache_dir=tmp_path / "file" / "cache"))


def test_a_dry_run_tells_the_size_and_writes_nothing(tmp_path, manifest):
    path = manifest(speakers=1)
    text = dry_run(config(tmp_path, path))
    assert not (tmp_path / "cache").exists()
    summary = extract(config(tmp_path, path))
    frames = int(FeatureCache(summary.path).utterances.frames.sum())
    assert f"frames     {frames}" in text
    stored = 5 * 64 * frames * 4  # layers x dimensions x frames x bytes
    pooled = 2 * 5 * 64 * 8 * 4
    assert f"--store frames  {(stored + pooled) / 1e9:.4f} GB" in text
    assert f"--store pooled  {pooled / 1e9:.4f} GB" in text
    assert "GB, as float32; every head and analysis" in text
    some = dry_run(config(tmp_path, path, layers="0,2"))
    assert "GB, as float32; every head, on what is asked for" in some
    assert f"--layers last  {(stored + pooled) / 5 / 1e9:.4f} GB" in text
    assert f"--store-dtype int8  {(stored / 4 + pooled * 1.5) / 1e9:.4f} GB" in text
    assert "--frame-step 100" in text
    assert "clips      8" in text
    assert " s on cpu" in text


def test_less_is_stored_and_it_is_exactly_a_part_of_all(tmp_path, manifest):
    path = manifest(speakers=1)
    everything = FeatureCache(extract(config(tmp_path, path)).path)
    there = {"cache_dir": tmp_path / "less"}
    asked = config(tmp_path, path, layers="1,4", **there)
    some = FeatureCache(extract(asked).path)
    assert some.layers == (1, 4)
    for i in range(len(some.lengths)):
        np.testing.assert_array_equal(some.frames(i, 4), everything.frames(i, 4))
    np.testing.assert_array_equal(some.pooled, everything.pooled[:, [1, 4]])
    with pytest.raises(CacheError, match=r"stored_layers was \[1, 4\], is now None"):
        extract(config(tmp_path, path, **there))
    steps = extract(config(tmp_path, path, frame_step=100.0, cache_dir=tmp_path / "steps"))
    steps = FeatureCache(steps.path)
    np.testing.assert_array_equal(steps.lengths, np.ceil(everything.lengths / 5))
    np.testing.assert_array_equal(steps.pooled, everything.pooled)
    for i in range(len(steps.lengths)):
        means = steps.frames(i, 2).mean(0, dtype=np.float64)
        np.testing.assert_allclose(means, everything.pooled[i, 2], rtol=1e-4, atol=1e-5)
    with pytest.raises(SettingsError, match="--layers 9: toy has layers 0 to 4"):
        extract(config(tmp_path, path, layers="9"))
    with pytest.raises(SettingsError, match="has a frame every 20 ms"):
        extract(config(tmp_path, path, frame_step=12.0))


def test_the_selftest_prints_the_largest_difference(tmp_path, manifest):
    text = selftest(config(tmp_path, manifest(speakers=1)))
    assert "6 clips alone and batched differ by at most" in text
    largest = float(text.split("at most ")[1].split(" ")[0])
    assert 0 <= largest <= 1e-5
    assert not (tmp_path / "cache").exists()


class PlantedBackbone:
    """A frozen model whose layer 2 is a spectrum and whose other layers are noise."""

    n_layers, dim, pads = 4, 32, True

    def n_frames(self, samples):
        return samples // 320

    def cost_s(self, samples):
        return samples / 16_000

    def features(self, waveform):
        frames = waveform[: len(waveform) // 320 * 320].view(-1, 320)
        power = torch.fft.rfft(frames * torch.hann_window(320)).abs().square()[:, :160]
        return [torch.log(power.view(-1, 32, 5).mean(2) + 1e-6)]

    def states(self, batch, real):
        noise = torch.randn(5, 1000, 32, generator=torch.Generator().manual_seed(0))
        shift = batch.sum((1, 2)).long() % 1000  # another stretch of noise for each utterance
        layers = [torch.stack([n.roll(int(s), 0)[: batch.shape[1]] for s in shift]) for n in noise]
        return [*layers[:2], batch, *layers[3:]]


def test_the_whole_machine_finds_the_layer_that_hears_the_emotion(tmp_path, manifest, monkeypatch):
    planted = Encoder(PlantedBackbone(), False, {"model": "planted", "versions": {}})
    monkeypatch.setattr(plan, "load_encoder", lambda *_, **__: planted)
    extract(config(tmp_path, manifest(speakers=8, takes=3), model="planted"))
    settings = {
        "cache_dir": tmp_path / "cache",
        "results_dir": tmp_path / "results",
        "device": "cpu",
        "split": "kfold:4",
        "runs": 1,
        "feature_norm": "zscore",
        "lr": 5e-3,
        "hidden": 32,
    }
    curve = probe(ProbeConfig(head="linear", layer="all", epochs=10, **settings))
    f1 = curve.set_index("layer").macro_f1
    assert f1.idxmax() == 2
    assert f1[2] > 75
    assert abs(f1[4] - 25) < 15  # chance is 25
    weights = layer_weights(
        probe(ProbeConfig(head="multilayer", scalar_lr=0.05, epochs=10, **settings))
    )
    assert weights.layer[weights.weight.idxmax()] == 2


@given(costs=st.lists(st.floats(0.1, 40), min_size=1, max_size=30), bound=st.floats(1, 60))
def test_batches_hold_everyone_once_within_the_bound(costs, bound):
    order = sorted(range(len(costs)), key=lambda i: -costs[i])
    made = list(batches(costs, order, bound))
    assert [i for batch in made for i in batch] == order
    for batch in made:
        assert len(batch) == 1 or max(costs[i] for i in batch) * len(batch) <= bound


def test_made_ahead_keeps_the_order_and_stays_a_few_ahead():
    from concurrent.futures import ThreadPoolExecutor

    made = []

    def make(item):
        made.append(item)
        return item * item

    with ThreadPoolExecutor(2) as pool:
        for n, (item, value) in enumerate(made_ahead(pool, make, range(50))):
            assert (item, value) == (n, n * n)
            assert len(made) <= n + 1 + ahead.BATCHES_AHEAD


OFTEN_ACKNOWLEDGED = """
import runpy, sys
from lsmprobe.cache import writer
assert hasattr(writer, "ACKNOWLEDGE_S")
writer.ACKNOWLEDGE_S = 0.02  # seconds; the extraction may be over in the usual two
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_run_continues_where_it_was(tmp_path, manifest, number):
    path = manifest(speakers=20, takes=10)
    command = [
        *(sys.executable, "-c", OFTEN_ACKNOWLEDGED, str(ROOT / "extract.py")),
        *("--model", "toy", "--dataset", str(path), "--cache-dir", str(tmp_path / "cache")),
        *("--device", "cpu", "--batch-seconds", "0.1", "--store-dtype", "float32"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job, as this suite may be, ignores Ctrl-C; what it starts would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    file = tmp_path / "cache" / "toy" / "tones.h5"
    while process.poll() is None:
        if file.exists() and FeatureCache(file, allow_unfinished=True).utterances.shape[0] > 0:
            process.send_signal(number)
            break
        time.sleep(0.01)
    _, errors = process.communicate(timeout=60)
    if number != signal.SIGKILL:
        assert process.returncode == 130, errors
        assert "run the same command to continue" in errors
    done = len(FeatureCache(file, allow_unfinished=True).utterances)
    assert 0 < done < 800
    rest = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "800 of 800 clips" in rest.stdout
    resumed = FeatureCache(file)
    whole = FeatureCache(extract(config(tmp_path / "whole", path, batch_seconds=0.1)).path)
    for i in range(0, 800, 37):
        np.testing.assert_allclose(resumed.frames(i, 4), whole.frames(i, 4), atol=1e-4)


def test_calls_behind_run_in_order_and_all_of_them_before_the_end():
    made = []
    with OneBehind() as behind:
        for n in range(20):
            behind.call(made.append, n)
    assert made == list(range(20))


def test_a_call_behind_does_not_keep_its_caller_and_the_next_one_waits():
    go, made = threading.Event(), []

    def slow(n):
        assert go.wait(10)
        made.append(n)

    with OneBehind() as behind:
        behind.call(slow, 1)
        assert made == []
        go.set()
        behind.call(slow, 2)
        assert made[0] == 1
    assert made == [1, 2]


@pytest.mark.parametrize("calls_after", [0, 1])
def test_an_error_behind_comes_with_the_next_call_or_at_the_end(calls_after):
    def fail():
        raise CacheError("the disk is full")

    with pytest.raises(CacheError, match="disk is full"), OneBehind() as behind:
        behind.call(fail)
        for _ in range(calls_after):
            behind.call(pytest.fail)


def test_an_error_of_the_caller_is_not_hidden_by_one_behind():
    def fail():
        raise CacheError("the disk is full")

    with pytest.raises(KeyboardInterrupt), OneBehind() as behind:
        behind.call(fail)
        raise KeyboardInterrupt


def test_clips_stored_before_an_error_stay_and_the_next_run_does_the_rest(
    tmp_path, manifest, monkeypatch
):
    asked = config(tmp_path, manifest(speakers=2), batch_seconds=1.0)
    given = []

    def some_do_not_fit(hidden, plan):
        given.append(hidden)
        return outgoing(1e30 * hidden if len(given) > 5 else hidden, plan)

    monkeypatch.setattr(stage, "outgoing", some_do_not_fit)
    with pytest.raises(CacheError, match="expected finite hidden states"):
        extract(asked)
    monkeypatch.undo()
    summary = extract(asked)
    assert 0 < summary.n_tried < 16
    assert summary.n_done == 16
    verify_cache(summary.path)


def test_parts_that_end_a_little_beyond_their_file_are_cut_and_counted(tmp_path, write_wav, caplog):
    from lsmprobe.corpora.audio import read_audio
    from lsmprobe.extraction.plan import planned_utterances

    write_wav(tmp_path / "a.wav", np.random.default_rng(0).normal(size=16_000) * 0.1)

    def planned(end):
        lines = ["path,emotion,speaker,start,end", f"a.wav,joy,s1,0.5,{end}", "a.wav,joy,s1,0,0.5"]
        (tmp_path / "mine.csv").write_text("\n".join(lines) + "\n")
        return planned_utterances(config(tmp_path, tmp_path / "mine.csv"))

    assert list(planned(1.4).samples) == [8_000, 8_000]
    said = "1 part is up to 0.5 s beyond the file's end and cut there; the first: 'a.wav#0.5-1.4'"
    assert said in caplog.text
    assert len(read_audio(tmp_path / "a.wav", start_s=0.5, end_s=1.4).waveform) == 8_000
    caplog.clear()
    assert list(planned(1.005).samples) == [8_000, 8_000] and "beyond" not in caplog.text
    with pytest.raises(
        CorpusError, match=r"1 of 2 clips cannot be read.*no part from 0.5 to 1.6 s"
    ):
        planned(1.6)
