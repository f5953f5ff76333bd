"""Seeds of a run's random draws: 32 bits from everything that a draw depends on.

PyTorch's generator on a CPU takes the low 32 bits of a seed and drops the rest, so that seeds must
not be put together by shifting one against the other; they are hashed.
"""

import numpy as np

INITIALISATION, ORDER, DROPOUT = range(3)  # what is drawn


def seed_of(purpose: int, seed: int, fold: int, step: int = 0) -> int:
    """32 bits for one purpose, run, fold and step (or epoch), and for no other.

    Source: O'Neill 2015, the hash behind `numpy.random.SeedSequence`.
    """
    return int(np.random.SeedSequence([purpose, seed, fold, step]).generate_state(1)[0])
