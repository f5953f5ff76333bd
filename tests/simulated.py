"""Records of runs that were never made, as many as a paper's grid has."""

import itertools
from pathlib import Path

import numpy as np

from lsmprobe.config import ProbeConfig
from lsmprobe.results.records import record_path, run_id, save_run

EMOTIONS = ("anger", "disgust", "fear", "happiness", "neutrality", "sadness", "surprise")


def simulated_record(model, corpus, head, seed, layer, *, n_test=40, emotions=EMOTIONS, **changes):
    """A record as `probe` writes it, its answers right more often for later layers."""
    decisive = {"model": model, "corpus": corpus, "head": head, "layer": layer}
    rng = np.random.default_rng([seed, *run_id(decisive).encode()])
    truth = np.arange(n_test) % len(emotions)
    right = rng.random(n_test) < 0.3 + 0.04 * (layer if layer is not None else 6)
    guess = np.where(right, truth, rng.integers(0, len(emotions), n_test))
    chances = rng.dirichlet(np.ones(len(emotions)), n_test)
    chances[np.arange(n_test), guess] += 1
    chances /= chances.sum(1, keepdims=True)
    score = 100 * float((guess == truth).mean())
    layers = [1, 2, 3, 4] if head == "multilayer" else [layer]
    config = ProbeConfig()
    settings = {name: getattr(config, name) for name in ("feature_norm", "epochs", "lr", "hidden")}
    history = [{"validation_score": score, "validation_loss": 1.0, "train_loss": 1.0, "lr": 5e-4}]
    return {
        **decisive,
        "seed": seed,
        "experiment": run_id(decisive),
        "method": 2,
        "settings": settings,
        "split": {"kind": "speaker", "seed": 0, "hash": run_id({"c": corpus}) * 5, "notes": []},
        "cache": {
            "file": f"{model}/{corpus}.h5",
            "hash": run_id({"m": model, "c": corpus}) * 5,
            "identity": {"model": model, "hub_id": None, "random_init": None},
        },
        "versions": {"lsmprobe": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6"},
        "device": "cpu",
        "created": "2026-01-01T00:00:00+00:00",
        "seconds": 1.0,
        "classes": list(emotions),
        "n_layers": 5,
        "layers": layers,
        "layer_weights": [0.1, 0.2, 0.3, 0.4] if head == "multilayer" else None,
        "folds": [
            {
                "n_train": 300,
                "n_validation": 40,
                "n_test": n_test,
                "best_epoch": 1,
                "layer_weights": None,
                "history": history,
            }
        ],
        "scores": {
            "macro_f1": score,
            "uar": score,
            "accuracy": score,
            "constant_f1": 5.0,
            "interval": {"low": score - 8, "high": score + 8, "over": "utterances only"},
        },
        "alarms": [],
        "predictions": [
            {
                "key": f"{i:03d}.wav",
                "speaker": f"s{i % 5}",
                "emotion": emotions[truth[i]],
                "predicted": emotions[guess[i]],
                "probabilities": [round(float(p), 6) for p in chances[i]],
            }
            for i in range(n_test)
        ],
        **changes,
    }


def write_records(folder, records):
    """Save records where `probe` would."""
    for record in records:
        which = [record[name] for name in ("model", "corpus", "head", "layer", "seed")]
        save_run(record_path(Path(folder), *which, record["experiment"]), record, {})
    return Path(folder)


def write_grid(folder, models, corpora, *, seeds=3, layers=(4,), heads=None):
    """The records of a grid: every model on every corpus with the paper's three heads."""
    kinds = heads or [*(("linear", layer) for layer in layers), ("nonlinear", 4)]
    if heads is None:
        kinds.append(("multilayer", None))
    return write_records(
        folder,
        (
            simulated_record(model, corpus, head, seed, layer)
            for model, corpus, (head, layer), seed in itertools.product(
                models, corpora, kinds, range(seeds)
            )
        ),
    )
