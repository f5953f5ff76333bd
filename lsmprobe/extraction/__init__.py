"""Stage 1: a corpus through a frozen speech model, once, into a cache.

`stage` reads aloud, `plan` says what there is to do, `resume` what is there already, `rehearsal`
what it would cost. `models` is the table, `checkpoints` finds and reads one, `load` makes an
`encoder` of it, `backbones` knows the families, `descriptors` the models without weights. Stands on
`corpora` and `cache`; the experiments may import it, probing never.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "stage": ["extract"],
    },
)
