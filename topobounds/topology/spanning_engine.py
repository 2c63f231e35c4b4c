"""The maximum spanning forest of a dense layer in about one read of its weights.

Filter rounds: a sample gives the bound that some M (ln M + 5) keys reach, M being the longer side; one pass over the
weights collects them; sorted, they go through Kruskal's algorithm. At random they make a connected graph, but for a
vertex in one layer of thirty, so the first round is most often all. Blocks and hierarchies take one round a level.

Borůvka rounds: every component but the one that is dearest to search takes the first edge that leaves it. Vertices
left alone, dead rows, scales and heavy ties end here.

Ranks: the first round sorts all cells down to its bound, so the ranks of its edges are known. Those of later edges take
one more pass, which counts the cells between them.

Every round is exact whatever the sample was, and the order is total: any number of threads finds the same forest.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from topobounds._kernels import spanning as kernels
from topobounds._parallel import fair_share, processors
from topobounds._types import Cells, Vertices
from topobounds.topology.key_matrix import Edges, KeyMatrix, ScaledKeyMatrix, windows

Codes = NDArray[np.uint64]  # see Coding
_Found = tuple[Cells, Cells]  # keys and cells of edges
Result = TypeVar("Result")

THREADS = processors()
_CELLS_PER_CHUNK = 2**21
_CELLS_PER_COPY = 2**17  # a tile that is copied stays in the cache
_SAMPLED_HITS = 64  # sampled keys above the bound: it lets 1 +- 1/8 of what is wanted through
_HITS_FOR_LARGEST = 128  # likewise, where the largest keys are asked for: 1 +- 1/11
_ROOM = 2**13  # entries, and those of one line, that there is room for in a call of the kernel
_ROOM_KEPT = 2**19 - 1  # entries of arrays kept between forests: from 4 MiB on numpy takes memory by 2 MiB
_MOST_KEPT = 4  # of these arrays
_BINS_PER_EDGE = 64  # so that few weights share their bin with an edge, and have to be compared with it
_MOST_BINS = 2**17  # a table of them stays in the cache
_FEW_TIES = 16  # edges that every line may look through
_NONE = np.empty(0, np.uint64)
_PADDING = np.zeros(64, np.uint32)  # labels that kernels may read ahead of the first
_TOO_MANY, _LIMIT = 3, 4  # times what is wanted: in a sample, and in all
_MANY, _ENOUGH = 1.5, 0.85  # times what is wanted, where what is short of it costs but one more read
_CROWD = 8  # above this many active vertices per component a filter round beats a Borůvka round


@dataclass(frozen=True)
class Coding:
    """How an edge is packed into 64 bits that sort as the total order: its key, inverted, then its row and column.

    Where these do not fit, the lowest bits of the inverted key are dropped.
    """

    top: int
    """The key that is inverted to 0: no key is larger, lift included."""
    row_bits: int
    col_bits: int

    @classmethod
    def of(cls, keys: KeyMatrix) -> "Coding":
        """Choose the widths for a layer."""
        m, n = keys.shape
        return cls(keys.top, (m - 1).bit_length(), (n - 1).bit_length())

    @property
    def cell_bits(self) -> int:
        """Bits of row and column."""
        return self.row_bits + self.col_bits

    @property
    def dropped(self) -> int:
        """Bits of the key that find no room."""
        return max(self.top.bit_length() + self.cell_bits - 64, 0)

    def layout(self, keys: KeyMatrix) -> Codes:
        """Return what `collect` needs to know."""
        shifts = (0, self.col_bits) if keys.transposed else (self.col_bits, 0)
        return np.array([self.top, self.dropped, self.cell_bits, *shifts], np.uint64)

    def last(self, key: int) -> np.uint64:
        """Return the last code that a key as large as this may have."""
        return np.uint64((((self.top - key) >> self.dropped) + 1 << self.cell_bits) - 1)

    def cells(self, codes: Codes) -> Cells:
        """Return the cells of codes."""
        rows = codes >> np.uint64(self.col_bits) & np.uint64((1 << self.row_bits) - 1)
        return rows << np.uint64(32) | codes & np.uint64((1 << self.col_bits) - 1)

    def keys(self, codes: Codes, keys: KeyMatrix, cells: Cells) -> Cells:
        """Return the keys of codes, whose cells are given."""
        return keys.at(cells) if self.dropped else np.uint64(self.top) - (codes >> np.uint64(self.cell_bits))


class NotFiniteError(Exception):
    """A weight is NaN or infinite."""


def spanning_edges(keys: KeyMatrix, n_largest: int = 0) -> Edges:
    """Return the edges of the maximum spanning forest, and with them about `n_largest` of the largest keys.

    Raises
    ------
    NotFiniteError
        If a key is that of infinity or NaN.
    """
    m, n = keys.shape
    parent = np.arange(m + n, dtype=np.uint32)
    finished = np.zeros(m + n, np.bool_)
    first = _filter_round(keys, parent, first=True, n_largest=n_largest)
    early, complete = first.found, first.complete
    late: list[_Found] = []
    stuck = not early[0].size
    while not complete:
        kernels.label(parent)
        active = _active(keys, parent, finished)
        if not active.any():
            break
        n_components = np.unique(parent[active]).size
        if stuck or np.count_nonzero(active) < _CROWD * n_components:
            late.append(_boruvka_round(keys, parent, active, finished))
            stuck = False
        else:
            later = _filter_round(keys, parent)
            late.append(later.found)
            complete = later.complete
            stuck = 2 * later.found[0].size < n_components  # a Borůvka round always joins as many as that
    if not late:
        return Edges(early[1], early[0], first.ranks, first.largest)
    late_keys, late_cells = _in_order(*(np.concatenate(arrays) for arrays in zip(*late, strict=True)))
    edge_keys, edge_cells = np.concatenate([early[0], late_keys]), np.concatenate([early[1], late_cells])
    return Edges(edge_cells, edge_keys, first.ranks, first.largest)


def ranks_of(keys: KeyMatrix, edge_keys: Cells, edge_cells: Cells) -> NDArray[np.int64]:
    """Return the ranks, from 1, of cells in the total order among all cells of the layer: one pass over the weights."""
    n_edges = edge_keys.size
    kind = keys.wide_kind
    chunks = _chunks(keys, copied=not keys.wide_in_place)
    span = int(edge_keys[0] - edge_keys[-1])
    spare: list[NDArray[np.int64]] = []  # counts between two chunks

    def count_level(lines: slice) -> None:
        counts = spare.pop() if spare else np.zeros(n_edges + 1, np.int64)
        tile, magnitude, lift = keys.wide_tile(lines)
        layout = keys.width, lines.start, keys.transposed
        kernels.count_level(tile, magnitude, lift, *layout, kind(edge_keys[0]), edge_cells, counts)
        spare.append(counts)

    if not span and (not keys.transposed or n_edges <= _FEW_TIES):
        _each(count_level, chunks)
        return np.asarray(np.cumsum(np.sum(spare, axis=0)[:n_edges]) + 1)

    # The range of the edges' keys in bins: a weight whose bin holds no edge need not be compared with any.
    most_bins = min(_BINS_PER_EDGE << n_edges.bit_length(), _MOST_BINS)
    shift = max(span.bit_length() - most_bins.bit_length() + 1, 0)
    edges_above = np.empty((span >> shift) + 3, np.uint32)
    empty_bins = np.zeros(edges_above.size + kernels.UNREAD_BINS, np.uint32)
    kernels.open_bins(edge_keys, np.uint64(shift), edges_above, empty_bins)
    in_use: list[tuple[NDArray[np.uint32], NDArray[np.int64]]] = []

    def count(lines: slice) -> None:
        bins, counts = in_use.pop() if in_use else (empty_bins.copy(), np.zeros(n_edges + 1, np.int64))
        tile, magnitude, lift = keys.wide_tile(lines)
        layout = keys.width, lines.start, keys.transposed
        range_of_bins = kind(int(edge_keys[-1]) - int(lift)), kind(span), kind(shift)
        edges = edge_keys, edge_cells, edges_above, bins, counts
        kernels.count_in_bins(tile, magnitude, lift, *layout, *range_of_bins, *edges)
        if keys.size >= kernels.HOLDS_EDGES:  # a counter might overflow
            kernels.close_bins(bins, edges_above, counts)
        in_use.append((bins, counts))

    _each(count, chunks)
    total = np.zeros(n_edges + 1, np.int64)
    for bins, counts in in_use:
        kernels.close_bins(bins, edges_above, counts)
        total += counts
    return np.asarray(np.cumsum(total[:n_edges]) + 1)


def scaled_keys(keys: ScaledKeyMatrix, bound: int) -> NDArray[np.uint32]:
    """Return the keys of at least `bound`, which is above 0, in the order of lines and entries.

    Parameters
    ----------
    keys : ScaledKeyMatrix
        Without a support, a zero being no edge.
    bound : int
        One that few keys reach: what does is written out.
    """
    layout = np.array([keys.top, 0, 32, 0, 0], np.uint64)  # keys above 32 bits that nobody reads
    labels, own = np.zeros(_PADDING.size + keys.width, np.uint32), np.zeros(keys.n_lines, np.uint32)
    terms = keys.filter_terms()

    def collect(lines: slice) -> NDArray[np.uint32]:
        tile, magnitude, lift = keys.code_tile(lines)
        arguments = tile, magnitude, lift, own[lines], labels, lines.start, keys.kind(bound), layout, True, *terms
        parts, line = [np.empty(0, np.uint32)], 0
        room = np.empty(keys.width + _ROOM, np.uint64)
        while line < lines.stop - lines.start:
            line, count = kernels.collect_scaled(*arguments, line, room)
            parts.append((np.uint64(keys.top) - (room[:count] >> np.uint64(32))).astype(np.uint32))
        return np.concatenate(parts)

    return np.concatenate(_each(collect, _chunks(keys, copied=False)))


def _active(keys: KeyMatrix, labels: Vertices, finished: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which vertices a round has to look at: not those without a way out, nor the dearest component."""
    m, n = keys.shape
    cost = np.repeat([float(n), float(m)], [m, n])
    active: NDArray[np.bool_] = (labels != np.bincount(labels, cost).argmax()) & ~finished
    return active


class _Round(NamedTuple):
    """What a filter round found.

    Attributes
    ----------
    found : tuple of ndarray
        The edges.
    ranks : ndarray of int64
        Their ranks among the edges between components.
    complete : bool
        Whether no edge is left to find.
    largest : ndarray of uint64, or None
        The keys that reached the bound, falling, if they are as many as were asked for, about, or all there are.
    """

    found: _Found
    ranks: NDArray[np.int64]
    complete: bool
    largest: Cells | None


def _filter_round(keys: KeyMatrix, parent: Vertices, *, first: bool = False, n_largest: int = 0) -> _Round:
    """Join the components that `parent` labels by all edges whose key reaches a bound; `parent` is modified in place.

    If many more than wanted reached the bound, it does nothing. In the `first` round every vertex is a component, so
    the ranks are those among all cells.
    """
    m, n = keys.shape
    own, labels = _oriented(keys, parent)
    n_hits, wanted = (_HITS_FOR_LARGEST, 1.15 * n_largest) if n_largest else (_SAMPLED_HITS, 0)
    wanted = max(_wanted(keys), math.ceil(wanted))
    bound, tied = _sampled_bound(keys, None if first else own, labels, wanted, n_hits)
    coding = Coding.of(keys)
    with _Rooms() as rooms:
        codes = _NONE
        if 0 < bound <= np.iinfo(keys.kind).max:
            codes = _collected(keys, own, labels, bound, coding, rooms, wanted, apart=first)
        if codes.size > _LIMIT * wanted:
            codes, bound, tied = _NONE, keys.infinity, False
        codes = _sorted(keys, codes, coding, rooms)
        positions = np.empty(min(m + n - 1, codes.size), np.int64)
        bits = np.uint64(coding.row_bits), np.uint64(coding.col_bits)
        positions = positions[: kernels.kruskal(codes, *bits, m, parent, positions)]
        found, n_codes = codes[positions], codes.size
        largest = None
        if n_largest and not coding.dropped and (n_codes >= 0.9 * n_largest or (bound == 1 and not tied)):
            largest = np.uint64(coding.top) - (codes >> np.uint64(coding.cell_bits))
    cells = coding.cells(found)
    found_keys, ranks = coding.keys(found, keys, cells), positions + 1
    if tied and positions.size < m + n - 1 and bound > 1:
        bound -= 1
        tied_cells, tied_ranks = _joined_at(keys, bound, parent)
        found_keys = np.append(found_keys, np.full(tied_cells.size, bound, np.uint64))
        cells, ranks = np.append(cells, tied_cells), np.append(ranks, n_codes + tied_ranks)
    return _Round((found_keys, cells), ranks, bound == 1 or cells.size == m + n - 1, largest)


class _Rooms:
    """Arrays for codes that go back, at the end of a ``with`` block, to those that are kept for the next one.

    Fresh memory costs more than all that is written to it.
    """

    _kept: ClassVar[list[Codes]] = []

    def __enter__(self) -> "_Rooms":
        self._taken: list[Codes] = []
        return self

    def __exit__(self, *raised: object) -> None:
        for room in self._taken:
            if room.size == _ROOM_KEPT and len(self._kept) < _MOST_KEPT:
                self._kept.append(room)

    def take(self, size: int) -> Codes:
        """Return an array of at least so many entries."""
        if not _ROOM <= size <= _ROOM_KEPT:
            return np.empty(size, np.uint64)
        try:
            room = self._kept.pop()
        except IndexError:
            room = np.empty(_ROOM_KEPT, np.uint64)
        self._taken.append(room)
        return room


def _wanted(keys: KeyMatrix) -> int:
    longer = max(keys.shape)
    return math.ceil(longer * (math.log(longer) + 5)) + 16


def _oriented(keys: KeyMatrix, labels: Vertices) -> tuple[Vertices, Vertices]:
    """Return the labels of the lines of `keys`, and of the entries of a line, padded."""
    m, _ = keys.shape
    rows, cols = labels[:m], labels[m:]
    own, others = (cols, rows) if keys.transposed else (rows, cols)
    return own, np.concatenate([_PADDING, others])


def _sampled_bound(
    keys: KeyMatrix, own: Vertices | None, labels: Vertices, wanted: int, n_hits: int
) -> tuple[int, bool]:
    """Return the key that about the wanted number of cells reach, and False; if too many tie there, the next and True.

    Where ties cannot be taken in order, because lines are columns, the next and False, or 0 if nothing has it.
    """
    share = wanted / keys.size
    if share > 1 / 4:
        return 1, False
    sample, lines, entries = keys.sample(math.ceil(n_hits / share))
    if own is not None:
        sample *= own[lines, None] != windows(labels[_PADDING.size :], sample.shape[1])[entries]
    place = sample.size - math.ceil(share * sample.size)
    bound = int(np.partition(sample.ravel(), place)[place])
    hits, reaching, above = sample.size - place, np.count_nonzero(sample >= bound), np.count_nonzero(sample > bound)
    in_order = not keys.transposed
    if reaching > _TOO_MANY * hits and 0 < bound < keys.infinity:
        return (bound + 1 if above or in_order else 0), in_order
    few_levels = in_order and keys.kind is np.uint8
    if few_levels and above > _ENOUGH * hits and reaching > _MANY * hits:
        bound += 1
    return min(max(bound, 1), keys.infinity), few_levels


def _collected(
    keys: KeyMatrix,
    own: Vertices,
    labels: Vertices,
    bound: int,
    coding: Coding,
    rooms: _Rooms,
    wanted: int,
    *,
    apart: bool,
) -> Codes:
    """Return the codes of all keys of at least `bound` between components; some of them if far more than `wanted` are.

    They come in the order of lines and entries. `apart` says that every vertex is a component.
    """
    limit, layout, total = _LIMIT * wanted, coding.layout(keys), 0
    spare: list[tuple[Codes, int]] = []  # rooms that nobody is writing to, and how much of each is written

    # Codes with scales are multiplied out only where they reach the bound divided by their scale.
    scaled = keys if isinstance(keys, ScaledKeyMatrix) and keys.support is None and bound > keys.lift else None
    tile_of, kernel, terms = keys.tile, kernels.collect, ()
    if scaled:
        tile_of, kernel, terms = scaled.code_tile, kernels.collect_scaled, scaled.filter_terms()

    def collect(lines: slice) -> list[Codes]:
        nonlocal total  # more threads than one may count too little, never too much
        room, used = spare.pop() if spare else (rooms.take(keys.width + _ROOM), 0)
        tile, magnitude, lift = tile_of(lines)
        arguments = tile, magnitude, lift, own[lines], labels, lines.start, keys.kind(bound), layout, apart, *terms
        parts, line = [], 0
        while line < lines.stop - lines.start and total <= limit:
            if room.size - used < keys.width:
                room, used = rooms.take(keys.width + _ROOM), 0
            line, count = kernel(*arguments, line, room[used:])
            parts.append(room[used : used + count])
            used += count
            total += count
        spare.append((room, used))
        return parts

    parts = [part for chunk in _each(collect, _chunks(keys, copied=False if scaled else None)) for part in chunk]
    size = sum(part.size for part in parts)
    codes = rooms.take(size)[:size]
    np.concatenate(parts or [_NONE], out=codes)
    return codes


def _sorted(keys: KeyMatrix, codes: Codes, coding: Coding, rooms: _Rooms) -> Codes:
    """Return collected codes in the total order.

    Raises
    ------
    NotFiniteError
        If there is infinity or NaN among them.
    """
    # Those of rows came in flat order, and need only be sorted by their keys.
    low = np.uint64(0 if keys.transposed else coding.cell_bits)
    codes = kernels.sort_codes(codes, rooms.take(codes.size)[: codes.size], low)
    heaviest = codes[: np.searchsorted(codes, coding.last(keys.infinity), side="right")]
    if heaviest.size and keys.at(coding.cells(heaviest)).max() >= keys.infinity:
        raise NotFiniteError
    if coding.dropped:
        _settle(keys, codes, coding)
    return codes


def _joined_at(keys: KeyMatrix, level: int, parent: Vertices) -> tuple[Cells, NDArray[np.int64]]:
    """Join components by all cells whose key is `level`, in flat order; `parent` is modified in place.

    Returns the cells of the edges, and their ranks, from 1, among all cells of this key. Lines must be rows. However
    many there are, this takes little more than a read: as soon as the columns that have any of them are connected, only
    the first of every row can join anything.
    """
    m, n = keys.shape
    chunks = _chunks(keys)
    counts, entries = np.empty(m, np.int64), np.empty(m, np.int64)

    def count(lines: slice) -> Codes:
        tile, magnitude, lift = keys.tile(lines)
        met = np.zeros(n // 64 + 1, np.uint64)
        kernels.survey_level(tile, magnitude, tile_kind(level) - lift, counts[lines], entries[lines], met)
        return met

    tile_kind = keys.kind
    met = np.bitwise_or.reduce(_each(count, chunks))
    kernels.label(parent)
    labels = np.concatenate([_PADDING, parent[m:]])
    reached = np.zeros(m + n, np.uint8)
    reached[parent[m:][np.unpackbits(met.view(np.uint8), bitorder="little")[:n].view(np.bool_)]] = 1
    state = np.array([0, 0, np.count_nonzero(reached)])
    cells, ranks = np.empty(m + n - 1, np.uint64), np.empty(m + n - 1, np.int64)
    line = 0
    for lines in chunks:
        if state[2] <= 1:
            break
        tile, magnitude, lift = keys.tile(lines)
        where = lines.start, m, parent, labels, counts[lines], reached, state
        line += kernels.sweep_level(tile, magnitude, tile_kind(level) - lift, *where, cells, ranks)
    kernels.join_lines(line, m, parent, counts, entries, state, cells, ranks)
    return cells[: state[0]], ranks[: state[0]]


def _settle(keys: KeyMatrix, codes: Codes, coding: Coding) -> None:
    """Put codes that agree in what was left of their keys in the order of the whole keys; modified in place."""
    prefixes = codes >> np.uint64(coding.cell_bits)
    same = prefixes[1:] == prefixes[:-1]
    tied = np.flatnonzero(np.append(same, False) | np.append(False, same))
    if tied.size:
        exact = keys.at(coding.cells(codes[tied]))
        codes[tied] = codes[tied][np.lexsort((codes[tied], ~exact, prefixes[tied]))]


def _in_order(values: Cells, cells: Cells) -> _Found:
    order = np.lexsort((cells, ~values))
    return values[order], cells[order]


def _boruvka_round(keys: KeyMatrix, parent: Vertices, active: NDArray[np.bool_], finished: NDArray[np.bool_]) -> _Found:
    """Join every active component that `parent` labels along the first edge that leaves it; return these edges.

    `parent` is modified in place, and `finished`: it becomes true for the vertices of components without such an edge.
    """
    m, n = keys.shape
    labels = parent.copy()
    values, cells = _leaving(keys, labels, active)
    if values.max() >= keys.infinity:
        raise NotFiniteError
    best, best_cells = np.zeros(m + n, np.uint64), np.empty(m + n, np.uint64)
    merged = kernels.hook(values, cells, m, parent, best, best_cells)
    finished |= active & (best[labels] == 0)
    return values[:merged], cells[:merged]


def _leaving(keys: KeyMatrix, labels: Vertices, active: NDArray[np.bool_]) -> _Found:
    """Return key and cell of the first edge from each active vertex to another component; key 0 where there is none."""
    m, _ = keys.shape
    values, cells = np.zeros(labels.size, np.uint64), np.zeros(labels.size, np.uint64)
    ceiling = np.iinfo(keys.wide_kind).max  # no key between components is larger
    for view in (keys, keys.across()):
        side = slice(m, None) if view.transposed else slice(0, m)
        lines = np.flatnonzero(active[side])
        n_lines = view.n_lines
        if not lines.size:
            continue
        if view is keys and lines.size * 8 > n_lines * 7:
            # The few lines that are not asked for cost little, and with them the largest key of all is known.
            best, places = _heaviest_by_line(view, labels, np.arange(n_lines))
            ceiling = best.max()
            best, places = best[lines], places[lines]
        elif view is not keys and lines.size * 8 > n_lines:  # too many lines to gather across memory
            best, places = _heaviest_by_entry(keys, labels, lines, ceiling)
            best, places = best[lines], places[lines]
        else:
            best, places = _heaviest_by_line(view, labels, lines)
        values[side][lines] = best
        cells[side][lines] = view.cells(lines, places)
    return values, cells


def _heaviest_by_line(keys: KeyMatrix, labels: Vertices, lines: NDArray[np.int64]) -> tuple[NDArray[Any], Vertices]:
    """Return for each of `lines` its largest key to another component, and the first entry that has it."""
    own, others = _oriented(keys, labels)

    def search(chunk: Any) -> tuple[NDArray[Any], Vertices]:
        mine = own[chunk]
        if keys.wide_in_place and not isinstance(chunk, slice):  # nothing has to be copied
            tile, magnitude, lift = keys.wide_tile(slice(None))
            index = chunk
        else:
            tile, magnitude, lift = keys.wide_tile(chunk)
            index = np.arange(mine.size)
        best, places = np.empty(mine.size, tile.dtype), np.empty(mine.size, np.uint32)
        kernels.heaviest_by_line(tile, magnitude, lift, index, mine, others, best, places)
        return best, places

    results = _each(search, _chunks(keys, lines, copied=not keys.wide_in_place))
    return np.concatenate([best for best, _ in results]), np.concatenate([places for _, places in results])


def _heaviest_by_entry(
    keys: KeyMatrix, labels: Vertices, entries: NDArray[np.int64], ceiling: int
) -> tuple[NDArray[Any], Vertices]:
    """Return for each of `entries` its largest key to another component over all lines, and the first line that has it.

    They stand at their places among all entries of a line. `ceiling` is a key that none exceeds.
    """
    own, others = _oriented(keys, labels)
    kind = keys.wide_kind
    beyond_all = np.full(keys.width, np.iinfo(kind).max, kind)  # what no key exceeds is never looked at
    beyond_all[entries] = 0

    def search(chunk: slice) -> tuple[NDArray[Any], Vertices]:
        tile, magnitude, lift = keys.wide_tile(chunk)
        best, places = beyond_all.copy(), np.zeros(keys.width, np.uint32)
        kernels.heaviest_by_entry(tile, magnitude, lift, own[chunk], others, chunk.start, kind(ceiling), best, places)
        return best, places

    best, places = np.zeros(keys.width, kind), np.zeros(keys.width, np.uint32)
    for chunk_best, chunk_places in _each(search, _chunks(keys, copied=not keys.wide_in_place)):
        places = np.where(chunk_best > best, chunk_places, places)
        best = np.maximum(best, chunk_best)
    return best, places


def _chunks(keys: KeyMatrix, lines: NDArray[np.int64] | None = None, *, copied: bool | None = None) -> list[Any]:
    """Cut all lines, or some, into pieces for one call each."""
    n_lines = keys.n_lines if lines is None else lines.size
    everything = n_lines == keys.n_lines
    if copied is None:
        copied = not keys.in_place
    cells = _CELLS_PER_COPY if copied else _CELLS_PER_CHUNK
    step = max(cells // keys.width, 1)
    starts = range(0, n_lines, step)
    if lines is None or everything:
        return [slice(start, min(start + step, n_lines)) for start in starts]
    return [lines[start : start + step] for start in starts]


def _each(function: Callable[[Any], Result], chunks: Sequence[Any]) -> list[Result]:
    """Apply a function whose kernels release the lock to every chunk, on all cores that are free for it.

    The caller takes chunks too: where the other cores are busy it does nearly all of them, and loses little.
    """
    results: dict[int, Result] = {}
    turn = itertools.count()

    def work() -> None:
        while (index := next(turn)) < len(chunks):
            results[index] = function(chunks[index])

    helpers = min(fair_share(THREADS), len(chunks)) - 1
    if not helpers:
        work()
    else:
        with ThreadPoolExecutor(helpers) as pool:
            working = [pool.submit(work) for _ in range(helpers)]
            work()
        for helper in working:
            helper.result()
    return [results[index] for index in range(len(chunks))]
