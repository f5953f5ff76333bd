"""Splits: which speakers train, validate and test.

`kinds` makes a split of a table of utterances, `search` finds the best assignment of speakers,
`file` is its hash and its JSON, `audit` says what two parts share. A split is arrays in, arrays
out; only the audit opens audio, and so stands on `corpora`. Everything above may import it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "kinds": ["make_split"],
        "file": ["load_split", "save_split"],
    },
)
