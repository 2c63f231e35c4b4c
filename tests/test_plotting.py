"""Drawing functions: what the artists show is what the records say, and matplotlib's global state is left alone."""

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from topobounds import Conv, Dense, effective_weights, layer_report, overlap_null, plotting
from topobounds.plotting import (
    CATEGORIES,
    draw_band,
    draw_barcode,
    draw_beside_chance,
    draw_betti_curve,
    draw_effective_density,
    draw_filtration,
    draw_forest,
    draw_interval,
    draw_over_training,
    draw_persistence_diagram,
    draw_retention,
    draw_silent_neurons,
    layer_colors,
)
from topobounds.topology.persistence import persistence_diagram
from topobounds.topology.spanning import maximum_spanning_forest

WEIGHTS = np.random.default_rng(3).standard_normal((4, 5))
DISCONNECTED = np.array([[3.0, 0.0, 0.0], [0.0, -2.0, 1.0]])
LAYERS = {
    "dense": WEIGHTS,
    "float32": WEIGHTS.astype(np.float32),
    "disconnected": DISCONNECTED,
    "one weight": np.array([[2.0]]),
    "one row": WEIGHTS[:1],
    "ties": np.ones((3, 3)),
}


@pytest.fixture
def ax():
    return Figure().subplots()


def test_layer_colors_grow_lighter_and_differ():
    colors = np.array(layer_colors(6))[:, :3]
    luminance = colors @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) > 0.05).all()
    assert luminance[-1] < 0.9, "the last one must be seen on white"


def test_layer_colors_want_a_count():
    with pytest.raises(ValueError, match="'count' must be a positive integer, not 0"):
        layer_colors(0)


def test_band_is_mean_and_sample_deviation(ax):
    curves = np.array([[1.0, 2.0], [3.0, 6.0]])
    line, band = draw_band(ax, [0, 1], curves, color="k")
    assert line.get_ydata().tolist() == [2.0, 4.0]
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.max() == pytest.approx(4 + np.std([2, 6], ddof=1))
    assert heights.min() == pytest.approx(2 - np.std([1, 3], ddof=1))


def test_band_of_one_trial_has_no_width(ax):
    _, band = draw_band(ax, [0, 1], [[1.0, 2.0]])
    assert set(band.get_paths()[0].vertices[:, 1]) == {1.0, 2.0}


@pytest.mark.parametrize("samples", [[1.0, 2.0], [[1.0]], np.empty((0, 2))])
def test_band_refuses_other_shapes(ax, samples):
    with pytest.raises(ValueError, match="'samples' must be a matrix of one row a trial and 2 columns"):
        draw_band(ax, [0, 1], samples)


@pytest.mark.parametrize("weights", LAYERS.values(), ids=LAYERS)
def test_diagram_points_are_the_diagrams(ax, weights):
    diagram = persistence_diagram(weights)
    drawn = draw_persistence_diagram(ax, diagram)
    assert np.array_equal(drawn.points.get_offsets(), np.asarray(diagram))
    assert len(drawn.essential.get_offsets()) == 1
    assert ax.get_ylim()[0] < drawn.essential.get_offsets()[0, 1] < 0, "below death 0, within the axes"


@pytest.mark.parametrize("weights", LAYERS.values(), ids=LAYERS)
def test_betti_curve_is_the_diagrams(ax, weights):
    diagram = persistence_diagram(weights)
    thresholds, components = draw_betti_curve(ax, diagram).get_data()
    assert components[0] == sum(weights.shape), "nothing has entered yet"
    assert components[1:].tolist() == diagram.betti_curve(thresholds[1:]).tolist()
    assert components[-1] == diagram.n_essential
    assert ax.xaxis_inverted()


@pytest.mark.parametrize("weights", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("threshold", [1.0, 0.5, 0.0])
def test_filtration_shows_the_graph_at_the_threshold(ax, weights, threshold):
    forest, diagram = maximum_spanning_forest(weights), persistence_diagram(weights)
    drawn = draw_filtration(ax, weights, forest, threshold)
    values = np.abs(weights) / np.abs(weights).max()
    n_edges = np.count_nonzero((values >= threshold) & (weights != 0))
    n_forest = np.count_nonzero(diagram.deaths >= threshold)
    assert len(drawn.forest.get_segments()) == n_forest
    assert len(drawn.edges.get_segments()) == n_edges - n_forest
    assert [text.get_text() for text in drawn.labels] == [f"{value:.2f}" for value in diagram.deaths[:n_forest]]
    assert shown_components(drawn) == diagram.betti_curve(threshold)


def test_colours_stay_with_the_older_component():
    weights = np.array([[1.0, 0.0, 0.7], [0.0, 0.9, 0.8]])  # two edges apart, then joined
    forest = maximum_spanning_forest(weights)
    apart, joined = (draw_filtration(Figure().subplots(), weights, forest, t) for t in (0.9, 0.7))
    assert [to_hex(c, keep_alpha=False).upper() for c in apart.forest.get_colors()] == list(CATEGORIES[:2])
    assert {to_hex(c).upper() for c in joined.forest.get_colors()} == {CATEGORIES[0]}


def test_labels_only_of_what_entered_since(ax):
    forest, diagram = maximum_spanning_forest(WEIGHTS), persistence_diagram(WEIGHTS)
    drawn = draw_filtration(ax, WEIGHTS, forest, diagram.deaths[4], labels_below=diagram.deaths[2])
    assert [text.get_text() for text in drawn.labels] == [f"{value:.2f}" for value in diagram.deaths[3:5]]


def test_segments_join_the_positions_of_the_forest_edges(ax):
    forest = maximum_spanning_forest(WEIGHTS)
    places = np.random.default_rng(0).random((9, 2))
    drawn = draw_filtration(ax, WEIGHTS, forest, 0.0, positions=places)
    ends = [[places[i].tolist(), places[4 + j].tolist()] for i, j in zip(forest.rows, forest.cols, strict=True)]
    assert [segment.tolist() for segment in drawn.forest.get_segments()] == ends


def test_filtration_refuses_what_does_not_fit(ax):
    forest = maximum_spanning_forest(WEIGHTS)
    with pytest.raises(ValueError, match="'forest' must be a forest with edges of a layer of shape"):
        draw_filtration(ax, WEIGHTS.T, forest, 0.5)
    with pytest.raises(ValueError, match="'forest' must be a forest with edges"):
        draw_filtration(ax, np.zeros((2, 2)), maximum_spanning_forest(np.zeros((2, 2))), 0.5)
    with pytest.raises(ValueError, match="'positions' must be an array of shape"):
        draw_filtration(ax, WEIGHTS, forest, 0.5, positions=np.zeros((3, 2)))


def test_global_state_is_left_alone(ax):
    before = dict(mpl.rcParams)
    forest, diagram = maximum_spanning_forest(WEIGHTS), persistence_diagram(WEIGHTS)
    draw_filtration(ax, WEIGHTS, forest, 0.5)
    draw_persistence_diagram(ax, diagram)
    draw_betti_curve(ax, diagram)
    draw_band(ax, [0, 1], [[1.0, 2.0], [2.0, 2.0]])
    assert dict(mpl.rcParams) == before


def shown_components(drawn):
    """Count what the picture shows: hollow vertices, and groups of vertices that bold lines join."""
    places = [tuple(place) for place in drawn.vertices.get_offsets()]
    groups = {place: {place} for place in places}
    for start, end in drawn.forest.get_segments():
        joined = groups[tuple(start)] | groups[tuple(end)]
        groups |= dict.fromkeys(joined, joined)
    colors = dict(zip(places, map(to_hex, drawn.vertices.get_facecolors()), strict=True))
    parts = {frozenset(group) for group in groups.values()}
    for part in parts:
        shown = {colors[place] for place in part}
        assert len(shown) == 1
        assert (shown == {"#ffffff"}) == (len(part) == 1), "hollow exactly if alone"
    assert len({colors[next(iter(part))] for part in parts if len(part) > 1}) == sum(len(part) > 1 for part in parts)
    return len(parts)


def test_interval_is_middles_and_ends(ax):
    middle, band = draw_interval(ax, [0, 1], [0.2, 0.4], [0.4, 0.8], color="k")
    assert middle.get_ydata() == pytest.approx([0.3, 0.6])
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (0.2, 0.8)


@pytest.mark.parametrize(("lower", "upper"), [([0.2], [0.4]), ([0.2, 0.5], [0.4, 0.4])])
def test_interval_wants_ends_in_order(ax, lower, upper):
    with pytest.raises(ValueError, match="'upper' must be 2 numbers, none below its lower end"):
        draw_interval(ax, [0, 1], lower, upper)


@pytest.mark.parametrize("weights", LAYERS.values(), ids=LAYERS)
def test_bars_end_where_components_die(ax, weights):
    diagram = persistence_diagram(weights)
    drawn = draw_barcode(ax, diagram)
    ends = [bar[:, 0].tolist() for bar in drawn.bars.get_segments()]
    assert ends == np.asarray(diagram).tolist()
    assert len(drawn.essential.get_segments()) == diagram.n_essential
    assert ax.get_xlim()[0] > ax.get_xlim()[1], "the threshold falls from left to right"


def test_retention_is_the_forests_and_chance_that_of_the_null(ax):
    weights = np.random.default_rng(0).standard_normal((30, 20))
    drawn = draw_retention(ax, weights, seed=0)
    densities, shares = drawn.measured.get_data()
    forest = maximum_spanning_forest(weights)
    assert np.array_equal(shares, forest.retention(np.rint(np.asarray(densities) * 600).astype(int)))
    place = len(drawn.chance.middle.get_xdata()) // 2
    heights = drawn.chance.band.get_paths()[0].vertices
    at = heights[np.isclose(heights[:, 0], drawn.chance.middle.get_xdata()[place]), 1]
    assert 0.01 < np.ptp(at) < 0.5, "small layers have no formula for the spread, so it is sampled"
    null = overlap_null(weights, round(drawn.chance.middle.get_xdata()[place] * 600), seed=0)
    assert drawn.chance.middle.get_ydata()[place] == pytest.approx(sum((null.expected.lower, null.expected.upper)) / 2)


@pytest.mark.parametrize("pruned", [False, True])
def test_retention_of_kernels_and_of_pruned_layers_is_drawn_beside_sampled_chance(ax, pruned):
    conv = Conv(4, 6, (3, 3), (5, 5), padding=(1, 1))
    weights = np.random.default_rng(0).standard_normal(conv.weight_shape)
    if pruned:
        weights, conv = np.where(np.abs(weights) > 1, weights, 0.0).reshape(6, -1), None
    drawn = draw_retention(ax, weights, conv=conv, trials=20, seed=0)
    assert drawn.measured.get_ydata()[-1] == 1
    assert drawn.chance.middle.get_ydata()[-1] == pytest.approx(1)
    assert np.all(np.diff(drawn.measured.get_ydata()) >= 0)


@pytest.fixture(scope="module")
def reports():
    draw = np.random.default_rng(1)
    return [layer_report(f"{i}.weight", draw.standard_normal((12, 9)), Dense(12, 9), seed=0) for i in range(3)]


@pytest.mark.parametrize("column", ["overlap", "neural_persistence"])
def test_layers_stand_beside_their_chance(ax, reports, column):
    drawn = draw_beside_chance(ax, reports, column)
    assert drawn.measured.get_ydata().tolist() == [getattr(r, column) for r in reports]
    (middles, _, (bars,)) = drawn.chance.lines
    assert middles.get_ydata().tolist() == [getattr(r, f"{column}_expected") for r in reports]
    lengths = [float(np.ptp(bar[:, 1])) for bar in bars.get_segments()]
    if column == "overlap":
        high = [min(1, r.overlap_expected + 2 * r.overlap_deviation) for r in reports]
        assert lengths == pytest.approx(
            [h - r.overlap_expected + 2 * r.overlap_deviation for h, r in zip(high, reports, strict=True)]
        )
    assert [label.get_text() for label in ax.get_xticklabels()] == [r.name for r in reports]


def test_a_layer_without_chance_leaves_its_place_empty(ax, reports):
    bare = layer_report("bare", np.eye(3), Dense(3, 3), chance=False)
    drawn = draw_beside_chance(ax, [reports[0], bare, reports[1]])
    assert drawn.chance.lines[0].get_xdata().tolist() == [0, 2]


def test_training_has_a_band_of_chance(ax, reports):
    drawn = draw_over_training(ax, [0, 1, 5], reports)
    assert drawn.measured.get_xdata().tolist() == [0, 1, 5]
    heights = drawn.chance.band.get_paths()[0].vertices[:, 1]
    squares = [r.neural_persistence_expected**2 + 2 * r.neural_persistence_deviation / (r.alpha - 1) for r in reports]
    assert heights.max() == pytest.approx(max(squares) ** 0.5)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda ax, r: draw_beside_chance(ax, []), "'layers' must be at least one report"),
        (lambda ax, r: draw_beside_chance(ax, r, "alpha"), "'column'"),
        (lambda ax, r: draw_over_training(ax, [0, 1], r), "'epochs' must be 3 numbers"),
    ],
)
def test_pictures_of_reports_refuse_what_does_not_fit(ax, reports, draw, message):
    with pytest.raises(ValueError, match=message):
        draw(ax, reports)


def test_silent_neurons_are_counted_and_chance_is_the_mean_of_random_supports(ax):
    forest = maximum_spanning_forest(np.random.default_rng(2).standard_normal((12, 7)))
    drawn = draw_silent_neurons(ax, forest)
    ks = np.rint(np.asarray(drawn.silent_inputs.get_xdata()) * 84).astype(int)
    deficits = [forest.deficit(int(k)) for k in ks]
    assert drawn.silent_inputs.get_ydata().tolist() == [d.silent_inputs for d in deficits]
    assert drawn.fragments.get_ydata().tolist() == [d.fragments for d in deficits]
    place = int(np.flatnonzero(ks == 10)[0])
    orders = np.argsort(np.random.default_rng(0).random((20000, 84)), axis=1)[:, :10] // 7
    silent = 12 - np.array([len(set(rows)) for rows in orders.tolist()])
    assert drawn.chance[0].get_ydata()[place] == pytest.approx(silent.mean(), abs=4 * silent.std() / 20000**0.5)
    assert drawn.chance[0].get_ydata()[-1] == 0


def test_effective_density_is_that_of_the_network(ax):
    layers = [WEIGHTS, np.random.default_rng(5).standard_normal((5, 3))]
    found = effective_weights(layers)
    drawn = draw_effective_density(ax, found, layers)
    thresholds = drawn.effective.get_xdata()
    assert drawn.effective.get_ydata().tolist() == [found.density(float(t)) for t in thresholds]
    left = [sum(int((np.abs(w) >= t).sum()) for w in layers) / 35 for t in thresholds]
    assert drawn.density.get_ydata().tolist() == left
    assert drawn.collapse.get_xdata()[0] == found.collapse_threshold
    assert draw_effective_density(ax, found).density is None


def test_a_small_layer_is_a_graph_and_a_large_one_a_matrix(ax):
    small = maximum_spanning_forest(WEIGHTS)
    assert len(draw_forest(ax, WEIGHTS, small).forest.get_segments()) == small.alpha
    large = np.random.default_rng(0).standard_normal((300, 50))
    forest = maximum_spanning_forest(large)
    drawn = draw_forest(ax, large, forest)
    shown = drawn.forest.get_array()
    assert shown.shape == (256, 50)
    assert shown.sum() == forest.alpha
    assert drawn.magnitudes.get_array().max() == np.abs(large).max()


@pytest.mark.long
def test_the_gallery_shows_every_picture(reports, tmp_path):
    weights = np.random.default_rng(0).standard_normal((30, 20))
    forest, diagram = maximum_spanning_forest(weights), persistence_diagram(weights)
    small = maximum_spanning_forest(WEIGHTS)
    chain = [WEIGHTS, WEIGHTS.T]
    gallery = {
        "draw_band": lambda ax: draw_band(ax, [0, 1, 2], [[0, 1, 4], [1, 2, 6]]),
        "draw_barcode": lambda ax: draw_barcode(ax, diagram),
        "draw_beside_chance": lambda ax: draw_beside_chance(ax, reports),
        "draw_betti_curve": lambda ax: draw_betti_curve(ax, diagram),
        "draw_effective_density": lambda ax: draw_effective_density(ax, effective_weights(chain), chain),
        "draw_filtration": lambda ax: draw_filtration(ax, WEIGHTS, small, 0.5),
        "draw_forest": lambda ax: draw_forest(ax, weights, forest),
        "draw_interval": lambda ax: draw_interval(ax, [0, 1], [0, 1], [1, 2]),
        "draw_over_training": lambda ax: draw_over_training(ax, [0, 1, 2], reports),
        "draw_persistence_diagram": lambda ax: draw_persistence_diagram(ax, diagram),
        "draw_retention": lambda ax: draw_retention(ax, weights, seed=0),
        "draw_silent_neurons": lambda ax: draw_silent_neurons(ax, forest),
    }
    assert set(gallery) == {name for name in plotting.__all__ if name.startswith("draw_")}
    figure = Figure(figsize=(12, 9), layout="constrained")
    before = dict(mpl.rcParams)
    for ax, (name, draw) in zip(figure.subplots(3, 4).flat, gallery.items(), strict=True):
        draw(ax)
        ax.set_title(name)
        assert ax.has_data(), name
    figure.savefig(tmp_path / "gallery.png")
    assert (tmp_path / "gallery.png").stat().st_size > 50_000
    assert dict(mpl.rcParams) == before, "matplotlib's settings are the caller's"
