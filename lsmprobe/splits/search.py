"""The search for a split: utterances per speaker and class in, a part for each speaker out.

All assignments of speakers to parts are compared where they are few; where they are many, swaps
lead to the best ones. Arrays in, arrays out; which speakers and classes they are matters to none.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

MAX_EXHAUSTIVE = 3**12  # assignments that are all compared: 12 speakers in 3 parts, half a second
MAX_STARTS = 576  # over the squared number of parts: 64 descents by swaps where there are 3 parts
MAX_MOVED = 100  # speakers whose swaps one step compares; a random sample where there are more


def _badness(
    totals: Float[np.ndarray, "parts classes candidates"],
    fractions: Float[np.ndarray, " parts"],
    trains: Bool[np.ndarray, "folds parts"],
) -> Float[np.ndarray, "4 candidates"]:
    """What is wrong with each candidate, the gravest first; the smallest column, read down, wins.

    1. the empty parts;
    2. the classes that training lacks, over all folds (`trains`: the parts that it is made of);
    3. the classes that a part lacks which is validation or test in some fold;
    4. how far the sizes are from `fractions` f, each relative to its own, and how far the classes
       of each part are from the corpus's (total variation):

           sum_p ( |n_p / n - f_p| / f_p  +  1/2 sum_c |n_pc / n_p - n_c / n| )

       with n_pc utterances of class c in part p; an index that is left out is summed over.
    """
    held_out = ~trains.all(axis=0)
    sizes = totals.sum(axis=1)
    corpus = totals[:, :, 0].sum(axis=0)
    shares = totals / np.maximum(sizes, 1)[:, None]
    training = np.tensordot(trains.astype(float), totals, axes=1)
    size_off = np.abs(sizes / corpus.sum() - fractions[:, None]) / fractions[:, None]
    share_off = np.abs(shares - (corpus / corpus.sum())[:, None]).sum(axis=1) / 2
    return np.stack(
        [
            (sizes == 0).sum(axis=0),
            (training == 0).sum(axis=(0, 1)),
            (totals[held_out] == 0).sum(axis=(0, 1)),
            (size_off + share_off).sum(axis=0).round(9),  # ties are ties on every machine
        ]
    )


def _order(badness: Float[np.ndarray, "4 candidates"]) -> Int[np.ndarray, " candidates"]:
    return np.lexsort(badness[::-1])


def rank_assignments(
    counts: Float[np.ndarray, "speakers classes"],
    fractions: Float[np.ndarray, " parts"],
    trains: Bool[np.ndarray, "folds parts"],
) -> Int[np.ndarray, "candidates speakers"]:
    """The part of each speaker, best first: all assignments with the fewest gaps, or the optima.

    Args:
        counts: utterances.
        fractions: of the utterances that each part is to have; they sum to 1.
        trains: the parts that each fold trains on; the others are its validation and test.
    """
    n_speakers, n_parts = len(counts), len(fractions)
    if n_parts**n_speakers <= MAX_EXHAUSTIVE:
        candidates = _all_assignments(n_speakers, n_parts)
    else:
        rng = np.random.default_rng(0)
        found = []
        for start in range(max(2, MAX_STARTS // n_parts**2)):
            assignment = _random_assignment(counts, fractions, rng)
            # One speaker stays in the last part, another each time: optima with other test sets.
            pinned = start % n_speakers
            assignment[pinned] = n_parts - 1
            found.append(_descend(assignment, pinned, counts, fractions, trains, rng))
        candidates = np.stack(found)
    badness = np.concatenate(
        [
            _badness(_totals(some, counts, n_parts), fractions, trains)
            for some in np.array_split(candidates, len(candidates) // 10_000 + 1)
        ],
        axis=1,
    )
    order = _order(badness)
    gaps = badness[:3, order]
    return candidates[order[(gaps == gaps[:, :1]).all(axis=0)]]


def _all_assignments(n_speakers: int, n_parts: int) -> Int[np.ndarray, "candidates speakers"]:
    """Every assignment; among equals the one comes first whose first speakers are held out."""
    return n_parts - 1 - np.indices((n_parts,) * n_speakers).reshape(n_speakers, -1).T


def _random_assignment(
    counts: Float[np.ndarray, "speakers classes"],
    fractions: Float[np.ndarray, " parts"],
    rng: np.random.Generator,
) -> Int[np.ndarray, " speakers"]:
    """Speakers in random order fill one part after the other."""
    order = rng.permutation(len(counts))
    sizes = counts.sum(axis=1)[order]
    middles = (np.cumsum(sizes) - sizes / 2) / sizes.sum()
    assignment = np.empty(len(counts), dtype=int)
    assignment[order] = np.searchsorted(np.cumsum(fractions)[:-1], middles)
    return assignment


def _descend(
    assignment: Int[np.ndarray, " speakers"],
    pinned: int,
    counts: Float[np.ndarray, "speakers classes"],
    fractions: Float[np.ndarray, " parts"],
    trains: Bool[np.ndarray, "folds parts"],
    rng: np.random.Generator,
) -> Int[np.ndarray, " speakers"]:
    """Swap or move the speakers that help most, `pinned` aside, until no swap or move helps."""
    n_speakers, n_parts = len(counts), len(fractions)
    # A silent speaker waits in each part: a swap with one is a move.
    voices = np.concatenate([counts, np.zeros((n_parts, counts.shape[1]))])
    totals = _totals(assignment[None], counts, n_parts)
    badness = _badness(totals, fractions, trains)[:, 0]
    while True:
        part_of = np.concatenate([assignment, np.arange(n_parts)])
        free = rng.permutation(n_speakers)
        moved = np.sort(free[free != pinned][:MAX_MOVED])
        partners = np.concatenate([moved, np.arange(n_speakers, n_speakers + n_parts)])
        row, column = np.nonzero(np.triu(part_of[moved, None] != part_of[partners]))
        one, other = moved[row], partners[column]
        swapped = np.repeat(totals, len(one), axis=2)
        swap = np.arange(len(one))
        swapped[part_of[one], :, swap] += voices[other] - voices[one]
        swapped[part_of[other], :, swap] += voices[one] - voices[other]
        candidates = _badness(swapped, fractions, trains)
        best = _order(candidates)[0]
        if tuple(candidates[:, best]) >= tuple(badness):
            return assignment
        part_of[[one[best], other[best]]] = part_of[[other[best], one[best]]]
        assignment = part_of[:n_speakers]
        totals, badness = swapped[:, :, [best]], candidates[:, best]


def _totals(
    assignments: Int[np.ndarray, "candidates speakers"],
    counts: Float[np.ndarray, "speakers classes"],
    n_parts: int,
) -> Float[np.ndarray, "parts classes candidates"]:
    inside = np.arange(n_parts)[:, None, None] == assignments.T
    return counts.T @ inside.astype(float)


def choose(
    ranked: Int[np.ndarray, "candidates speakers"], marks: np.ndarray, seed: int
) -> tuple[Int[np.ndarray, " speakers"], tuple[str, ...]]:
    """The assignment for a seed among those whose rows of `marks` differ; a note if it repeats.

    Args:
        ranked: what `rank_assignments` found.
        marks: a row per candidate; of candidates with equal rows only the best counts.
        seed: 0 is the best; at most as many differ as there are speakers.
    """
    distinct: dict[bytes, np.ndarray] = {}
    for assignment, mark in zip(ranked, marks, strict=True):
        distinct.setdefault(mark.tobytes(), assignment)
        if len(distinct) > seed or len(distinct) == ranked.shape[1]:
            break
    same = seed % len(distinct)
    note = f"seed {seed} gives the split of seed {same} again: {len(distinct)} near-best are known"
    return list(distinct.values())[same], () if same == seed else (note,)
