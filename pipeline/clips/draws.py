"""Random distributions for all modules that draw clips."""

import math

import numpy as np


def log_uniform(random: np.random.Generator, low: float, high: float) -> float:
    """A number from `low` to `high`, both positive, with uniform logarithm."""
    return math.exp(random.uniform(math.log(low), math.log(high)))
