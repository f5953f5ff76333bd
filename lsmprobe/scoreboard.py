"""Runs as one table of scores, and that as text: what a command prints when it is done."""

from collections import Counter

import pandas as pd

# Runs are averaged only where they are of one experiment, whatever else they share.
KEYS = ["model", "corpus", "split", "feature_norm", "head", "layer", "experiment"]


def score_table(results: pd.DataFrame) -> pd.DataFrame:
    """Mean and spread over the runs of each head, in percent.

    Args:
        results: what `load_results` or `probe` returned.

    Returns:
        One row per experiment (model, corpus, split, feature normalisation, head, layer, and any
        other setting): macro_f1, its std over the runs (ddof 1), the ends of the 95 % interval
        (means of the runs' ends), uar, accuracy, the constant answer's macro-F1, runs, alarms (code
        -> number of runs).
    """
    if "alarms" not in results:
        results = results.assign(alarms=[[]] * len(results))
    groups = results.groupby(KEYS, sort=True, dropna=False)
    return groups.agg(
        macro_f1=("macro_f1", "mean"),
        std=("macro_f1", "std"),
        low=("macro_f1_low", "mean"),
        high=("macro_f1_high", "mean"),
        uar=("uar", "mean"),
        accuracy=("accuracy", "mean"),
        constant_f1=("constant_f1", "mean"),
        runs=("seed", "size"),
        alarms=("alarms", _counted),
    ).reset_index()


def _counted(alarms: pd.Series) -> dict[str, int]:
    """How many runs have each alarm."""
    return dict(Counter(code for of_run in alarms for code in set(of_run)))


def format_scores(results: pd.DataFrame) -> str:
    """The score table as text for the terminal."""
    table = score_table(results)
    random = set(results.model[results.random_weights])
    text = pd.DataFrame(
        {
            "model": [f"{m} (random weights)" if m in random else m for m in table.model],
            "corpus": table.corpus,
            "split": table.split,
            "norm": table.feature_norm,
            "head": table["head"],
            "layer": [
                str(layer) if not pd.isna(layer) else "all" if head == "multilayer" else "-"
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
            "runs": table.runs,
        }
    )
    if table.duplicated(KEYS[:-1]).any():
        text["experiment"] = table.experiment  # other settings differ; the records say which
    constant = [name for name in ("split", "norm") if len(set(text[name])) == 1]
    heading = ", ".join(f"{name} {text[name].iloc[0]}" for name in constant)
    lines = [text.drop(columns=constant).to_string(index=False)]
    lines.append(
        f"percent, mean ± standard deviation (ddof 1) over runs; {heading}; interval: mean of the "
        f"runs' bootstrap intervals, over {' / '.join(sorted(set(results.interval_over)))}; "
        "constant: macro-F1 of the best constant answer"
    )
    lines += [
        f"! {row.model} on {row.corpus}, {row.head}: {code} in {n} of {row.runs} runs "
        "(docs/statistics.md)"
        for row in table.itertuples()
        for code, n in row.alarms.items()
    ]
    return "\n".join(lines)
