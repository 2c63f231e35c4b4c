"""The figures beyond the paper: what their records say is measured again, by another road where there is one."""

import math
from itertools import pairwise

import numpy as np
import pytest

from paper_figures import bounds, compression, corollary_3_4, figure1_null, figure3, figure3_expected, retention
from paper_figures.settings import committed_record
from topobounds.analysis.compression import compression_report
from topobounds.figures.record import point_seed
from topobounds.montecarlo import simulate_overlap
from topobounds.theory import paper
from topobounds.theory.deviation import known_deviation
from topobounds.theory.enclosure import Enclosure
from topobounds.theory.overlap import expected_overlap
from topobounds.theory.table1 import PARTS, PRINTED, architecture, table1
from topobounds.topology.spanning import maximum_spanning_forest


def column(name, key, **conditions):
    return np.array(committed_record(name).where(**conditions).column(key))


def test_points_have_seeds_of_their_own():
    seeds = {point_seed(seed, m, n) for seed in range(3) for m in range(10) for n in range(10)}
    assert len(seeds) == 300
    assert all(0 <= seed < 2**32 for seed in seeds)


# -- bounds ----------------------------------------------------------------------------------------------------------


def test_bounds_lie_in_their_order_below_the_truth():
    theorem, star, boruvka, lower, upper = (column("bounds", name) for name in bounds.COLUMNS[2:7])
    assert (theorem < star).all()
    assert (star < boruvka).all()
    assert (boruvka <= lower).all()
    assert (upper - lower < 1e-6).all()
    assert (boruvka > 0.608).all()


def test_bounds_simulation_agrees_and_would_tell():
    simulated, error = column("bounds", "simulated"), column("bounds", "standard_error")
    scores = (simulated - column("bounds", "lower")) / error
    assert abs(scores).max() < 4
    assert abs(scores.mean()) < 4 / math.sqrt(len(scores))
    assert 0.5 < scores.std() < 1.6, "the errors are neither too large nor too small"


def test_bounds_limit_comes_close_with_the_shorter_side():
    shorter, distance = column("bounds", "m"), abs(column("bounds", "limit") - column("bounds", "lower"))
    assert (distance <= 0.25 / shorter).all()
    assert distance[0] > 0.1


def test_bounds_are_drawn_as_recorded():
    record = committed_record("bounds")
    above, beneath = bounds.draw(record).axes
    drawn = {line.get_label(): line.get_ydata().tolist() for line in above.lines}
    assert drawn["Theorem 3.3, printed"] == record.column("theorem_3_3")
    assert drawn["limit for large layers"] == record.column("limit")
    middle = (column("bounds", "lower") + column("bounds", "upper")) / 2
    assert beneath.lines[1].get_ydata() == pytest.approx(1000 * (column("bounds", "limit") - middle))


def test_bounds_of_one_shape_are_what_is_computed():
    row = committed_record("bounds").where(m=500).rows[0]
    truth = expected_overlap(500, 500)
    assert row[2] == paper.theorem_3_3(500, 500).value
    assert row[5:7] == pytest.approx((truth.lower, truth.upper), abs=1e-12)  # processors differ in the last digit
    seed = point_seed(committed_record("bounds").provenance["seed"], 500, 500)
    assert row[8] == simulate_overlap(500, 500, trials=bounds.SIMULATED, seed=seed).mean


# -- retention -------------------------------------------------------------------------------------------------------


def test_retention_curves_rise_to_the_whole_tree():
    expected = committed_record("retention").where(curve="expected")
    for m, n in dict.fromkeys(zip(expected.column("m"), expected.column("n"), strict=True)):
        curve = expected.where(m=m, n=n)
        assert curve.column("k") == retention.ranks(m, n, "expected")
        assert set(retention.ranks(m, n, "trained")) <= set(curve.column("k"))
        lower, upper, connected = (np.array(curve.column(name)) for name in ("lower", "upper", "connected"))
        assert (lower <= upper).all()
        assert (np.diff(upper) >= 0).all()
        assert (np.diff(connected) >= 0).all()
        assert (lower[-1], connected[-1]) == (1, 1)


def test_retention_curves_are_smooth():
    expected = committed_record("retention").where(curve="expected")
    for m, n in dict.fromkeys(zip(expected.column("m"), expected.column("n"), strict=True)):
        curve = expected.where(m=m, n=n)
        steps, turns = np.diff(curve.column("lower")), np.diff(np.log(curve.column("density")))
        assert steps.max() < 0.07, "no step of a drawn curve is seen as a straight line"
        assert turns.max() < 0.25


def test_retention_has_a_panel_for_each_trained_layer():
    record = committed_record("retention")
    panels = retention.draw(record).axes[2:]
    assert [ax.get_title().splitlines()[0] for ax in panels] == [f"layer {layer}" for layer in range(1, 7)]
    for layer, ax in enumerate(panels, 1):
        densities, retained = record.where(curve="trained", layer=layer).pivot("lower", across="density")
        assert ax.lines[1].get_xydata() == pytest.approx(np.stack([densities, retained.mean(axis=0)], axis=1))


def test_retention_simulated_agrees():
    expected = committed_record("retention").where(curve="expected", m=300, n=100)
    for at in retention.ranks(300, 100, "trained")[2:14:3]:
        ((_, _, _, m, n, k, _, lower, upper, _),) = expected.where(k=at).rows
        estimate = simulate_overlap(m, n, k, trials=400, seed=k)
        assert lower - 5 * estimate.standard_error <= estimate.mean <= upper + 5 * estimate.standard_error


def test_retention_threshold_is_where_less_than_one_edge_is_lost():
    expected = committed_record("retention").where(curve="expected")
    for m, n in dict.fromkeys(zip(expected.column("m"), expected.column("n"), strict=True)):
        curve = expected.where(m=m, n=n)
        place = retention._threshold(curve)
        lost = (m + n - 1) * (1 - curve.column("lower")[place])
        assert 0.6 < lost < 0.85, "log 2, if those that are alone are Poisson"


def test_retention_of_trained_layers_lags_behind():
    record = committed_record("retention")
    trained = record.where(curve="trained")
    assert len(trained.distinct("layer")) == 6
    for layer in range(1, 7):
        mine = trained.where(layer=layer)
        m, n = mine.column("m")[0], mine.column("n")[0]
        ks, retained = mine.pivot("lower", across="k")
        expected = record.where(curve="expected", m=m, n=n)
        at_alpha = expected.where(k=m + n - 1).column("lower")[0]
        assert retained[:, ks.index(m + n - 1)].mean() < at_alpha - 0.1
        threshold = expected.column("k")[retention._threshold(expected)]
        assert not mine.where(k=threshold).column("connected").count(1.0), "no trained layer keeps its tree there"


def test_retention_at_alpha_is_figure_3_at_density_1():
    overlaps = committed_record("figure3").where(density=1.0, support="star")
    for layer, m, n, _, _, trial, overlap, _ in overlaps.rows:
        here = committed_record("retention").where(curve="trained", layer=layer, trial=trial, k=m + n - 1)
        assert here.column("lower") == [overlap]


def test_retention_rows_of_a_layer_are_its_forests():
    weights = np.random.default_rng(4).standard_normal((12, 7))
    forest = maximum_spanning_forest(weights)
    for curve, layer, trial, m, n, k, density, lower, upper, connected in retention._trained_rows(3, 1, weights):
        assert (curve, layer, trial, m, n, density) == ("trained", 3, 1, 12, 7, k / 84)
        assert lower == upper == np.count_nonzero(forest.ranks <= k) / forest.alpha
        assert connected == (lower == 1)


# -- figure 1 beside the null of the same weights --------------------------------------------------------------------


def test_the_null_of_figure_1_is_near_the_persistence_of_every_layer():
    """Most of the persistence is that of the values; the wide first layer is the farthest from them, the last near."""
    record = committed_record("figure1_null").where(epoch=20)
    z = {layer: record.where(layer=layer).column("z") for layer in record.distinct("layer")}
    assert min(z[1]) > 20
    assert max(map(abs, z[6])) < min(z[1])
    for layer in record.distinct("layer"):
        here = record.where(layer=layer)
        pairs = zip(here.column("normalized_neural_persistence"), here.column("expected"), strict=True)
        for (measured, expected), distance in zip(pairs, z[layer], strict=True):
            assert 0.75 * measured < expected < 1.25 * measured
            assert (measured > expected) == (distance > 0)


def test_the_persistence_beside_its_null_is_that_of_figure_1():
    """Trained on another processor: the nets go apart a little in 20 epochs."""
    here, there = committed_record("figure1_null"), committed_record("figure1")
    same = [row for row in there.rows if figure1_null.is_measured(row[1])]
    assert [row[:3] for row in here.rows] == [row[:3] for row in same]
    assert max(abs(a[3] - b[3]) for a, b in zip(here.rows, same, strict=True)) < 0.02
    assert here.distinct("epoch") == [0, 1, 2, 3, 4, 5, 10, 15, 20]


def test_the_null_of_figure_1_is_drawn_as_recorded():
    record = committed_record("figure1_null")
    left, right = figure1_null.draw(record).axes
    first = record.where(layer=1)
    assert left.lines[1].get_linestyle() == "--"
    expected = np.mean(first.where(epoch=20).column("expected"))
    assert left.lines[1].get_ydata()[-1] == pytest.approx(expected)
    assert right.lines[0].get_ydata()[-1] == pytest.approx(np.mean(first.where(epoch=20).column("z")))


# -- figure 3 beside exchangeable weights ----------------------------------------------------------------------------


def test_expected_overlaps_are_figure_3s():
    record = committed_record("figure3_expected")
    assert [row[:7] for row in record.rows] == [row[:7] for row in committed_record("figure3").rows]
    assert len({row[1:5] + row[7:] for row in record.rows}) == len({row[1:5] for row in record.rows})


def test_expected_values_are_certified_where_they_can_be():
    record = committed_record("figure3_expected")
    assert set(record.where(density=1.0).column("source")) == {"certified"}
    assert set(record.where(density=0.02).column("source")) == {"simulated"}
    certified = record.where(source="certified", m=784)
    truth = expected_overlap(784, 100)
    assert certified.distinct("support") == ["star", "uniform"]
    assert abs(np.array(certified.column("expected")) - truth.lower).max() < 1e-4
    assert max(certified.column("standard_error")) < 1e-4


@pytest.mark.parametrize(("m", "n", "density"), [(784, 100, 0.3), (100, 100, 0.2), (60, 50, 0.4)])
def test_certified_expectations_hold_the_simulated_mean(m, n, density):
    truth = figure3_expected.certified(m, n, density, "uniform")
    estimate = simulate_overlap(m, n, density=density, trials=1000, seed=2)
    assert truth.lower - 5 * estimate.standard_error < estimate.mean < truth.upper + 5 * estimate.standard_error


def test_no_certificate_where_supports_may_fall_apart_or_are_not_uniform():
    assert figure3_expected.certified(100, 100, 0.05, "uniform") is None
    assert figure3_expected.certified(100, 100, 0.01, "uniform") is None
    assert figure3_expected.certified(100, 100, 0.5, "star") is None


def test_trained_layers_are_far_from_exchangeable():
    record = committed_record("figure3_expected").where(density=1.0, support="uniform")
    for layer in range(1, 7):
        here = record.where(layer=layer)
        expected, deviation = here.column("expected")[0], here.column("standard_deviation")[0]
        assert np.mean(here.column("overlap")) < expected - 4 * deviation


def test_deviations_take_no_simulation_where_the_mean_is_certified():
    certified = committed_record("figure3_expected").where(source="certified")
    shapes = zip(certified.column("m"), certified.column("n"), certified.column("standard_deviation"), strict=True)
    for m, n, deviation in set(shapes):
        known = known_deviation(m, n)
        assert known is not None
        assert deviation == known.value


def test_expected_curves_are_drawn_as_recorded():
    record = committed_record("figure3_expected")
    first = figure3_expected.draw(record).axes[0]
    part = record.where(layer=1, support="star", trial=0)
    assert first.lines[0].get_xydata().tolist() == list(
        map(list, zip(part.column("density"), part.column("expected"), strict=True))
    )
    assert len(first.lines) == 2, "expectation and one layer"


# -- Corollary 3.4 ---------------------------------------------------------------------------------------------------


def test_corollary_map_is_what_the_bound_and_the_truth_say():
    for m, n, density, bound, lower, upper, uniform, connected, by, _ in committed_record("corollary_3_4").rows:
        assert bound == paper.corollary_3_4(m, n, density).value
        assert uniform == corollary_3_4.verdict(bound, Enclosure(lower, upper))
        assert (bound is None) == (uniform == "undefined") == (connected == "undefined")
        assert (by is None) == (connected in ("undefined", "undecided")) or by == "simulation"


def test_corollary_map_has_both_and_theory_decides_all_supports():
    record = committed_record("corollary_3_4")
    assert set(record.column("uniform")) == {"fails", "holds", "undefined"}
    verdicts = list(zip(record.column("uniform"), record.column("connected"), strict=True))
    assert {("fails", "holds"), ("holds", "fails")}.isdisjoint(verdicts), "where both are decided they agree"
    assert record.column("connected").count("undecided") < 25
    assert {"every support", "cycles", "enclosure", "simulation"} <= set(record.column("connected_by"))
    assert set(record.where(density=1.0).column("uniform")) == {"holds"}, "there it is Theorem 3.3"


@pytest.mark.parametrize("place", [20, 18])
def test_corollary_map_simulated_again_on_both_sides_of_its_border(place):
    record = committed_record("corollary_3_4")
    m = record.distinct("m")[place]
    rows = [row for row in record.where(m=m).rows if row[6] in ("fails", "holds")]
    (border,) = [i for i, (low, high) in enumerate(pairwise(rows)) if low[6] != high[6]]
    for row in (rows[border - 1], rows[border + 2]):
        estimate = simulate_overlap(*row[:2], density=row[2], trials=1000, seed=9)
        assert estimate.connected > 0.99
        assert (estimate.mean_connected + 5 * estimate.standard_error < row[3]) == (row[6] == "fails")
        assert (estimate.mean_connected - 5 * estimate.standard_error > row[3]) == (row[6] == "holds")


def test_corollary_map_never_fails_on_flat_layers():
    record = committed_record("corollary_3_4")
    flat = [m for m, n in zip(record.column("m"), record.column("n"), strict=True) if m / n < 0.04]
    assert flat
    assert {verdict for m in set(flat) for verdict in record.where(m=m).column("uniform")} == {"holds", "undefined"}


@pytest.mark.parametrize("density", [0.1, 0.15, 0.2])
def test_chance_of_disconnected_is_an_upper_bound(density):
    chance = corollary_3_4.chance_of_disconnected(60, 40, round(density * 2400))
    estimate = simulate_overlap(60, 40, density=density, trials=2000, seed=3)
    broken = 1 - estimate.connected
    assert broken - 5 * math.sqrt(broken / 2000) <= chance <= 3 * broken + 0.01
    mean = corollary_3_4.connected_mean(expected_overlap(60, 40), chance)
    error = 5 * estimate.standard_error_connected
    assert mean.lower - error <= estimate.mean_connected <= mean.upper + error


def test_connected_mean_says_nothing_where_all_may_be_disconnected():
    assert corollary_3_4.connected_mean(Enclosure(0.8, 0.8), 1.5) == Enclosure(0, 1)
    assert corollary_3_4.connected_mean(Enclosure(0.8, 0.81), 0) == Enclosure(0.8, 0.81)


@pytest.mark.parametrize(
    ("bound", "wanted"), [(None, "undefined"), (0.9, "fails"), (0.7, "holds"), (0.75, "undecided"), (0.8, "undecided")]
)
def test_verdict(bound, wanted):
    assert corollary_3_4.verdict(bound, Enclosure(0.7, 0.8)) == wanted


def test_corollary_map_is_drawn_as_recorded():
    record = committed_record("corollary_3_4")
    figure = corollary_3_4.draw(record)
    for ax, reading in zip(figure.axes, corollary_3_4.READINGS, strict=True):
        drawn = np.asarray(ax.collections[0].get_array()).T.ravel().astype(int)
        assert [list(corollary_3_4.COLORS)[code] for code in drawn] == record.column(reading)


# -- compression -----------------------------------------------------------------------------------------------------


def test_compression_in_the_papers_convention_is_table_1():
    record = committed_record("compression").where(convention="paper")
    assert record.column("ratio") == [float(row.computed) for row in table1()]
    assert set(record.column("standard_error")) == {None}


def test_compression_counts_what_is_stored():
    shared = committed_record("compression").where(convention="shared")
    for key in PRINTED:
        network = architecture(*key)
        stored = [sum(layer.conv.n_weights for layer in network.convs), sum(layer.n_weights for layer in network.dense)]
        here = shared.where(architecture=key[0], dataset=key[1])
        assert here.column("weights") == [*stored, sum(stored)]
        assert here.column("part") == list(PARTS)


def test_compression_of_dense_layers_is_the_same_in_every_convention():
    dense = committed_record("compression").where(part="DENSE")
    for key in PRINTED:
        here = dense.where(architecture=key[0], dataset=key[1])
        assert len(set(here.column("ratio"))) == 1
        assert here.column("convention") == list(compression.CONVENTIONS)


def test_papers_convention_hides_a_factor_of_ten_and_more():
    convs = committed_record("compression").where(part="CONV")
    for key in PRINTED:
        here = convs.where(architecture=key[0], dataset=key[1])
        printed, toeplitz, shared = here.column("ratio")
        assert printed < 4.4
        assert min(toeplitz, shared) > 15 * printed
        assert min(shared, toeplitz) > (400 if key[0] != "resnet20" else 70)


def test_compression_of_the_whole_is_the_reports_own():
    network = architecture("resnet20", "cifar10")
    report = compression_report(network.layers, network.printed_layers, trials=compression.TRIALS, seed=0)
    here = committed_record("compression").where(architecture="resnet20", dataset="cifar10", part="FINAL")
    ratios = [float(report.paper.ratio), float(report.toeplitz.ratio), report.shared.ratio]
    assert here.column("ratio") == pytest.approx(ratios, rel=1e-12)
    assert here.column("standard_error")[2] == pytest.approx(report.shared.standard_error)


def test_compression_tables_say_what_the_record_says():
    record = committed_record("compression")
    markdown, latex = compression.markdown(record), compression.latex(record)
    ratio = record.where(architecture="vgg11", dataset="cifar10", part="CONV", convention="shared").column("ratio")[0]
    assert f"| VGG11 | CIFAR-10 | CONV | 4.229 | 539.3 | {ratio:.4g} |" in markdown
    assert rf"VGG11 & CIFAR-10 & CONV & 4.229 & 539.3 & {ratio:.4g} \\" in latex
    assert latex.count(r"\midrule") == 6
    assert latex.count("{") == latex.count("}")


def test_compression_is_drawn_as_recorded():
    record = committed_record("compression")
    for ax, part in zip(compression.draw(record).axes, PARTS, strict=True):
        drawn = {line.get_label().partition(":")[0]: list(line.get_xdata()) for line in ax.lines}
        assert drawn == {
            name: record.where(part=part, convention=name).column("ratio") for name in compression.CONVENTIONS
        }


@pytest.mark.parametrize("name", ["bounds", "corollary_3_4", "compression"])
def test_captions_without_a_net_say_so(name):
    module = {"bounds": bounds, "corollary_3_4": corollary_3_4, "compression": compression}[name]
    caption = module.caption(committed_record(name))
    assert "No data, no training" in caption
    assert "seed 0" in caption


def test_figure_3_panels_are_shared():
    record = committed_record("figure3_expected")
    titles = [ax.get_title() for ax in figure3_expected.draw(record).axes]
    assert titles == [ax.get_title() for ax in figure3.draw(committed_record("figure3")).axes]
