"""T-IMP masks of matrices where they are, on a GPU or any other device: Borůvka rounds in operations of torch.

The order is that of everything else here, |w| falling and then flat index, which is total, so the forest is the one
that Kruskal's algorithm finds on the CPU, and the mask the same bit for bit.

A round is two passes over the weights, by blocks of rows. The first finds the largest key that leaves each component,
key being the bits of |w|; the second the first cell in flat order that has it. Every component takes its cell as an
edge, and is joined to the one at the other end.
"""

import math
from collections.abc import Iterator

from topobounds import pruning
from topobounds._arguments import argument_error, choice
from topobounds.pruning.masks import Keep, kept_count
from topobounds.weights import as_array
from torch_bridge._torch import Tensor, torch

BLOCK = 2**24
"""Cells of the rows that are looked at together: a pass makes a few arrays of as many integers."""
_KINDS = {  # integers of the same size, the bits of a magnitude, and those of infinity
    torch.float16: (torch.int16, 0x7FFF, 0x7C00),
    torch.bfloat16: (torch.int16, 0x7FFF, 0x7F80),
    torch.float32: (torch.int32, 0x7FFF_FFFF, 0x7F80_0000),
    torch.float64: (torch.int64, 0x7FFF_FFFF_FFFF_FFFF, 0x7FF0_0000_0000_0000),
}


def topological_mask(
    weights: Tensor, keep: Keep, mask: Tensor | None = None, *, on_infeasible: pruning.Infeasible = "raise"
) -> Tensor:
    """Return the mask of T-IMP of a dense layer, computed on the device that the weights are on.

    It is that of `topobounds.topological_mask`, bit for bit; nothing but a few numbers is copied to the CPU. Kernels
    as graphs on neurons, where a weight makes an edge at every position, are computed on the CPU alone.

    Nothing here has been timed on a GPU, so the other functions of this package copy weights to the CPU;
    ``benchmarks/on_device.py`` times both ways. For weights on the CPU `topobounds.topological_mask` is much faster.

    Parameters
    ----------
    weights : Tensor of shape (m, n)
        float16, bfloat16, float32 or float64, on any device, of any strides.
    keep : int or float or Fraction
        Weights to keep, or the share of the survivors, as in `topobounds.topological_mask`.
    mask : Tensor of the shape of `weights`, optional
        The survivors so far: where it is not zero.
    on_infeasible : {"raise", "clamp"}
        What to do if fewer weights are to be kept than carry the topology: refuse, or keep exactly those.

    Returns
    -------
    Tensor of bool of the shape of `weights`
        On the same device; True where a weight is kept.

    Raises
    ------
    ValueError
        If `weights` is no such tensor, or as `topobounds.topological_mask`.

    Examples
    --------
    >>> topological_mask(torch.tensor([[9.0, 8.0, 1.0], [7.0, 6.0, 0.5]]), 4).tolist()
    [[True, True, True], [True, False, False]]
    """
    if not isinstance(weights, Tensor) or weights.ndim != 2 or not weights.numel() or weights.dtype not in _KINDS:
        given = f"{weights.dtype} of shape {tuple(weights.shape)}" if isinstance(weights, Tensor) else weights
        raise argument_error("weights", "a matrix of float16, bfloat16, float32 or float64, a Tensor", given)
    choice("on_infeasible", on_infeasible, ("raise", "clamp"))
    if mask is not None and (not isinstance(mask, Tensor) or mask.shape != weights.shape):
        held = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise argument_error("mask", f"a Tensor of the shape {tuple(weights.shape)} of the weights", held)
    matrix = weights.detach()
    support = None if mask is None else mask.detach().to(matrix.device) != 0
    count = kept_count(keep, matrix.numel() if support is None else int(support.sum()))
    kept = _forest(matrix, support)
    n_critical = 0 if kept is None else int(kept.sum())
    if kept is None or (count < n_critical and on_infeasible == "raise"):
        return _on_cpu(matrix, keep, support)
    wanted = max(count, n_critical) - n_critical
    if wanted:
        _mark_largest(matrix, support, kept, wanted)
    return kept


def _on_cpu(matrix: Tensor, keep: Keep, support: Tensor | None) -> Tensor:
    """Return the mask as the CPU finds it, which refuses what is refused, in its words."""
    survivors = None if support is None else support.cpu().numpy()
    found = pruning.topological_mask(as_array("weights", matrix), keep, survivors)
    return torch.from_numpy(found).to(matrix.device)


def _forest(matrix: Tensor, support: Tensor | None) -> Tensor | None:
    """Return where the edges of the maximum spanning forest are; None if a weight is NaN or infinite."""
    m, n = matrix.shape
    device = matrix.device
    found = torch.zeros(m * n, dtype=torch.bool, device=device)
    labels = torch.arange(m + n, device=device)
    for number in range(_halvings(m + n) + 1):  # each round leaves at most half of the components that have an edge out
        best = _heaviest_leaving(matrix, support, labels)
        heaviest = int(best.max())
        if number == 0 and heaviest >= _KINDS[matrix.dtype][2]:
            return None
        if not heaviest:
            break
        cells, ends = _first_of(matrix, support, labels, best)
        leaving = best > 0
        found[cells[leaving]] = True
        labels = _joined(ends, leaving)[labels]
    return found.view(m, n)


def _halvings(size: int) -> int:
    return max(1, math.ceil(math.log2(size)))


def _blocks(matrix: Tensor, support: Tensor | None, labels: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield rows, some at a time, with the keys of their edges between two components; 0 where there is none."""
    m = len(matrix)
    for rows, keys in _key_blocks(matrix):
        apart = labels[:m][rows, None] != labels[None, m:]
        if support is not None:
            apart &= support[rows]
        yield rows, keys * apart


def _key_blocks(matrix: Tensor) -> Iterator[tuple[slice, Tensor]]:
    m, n = matrix.shape
    kind, magnitude, _ = _KINDS[matrix.dtype]
    step = max(1, BLOCK // n)
    for start in range(0, m, step):
        rows = slice(start, min(start + step, m))
        bits = matrix[rows].contiguous().view(kind)
        yield rows, (bits & magnitude).to(torch.int64 if kind == torch.int64 else torch.int32)


def _heaviest_leaving(matrix: Tensor, support: Tensor | None, labels: Tensor) -> Tensor:
    """Return the largest key of an edge that leaves each component, at the place of its label; 0 without one."""
    by_row, by_col = [], None
    for _, keys in _blocks(matrix, support, labels):
        by_row.append(keys.amax(1))
        below = keys.amax(0)
        by_col = below if by_col is None else torch.maximum(by_col, below)
    assert by_col is not None
    heaviest = torch.cat([*by_row, by_col])
    return torch.zeros_like(heaviest).scatter_reduce_(0, labels, heaviest, "amax")


def _first_of(matrix: Tensor, support: Tensor | None, labels: Tensor, best: Tensor) -> tuple[Tensor, Tensor]:
    """Return of each component the first cell in flat order whose key is its best, and the component at its other end.

    Both stand at the place of the label, and mean nothing where there is no such cell.
    """
    m, n = matrix.shape
    own = best[labels]
    cols = torch.arange(n, dtype=torch.int32, device=matrix.device)
    first_col, first_row = [], torch.full((n,), m, dtype=torch.int32, device=matrix.device)
    for rows, keys in _blocks(matrix, support, labels):
        present = keys > 0
        in_row = present & (keys == own[:m][rows, None])
        first_col.append(torch.where(in_row, cols[None, :], n).amin(1))
        numbers = torch.arange(rows.start, rows.stop, dtype=torch.int32, device=matrix.device)
        in_col = present & (keys == own[None, m:])
        first_row = torch.minimum(first_row, torch.where(in_col, numbers[:, None], m).amin(0))
    col_of = torch.cat(first_col).to(torch.int64)
    row_of = first_row.to(torch.int64)
    beyond = m * n
    row_cells = torch.where(col_of < n, torch.arange(m, device=matrix.device) * n + col_of, beyond)
    col_cells = torch.where(row_of < m, row_of * n + cols, beyond)
    cells = torch.full_like(labels, beyond).scatter_reduce_(0, labels, torch.cat([row_cells, col_cells]), "amin")
    cells = cells.clamp(max=beyond - 1)
    one, other = labels[:m][cells // n], labels[m:][cells % n]
    return cells, torch.where(one == torch.arange(m + n, device=matrix.device), other, one)


def _joined(ends: Tensor, leaving: Tensor) -> Tensor:
    """Return for each label the label of the component that it is now a part of.

    Components point along their edges. As the order is total, the only circles are pairs that chose one edge.
    """
    own = torch.arange(ends.numel(), device=ends.device)
    parent = torch.where(leaving, ends, own)
    parent = torch.where((parent[parent] == own) & (own < parent), own, parent)
    for _ in range(_halvings(ends.numel())):
        parent = parent[parent]
    return parent


def _mark_largest(matrix: Tensor, support: Tensor | None, kept: Tensor, wanted: int) -> None:
    """Mark the largest weights that survive and are not kept, the first among equals; `kept` is modified in place."""
    keys = torch.cat([keys for _, keys in _key_blocks(matrix)])
    free = ~kept if support is None else support & ~kept
    keys = torch.where(free, keys, -1).reshape(-1)
    threshold = torch.topk(keys, wanted, sorted=False).values.amin()
    larger = keys > threshold
    ties = torch.nonzero(keys == threshold).view(-1)[: wanted - int(larger.sum())]
    flat = kept.view(-1)
    flat |= larger
    flat[ties] = True
