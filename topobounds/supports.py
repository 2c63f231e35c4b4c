"""Which cells of a layer carry a weight: the kinds of supports, their cells, and how a random one is drawn."""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import SupportsFloat

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topobounds._arguments import argument_error, as_written, choice, density_fraction
from topobounds._memory import check_layer_memory
from topobounds._types import Integers

SUPPORTS = ("uniform", "star", "block")


def cells_at_density(m: int, n: int, density: SupportsFloat) -> int:
    """Return how many of the m n cells a support of this density has, wherever they are.

    The density is read as it is written (0.1 is one tenth), multiplied exactly and rounded to the nearest integer,
    halves to even.

    Parameters
    ----------
    m, n : int
        Rows and columns.
    density : float or Fraction
        In (0, 1].

    Returns
    -------
    int
        From 0, where the density is below half a cell, to m n.

    Examples
    --------
    >>> cells_at_density(5, 20, 0.235), round(0.235 * 5 * 20)
    (24, 23)
    """
    return round(as_written(density) * m * n)


def fewest_cells(m: int, n: int, support: str) -> int:
    """Return how many cells a support of this kind has at least: a star and a block hold row 0 and column 0.

    Examples
    --------
    >>> fewest_cells(784, 300, "uniform"), fewest_cells(784, 300, "star")
    (1, 1083)
    """
    return 1 if support == "uniform" else m + n - 1


@dataclass(frozen=True, eq=False)
class Support:
    """Which cells of an m x n layer carry a weight: some are fixed, the others are drawn among the free cells.

    Cells are flat row-major indices. There are `cells` cells in all. Those in `fixed` are always among them; the
    ``cells - len(fixed)`` others are uniformly random among the free cells, which are all cells outside row 0,
    column 0 and the top-left square of side `side`. Where `fixed` is None, every cell is free.

    Attributes
    ----------
    m, n : int
        Rows and columns of the layer.
    name : str
        ``"uniform"``, ``"star"`` or ``"block"``; ``"mask"`` where every cell is fixed by a mask.
    density : float
        As it was asked for; that of the mask where there is one.
    cells : int
        Number of cells that carry a weight.
    fixed : ndarray of int64, or None
        The fixed cells.
    side : int
        Rows and columns of the square that is fixed at the top left; 1 for a star, whose square is one cell.
    alpha : int or None
        Edges of the support's spanning forest; None if it differs from draw to draw, or has not been counted.
    """

    m: int
    n: int
    name: str
    density: float
    cells: int
    fixed: Integers | None = None
    side: int = 0
    alpha: int | None = None

    @property
    def complete_alpha(self) -> int:
        """Edges of a spanning tree of the complete layer, m + n - 1."""
        return self.m + self.n - 1

    @cached_property
    def fixed_edges(self) -> NDArray[np.uint32]:
        """The fixed cells as pairs of vertices: those of the shorter side come first, the higher end stands first."""
        rows, columns = divmod(np.empty(0, np.int64) if self.fixed is None else self.fixed, self.n)
        ends = (self.n + rows, columns) if self.m >= self.n else (self.m + columns, rows)
        return np.array(ends, np.uint32)

    @property
    def n_free(self) -> int:
        """Number of the free cells."""
        if self.fixed is None:
            return self.m * self.n
        return self.n_right + (self.m - self.side) * (self.n - 1)

    @property
    def n_right(self) -> int:
        """Number of the free cells to the right of the square."""
        return (self.side - 1) * (self.n - self.side)

    def free_cells(self, index: Integers) -> Integers:
        """Return the free cells of these indices: first those right of the square, then the rows below it."""
        width = max(self.n - self.side, 1)
        right = self.n * (1 + index // width) + self.side + index % width
        below = index - self.n_right
        under = self.n * (self.side + below // (self.n - 1)) + 1 + below % (self.n - 1)
        return np.where(index < self.n_right, right, under)

    def draw_mask(self, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Return the mask of one support: the fixed cells, and as many of the free ones as are missing.

        Parameters
        ----------
        rng : numpy.random.Generator
            Where the randomness comes from.

        Returns
        -------
        ndarray of bool of shape (m, n)
            True in exactly `cells` cells.

        Raises
        ------
        ValueError
            If the machine has too little memory for a layer of this shape.

        Examples
        --------
        >>> support = read_support(4, 5, 0.5, "star")
        >>> support.draw_mask(np.random.default_rng(0)).astype(int).tolist()
        [[1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [1, 0, 0, 0, 1], [1, 0, 1, 0, 0]]
        """
        check_layer_memory(self.m, self.n)
        mask = np.zeros((self.m, self.n), np.bool_)
        n_fixed = 0
        if self.fixed is not None:
            mask.flat[self.fixed] = True
            n_fixed = self.fixed.size
        free = np.flatnonzero(~mask)
        mask.flat[rng.choice(free, self.cells - n_fixed, replace=False)] = True
        return mask


def read_support(m: int, n: int, density: float = 1.0, support: str | ArrayLike = "uniform") -> Support:
    """Return the support of a layer, its kind and density checked.

    Parameters
    ----------
    m, n : int
        Rows and columns, at least 1.
    density : float
        Share of the m n cells that carry a weight, in (0, 1]; there are exactly `cells_at_density` of them.
    support : {"uniform", "star", "block"} or array of bool, shape (m, n)
        Where they are. ``"uniform"``: uniformly random. ``"star"``: all of row 0 and column 0, the rest uniformly
        random. ``"block"``: row 0 and column 0, then the top-left s x s square, s as large as fits, the rest uniformly
        random. An array is the support itself; `density` is then not given.

    Returns
    -------
    Support
        With the alpha of every kind whose draws are all connected; that of a mask is not counted here.

    Raises
    ------
    ValueError
        If the density is out of range or too small for this kind, or the mask is no mask of this layer.

    Examples
    --------
    >>> support = read_support(784, 300, 0.1, "block")
    >>> support.cells, support.side, support.fixed.size
    (23520, 150, 23284)
    """
    as_given = density
    density = density_fraction("density", density)
    if not isinstance(support, str):
        return _of_mask(m, n, density, support)
    choice("support", support, SUPPORTS)
    if density == 1.0:
        return replace(uniform_support(m, n, density, m * n), name=support)
    cells = cells_at_density(m, n, as_given)
    fewest = fewest_cells(m, n, support)
    if cells < fewest:
        of_kind = "" if support == "uniform" else f" for support {support!r}"
        number = "one" if support == "uniform" else str(fewest)
        rule = f"at least {fewest / (m * n)!r}{of_kind}, {number} of the {m * n} cells"
        raise argument_error("density", rule, density)
    if support == "uniform":
        return uniform_support(m, n, density, cells)
    return _with_cross(m, n, density, cells, support)


def uniform_support(m: int, n: int, density: float, cells: int) -> Support:
    """Return the uniformly random support of so many cells; the arguments are checked already."""
    return Support(m, n, "uniform", density, cells, alpha=m + n - 1 if density == 1 else None)


def _with_cross(m: int, n: int, density: float, cells: int, support: str) -> Support:
    """Return the star or the block of this many cells, both with row 0 and column 0."""
    alpha = m + n - 1
    # A square of side s lies on the cross with 2 s - 1 of its cells, so it adds (s - 1)^2.
    side = 1 if support == "star" else 1 + min(math.isqrt(cells - alpha), m - 1, n - 1)
    inner = np.arange(1, side)
    parts = (np.arange(n), np.arange(1, m) * n, (inner[:, None] * n + inner).ravel())
    return Support(m, n, support, density, cells, np.concatenate(parts), side, alpha)


def _of_mask(m: int, n: int, density: float, support: ArrayLike) -> Support:
    """Return the support that is the True cells of a mask."""
    mask = np.asarray(support)
    if mask.shape != (m, n) or mask.dtype != np.bool_:
        given = f"{mask.dtype} {mask.shape}"
        raise ValueError(f"Argument 'support' must be one of {SUPPORTS} or a bool array ({m}, {n}), not {given}.")
    if density != 1.0:
        raise argument_error("density", "left out where 'support' is a mask", density)
    fixed = np.flatnonzero(mask)
    if not fixed.size:
        raise ValueError("Argument 'support' must have at least one cell that is True, not 0.")
    return Support(m, n, "mask", fixed.size / (m * n), fixed.size, fixed, side=1)
