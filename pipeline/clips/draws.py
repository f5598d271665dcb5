"""Random numbers that more than one part of a clip needs."""

import math

import numpy as np


def log_uniform(random: np.random.Generator, low: float, high: float) -> float:
    """A number from `low` to `high`, each doubling as likely as the next; both are positive."""
    return math.exp(random.uniform(math.log(low), math.log(high)))
