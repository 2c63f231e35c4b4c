"""Kruskal's algorithm on the graphs of convolutions, whose edges share their weights.

A union-find of its own: a cached kernel calls only kernels of its own file.
"""

import numba
import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


@numba.njit(cache=True, nogil=True)
def _root(parent: Integers, vertex: int) -> int:
    while parent[vertex] != vertex:
        parent[vertex] = parent[parent[vertex]]
        vertex = parent[vertex]
    return vertex


@numba.njit(cache=True, nogil=True)
def shared_kruskal(
    order: Integers,
    inputs_per_group: int,
    outputs_per_group: int,
    tap_starts: Integers,
    edge_inputs: Integers,
    edge_outputs: Integers,
    n_input_cells: int,
    n_output_cells: int,
    n_inputs: int,
    parent: Integers,
    n_merges: int,
    multiplicities: Integers,
) -> int:
    """Take kernel weights in `order` and count, for each, the components its edges merge; return their sum.

    A kernel weight is a flat index of (out_channels, in_channels / groups, taps). The edges of tap t are entries
    ``tap_starts[t] .. tap_starts[t + 1]`` of `edge_inputs` and `edge_outputs`, positions within one channel. Vertices
    are input neurons (channel, position), then output neurons. Stops once `n_merges` merges are made.
    `parent` and `multiplicities` are modified in place.
    """
    n_taps = tap_starts.size - 1
    merged = 0
    for weight in order:
        if merged == n_merges:
            break
        tap = weight % n_taps
        in_channel = weight // n_taps % inputs_per_group
        out_channel = weight // (n_taps * inputs_per_group)
        in_channel += out_channel // outputs_per_group * inputs_per_group
        for edge in range(tap_starts[tap], tap_starts[tap + 1]):
            a = _root(parent, in_channel * n_input_cells + edge_inputs[edge])
            b = _root(parent, n_inputs + out_channel * n_output_cells + edge_outputs[edge])
            if a != b:
                parent[a] = b
                multiplicities[weight] += 1
                merged += 1
    return merged
