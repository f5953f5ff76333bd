"""Write the tables of docs/corpora.md from the table of corpora: `python docs/corpora.py`."""

from pathlib import Path

from lsmprobe.corpora.table import CORPORA, Corpus

PAGE = Path(__file__).parent / "corpora.md"
BEGIN, END = "<!-- corpora: python docs/corpora.py -->\n", "<!-- end of corpora -->\n"


def line(corpus: Corpus) -> str:
    """A row of the table."""
    clips = corpus.n_utterances or "by release"
    speakers = corpus.n_speakers or "not known"
    get = f"`lsmprobe corpora get {corpus.name}`" if corpus.can_be_fetched else corpus.obtain
    if corpus.variant_of:
        get = f"as `{corpus.variant_of}`"
    emotions = len(set(corpus.labels.values()))
    return f"| `{corpus.name}` | {clips} | {speakers} | {emotions} | {corpus.licence} | {get} |"


def tables() -> str:
    """The corpora by language, then what a reader would not expect of each."""
    shown = [corpus for corpus in CORPORA.values() if corpus.name != "toy"]
    said = ["| language and name | clips | speakers | emotions | licence | to get it |"]
    said += ["|---|---|---|---|---|---|"]
    for language in sorted({corpus.language for corpus in shown}):
        said.append(f"| **{language}** | | | | | |")
        said += [line(corpus) for corpus in shown if corpus.language == language]
    said += ["", "| corpus | what one would not expect | source |", "|---|---|---|"]
    for corpus in shown:
        if corpus.traps and not corpus.variant_of:
            said.append(f"| `{corpus.name}` | {'; '.join(corpus.traps)} | {corpus.source} |")
    return "\n".join(said) + "\n"


def page() -> str:
    """docs/corpora.md with the tables as the rows have them now."""
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{tables()}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
