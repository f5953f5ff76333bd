"""Write lsmprobe/data/counts.csv again from lists of files: `python docs/counts.py FOLDER`.

The folder holds a list for each corpus, NAME.tsv.gz with a column `path`. Each that is whole is
read by its row of the table; corpora without one keep their lines.
"""

import csv
import gzip
import sys
from collections import Counter, defaultdict
from pathlib import Path

from lsmprobe.corpora.table import CORPORA, Corpus

PAGE = Path(__file__).parents[1] / "lsmprobe" / "data" / "counts.csv"
NAMES = {"castro_lima_pt": "castro-lima", "polish_gut": "polish-gut"}  # list -> row


def counted(name: str, paths: list[str]) -> list[tuple[str, ...]]:
    """Corpus, release, speaker, gender, clips of each emotion; nothing if the list is not whole."""
    row = CORPORA[name]
    clips = [row.spelled(match) for path in paths if (match := row.match(path))]
    if len(clips) != row.n_utterances:
        return []
    cells: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for clip in clips:
        cells[row.speaker(clip), row.gender(clip)][row.emotion(clip)] += 1
    return [
        (name, "", *who, " ".join(f"{emotion}={n}" for emotion, n in sorted(counts.items())))
        for who, counts in sorted(cells.items())
    ]


def _says_all(row: Corpus) -> bool:
    """Whether the paths alone say emotion and speaker, as far as either is known."""
    return not row.needs_label_files and bool(row.n_speakers or not row.labelled_by)


def page(folder: Path) -> str:
    """The file as the lists and the table have it now."""
    with PAGE.open(encoding="utf-8", newline="") as file:
        header, *lines = [tuple(line) for line in csv.reader(file)]
    for place in sorted(folder.glob("*.tsv.gz")):
        name = place.name.removesuffix(".tsv.gz")
        name = NAMES.get(name, name)
        if name in CORPORA and _says_all(CORPORA[name]):
            with gzip.open(place, "rt", encoding="utf-8", newline="") as file:
                paths = [line["path"] for line in csv.DictReader(file, delimiter="\t")]
            if new := counted(name, paths):
                lines = [line for line in lines if line[0] != name] + new
    return "".join(",".join(line) + "\n" for line in [header, *sorted(lines, key=lambda x: x[0])])


if __name__ == "__main__":
    PAGE.write_text(page(Path(sys.argv[1])), "utf-8")
