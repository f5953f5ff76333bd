"""Layers: what each one holds, as DataFrames.

`probes` puts the same question to every layer (`regression`, `targets`, `answers`), `knowledge`
every question; `weights` reads what Multi-Layer heads learned (`agreement`), `similarity` and
`health` compute from moments, `projection` makes a picture. Stands on `corpora` (audio alone),
`cache`, `splits`, `results` and `probing`; only `report` and the commands may import it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "probes": ["layer_answers", "probe_layers", "sweep_layers"],
        "answers": ["best_layer"],
        "knowledge": ["knowledge_sentences", "knowledge_table", "what_layers_know"],
        "weights": [
            "average_weights",
            "layer_drops",
            "layer_shares",
            "layer_weights",
            "rank_agreement",
        ],
        "similarity": ["layer_similarity"],
        "health": ["layer_health"],
        "projection": ["project_layer"],
    },
)
