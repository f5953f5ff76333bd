"""Corpora: a folder of audio -> a table of utterances, and an audio file -> a waveform.

`table` holds a row per corpus, `read` is the one entrance; `manifest`, `folder`,
`audformat_reader`, `hugging_face` read what is one's own; `utterances` holds what every reader
passes. `audio` decodes, `check` is the doctor of a copy, `download` fetches, `toy` makes the
demo's. Stands on the frame alone; probing never imports it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "audio": ["read_audio"],
        "read": ["read_corpus"],
        "table": ["CORPORA"],
    },
)
