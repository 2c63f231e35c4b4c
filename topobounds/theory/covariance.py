"""How the numbers of forest edges among the k largest weights vary together, for many k, in the limit of large layers.

Setting as in `topobounds.theory.overlap`: R_k is the number of forest edges among the k largest weights of an m x n
layer whose weights come in uniformly random order.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topobounds.theory.overlap import giant_share

FloatArray = NDArray[np.float64]


def rank_covariance(m: int, n: int, ks: ArrayLike) -> FloatArray:
    """Return the limit of Cov(R_k, R_k') for all pairs of numbers of largest weights.

    With x, y the shares of rows and columns in the giant component (see `overlap_limit`), u = 1 - x, v = 1 - y, and
    primes at the larger k', ::

        m u' (1 - u) + n v' (1 - v) - k u' v' + k (u v' + v u') - k (1 - x y)(1 - x' y')

    Derived in docs/theory/persistence_null.md, "Standard deviation"; a limit, not a bound.

    Parameters
    ----------
    m, n : int
        Rows and columns, at least 1.
    ks : array_like of float
        Numbers of largest weights, rising, above 0.

    Returns
    -------
    ndarray of float64 of shape (len(ks), len(ks))
        Symmetric. 0 for k or k' up to criticality, sqrt(m n), where the variance stays bounded as layers grow.

    Examples
    --------
    >>> rank_covariance(300, 100, [399, 600]).round(1).tolist()
    [[30.6, 14.9], [14.9, 24.4]]
    """
    counts = np.asarray(ks, np.float64)
    x = np.array([giant_share(k / m, k / n) for k in counts])
    u = 1 - x
    v = np.exp(-counts / n * x)
    not_both = u + v - u * v  # 1 - x y
    earlier = np.minimum.outer(np.arange(counts.size), np.arange(counts.size))
    later = np.maximum.outer(np.arange(counts.size), np.arange(counts.size))
    k = counts[earlier]
    rows = m * u[later] * (1 - u[earlier])
    columns = n * v[later] * (1 - v[earlier])
    edges = k * (u[earlier] * v[later] + v[earlier] * u[later] - u[later] * v[later])
    covariance: FloatArray = rows + columns + edges - k * not_both[earlier] * not_both[later]
    return covariance
