"""What two corpora have in common: audio, text or speakers.

A model that was trained on one of two such corpora knows more of the other than its language. Some
of this the files show (equal audio, equal sentences); some only the publications state.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

from lsmprobe.corpora.table import CORPORA

MIN_WORDS = 3  # a shorter "sentence" may be a code, and codes of two corpora agree by chance


class Overlap(NamedTuple):
    """A stated fact about two corpora."""

    corpora: tuple[str, str]
    what: str  # audio, text or speakers
    text: str  # a sentence
    source: str

    def __str__(self) -> str:
        return f"{self.text} ({self.source})"


# Names of rows; the collection's own differ in punctuation alone, `crema_d`, which `_is` allows.
IN_CAMEO = (
    *("cafe", "cremad", "emns", "emozionalmente", "enterface", "jlcorpus", "mesd", "nemo"),
    *("oreau", "pavoque", "ravdess", "resd", "subesco"),
)
STATED = (
    *(
        Overlap(
            ("cameo", part),
            "audio",
            f"the collection CAMEO contains {part}: do not count it twice, nor train on one and "
            "test on the other",
            "Christop and Czajka 2025, arXiv:2505.11051",
        )
        for part in IN_CAMEO
    ),
    Overlap(
        ("emovo", "emozionalmente"),
        "text",
        "Emozionalmente has three sentences of EMOVO (b1, b3, l4), in 1166 of its 6902 clips: a "
        "score across the two is not one on new text",
        "the two corpora's lists of sentences",
    ),
    *(
        Overlap(
            (f"emofilm{one}", f"emofilm{other}"),
            "text",
            "the three languages of EmoFilm are the same scenes, dubbed: what is said, and the "
            "scene's emotion, is the same in both",
            "Parada-Cabaleiro et al. 2018, doi:10.5281/zenodo.1326428",
        )
        for one, other in (("it", "es"), ("it", "en"), ("es", "en"))
    ),
    Overlap(
        ("emovdb", "cmuarctic"),
        "text",
        "EmoV-DB's sentences are those of CMU ARCTIC, in every voice and style",
        "github.com/numediart/EmoV-DB, README.md",
    ),
)


def stated_overlaps(one: str, other: str | None = None) -> list[Overlap]:
    """The facts about two corpora, or about one and any other.

    >>> [fact.what for fact in stated_overlaps("emozionalmente", "emovo")]
    ['text']

    Args:
        one: the name of a corpus: a row's, or that of its caches, `CAMEO-cafe`.
        other: the other's; None is any.
    """
    return [
        fact
        for fact in STATED
        if any(
            _is(one, here)
            and (other is None or _is(other, there))
            and not (here == "cameo" and _is_another_part(one, there))
            and not (there == "cameo" and other is not None and _is_another_part(other, here))
            for here, there in (fact.corpora, fact.corpora[::-1])
        )
    ]


def _is_another_part(name: str, part: str) -> bool:
    """Whether a name is that of one part of CAMEO, and not of this one."""
    selected = name.casefold().removeprefix("cameo").strip("-_")
    return not _is(selected, part) and any(_is(selected, each) for each in IN_CAMEO)


def spoken(name: str, sentences: Iterable[str]) -> set[str]:
    """Sentences in words, where the row of that name knows what its codes stand for.

    >>> spoken("ravdess", ["01"])
    {'Kids are talking by the door'}
    """
    words = CORPORA[name].words if name in CORPORA else {}
    return {words.get(sentence, sentence) for sentence in sentences}


def shared_sentences(one: Iterable[str], other: Iterable[str]) -> list[str]:
    """Sentences that both corpora have, whatever their capitals and punctuation, sorted.

    Codes of sentences (`a01`) are not compared: only what has three words or more.
    """
    return sorted(_sentences(one) & _sentences(other))


def _sentences(texts: Iterable[str]) -> set[str]:
    plain = (" ".join(_words(text)) for text in {*texts})
    return {text for text in plain if text.count(" ") >= MIN_WORDS - 1}


def _words(text: str) -> list[str]:
    folded = unicodedata.normalize("NFKC", str(text)).casefold()
    return "".join(each if each.isalnum() else " " for each in folded).split()


def _is(name: str, corpus: str) -> bool:
    """Whether a name is a corpus's, or that of a selection or a release of it.

    >>> _is("crema_d", "cremad"), _is("cremad-voice", "cremad"), _is("nemo2", "nemo")
    (True, True, False)
    """
    parts = re.split(r"[-_.]", name.casefold())
    return corpus in {"".join(parts[:n]) for n in range(1, len(parts) + 1)}
