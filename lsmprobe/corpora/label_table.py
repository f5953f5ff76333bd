"""A corpus's table of labels (CSV, TSV, a row per clip): which columns say what."""

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lsmprobe.corpora.labelled import Labelled
from lsmprobe.errors import CorpusError, counted


@dataclass(frozen=True)
class LabelTable:
    """How to read the tables of labels of a corpus; calling it reads them.

    Templates name columns in braces: `dia{Dialogue_ID}_utt{Utterance_ID}`. Those of `path` may use
    the groups of `files` as well.
    """

    files: str  # a regular expression that the path of a table ends in
    path: str  # a template of the end of the audio's path
    label: str = ""  # columns from here on; empty: not in the table
    speaker: str = ""
    gender: str = ""
    sentence: str = ""
    split: str = ""  # a template
    further: Mapping[str, str] = field(default_factory=dict)  # our name -> column
    separator: str = ","
    encoding: str = "utf-8-sig"

    def __call__(self, files: Mapping[str, str]) -> list[Labelled]:
        """What the tables say, in their order; see `LabelReader`."""
        rule = re.compile(rf"(?<![^/])(?:{self.files})$")
        tables = [(match, place) for path, place in files.items() if (match := rule.search(path))]
        return [row for match, place in tables for row in self._rows(Path(place), match)]

    def _rows(self, place: Path, match: re.Match[str]) -> Iterator[Labelled]:
        for line in read_table(place, self.separator, self.encoding):
            cells = match.groupdict("") | line
            try:
                yield Labelled(
                    path=self.path.format_map(cells),
                    label=cells[self.label] if self.label else "",
                    speaker=cells[self.speaker] if self.speaker else "",
                    gender=cells[self.gender] if self.gender else "",
                    sentence=cells[self.sentence] if self.sentence else "",
                    split=self.split.format_map(cells),
                    further={name: cells[column] for name, column in self.further.items()},
                )
            except KeyError as missing:
                raise CorpusError(
                    f"{str(place)!r} has no column {missing}; found {', '.join(line)}. "
                    "It is not the table that the corpus is published with."
                ) from missing


def read_table(
    place: Path, separator: str = ",", encoding: str = "utf-8-sig"
) -> list[dict[str, str]]:
    """The lines of a table by column, without the blanks around names and cells.

    Raises:
        CorpusError: it cannot be read, or a line has more cells than there are columns.
    """
    try:
        text = place.read_bytes().decode(encoding)
    except OSError as error:
        raise CorpusError(f"cannot read {str(place)!r}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"{str(place)!r} is not text in {encoding}: {error.reason}.") from error
    if text.startswith("version https://git-lfs"):
        raise CorpusError(
            f"{str(place)!r} is a pointer of Git LFS, not the file; say: git lfs pull."
        )
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    header = [name.strip() for name in next(lines, [])]
    table = []
    for cells in lines:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) > len(header):
            raise CorpusError(
                f"{str(place)!r}, line {lines.line_num}: {counted(len(cells), 'cell')}; expected "
                f"{len(header)}, one for each of {', '.join(header)}."
            )
        cells += [""] * (len(header) - len(cells))
        table.append({name: cell.strip() for name, cell in zip(header, cells, strict=True)})
    return table
