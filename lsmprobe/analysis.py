"""What the layers hold, as DataFrames."""

import numpy as np
import pandas as pd


def layer_weights(results: pd.DataFrame) -> pd.DataFrame:
    """The weights that Multi-Layer heads learned: one row per experiment and layer.

    Args:
        results: what `load_results` or `probe` returned.

    Returns:
        Columns model, random_weights, corpus, split, feature_norm, experiment, layer, weight (mean
        over the runs), std (over the runs, ddof 1; missing for one run) and runs. The weights of an
        experiment sum to 1.
    """
    rows = results[results["head"] == "multilayer"]
    keys = ["model", "random_weights", "corpus", "split", "feature_norm", "experiment"]
    parts = []
    for names, runs in rows.groupby(keys, sort=True):
        weights = np.array(runs.layer_weights.tolist())
        layers = runs.layers.iloc[0]
        parts.append(
            pd.DataFrame(
                {
                    **dict(zip(keys, names, strict=True)),
                    "layer": layers,
                    "weight": weights.mean(0),
                    "std": weights.std(0, ddof=1) if len(weights) > 1 else np.nan,
                    "runs": len(weights),
                }
            )
        )
    columns = [*keys, "layer", "weight", "std", "runs"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
