"""Experiments: questions that take more than one run of stage 2.

`transfers` trains on one corpus and tests on another, `sensitivity` flips the open choices,
`learning_curves` counts speakers, `baseline` trains an AST from scratch
(`spectrogram_transformer`), `prediction` labels new audio. Stands on everything below; only
`report` and the commands may import it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "learning_curves": ["learning_curve"],
        "prediction": ["predict"],
        "sensitivity": ["flip_choices"],
        "transfers": ["transfer"],
    },
)
