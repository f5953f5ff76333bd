"""Results: one record per run, and the numbers that are taken from records.

`records` reads and writes them, `scores` computes macro-F1 and its interval, `comparison` sets two
groups of runs against each other, `alarms` says what is suspicious, `score_table` is one table of
many runs. Numbers alone: words and pictures are made in `report`. Stands on the frame alone;
everything above may import it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "records": ["load_record", "load_results"],
        "comparison": ["compare_records", "compare_runs"],
    },
)
