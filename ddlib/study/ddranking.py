"""The scores of DD-Ranking (arXiv 2505.13300), computed from accuracies as fractions in 0..1.

They ask how much of a synthetic set's accuracy is the set's own merit, and how much comes with the evaluation
(soft labels, augmentation), by comparing with random real images and with the full data under one recipe.
"""

import math


def hlr(full: float, synthetic: float) -> float:
    """Hard-label recovery: accuracy of training on the full data minus accuracy on the synthetic set."""
    return _fraction(full) - _fraction(synthetic)


def ior(synthetic: float, random: float) -> float:
    """Improvement over random: accuracy of the synthetic set minus that of as many random real images."""
    return _fraction(synthetic) - _fraction(random)


def lrs(hlr: float, ior: float, weight: float = 0.5) -> float:
    """Label-robust score in 0..1: (e^a - 1/e) / (e - 1/e) with a = weight * IOR - (1 - weight) * HLR.

    >>> round(lrs(hlr=0.0, ior=0.0), 4)  # neither better than random images nor worse than the full data
    0.2689
    """
    advantage = weight * ior - (1 - weight) * hlr
    if not -1 <= advantage <= 1:
        raise ValueError(f"the score needs differences of fractions, not {advantage:g}: divide % by 100")
    return (math.exp(advantage) - math.exp(-1)) / (math.e - math.exp(-1))


def _fraction(accuracy: float) -> float:
    if not 0 <= accuracy <= 1:
        raise ValueError(f"an accuracy is a fraction in 0..1, not {accuracy:g}: divide % by 100")
    return float(accuracy)
