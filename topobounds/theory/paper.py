"""The paper's claims as it prints them, each with what is known of it.

Balwani and Krzyston, *Zeroth-Order Topological Insights into Iterative Magnitude Pruning*, PMLR 196:6-16, 2022.
A claim that turned out false stays here in its printed form; what replaces it is in `topobounds.theory.bounds`.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

from topobounds._arguments import argument_error, density_fraction
from topobounds._records import Record
from topobounds.layers import Layer
from topobounds.layers.shape import Shape
from topobounds.supports import cells_at_density

MOST_TERMS = 2**24  # of a printed sum: some five seconds
EXCHANGEABLE = "for exchangeable |w| with almost surely distinct magnitudes (i.i.d. continuous weights suffice)"


@dataclass(frozen=True)
class PrintedClaim(Record):
    """A printed bound, evaluated, with what is known of the claim.

    Attributes
    ----------
    value : float or None
        The printed formula's value, in [0, 1]; None where the formula has none.
    status : str
        ``"proved"``, ``"false"``, or ``"undefined"`` where the claim says nothing.
    reason : str
        The hypothesis under which it is proved, the counterexample, or why there is no value.
    """

    value: float | None
    status: str
    reason: str


def theorem_3_3(m: int, n: int) -> PrintedClaim:
    r"""Return Theorem 3.3: the printed lower bound on the expected overlap of a dense layer.

    With ``j = min(m, n)``::

        E[X] >= 1 / (m + n - 1) * sum_{i=0}^{j} (m - i) (n - i) / (m n - i)        j >= 2
        E[X]  = 1                                                                   j  = 1

    X is the share of the m + n - 1 edges of the maximum spanning tree that are among the m + n - 1 largest weights.
    The sum is evaluated as it stands: its closed form with harmonic numbers cancels in floating point.

    Parameters
    ----------
    m, n : int
        Inputs and outputs, at least 1.

    Returns
    -------
    PrintedClaim
        Status ``"proved"``; the reason names the hypothesis. `star_bound` and `boruvka_bound` are larger.

    Raises
    ------
    ValueError
        If `m` or `n` is no integer from 1 to 2^63 - 1, or both are beyond 2^24, so that the sum is too long.

    Examples
    --------
    >>> round(theorem_3_3(784, 300).value, 4)
    0.1213
    """
    return theorem_3_3_of(Shape.checked(m, n, None))


def theorem_3_3_of(shape: Shape) -> PrintedClaim:
    """Return `theorem_3_3` of a checked shape."""
    _check_summable(shape)
    return PrintedClaim(printed_sum(shape.m, shape.n, shape.cells), "proved", f"Holds {EXCHANGEABLE}.")


def corollary_3_4(m: int, n: int, density: float | Fraction) -> PrintedClaim:
    """Return Corollary 3.4: the printed lower bound at density p, which is false for p < 1.

    With ``j = min(m, n)``::

        E[X] >= min(1, 1 / (m + n - 1) * sum_{i=0}^{j} (m - i) (n - i) / (p m n - i))

    The numerator counts all fresh cells, of which only a fraction p carries a weight. At ``density = 1`` this is
    Theorem 3.3. For bounds that hold at every density see `topobounds.theory.bounds`.

    Parameters
    ----------
    m, n : int
        Inputs and outputs, at least 1.
    density : float or Fraction
        Fraction p of the cells that carry a weight, in (0, 1].

    Returns
    -------
    PrintedClaim
        Status ``"false"``, or ``"proved"`` at density 1; ``"undefined"`` with value None where a support of
        p m n cells, rounded, is too small to be connected, which the corollary presumes.

    Raises
    ------
    ValueError
        If an argument is out of range, or m and n are both beyond 2^24.

    Examples
    --------
    >>> claim = corollary_3_4(8, 8, 0.25)
    >>> round(claim.value, 4), claim.status
    (0.9616, 'false')
    """
    shape = Shape.checked(m, n, None)
    _check_summable(shape)
    density_fraction("density", density)
    return corollary_3_4_of(shape, density)


def corollary_3_4_of(shape: Shape, density: float | Fraction) -> PrintedClaim:
    """Return `corollary_3_4` of a checked shape and density."""
    _check_summable(shape)
    m, n, _ = shape
    p = float(density)
    if p == 1:
        return theorem_3_3_of(shape)
    cells = cells_at_density(m, n, density)
    if cells < shape.alpha:
        return PrintedClaim(
            None, "undefined", f"{cells} weights cannot connect {m + n} neurons: that takes {shape.alpha}."
        )
    return PrintedClaim(
        min(1.0, printed_sum(m, n, p * m * n)),
        "false",
        "False below density 1. On an 8x8 layer at density 1/4 whose weights form a 4-cycle with 12 pendant edges, "
        "E[X] = 1/4 + 3/4 * 14/15 = 19/20, below the 0.9616 printed.",
    )


def _check_summable(shape: Shape) -> None:
    """Refuse a layer whose sum over min(m, n) terms would take too long."""
    m, n, _ = shape
    if min(m, n) > MOST_TERMS:
        raise argument_error("m", f"at most 2^24 where n is {n}, as the sum has min(m, n) terms", m)


def printed_counts(layer: Layer) -> tuple[int, int]:
    """Return the numerator and the denominator of the printed eta_tau (Definition 3.1, Theorem 3.2).

    ============= ============================= ==============================================================
    layer         eta_tau
    ============= ============================= ==============================================================
    dense         m n / (m + n - 1)             m inputs, n outputs
    recurrent     l^2 / (2 l - 1)               l hidden units
    convolutional n f1 f2 ... / (m + n - 1)     m cells of the padded input, n cells of the output, one channel
    ============= ============================= ==============================================================

    The paper does not say whether m of a convolution counts the padding; Table 1 is reproduced only if it does.

    Parameters
    ----------
    layer : Dense or Recurrent or Unrolled or Conv
        The layer. Channels, stride, dilation and groups of a convolution enter only through the size of its output;
        a transposed one is counted with inputs and outputs exchanged. An unrolled layer, which the paper does not
        print, has T l (l + d) edges on (T + 1) l + T d neurons.

    Returns
    -------
    tuple of int
        Weights (edges) and what is kept (edges of a spanning tree).

    Examples
    --------
    >>> from topobounds.layers import Dense
    >>> printed_counts(Dense(784, 300))
    (235200, 1083)
    """
    counts = layer.printed_counts
    return counts.weights, counts.kept


def printed_sum(m: int, n: int, cells: float) -> float:
    """Return the sum of Theorem 3.3 (cells = m n) or Corollary 3.4 (p m n) over alpha, term by term; 1 if j = 1.

    For cells >= m + n - 3/2 no denominator is <= 0.
    """
    if min(m, n) == 1:
        return 1.0
    return math.fsum((m - i) * (n - i) / (cells - i) for i in range(min(m, n))) / (m + n - 1)
