"""The paper's Table 1 from the copies that are here, compared with the paper's own rows."""

import os

import pandas as pd

from lsmprobe.corpora.check import listed_emotions
from lsmprobe.corpora.read import corpus_folder, read_corpus, release_in
from lsmprobe.corpora.table import CORPORA, Corpus
from lsmprobe.errors import CorpusError, counted


def table1() -> pd.DataFrame:
    """The paper's Table 1 from the copies that are here, beside the paper's own rows.

    `clips` is 0 where there is no copy that can be read; `note` says that, or where the two differ
    and why.
    """
    rows = [row for row in CORPORA.values() if row.paper_n and not row.variant_of]
    return pd.DataFrame(_table1_row(corpus) for corpus in rows)


def _table1_row(corpus: Corpus) -> dict[str, object]:
    row: dict[str, object] = {
        "dataset": corpus.title,
        "language": corpus.language,
        "clips": 0,
        "emotions": "",
        "paper_clips": corpus.paper_n,
        "paper_emotions": listed_emotions(corpus.paper_emotions or corpus.labels.values()),
    }
    folder = corpus_folder(corpus.name)
    if not os.access(folder, os.F_OK):
        missing = f"no copy in {str(folder)!r}; {corpus.beside_the_paper(corpus.release([]))}"
        return row | {"note": missing}
    try:
        utterances, release = read_corpus(corpus.name, folder), release_in(corpus, folder)
    except CorpusError as error:
        return row | {"note": str(error).rstrip(".")}
    note = corpus.beside_the_paper(release)
    if len(utterances) != release.n_utterances:
        note = f"this copy has {counted(len(utterances), 'clip', of=release.n_utterances)}; {note}"
    here = {"clips": len(utterances), "emotions": listed_emotions(utterances.emotion)}
    return row | here | {"note": note}
