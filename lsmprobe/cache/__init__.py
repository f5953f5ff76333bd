"""The cache: every hidden state of a corpus in one HDF5 file, written once, read by all else.

`layout`, `plan`, `file` say what a file is and open it with mistrust, `parts` which files make up a
cache; `writer` (under `lock`) fills one, `reader` reads all. `verify`, `merge`, `prune`,
`catalogue`, `export` are what one does with caches as files. Stands on the frame alone; everything
above may import it, and h5py is at home here and nowhere else.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "plan": ["CachePlan"],
        "reader": ["FeatureCache"],
        "writer": ["CacheWriter"],
    },
)
