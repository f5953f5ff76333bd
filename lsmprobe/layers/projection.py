"""A picture of a layer: its utterances in two dimensions."""

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch import Tensor

from lsmprobe.arguments import checked
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.cache.verify import verify_once
from lsmprobe.config import Seed
from lsmprobe.probing.norms import Standardise, pooled_statistics


@checked
def project_layer(
    cache: FeatureCache | str | Path,
    layer: int,
    method: Literal["pca", "tsne"] = "pca",
    *,
    seed: Seed = 0,
) -> pd.DataFrame:
    """A picture of a layer: every utterance as a point in two dimensions.

    The dims are standardised first, else a few of enormous size would be all there is to see.

    Args:
        cache: whose utterances.
        layer: which one.
        method: `pca` keeps distances as well as a plane can; `tsne` keeps neighbours, and its
            distances and cluster sizes mean nothing.
        seed: of t-SNE.

    Returns:
        One row per utterance: x, y, key, emotion, speaker, gender, sentence.

    Raises:
        CacheError: there is no such layer, or utterances are damaged.

    Source: van der Maaten and Hinton 2008, as scikit-learn has it.
    """
    cache = FeatureCache.of(cache)
    place = cache.place(layer)
    verify_once(cache, reads="means")
    means = _tensor(cache.pooled[:, place])
    features = Standardise(*pooled_statistics(means))(means).numpy()
    if method == "pca":
        points = PCA(n_components=2, svd_solver="full").fit_transform(features)
    else:
        perplexity = min(30.0, (len(features) - 1) / 3)
        points = TSNE(perplexity=perplexity, random_state=seed, init="pca").fit_transform(features)
    columns = ["key", "emotion", "speaker", "gender", "sentence"]
    table = pd.DataFrame(points, columns=["x", "y"]).join(cache.utterances[columns])
    named = {"pca": "principal components", "tsne": "t-SNE"}[method]
    table.attrs["about"] = f"{cache.model}, {cache.corpus}, layer {layer}, {named}"
    return table


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array))
