"""audio.py against arithmetic, plain sines and files that are damaged, foreign or absurd."""

import functools
import hashlib
import io
import math
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lsmprobe.corpora import audio, kept
from lsmprobe.corpora.audio import (
    FORMATS,
    MIN_SAMPLES,
    SAMPLE_RATE,
    AudioHeader,
    audio_hash,
    decoders,
    n_samples,
    read_audio,
    read_header,
)
from lsmprobe.corpora.containers import ffmpeg_version
from lsmprobe.errors import AudioError

EMODB = Path(__file__).parents[2] / "shared" / "emodb" / "wav"
ENCODINGS = {
    "wav": ("WAV", "PCM_16"),
    "wav24": ("WAVEX", "PCM_24"),
    "wavfloat": ("WAV", "FLOAT"),
    "aiff": ("AIFF", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "sphere": ("NIST", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "w64": ("W64", "PCM_16"),
    "rf64": ("RF64", "PCM_16"),
    "pvf": ("PVF", "PCM_16"),
}
in_one_folder = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def encoded(samples, sample_rate=SAMPLE_RATE, encoding="wav"):
    """The bytes of an audio file; `samples` (samples,) or (samples, channels)."""
    file = io.BytesIO()
    container, subtype = ENCODINGS[encoding]
    soundfile.write(file, samples, sample_rate, format=container, subtype=subtype)
    return file.getvalue()


def sine(hz, seconds=0.5, sample_rate=SAMPLE_RATE, amplitude=0.5):
    return amplitude * np.sin(2 * np.pi * hz * np.arange(int(seconds * sample_rate)) / sample_rate)


def noise(samples, channels=1, seed=0):
    values = 0.1 * np.random.default_rng(seed).standard_normal((samples, channels))
    return values.clip(-0.9, 0.9)


@pytest.fixture
def written(tmp_path):
    def write(content, name="clip.wav"):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


# What comes out of a sound file.


def test_16_bit_mono_at_16_khz_comes_out_as_its_integers(written):
    pcm = np.arange(-(2**15), 2**15).astype(np.int16)  # every value there is
    path = written(encoded(pcm))
    read = read_audio(path)
    assert read.waveform.dtype == np.float32
    np.testing.assert_array_equal(read.waveform, pcm / 32768)
    assert read.sha256 == audio_hash(path) == hashlib.sha256(path.read_bytes()).hexdigest()


@given(
    rate=st.sampled_from([8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000, 384_000])
    | st.integers(8_000, 384_000),
    channels=st.integers(1, 8),
    seconds=st.floats(0.026, 0.3),
    encoding=st.sampled_from(["wav", "wav24", "wavfloat", "aiff"]),
)
@in_one_folder
def test_length_is_the_ceiling_that_the_header_promises(written, rate, channels, seconds, encoding):
    n = int(rate * seconds)
    path = written(encoded(noise(n, channels), rate, encoding))
    header = read_header(path)
    assert (header.sample_rate, header.channels, header.samples) == (rate, channels, n)
    assert header.seconds == n / rate
    whole, rest = divmod(n * SAMPLE_RATE, rate)
    assert len(read_audio(path).waveform) == n_samples(header) == whole + (rest > 0)


@pytest.mark.parametrize("encoding", ["flac", "ogg", "opus", "mp3"])
@pytest.mark.parametrize("rate", [16_000, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_compressed_files_have_the_length_they_declare(written, encoding, rate, channels):
    path = written(encoded(noise(rate + 7, channels), rate, encoding))
    assert len(read_audio(path).waveform) == n_samples(read_header(path))


def test_tags_around_an_mp3_do_not_matter(written):
    mp3 = encoded(noise(SAMPLE_RATE), encoding="mp3")
    in_front = b"ID3\4\0\0\0\0\2\1" + b"TIT2 Info Xing".ljust(257, b"\0")  # 2 * 128 + 1 bytes
    tagged = written(in_front + mp3 + b"TAG".ljust(128, b"\0"))
    assert len(read_audio(tagged).waveform) == SAMPLE_RATE


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000, 96_000])
def test_a_sine_keeps_its_frequency_and_amplitude(written, rate):
    hz = 1_000
    waveform = read_audio(written(encoded(sine(hz, 1.0, rate), rate, "wavfloat"))).waveform
    middle = slice(4_000, 12_000)  # away from the edges
    np.testing.assert_allclose(waveform[middle], sine(hz, 1.0)[middle], atol=2e-4)


def test_the_channels_are_averaged(written):
    both = np.stack([sine(300), sine(500)], axis=1)
    waveform = read_audio(written(encoded(both, encoding="wavfloat"))).waveform
    np.testing.assert_allclose(waveform, (sine(300) + sine(500)) / 2, atol=1e-7)


def test_nothing_that_needs_no_resampling_imports_numba(written):
    path = written(encoded(noise(MIN_SAMPLES, 2)))
    code = (
        "import sys; from lsmprobe.corpora.audio import read_audio; read_audio(sys.argv[1]);"
        "assert not {'numba', 'librosa'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, path], check=True, cwd=Path(__file__).parents[1])


@pytest.mark.slow
def test_threads_read_what_one_thread_reads(written):
    path = written(encoded(noise(40_000), 44_100))
    code = (
        "import sys; from concurrent.futures import ThreadPoolExecutor;"
        "from lsmprobe.corpora.audio import read_audio;"
        "read = lambda _: read_audio(sys.argv[1]).waveform.tobytes();"
        "assert len(set(ThreadPoolExecutor(8).map(read, range(64)))) == 1"
    )  # in a fresh process: the first call imports the resampler
    subprocess.run([sys.executable, "-c", code, path], check=True, cwd=Path(__file__).parents[1])
    with ThreadPoolExecutor(8) as pool:
        waveforms = list(pool.map(lambda _: read_audio(path).waveform, range(16)))
    for waveform in waveforms:
        np.testing.assert_array_equal(waveform, read_audio(path).waveform)


def test_emodb_reads_as_soundfile_reads_it():
    if not EMODB.is_dir():
        pytest.skip("the EmoDB audio is not beside this project")
    for path in sorted(EMODB.glob("*.wav"))[::50]:
        read = read_audio(path)
        np.testing.assert_array_equal(read.waveform, soundfile.read(path, dtype="float32")[0])
        assert read.findings == ()


# A part of a file.


@given(
    rate=st.sampled_from([8_000, 16_000, 22_050, 44_100, 48_000]) | st.integers(8_000, 100_000),
    start=st.floats(0, 0.2),
    seconds=st.floats(0.03, 0.3),
    longest=st.none() | st.floats(0.03, 0.5),
)
@in_one_folder
def test_a_part_has_the_length_that_n_samples_says(written, rate, start, seconds, longest):
    path = written(encoded(noise(int(0.5 * rate)), rate))
    part = {"start_s": start, "end_s": start + seconds, "max_s": longest}
    if start + seconds > 0.5:
        part["end_s"] = None
    waveform = read_audio(path, **part).waveform
    assert len(waveform) == n_samples(read_header(path), **part)
    asked = min((part["end_s"] or int(0.5 * rate) / rate) - start, longest or math.inf)
    assert abs(len(waveform) - asked * SAMPLE_RATE) <= 1 + SAMPLE_RATE / rate


@functools.cache
def speech_in(container, subtype, rate):
    """Two seconds whose loudness changes, as compressors are sensitive to."""
    seconds = np.arange(2 * rate) / rate
    loudness = 0.01 + np.abs(np.sin(7 * seconds)) ** 3
    file = io.BytesIO()
    soundfile.write(file, loudness * noise(2 * rate)[:, 0], rate, subtype, format=container)
    return file.getvalue()


def can_be_written_and_read(container, subtype):
    try:
        return len(soundfile.read(io.BytesIO(speech_in(container, subtype, SAMPLE_RATE)))[0]) > 0
    except (soundfile.LibsndfileError, ValueError):
        return False


WRITABLE = [
    (container, subtype)
    for container in FORMATS
    for subtype in soundfile.available_subtypes(container)
    if can_be_written_and_read(container, subtype)
]


@pytest.mark.parametrize(("container", "subtype"), WRITABLE)
@given(
    data=st.data(),
    rate=st.sampled_from([16_000, 48_000]),
)
@settings(parent=in_one_folder, max_examples=4)
def test_a_part_is_that_slice_of_the_whole_decoded_file(written, container, subtype, data, rate):
    content = speech_in(container, subtype, rate)
    path = written(content, f"{container}-{subtype}-{rate}")
    with soundfile.SoundFile(io.BytesIO(content)) as sound:  # soundfile.read would seek first
        whole = sound.read(sound.frames, dtype="float32")
    start = data.draw(st.integers(0, 2 * rate - rate // 10))
    stop = data.draw(st.integers(start + rate // 20, 2 * rate))
    part = read_audio(path, start_s=start / rate, end_s=stop / rate)
    expected = whole[start:stop]
    if rate != SAMPLE_RATE:
        expected = read_audio(written(encoded(expected, rate, "wavfloat"), "part.wav")).waveform
    np.testing.assert_array_equal(part.waveform, expected)
    assert part.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("encoding", ["wav", "mp3"])
def test_parts_of_a_file_read_and_hash_it_once(written, monkeypatch, encoding):
    monkeypatch.setattr(kept, "SETTLED_NS", -math.inf)
    hashed, sha256 = [], hashlib.sha256

    def counting(content):
        hashed.append(len(content))
        return sha256(content)

    path = written(encoded(noise(20 * SAMPLE_RATE), encoding=encoding), f"long.{encoding}")
    monkeypatch.setattr(audio.hashlib, "sha256", counting)
    parts = [read_audio(path, start_s=n / 10, end_s=n / 10 + 0.1) for n in range(1, 199)]
    # Once to hash it, and once more where it must be decoded from its start.
    assert hashed == [path.stat().st_size] * (1 if encoding == "wav" else 2)
    assert {part.sha256 for part in parts} == {sha256(path.read_bytes()).hexdigest()}


def test_a_file_that_changes_is_read_again(written, monkeypatch):
    monkeypatch.setattr(kept, "SETTLED_NS", -math.inf)
    for size in (16_000, 16_001):
        samples = noise(size, seed=size).astype(np.float32)
        path = written(encoded(samples, encoding="wavfloat"))
        part = read_audio(path, start_s=0.5, end_s=0.75)
        np.testing.assert_array_equal(part.waveform, samples[8_000:12_000, 0])
        assert part.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_as_young_as_a_tick_of_the_clock_is_not_trusted_to_stay(written):
    path = written(encoded(noise(SAMPLE_RATE)))
    made = kept.Kept(10)
    assert [made.get(path, lambda n=n: n) for n in range(3)] == [0, 1, 2]


def test_what_is_kept_of_files_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "SETTLED_NS", -math.inf)
    made, calls = kept.Kept(10, len), []
    for name, n in (("a", 6), ("b", 6), ("a", 6), ("a", 6), ("c", 11), ("c", 11), ("a", 6)):
        (tmp_path / name).touch() if not (tmp_path / name).exists() else None
        made.get(tmp_path / name, lambda name=name, n=n: calls.append(name) or "x" * n)
    assert calls == ["a", "b", "a", "c", "c"]


# What ffmpeg decodes.

WITH_FFMPEG = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")
CONTAINERS = {"mp4": "aac", "m4a": "alac", "aac": "aac", "webm": "libopus", "avi": "pcm_s16le"}


@pytest.fixture(scope="module")
def contained(tmp_path_factory):
    """Two seconds of two channels, as ffmpeg writes them into each container."""
    folder = tmp_path_factory.mktemp("containers")
    (folder / "clip.wav").write_bytes(encoded(noise(96_000, 2), 48_000))
    for suffix, codec in CONTAINERS.items():
        command = ["ffmpeg", "-v", "error", "-i", folder / "clip.wav", "-c:a", codec]
        if suffix == "mp4":
            command += ["-movflags", "faststart"]  # its index comes first, so a cut spares it
        subprocess.run([*command, folder / f"clip.{suffix}"], check=True)
    return folder


@WITH_FFMPEG
@pytest.mark.parametrize("suffix", CONTAINERS)
def test_a_container_is_decoded_by_ffmpeg(contained, suffix):
    path = contained / f"clip.{suffix}"
    header, whole = read_header(path), read_audio(path)
    assert (header.sample_rate, header.channels) == (48_000, 2)
    assert len(whole.waveform) == n_samples(header) == pytest.approx(2 * SAMPLE_RATE, abs=1_000)
    assert whole.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert decoders([str(contained / "clip.wav"), str(path)]) == {"ffmpeg": ffmpeg_version()}
    assert decoders([str(contained / "clip.wav")]) == {}
    assert len(read_audio(path, start_s=0.5, end_s=1.0).waveform) == 8_000
    if suffix in ("m4a", "avi"):  # lossless
        np.testing.assert_array_equal(whole.waveform, read_audio(contained / "clip.wav").waveform)


@WITH_FFMPEG
@pytest.mark.parametrize("suffix", CONTAINERS)
@pytest.mark.parametrize("share", [0.5, 0.97])
def test_a_container_that_was_cut_off_is_refused(contained, tmp_path, suffix, share):
    content = (contained / f"clip.{suffix}").read_bytes()
    (tmp_path / f"cut.{suffix}").write_bytes(content[: int(share * len(content))])
    with pytest.raises(AudioError, match="cut off") as caught:
        read_header(tmp_path / f"cut.{suffix}")
    assert "\n" not in str(caught.value)


def test_a_container_where_ffmpeg_is_missing_is_named_with_what_converts_it(written, monkeypatch):
    monkeypatch.setenv("PATH", "")
    path = written(b"\0\0\0\x20ftypM4A \0\0\2\0" + bytes(200), "my clip.m4a")
    for read in (read_header, read_audio):
        with pytest.raises(AudioError, match="needs ffmpeg, which is not installed") as caught:
            read(path)
        assert f"ffmpeg -i '{path}' '{path.with_suffix('.wav')}'" in str(caught.value)


def test_a_playlist_that_names_other_files_is_refused(written):
    path = written(b"#EXTM3U\n#EXTINF:1,\nhttp://localhost/a.ts\n", "clip.mp4")
    with pytest.raises(AudioError, match="is text, not audio"):
        read_audio(path)


def test_nan_and_none_mean_the_whole_file(written):
    path = written(encoded(noise(1_000)))
    whole = read_audio(path, start_s=math.nan, end_s=math.nan, max_s=math.nan).waveform
    np.testing.assert_array_equal(whole, read_audio(path).waveform)
    assert n_samples(read_header(path), max_s=math.inf) == 1_000


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (-0.1, 0.5),
        (0.5, 0.5),
        (0.6, 0.5),
        (0.0, 1.6),
        (1.1, 1.3),
        (1.0, None),
        (0.0, math.inf),
        (-math.inf, 1.0),
    ],
)
def test_a_part_that_leaves_the_file_is_refused(written, start, end):
    path = written(encoded(noise(SAMPLE_RATE)))
    for read in (
        lambda: read_audio(path, start_s=start, end_s=end),
        lambda: n_samples(read_header(path), start, end),
    ):
        with pytest.raises(AudioError, match=r"clip\.wav has no part from .* it ends at 1\.000 s"):
            read()


def test_the_end_of_a_part_may_be_rounded_up_to_hundredths(written):
    path = written(encoded(noise(7_950)))  # 0.496875 s
    assert len(read_audio(path, start_s=0.1, end_s=0.5).waveform) == 7_950 - 1_600


def test_a_frame_is_the_shortest_utterance(written):
    assert len(read_audio(written(encoded(noise(400)))).waveform) == MIN_SAMPLES
    assert len(read_audio(written(encoded(noise(200), 8_000))).waveform) == MIN_SAMPLES
    for samples, rate in ((399, 16_000), (1_099, 44_100)):
        with pytest.raises(AudioError, match=r"expected at least 0\.025 s, one frame"):
            read_audio(written(encoded(noise(samples), rate)))
    with pytest.raises(AudioError, match=r"expected at least 0\.025 s"):
        n_samples(AudioHeader(16_000, 1, 16_000), max_s=0.02)


# What is odd about a clip.


def kinds(path):
    return [finding.split(":")[0] for finding in read_audio(path).findings]


def test_plain_audio_has_no_findings(written):
    assert kinds(written(encoded(noise(SAMPLE_RATE, 2)))) == []


def test_findings_name_what_is_odd(written):
    loud, voice = sine(300, amplitude=1.5), sine(300)
    assert kinds(written(encoded(loud.clip(-1, 1)))) == ["clipping"]
    assert kinds(written(encoded(loud, encoding="wavfloat"))) == ["beyond full scale", "clipping"]
    assert kinds(written(encoded(np.stack([voice, 0 * voice], 1)))) == ["dead channel"]
    assert kinds(written(encoded(np.stack([voice, -0.5 * voice], 1)))) == ["opposite phase"]


# What is refused, each with one line that names the file.


def truncated(encoding, share):
    content = encoded(noise(3 * SAMPLE_RATE), encoding=encoding)
    return content[: int(len(content) * share)]


def without_its_first_frame(mp3):
    return mp3[mp3.index(mp3[:2], 4) :]


def wav_with_rate(rate):
    content = bytearray(encoded(noise(SAMPLE_RATE)))
    content[24:28] = rate.to_bytes(4, "little")
    return bytes(content)


def flac_with_length(samples):
    content = bytearray(encoded(noise(SAMPLE_RATE), encoding="flac"))
    content[21] = content[21] & 0xF0 | samples >> 32
    content[22:26] = (samples % 2**32).to_bytes(4, "big")
    return bytes(content)


def au_of_unknown_length():
    content = bytearray(encoded(noise(SAMPLE_RATE), encoding="au"))
    content[8:12] = b"\xff" * 4
    return bytes(content)


def with_value(value):
    samples = noise(SAMPLE_RATE)
    samples[5_000] = value
    return encoded(samples, encoding="wavfloat")


REFUSED = {
    "empty": (b"", r"is empty \(0 bytes\)"),
    "zeros": (bytes(5_000), "nothing but zero bytes"),
    "text": (b"path,emotion\na.wav,anger\n", "is text, not audio"),
    "html": (b"\n<!DOCTYPE html><title>404</title>", r"is an HTML or XML page.*download it again"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "run: git lfs pull"),
    "zip": (b"PK\x03\x04" + bytes(200), "is a zip archive"),
    "video": (b"\0\0\0\x20ftypisom\0\0\2\0" + bytes(200), "convert .* to WAV.*ffmpeg"),
    "half a sphere": (truncated("sphere", 0.5), "is cut off"),
    "half an au": (truncated("au", 0.5), "is cut off"),
    "half a caf": (truncated("caf", 0.5), "damaged"),
    "half a w64": (truncated("w64", 0.5), "is cut off"),
    "half an rf64": (truncated("rf64", 0.5), "is cut off"),
    "au of unknown length": (au_of_unknown_length(), "does not say how long it is"),
    "another format": (encoded(noise(500), encoding="pvf"), "has format PVF; .*ffmpeg -i"),
    "header only": (encoded(noise(0)), "a header and no samples"),
    "half a wav": (truncated("wav", 0.5), "is cut off"),
    "half an aiff": (truncated("aiff", 0.5), "is cut off"),
    "half a flac": (truncated("flac", 0.5), "damaged"),
    "half an ogg": (truncated("ogg", 0.5), "is cut off"),
    "almost an ogg": (truncated("ogg", 0.99), "is cut off"),
    "half an opus": (truncated("opus", 0.5), "is cut off"),
    "half an mp3": (truncated("mp3", 0.5), "is cut off"),
    "almost an mp3": (truncated("mp3", 0.99), "is cut off"),
    "mp3 of unknown length": (
        without_its_first_frame(encoded(sine(200, 3.0), encoding="mp3")),
        "does not say how long it is",
    ),
    "1 Hz": (wav_with_rate(1), "declares 1 Hz; expected 8000 to 384000"),
    "400 kHz": (wav_with_rate(400_000), "declares 400000 Hz"),
    "9 channels": (encoded(noise(500, 9)), "has 9 channels; expected at most 8"),
    "flac of unknown length": (flac_with_length(0), "hours of 1-channel audio"),
    "flac of 1000 hours": (flac_with_length(2**36 - 1), "hours of 1-channel audio"),
    "nan": (with_value(np.nan), "NaN or infinite"),
    "infinity": (with_value(-np.inf), "NaN or infinite"),
    "1e30": (with_value(1e30), r"a peak of 1e\+30; expected about 1"),
    "silence": (encoded(np.zeros(500)), "is silent"),
    "an offset": (encoded(np.full(500, 0.25)), "is silent"),
    "opposite phase": (encoded(noise(500) * [1, -1]), "channels cancel each other"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line(written, case):
    content, message = REFUSED[case]
    path = written(content, "a clip.wav")
    with pytest.raises(AudioError, match=message) as caught:
        read_audio(path)
    assert str(caught.value).startswith(f"{path} ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "case", [c for c, (_, m) in REFUSED.items() if "cut off" in m or "header" in m or "Hz;" in m]
)
def test_the_header_alone_is_enough_to_refuse(written, case):
    with pytest.raises(AudioError, match=REFUSED[case][1]):
        read_header(written(REFUSED[case][0]))


@pytest.mark.parametrize("read", [read_header, read_audio, audio_hash])
def test_what_is_no_file_is_refused(tmp_path, read):
    with pytest.raises(AudioError, match=r"none\.wav does not exist"):
        read(tmp_path / "none.wav")
    with pytest.raises(AudioError, match="is not a regular file"):
        read(tmp_path)
    os.mkfifo(tmp_path / "fifo.wav")
    with pytest.raises(AudioError, match="is not a regular file"):
        read(tmp_path / "fifo.wav")


@pytest.mark.parametrize("read", [read_header, read_audio])
def test_a_sparse_file_that_claims_100_hours_is_refused(tmp_path, read):
    n_bytes = 100 * 3600 * SAMPLE_RATE * 2
    content = bytearray(encoded(noise(0)))
    content[40:44] = min(n_bytes, 2**32 - 1).to_bytes(4, "little")
    with (tmp_path / "sparse.wav").open("wb") as file:
        file.write(content)
        file.truncate(n_bytes)
    with pytest.raises(AudioError, match=r"has 10\.7 GiB; expected at most 1 GiB"):
        read(tmp_path / "sparse.wav")


@pytest.mark.parametrize("name", [b"two words.wav", b"line\nbreak.wav", b"latin-\xe9.wav"])
def test_any_file_name_is_read_and_shown_on_one_line(tmp_path, name):
    path = os.path.join(tmp_path, os.fsdecode(name))  # noqa: PTH118
    Path(path).write_bytes(encoded(noise(500)))
    assert len(read_audio(path).waveform) == n_samples(read_header(path)) == 500
    with pytest.raises(AudioError) as caught:
        read_audio(path, start_s=9.0)
    str(caught.value).encode()
    assert "\n" not in str(caught.value)


@given(data=st.data(), encoding=st.sampled_from(sorted(ENCODINGS)))
@settings(parent=in_one_folder, max_examples=100)
def test_damaged_bytes_give_an_audio_error_or_a_finite_waveform(written, data, encoding):
    content = bytearray(encoded(noise(4_000, 2), 24_000, encoding))
    places = st.integers(0, 199) | st.integers(0, len(content) - 1)
    for place, byte in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=20)):
        content[place] = byte
    path = written(bytes(content[: data.draw(st.just(len(content)) | places)]))
    try:
        waveform = read_audio(path).waveform
    except AudioError as error:
        assert "\n" not in str(error)
    else:
        assert len(waveform) == n_samples(read_header(path)) and np.isfinite(waveform).all()
