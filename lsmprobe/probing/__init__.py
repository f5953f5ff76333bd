"""Stage 2: heads trained and scored on a cache, one record per run.

`stage` reads aloud; `task` is what is learned, `run` how, `record` what came out. `heads`, `norms`
and `linear_stack` are the networks, `training` fits many at once from the `batches` of one read.
Stands on `cache`, `splits` and `results`, and never on `corpora` or `extraction`: the cache is all
that it knows of stage 1. What lies above may import it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "stage": ["probe"],
    },
)
