import io
import json
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from lsmprobe.cli import main
from lsmprobe.version import __version__

ROOT = Path(__file__).parents[1]
MAIN = "from lsmprobe.cli import main; main()"


def run(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, timeout=120
    )


def lsmprobe(*arguments):
    """As `run`, in this process, which takes a hundredth of the time; the log goes elsewhere."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    code = left.value.code
    if isinstance(code, str):  # Python prints it
        code = print(code, file=err) or 1
    return subprocess.CompletedProcess(arguments, code or 0, out.getvalue(), err.getvalue())


def refused_here(*arguments):
    """The one line that bad input gets."""
    done = lsmprobe(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("lsmprobe: ")
    return line


def refused(*arguments, cwd=None, after=()):
    """The one line that bad input gets, after lines that begin as told."""
    done = run(*arguments, cwd=cwd)
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    *told, line = done.stderr.splitlines()
    assert len(told) == len(after)
    assert all(one.startswith(start) for one, start in zip(told, after, strict=True))
    assert line.startswith("lsmprobe: ")
    return line


def test_the_version_is_said(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"lsmprobe {__version__}\n"
    assert run("-m", "lsmprobe", "--version").stdout == f"lsmprobe {__version__}\n"


@pytest.mark.parametrize("script", ["extract", "probe"])
def test_help_lists_the_flags_of_the_contract(script):
    text = run(ROOT / f"{script}.py", "--help").stdout
    flags = {
        "extract": "model dataset data-dir cache-dir store batch-seconds device precision "
        "store-dtype random-init whisper-context input-norm max-seconds dry-run selftest",
        "probe": "model dataset head layer runs split feature-norm cache-dir results-dir device "
        "epochs batch-size lr force",
    }
    for flag in flags[script].split():
        assert f"--{flag} " in text or f"--{flag}\n" in text


@pytest.mark.slow
def test_unknown_names_get_the_nearest(tmp_path):
    line = refused(
        *(ROOT / "extract.py", "--model", "whisper-smal", "--dataset", "toy"),
        cwd=tmp_path,
        after=["toy: 300 clips"],
    )
    assert "whisper-small" in line
    line = refused(ROOT / "extract.py", "--model", "toy", "--dataset", "emodv", cwd=tmp_path)
    assert "emodb" in line


def test_a_corpus_that_is_nowhere_names_both_places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = refused_here("extract", "--model", "wav2vec2-large", "--dataset", "demos")
    assert "LSMPROBE_DATA" in line
    assert "data/demos" in line


def test_probing_without_a_cache_says_what_to_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = refused_here("probe", "--head", "multilayer")
    assert "lsmprobe extract" in line


@pytest.mark.slow
def test_output_that_cannot_be_written_is_one_line(few_clips):
    own = few_clips / "own" / "own.csv"
    nowhere = own / "split.json"  # a file is no folder
    line = refused("-c", MAIN, "splits", "make", "loso", own, "--out", nowhere)
    assert "own.csv cannot be written" in line
    line = refused(
        *(ROOT / "extract.py", "--model", "toy", "--dataset", own),
        *("--cache-dir", own),
        after=[f"{own}: 16 clips"],
    )
    assert "own.csv" in line


def test_settings_that_cannot_be_meant_are_one_line(tmp_path):
    assert "--runs is 0" in refused(ROOT / "probe.py", "--runs", "0", cwd=tmp_path)


def test_a_flag_that_does_not_exist_is_refused(tmp_path):
    done = run(ROOT / "probe.py", "--haed", "linear", cwd=tmp_path)
    assert done.returncode == 2
    assert "--haed" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_a_command_that_has_ended_leaves_its_status(number):
    """Python's own exit takes a moment: nothing is reported as stopped that is complete."""
    late = f"import atexit, os; atexit.register(os.kill, os.getpid(), {int(number)}); {MAIN}"
    done = run("-c", late, "corpora", "--filter", "greek")
    assert (done.returncode, done.stderr) == (0, "")


def test_corpora_are_listed_with_language_licence_and_how_to_get_them():
    done = lsmprobe("corpora")
    assert done.returncode == 0
    for name, language in {"aesdd": "Greek", "shemo": "Persian", "eyase": "Arabic"}.items():
        [line] = [line for line in done.stdout.splitlines() if line.startswith(f"  {name} ")]
        assert language in line
    assert "ask at" in done.stdout
    assert "CC BY-NC-SA 4.0" in done.stdout


def test_a_group_that_needs_nothing_begins_with_its_first_command(capsys):
    with pytest.raises(SystemExit) as left:
        main(["corpora", "--by", "licence", "--filter", "greek"])
    assert not left.value.code
    assert capsys.readouterr().out.startswith("not stated\n  aesdd ")
    with pytest.raises(SystemExit) as left:
        main(["corpora", "--filter", "klingon"])
    assert "no corpus has 'klingon'" in str(left.value)


@pytest.fixture
def few_clips(tmp_path, write_wav, rng):
    """A folder with five clips of EmoDB, and a manifest of 4 speakers x 2 emotions x 2 clips."""
    for name in ("03a01Wa", "03a01Fa", "08a01Na", "09a01Ta", "10a01Ea"):
        write_wav(tmp_path / "emodb" / "wav" / f"{name}.wav", rng.normal(size=8000) * 0.1)
    rows = ["path,emotion,speaker"]
    for speaker in "abcd":
        for clip in range(4):
            name = f"{speaker}{clip}.wav"
            write_wav(tmp_path / "own" / name, rng.normal(size=8000) * 0.1)
            rows.append(f"{name},{'anger' if clip % 2 else 'sadness'},{speaker}")
    (tmp_path / "own" / "own.csv").write_text("\n".join(rows))
    return tmp_path


def test_half_a_copy_fails_the_check_and_the_findings_are_json(few_clips):
    done = lsmprobe(
        *("corpora", "check", "emodb", "--data-dir", few_clips / "emodb"),
        *("--json", few_clips / "found.json"),
    )
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("incomplete: 5 of 535 clips")
    assert json.loads((few_clips / "found.json").read_text())["complete"] is False


def test_a_corpus_that_cannot_be_fetched_says_where_to_ask():
    done = lsmprobe("corpora", "get", "demos")
    assert done.returncode == 0
    assert "zenodo.org/records/2544829" in done.stdout


def test_table_1_is_compared_with_the_papers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = lsmprobe("corpora", "table1")
    assert done.returncode == 0
    assert "9697" in done.stdout
    assert "no copy in 'data/demos'" in done.stdout


def test_the_audit_says_what_leaks_and_its_exit_status_too(few_clips):
    own = few_clips / "own" / "own.csv"
    clean = lsmprobe("splits", "audit", "speaker", own)
    assert clean.returncode == 0, clean.stderr
    assert "speakers in more than one part: none" in clean.stdout
    leaking = lsmprobe("splits", "audit", "random", own)
    assert leaking.returncode == 1
    assert "this split leaks" in leaking.stdout


def test_the_audit_hears_identical_audio(few_clips):
    own = few_clips / "own"
    for clip in range(4):
        (own / f"b{clip}.wav").write_bytes((own / f"a{clip}.wav").read_bytes())
        (own / f"c{clip}.wav").write_bytes((own / f"a{clip}.wav").read_bytes())
        (own / f"d{clip}.wav").write_bytes((own / f"a{clip}.wav").read_bytes())
    done = lsmprobe("splits", "audit", "speaker", own / "own.csv")
    assert done.returncode == 1
    assert "identical audio in more than one part: yes" in done.stdout


def test_a_split_can_be_made_and_audited(few_clips):
    own = few_clips / "own" / "own.csv"
    made = lsmprobe("splits", "make", "loso", own, "--out", few_clips / "loso.json")
    assert made.returncode == 0, made.stderr
    assert made.stdout.count("by 1 speaker") >= 4
    assert lsmprobe("splits", "audit", few_clips / "loso.json", own).returncode == 0
