"""A dense layer of which the largest weights are kept: the arguments m, n and k, checked once."""

from typing import NamedTuple

from topobounds._arguments import argument_error, integer

_LARGEST_SIDE = 2**63 - 1  # beyond, nothing is a layer, and powers of its size overflow a double


class Shape(NamedTuple):
    """A layer of m rows and n columns, and how many of its largest weights are kept.

    Functions that are called by users check their arguments with `Shape.checked` and hand this record on, so that
    what they call need not check again.

    Attributes
    ----------
    m, n : int
        Rows and columns, at least 1.
    k : int
        Largest weights kept, 0 to m n.
    """

    m: int
    n: int
    k: int

    @classmethod
    def checked(cls, m: int, n: int, k: int | None) -> "Shape":
        """Return m, n and k as integers, with k = m + n - 1 for None.

        Raises
        ------
        ValueError
            If m or n is no positive integer or beyond 2^63 - 1, or k is no integer from 0 to m n.
        """
        m, n = integer("m", m, 1), integer("n", n, 1)
        for name, side in (("m", m), ("n", n)):
            if side > _LARGEST_SIDE:
                raise argument_error(name, "at most 2^63 - 1", side)
        return cls(m, n, m + n - 1 if k is None else integer("k", k, 0, m * n))

    @property
    def cells(self) -> int:
        """Weights of the complete layer, m n."""
        return self.m * self.n

    @property
    def alpha(self) -> int:
        """Edges of a spanning tree of the complete layer, m + n - 1."""
        return self.m + self.n - 1
