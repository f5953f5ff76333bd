"""Scores as text: what a command prints when it is done."""

import pandas as pd

from lsmprobe.results.score_table import KEYS, score_table


def format_scores(results: pd.DataFrame) -> str:
    """The score table as text for the terminal."""
    table = score_table(results)
    weighing = set(results["head"][results.layer_weights.notna()])
    random = set(results.model[results.random_weights])
    text = pd.DataFrame(
        {
            "model": [f"{m} (random weights)" if m in random else m for m in table.model],
            "corpus": table.corpus,
            "split": table.split,
            "norm": table.feature_norm,
            "head": table["head"],
            "layer": [
                str(layer) if not pd.isna(layer) else "all" if head in weighing else "-"
                for head, layer in zip(table["head"], table.layer, strict=True)
            ],
            "macro-F1": [
                "! " * bool(alarms) + f"{mean:.1f}" + ("" if pd.isna(std) else f" ± {std:.1f}")
                for alarms, mean, std in zip(
                    table.alarms, table.macro_f1, table["std"], strict=True
                )
            ],
            "95 % interval": [
                f"{low:.1f} to {high:.1f}" for low, high in zip(table.low, table.high, strict=True)
            ],
            "UAR": table.uar.map("{:.1f}".format),
            "accuracy": table.accuracy.map("{:.1f}".format),
            "constant": table.constant_f1.map("{:.1f}".format),
            "shuffled": table.shuffled_f1.map("{:.1f}".format, na_action="ignore"),
            "runs": table.runs,
        }
    )
    if table.duplicated(KEYS[:-1]).any():
        text["experiment"] = table.experiment  # other settings differ; the records say which
    constant = [name for name in ("split", "norm") if len(set(text[name])) == 1]
    heading = ", ".join(f"{name} {text[name].iloc[0]}" for name in constant)
    lines = [text.drop(columns=constant).to_string(index=False)]
    lines.append(
        f"percent, mean ± standard deviation (ddof 1) over runs; {heading}; interval: bootstrap "
        f"over {' / '.join(sorted(set(table.interval_over)))}; constant: macro-F1 of the best "
        "constant answer; shuffled: of the runs' own answers, shuffled (what guessing scores)"
    )
    lines += [
        f"{row.model} on {row.corpus}, {row.head}: {row.interval_note}"
        for row in table.itertuples()
        if row.interval_note
    ]
    lines += [
        f"! {row.model} on {row.corpus}, {row.head}: {code} in {n} of {row.runs} runs "
        "(docs/statistics.md)"
        for row in table.itertuples()
        for code, n in row.alarms.items()
    ]
    return "\n".join(lines)
