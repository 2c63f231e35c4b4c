"""When to stop training: once the mean normalised neural persistence no longer grows."""

import math
import sys
from collections.abc import Iterable
from typing import SupportsFloat

from topobounds._arguments import integer, items, real


def stopping_epoch(series: Iterable[SupportsFloat], patience: int, burn_in: int, min_delta: float = 0.0) -> int | None:
    """Return the epoch after which training stops because neural persistence no longer grows.

    After the first `burn_in` epochs, the value of an epoch is an improvement if it exceeds the largest since then by
    more than `min_delta`; the first one always is. Training stops after `patience` epochs in a row without one.

    Parameters
    ----------
    series : iterable of float
        Mean normalised neural persistence of the network after epochs 1, 2, ...: the average over its layers.
    patience : int
        Epochs in a row without an improvement, at least 1.
    burn_in : int
        Epochs at the start that are not looked at, at least 0.
    min_delta : float
        What an improvement has to exceed, at least 0.

    Returns
    -------
    int or None
        The number of the epoch, from 1; at least ``burn_in + 1 + patience``. None if the series ends before.

    Raises
    ------
    ValueError
        If an argument is out of range, or a value of the series is NaN or infinite.

    References
    ----------
    Rieck et al., *Neural persistence: a complexity measure for deep neural networks using algebraic topology*, ICLR
    2019 (arXiv 1812.09764), section 4.2 and algorithm 2.

    Examples
    --------
    >>> stopping_epoch([0.1, 0.2, 0.3, 0.3, 0.29, 0.4], patience=2, burn_in=1)
    5
    >>> stopping_epoch([0.1, 0.2, 0.3, 0.3, 0.29, 0.4], patience=3, burn_in=1) is None
    True
    """
    patience = integer("patience", patience, 1)
    burn_in = integer("burn_in", burn_in, 0)
    min_delta = real("min_delta", min_delta, "a number of at least 0", 0.0, math.inf)
    best = -math.inf
    without = 0
    largest = sys.float_info.max
    values = [
        real("series", v, "a sequence of finite numbers", -largest, largest) for v in items("series", series, "numbers")
    ]
    for epoch, value in enumerate(values[burn_in:], burn_in + 1):
        if value > best + min_delta:
            best = value
            without = 0
        else:
            without += 1
        if without == patience:
            return epoch
    return None
