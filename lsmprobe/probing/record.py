"""The record of a finished run: everything that is known of it, and its head read back."""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lsmprobe.cache.selection import layers_of_model
from lsmprobe.probing.heads import Probe
from lsmprobe.probing.objectives import objective_of
from lsmprobe.probing.run import METHOD, Run
from lsmprobe.probing.table import NORMS, head_of
from lsmprobe.probing.task import Task
from lsmprobe.results.alarms import Alarm, audio_alarms, layer_alarms, speaker_alarms
from lsmprobe.results.measures import EMOTION
from lsmprobe.results.records import run_id
from lsmprobe.splits.confounds import confounds
from lsmprobe.splits.voices import clips_in_train, voices_of
from lsmprobe.version import __version__


def run_record(
    task: Task,
    run: Run,
    *,
    layers: Sequence[int],
    layer_weights: Sequence[Sequence[float]],
    best_epochs: Sequence[int],
    histories: Sequence[Sequence[Mapping[str, float | None]]],
    probabilities: Sequence[np.ndarray],
    seconds: float,
    device: str,
    shared_pools: bool = False,
) -> dict[str, Any]:
    """Everything that is known of a finished run, as plain values.

    Args:
        task: what was learned.
        run: how.
        layers: those that the head reads.
        layer_weights: of each fold, if the head weighs layers, else none.
        best_epochs: of each fold, counted from 1.
        histories: of each fold, one entry per epoch.
        probabilities: of each fold, (test utterances, outputs), or what else the objective keeps.
        seconds: that the run took.
        device: where it ran.
        shared_pools: whether memory was too small for an order of its own.
    """
    tested = np.concatenate([fold.test for fold in run.split.folds])
    kept_of_all = np.concatenate(probabilities)
    objective = task.objective
    answers = objective.answers(kept_of_all)
    table = task.utterances.iloc[tested]
    truth = task.labels[tested]
    found = objective.evaluate(truth, answers, table.speaker.to_numpy(), task.classes)
    alarms = found.alarms + _alarms_of_layers(task, layers)
    if task.target == EMOTION:
        alarms += [Alarm("confounded", str(each)) for each in confounds(task.utterances)]
    if "speaker" not in task.target:  # a voice can only be known again
        voices = voices_of(run.split, task.utterances.speaker.to_numpy(str))
        alarms += speaker_alarms(**voices._asdict())
    alarms += audio_alarms(clips_in_train(run.split, task.utterances), len(tested))
    told = {"test_set": run.split.test_set, "source": run.split.source}
    if run.whole_hash != run.split_hash:
        told["whole"] = run.whole_hash
    return {
        "model": task.model,
        "corpus": task.corpus,
        "head": run.head,
        "layer": run.layer,
        "seed": run.seed,
        "experiment": run.experiment,
        "method": METHOD,
        "objective": objective.name,
        "measure": objective.measure.name,
        "target": list(task.target),
        "labels": {
            "hash": run_id(task.learned),
            "file": task.labels_file,
            **({"of": [dict(each) for each in task.of]} if task.of else {}),
        },
        "settings": dict(run.settings),
        "split": {
            "kind": run.split.kind,
            "seed": run.split.seed,
            "hash": run.split_hash,
            "notes": list(run.split.notes),
            **{name: said for name, said in told.items() if said},
        },
        "cache": {
            "file": f"{task.cache.path.parent.name}/{task.cache.path.name}",
            "hash": task.cache.identity_hash,
            "identity": task.cache.identity,
        },
        "versions": {
            "lsmprobe": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "device": device,
        "batches": "from pools that all seeds share" if shared_pools else "in an order of its own",
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        "classes": list(task.classes),
        "n_layers": layers_of_model(task.cache),
        "dim": task.cache.dim,
        "layers": list(layers),
        "layer_weights": np.mean(layer_weights, 0).tolist() if layer_weights else None,
        "folds": [
            {
                "n_train": len(fold.train),
                "n_validation": len(fold.validation),
                "n_test": len(fold.test),
                "best_epoch": best_epochs[number],
                "layer_weights": layer_weights[number] if layer_weights else None,
                "history": histories[number],
            }
            for number, fold in enumerate(run.split.folds)
        ],
        "scores": found.scores,
        "alarms": [alarm._asdict() for alarm in alarms],
        "predictions": [
            {
                "key": row.key,
                "speaker": row.speaker,
                "emotion": row.emotion,
                **(
                    {} if task.target == EMOTION else {"truth": objective.truth(true, task.classes)}
                ),
                **objective.shown(kept, answer, task.classes),
            }
            for row, true, answer, kept in zip(
                table.itertuples(), truth, answers, kept_of_all, strict=True
            )
        ],
    }


def saved_probe(record: Mapping[str, Any], tensors: Mapping[str, Tensor], fold: int = 0) -> Probe:
    """The head that a run trained on one fold, ready to be used.

    Args:
        record: of the run, as `load_record` gives it.
        tensors: of the run, as `load_head` gives them.
        fold: counted from 0.
    """
    own = {name.partition(".")[2]: t for name, t in tensors.items() if name.startswith(f"{fold}.")}
    saved = {
        part: {
            name.removeprefix(f"{part}."): tensor
            for name, tensor in own.items()
            if name.startswith(f"{part}.")
        }
        for part in ("norm", "head", "scale")
    }
    norm = NORMS[record["settings"]["feature_norm"]].load(saved["norm"])
    row, objective = head_of(record), objective_of(record)
    head = row.build(
        len(record["layers"]),
        record["dim"] if "dim" in record else saved["head"][row.input_weight].shape[-1],
        len(record["classes"]),
        record["settings"],
    )
    probe = Probe(norm, head, objective.load_scale(saved["scale"]))
    probe.load_state_dict(own)
    return probe.eval()


def _alarms_of_layers(task: Task, layers: Sequence[int]) -> list[Alarm]:
    """What is suspicious about the layers that a head read."""
    over_time = int(task.lengths.max()) > 1
    return [
        alarm
        for layer in layers
        for alarm in layer_alarms(
            task.cache.means_of(task.rows, [layer])[:, 0],
            task.cache.stds_of(task.rows, [layer])[:, 0],
            layer,
            over_time=over_time,
        )
    ]
