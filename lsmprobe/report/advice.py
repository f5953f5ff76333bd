"""What a report advises."""


def one_voice_advice(corpora: list[str], tested: list[str]) -> str:
    """What to report for corpora of which a split tests a single speaker.

    Args:
        corpora: all of them.
        tested: those of which every speaker was tested too, with `--split loso`.

    >>> one_voice_advice(["emodb"], [])[-56:]
    'Test every speaker of emodb: lsmprobe probe --split loso'
    """
    advice = (
        f"{', '.join(corpora)}: a split here tests one speaker. Its intervals are about that voice "
        "alone: they hold the score on other speakers in about two of three cases, not in 95% "
        "(docs/statistics.md)."
    )
    if tested:
        advice += f" Every speaker of {', '.join(tested)} was tested too; those results come first."
    if missing := [corpus for corpus in corpora if corpus not in tested]:
        advice += f" Test every speaker of {', '.join(missing)}: lsmprobe probe --split loso"
    return advice
