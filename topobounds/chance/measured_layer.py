"""One layer or kernel read for a null hypothesis: its magnitudes, its support, and its spanning forest."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topobounds._types import FloatArray, Integers
from topobounds.chance.magnitudes import largest_magnitudes
from topobounds.chance.sampling import RANKS_AT_A_TIME, Sample, Sampling, live_taps, of_random_orders, sample_supports
from topobounds.layers import Conv
from topobounds.theory.persistence import sufficient_rank
from topobounds.topology.moments import weight_moments
from topobounds.topology.spanning import SpanningForest, maximum_spanning_forest
from topobounds.weights import ScaledWeights, mask_matrix, non_zero, stored_matrix, weight_array, weight_matrix

if TYPE_CHECKING:
    from topobounds.topology.convolution import CriticalWeights


NEARLY_FULL = 0.25  # forest edges by which absent cells may shift an expected number of them


@dataclass(frozen=True, eq=False)
class MeasuredLayer:
    """A dense layer and its maximum spanning forest.

    Attributes
    ----------
    matrix : ndarray or ScaledWeights
        The weights; codes of one byte as they are stored, where there is no mask.
    support : ndarray of bool, or None
        The mask; None if it is True everywhere.
    forest : SpanningForest
        Of the weights of the mask that are not zero.
    n_nonzero : int or None
        How many these are, where it has been counted.
    known_largest : ndarray of float64, or None
        What `largest` is, where it is known.
    """

    matrix: NDArray[Any] | ScaledWeights
    support: NDArray[np.bool_] | None
    forest: SpanningForest
    n_nonzero: int | None = None
    known_largest: FloatArray | None = None
    _ranks: dict[Sampling, Integers] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(
        cls,
        weights: ArrayLike,
        mask: ArrayLike | None = None,
        forest: SpanningForest | None = None,
        n_nonzero: int | None = None,
        largest: FloatArray | None = None,
    ) -> "MeasuredLayer":
        """Read a layer.

        Parameters
        ----------
        weights, mask
            As in `maximum_spanning_forest`.
        forest : SpanningForest, optional
            The forest of these weights under this mask, where it is known; its rows may be their columns.
        n_nonzero : int, optional
            The weights of the mask that are not zero, where they have been counted.
        largest : ndarray of float64, optional
            About `sufficient_rank` of the largest |w| under the mask, falling, where they are known.

        Raises
        ------
        ValueError
            As `maximum_spanning_forest`.
        """
        matrix = stored_matrix(weights)
        support = None if mask is None else mask_matrix(mask, matrix.shape)
        if support is not None and support.all():
            support = None
        if support is not None:
            matrix = weight_matrix(weights)
        if forest is None:
            forest = maximum_spanning_forest(matrix, support)
        return cls(matrix, support, forest, n_nonzero, largest)

    @cached_property
    def largest(self) -> FloatArray:
        """The largest |w|, falling, without zeros: all, or about as many as are wanted."""
        if self.known_largest is not None:
            return self.known_largest
        if self.support is None:
            return largest_magnitudes(self.matrix, sufficient_rank(*self.forest.shape))
        values = np.abs(np.asarray(self.matrix)[self.support].astype(np.float64))
        return np.asarray(np.sort(values[values > 0])[::-1])

    @cached_property
    def n_weights(self) -> int:
        """Weights of the mask that are not zero."""
        if self.n_nonzero is not None:
            return self.n_nonzero
        return weight_moments(self.matrix).nonzero if self.support is None else self.largest.size

    @property
    def shape(self) -> tuple[int, int]:
        """Rows m and columns n."""
        return self.forest.shape

    @property
    def n_absent(self) -> int:
        """Cells that are zero, or not of the mask."""
        return self.matrix.size - self.n_weights

    def shift_at(self, rank: int) -> float:
        """Return by how many forest edges among the largest `rank` weights absent cells may shift their expectation.

        d absent cells, of a connected support, shift it by at most d / `n_weights` of it.
        """
        return min(rank, self.forest.alpha) * self.n_absent / self.n_weights

    @property
    def may_be_nearly_full(self) -> bool:
        """Whether the support is connected, and so few cells are absent that bounds might hardly widen."""
        alpha = self.forest.alpha
        return alpha == sum(self.shape) - 1 and self.shift_at(alpha) <= math.sqrt(alpha)

    @cached_property
    def present(self) -> NDArray[np.bool_]:
        """Where a weight is that is not zero."""
        nonzero = non_zero(self.matrix)
        return nonzero if self.support is None else nonzero & self.support

    def sample(self, statistic: Callable[[Integers], FloatArray], sampling: Sampling) -> Sample:
        """Return a statistic of the forest with the layer's values in random orders on its support.

        Parameters
        ----------
        statistic : callable
            As for `sample_supports`. The orders are drawn once for several statistics, unless they are too many.
        sampling : Sampling
            How many orders are drawn, by which seed.

        Raises
        ------
        ValueError
            If the layer has 2^32 cells or more.
        """
        alpha = self.forest.alpha
        if sampling.trials * alpha > RANKS_AT_A_TIME:
            return sample_supports(self.present, alpha, statistic, *sampling)
        if sampling not in self._ranks:
            self._ranks[sampling] = of_random_orders(self.present, alpha, lambda ranks: ranks, *sampling)
        return Sample(statistic(self._ranks[sampling]), sampling.seed)

    @property
    def magnitudes(self) -> FloatArray:
        """All |w| that are not zero, falling."""
        if self.largest.size == self.n_weights:
            return self.largest
        return np.sort(np.abs(np.asarray(self.matrix).astype(np.float64)).ravel())[::-1][: self.n_weights]


@dataclass(frozen=True, eq=False)
class MeasuredKernel:
    """The kernel of a convolution and its critical weights.

    Attributes
    ----------
    kernel : ndarray of floats of shape ``conv.weight_shape``
        The weights.
    conv : Conv
        The geometry.
    present : ndarray of bool of that shape
        The weights that are not zero and, under a mask, not masked.
    critical : CriticalWeights
        Of the weights that are present.
    """

    kernel: NDArray[Any]
    conv: Conv
    present: NDArray[np.bool_]
    critical: "CriticalWeights"

    @classmethod
    def of(
        cls,
        weights: ArrayLike,
        conv: Conv,
        mask: ArrayLike | None = None,
        critical: "CriticalWeights | None" = None,
    ) -> "MeasuredKernel":
        """Read a kernel.

        Parameters
        ----------
        weights, conv, mask
            As in `critical_kernel_weights`.
        critical : CriticalWeights, optional
            What that returns, where it is known.

        Raises
        ------
        ValueError
            As `critical_kernel_weights`.
        """
        from topobounds.topology.convolution import critical_kernel_weights  # noqa: PLC0415 (loads numba)

        if critical is None:
            critical = critical_kernel_weights(weights, conv, mask)
        kernel = weight_array(weights)
        present = non_zero(kernel)
        if mask is not None:
            present &= np.asarray(mask, np.bool_)
        return cls(kernel, conv, present, critical)

    def with_ties_at_random(self, seed: np.random.SeedSequence) -> "CriticalWeights":
        """Return the critical weights if weights that tie come in a random order; their |w| are numbers of places."""
        from topobounds.topology.convolution import critical_kernel_weights  # noqa: PLC0415 (loads numba)

        sizes = np.abs(self.kernel[self.present].astype(np.float64))
        rising = np.lexsort((np.random.default_rng(seed).permutation(sizes.size), sizes))
        places = np.empty(sizes.size)
        places[rising] = np.arange(1, sizes.size + 1)
        ranked = np.zeros(self.kernel.shape)
        ranked[self.present] = places
        return critical_kernel_weights(ranked, self.conv)

    @cached_property
    def live(self) -> NDArray[np.bool_]:
        """The weights that are present and make an edge: some may read only padding."""
        live: NDArray[np.bool_] = self.present & live_taps(self.conv)
        return live
