"""The report: numbers -> words, tables and pictures.

`paper` holds the paper's own numbers, `tables` and `table1` set ours next to them, `typeset` writes
a table for a terminal, Markdown and LaTeX, `figures` draws; `transfer`, `sensitivity` and
`score_lines` tell one experiment each, `paper_report` all of it. Stands on everything below; only
the commands may import it, and matplotlib is at home here.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "make": ["make_report"],
        "figures": [
            "draw_confusion",
            "draw_groups",
            "draw_health",
            "draw_knowledge",
            "draw_layer_curve",
            "draw_layer_weights",
            "draw_learning_curve",
            "draw_projection",
            "draw_similarity",
            "draw_transfer",
            "draw_transfer_layers",
            "draw_weight_lines",
        ],
        "transfer": ["transfer_layers", "transfer_matrix"],
    },
)
