"""How long `read_corpus` takes for a large corpus, for each way to read labels.

A rule alone (ESD), a label table (MELD) and a parser (MSP-Podcast), each over equally many empty
files, in folders like those of these corpora; no audio is opened.

    python benchmarks/reading.py [--quick] [--json FILE]
"""

import lsmprobe  # noqa: F401  before torch, which reads once how its threads are to wait

# isort: split
import logging
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import tyro
from machine import machine, medians, peak_memory, write_json

from lsmprobe.corpora import read_corpus

ESD_FOLDERS = ("Neutral", "Angry", "Happy", "Sad", "Surprise")


@dataclass(frozen=True)
class Config:
    """Time the reading of made-up copies."""

    files: int = 100_000
    """Clips of each corpus."""
    repeats: int = 3
    """Rounds; the median counts."""
    quick: bool = False
    """A few files, to see that it runs."""
    json: Path | None = None
    """Write the figures here too."""


def touch(folder: Path, paths: Iterable[str]) -> None:
    """Empty files, and the folders that they need."""
    made: set[Path] = set()
    for path in paths:
        place = folder / path
        if place.parent not in made:
            place.parent.mkdir(parents=True, exist_ok=True)
            made.add(place.parent)
        place.touch()


def esd(folder: Path, n: int) -> None:
    """20 speakers, five folders each."""
    speakers = [f"{number:04}" for number in range(1, 21)]
    touch(
        folder,
        (
            f"{speaker}/{ESD_FOLDERS[i % 5]}/{speaker}_{i:06}.wav"
            for i in range(1, n // 20 + 1)
            for speaker in speakers
        ),
    )


def meld(folder: Path, n: int) -> None:
    """Dialogues of ten utterances, and the tables of the three parts, of which one has rows."""
    header = "Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID\n"
    rows = (f"Oh my.,Speaker {i % 300},joy,positive,{i // 10},{i % 10}\n" for i in range(n))
    for part, lines in (("train", rows), ("dev", ()), ("test", ())):
        (folder / f"{part}_sent_emo.csv").write_text(header + "".join(lines))
    touch(folder, (f"train_splits/dia{i // 10}_utt{i % 10}.mp4" for i in range(n)))


def msp_podcast(folder: Path, n: int) -> None:
    """Podcasts of 100 turns, and the table of the consensus."""
    names = [f"MSP-PODCAST_{i // 100:04}_{i % 100:04}.wav" for i in range(n)]
    lines = ["FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set"]
    lines += [f"{name},H,4.2,3.8,4.0,{i % 1000},Male,Train" for i, name in enumerate(names)]
    (folder / "Labels").mkdir()
    (folder / "Labels" / "labels_consensus.csv").write_text("\n".join(lines))
    touch(folder, (f"Audios/{name}" for name in names))


def main(config: Config) -> None:
    """Measure and print."""
    logging.getLogger("lsmprobe").setLevel(logging.ERROR)  # the made-up copies are no releases
    if config.quick:
        config = replace(config, files=200, repeats=1)
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        corpora = {"esd": esd, "meld": meld, "msp-podcast": msp_podcast}
        for corpus, make in corpora.items():
            (Path(name) / corpus).mkdir()
            make(Path(name) / corpus, config.files)
        ways = {corpus: lambda c=corpus: read_corpus(c, Path(name) / c) for corpus in corpora}
        assert all(len(read()) == config.files for read in ways.values())
        took = medians(ways, config.repeats)
    for corpus, took_s in took.items():
        print(f"{corpus:12} {config.files} clips read in {took_s:.1f} s")
    print(f"peak memory {peak_memory() / 2**30:.1f} GiB")
    figures = {f"{corpus}_s": took_s for corpus, took_s in took.items()}
    write_json(config.json, figures | {"files": config.files, "peak_memory_bytes": peak_memory()})


if __name__ == "__main__":
    main(tyro.cli(Config))
