import json
import sys

import numpy as np
import pytest

from lsmprobe.blocks import BLOCK, rows_as_json
from lsmprobe.cache.labels import read_labels
from lsmprobe.cache.layout import LABELS, TEXT, as_bytes, decoded, table_of
from lsmprobe.errors import CacheError

LONG = 2 * BLOCK + 1  # values: two blocks and the beginning of a third


@pytest.mark.parametrize("n", [0, 1, BLOCK, LONG])
@pytest.mark.parametrize("between", [",", ", "])
def test_rows_in_blocks_are_the_json_of_all_rows(n, between):
    columns = [f"{i}\udcff" for i in range(n)], list(range(n))
    expected = json.dumps([*map(list, zip(*columns, strict=True))], separators=(between, ":"))
    assert b"".join(rows_as_json(columns, between=between)).decode() == expected


def test_text_is_as_wide_as_the_longest_of_all_blocks():
    texts = ["a"] * (LONG - 1) + ["\udcffb" * 9]
    assert as_bytes(texts).dtype == "S18"
    assert decoded(as_bytes(texts)) == texts


def test_a_table_of_utterances_holds_three_strings_a_clip_and_its_labels_next_to_nothing():
    own = {name: as_bytes([f"{name}/{i:06d}.wav" for i in range(LONG)]) for name in TEXT}
    labels = {name: np.resize(as_bytes(["", "anger", "joy"]), LONG) for name in LABELS}
    table = table_of(own | labels | {"sha256": np.resize(np.array([b"0" * 64]), LONG)})
    assert table["emotion"].tolist() == np.resize(["", "anger", "joy"], LONG).tolist()
    objects = {name: {id(text): text for text in table[name]}.values() for name in table}
    nbytes = {name: sum(map(sys.getsizeof, objects[name])) / LONG for name in table}  # of a clip
    assert max(nbytes[name] for name in (*LABELS, "sha256")) < 0.1
    assert max(nbytes["key"], nbytes["path"]) < 80


def test_a_row_of_another_length_is_named_wherever_it_stands(tmp_path):
    lines = ["key,emotion", "", *(f"{i},joy" for i in range(LONG)), "last"]
    (tmp_path / "c.csv").write_text("\n".join(lines[:-1]))
    table = read_labels(tmp_path / "c.csv")
    assert table.index.tolist() == [str(i) for i in range(LONG)]
    assert table["emotion"].eq("joy").all()
    (tmp_path / "c.csv").write_text("\n".join(lines))
    with pytest.raises(CacheError, match=f"row {len(lines)} has 1 value; expected 2, one for each"):
        read_labels(tmp_path / "c.csv")
