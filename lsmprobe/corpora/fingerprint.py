"""Fingerprints that show a clip again after its gain was changed or its silence trimmed."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

SLICES = 64  # of time
BANDS = 8  # of frequency
QUIET = 0.15  # of the peak, 16 dB below it: what lies before and after is not compared
ALIKE = 0.98  # cosine of two fingerprints; the nearest two clips of EmoDB have 0.89
LENGTHS_ALIKE = 0.03  # how far two lengths of the same clip may differ, relatively


class Fingerprint(NamedTuple):
    """The samples between the silences, and how their energy lies in time and frequency."""

    n_samples: int
    energy: Float[np.ndarray, " slices*bands"]  # of length 1


def fingerprint(waveform: Float[np.ndarray, " samples"]) -> Fingerprint:
    """The fingerprint of a clip that is not silent."""
    loud = np.flatnonzero(np.abs(waveform) > QUIET * np.abs(waveform).max())
    heard = waveform[loud[0] : loud[-1] + 1].astype(np.float64)
    width = max(2 * BANDS, -(-len(heard) // SLICES))
    slices = np.pad(heard, (0, width * SLICES - len(heard))).reshape(SLICES, width)
    spectrum = np.abs(np.fft.rfft(slices, axis=1)) ** 2
    # Octaves: the lowest band is an eighth of an eighth, as speech has most of its energy there.
    edges = np.unique([0, *(len(spectrum[0]) * 2.0 ** np.arange(1 - BANDS, 1)).astype(int)])
    bands = np.add.reduceat(spectrum, edges[:-1], axis=1)
    energy = np.zeros((SLICES, BANDS))
    energy[:, : bands.shape[1]] = np.sqrt(bands)
    return Fingerprint(len(heard), (energy / np.linalg.norm(energy)).ravel().astype(np.float32))


def same_recordings(prints: Sequence[Fingerprint | None]) -> list[list[int]]:
    """Groups of two or more clips that are the same recording, up to gain and silence.

    Args:
        prints: of each clip; None is like no other.
    """
    known = sorted((p.n_samples, i) for i, p in enumerate(prints) if p is not None)
    lengths = np.array([n for n, _ in known])
    energies = np.array([prints[i].energy for _, i in known])  # type: ignore[union-attr]
    group = list(range(len(known)))
    for one in range(len(known)):
        stop = np.searchsorted(lengths, lengths[one] * (1 + LENGTHS_ALIKE), side="right")
        alike = one + 1 + np.flatnonzero(energies[one + 1 : stop] @ energies[one] > ALIKE)
        for other in alike:
            old, new = group[other], group[one]
            group = [new if each == old else each for each in group] if old != new else group
    members: dict[int, list[int]] = {}
    for place, each in enumerate(group):
        members.setdefault(each, []).append(known[place][1])
    return sorted(sorted(each) for each in members.values() if len(each) > 1)
