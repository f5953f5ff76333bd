"""The table of corpora: a corpus is a row, and what differs between two corpora is a field.

The rows stand in `rows/`, by where their language is spoken; a new corpus is a new row there.
"""

from lsmprobe.corpora.row import AS_IN_THE_PAPER as AS_IN_THE_PAPER
from lsmprobe.corpora.row import EMOTIONS as EMOTIONS
from lsmprobe.corpora.row import Corpus as Corpus
from lsmprobe.corpora.row import Release as Release
from lsmprobe.corpora.rows import asia_and_africa, english, europe, paper

CORPORA: dict[str, Corpus] = {
    corpus.name: corpus
    for corpus in (*paper.ROWS, *english.ROWS, *europe.ROWS, *asia_and_africa.ROWS)
}
