"""What the figures show: the records' numbers, and the paper's claims measured on them."""

import csv
import io
import json
from fractions import Fraction

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from paper_figures import figure2, figure3, table1
from paper_figures.registry import FIGURES, figure_module
from paper_figures.settings import COMMITTED, Settings, committed_record
from topobounds.figures import publish
from topobounds.figures.record import FigureRecord
from topobounds.plotting import draw_filtration
from topobounds.supports import read_support
from topobounds.theory.paper import corollary_3_4
from topobounds.topology.persistence import persistence_diagram
from topobounds.topology.spanning import magnitude_overlap, maximum_spanning_forest

DRAWN = [name for name in FIGURES if name != "table1"]
TRAINED = ["figure1", "figure1_null", "figure3", "figure3_expected", "retention"]
TABLES = {"compression": {"compression.md", "compression.tex"}}
COLUMNS = {
    "table1": "architecture,dataset,part,printed,computed,corrected",
    "figure1": "trial,epoch,layer,normalized_neural_persistence",
    "figure1_null": "trial,epoch,layer,normalized_neural_persistence,expected,z",
    "figure2": "layer,source,target,weight,value,rank,in_forest",
    "figure3": "layer,m,n,density,support,trial,overlap,corollary_3_4",
    "figure3_expected": ("layer,m,n,density,support,trial,overlap,expected,standard_error,standard_deviation,source"),
    "bounds": "m,n,theorem_3_3,star_bound,boruvka_bound,lower,upper,limit,simulated,standard_error",
    "retention": "curve,layer,trial,m,n,k,density,lower,upper,connected",
    "corollary_3_4": ("m,n,density,corollary_3_4,lower,upper,uniform,connected,connected_by,connection_density"),
    "compression": "architecture,dataset,part,convention,weights,kept,ratio,standard_error",
    "t_imp": "run,replicate,level,density,test_accuracy,overlap,neural_persistence",
}


def settings(tmp_path, seed=0):
    return Settings(
        out=tmp_path,
        dataset="digits",
        trials=1,
        epochs=1,
        seed=seed,
        data_dir=None,
        download=False,
        device="cpu",
        jobs=1,
        progress=lambda done, total, message: None,
    )


@pytest.mark.parametrize("name", FIGURES)
def test_committed_records_are_whole(name):
    record = committed_record(name)
    assert (record.name, ",".join(record.columns)) == (name, COLUMNS[name])
    assert record.json() == (COMMITTED / f"{name}.json").read_text(encoding="utf-8")
    assert {"command", "versions"} <= record.provenance.keys()
    assert record.provenance["command"].startswith(f"topobounds figures {name}")
    assert f"`{name}.json`" in (COMMITTED / "README.md").read_text(encoding="utf-8")


def test_committed_records_are_small():
    assert sum(file.stat().st_size for file in COMMITTED.iterdir()) < 400_000


@pytest.mark.parametrize("name", ["table1", "figure2"])
def test_committed_records_that_need_no_net_are_what_is_computed(name, tmp_path):
    assert figure_module(name).measure(settings(tmp_path)).csv() == committed_record(name).csv()


@pytest.mark.parametrize("name", TRAINED)
def test_trained_records_say_where_they_come_from(name):
    made = committed_record(name).provenance
    assert {"seed", "trials", "epochs", "data", "plan", "widths", "device"} <= made.keys()
    assert {"topobounds", "numpy", "torch"} <= made["versions"].keys()
    assert made["data"]["files"]["train-images-idx3-ubyte.gz"].startswith("440fcabf")


@pytest.mark.parametrize("name", DRAWN)
def test_drawing_returns_a_figure_and_leaves_matplotlib_alone(name):
    before = dict(mpl.rcParams)
    figure = figure_module(name).draw(committed_record(name))
    assert isinstance(figure, Figure)
    assert len(figure.axes) >= 2
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("name", DRAWN)
def test_rendered_files_are_the_same_bytes_each_time(name, tmp_path):
    before, record = dict(mpl.rcParams), committed_record(name)
    first = {file.name: file.read_bytes() for file in figure_module(name).render(record, tmp_path)}
    again = {file.name: file.read_bytes() for file in figure_module(name).render(record, tmp_path)}
    assert first == again
    assert set(first) == {f"{name}.pdf", f"{name}.png", f"{name}.txt"} | TABLES.get(name, set())
    assert b"/FontFile2" in first[f"{name}.pdf"], "fonts are embedded"
    assert b"CreationDate" not in first[f"{name}.pdf"]
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("name", DRAWN)
def test_nothing_sticks_out_of_the_page(name, tmp_path):
    with mpl.rc_context(publish.STYLE):
        record = committed_record(name)
        figure = figure_module(name).draw(record)
        publish.add_caption(figure, figure_module(name).caption(record))
        figure.savefig(io.BytesIO(), format="png")
        box = figure.get_tightbbox()
    assert box.x0 > -0.01
    assert box.y0 > -0.01
    assert box.x1 < figure.get_figwidth() + 0.01
    assert box.y1 < figure.get_figheight() + 0.01


@pytest.mark.parametrize("name", TRAINED)
def test_captions_say_data_trials_epochs_and_seed(name):
    assert figure_module(name).caption(committed_record(name)).endswith("Data: MNIST; 5 trials of 20 epochs; seed 0.")


def test_figure1_shows_what_the_papers_shows():
    record, last = committed_record("figure1"), {}
    for layer in range(1, 7):
        epochs, persistence = record.where(layer=layer).pivot("normalized_neural_persistence", across="epoch")
        mean = dict(zip(epochs, persistence.mean(axis=0), strict=True))
        assert mean[20] - mean[1] > 0.2
        assert max(abs(mean[epoch] - mean[15]) for epoch in range(16, 21)) < 0.05
        last[layer] = mean[20]
    assert max(last, key=last.get) == 1


def test_figure1_draws_means_and_totals():
    record = committed_record("figure1")
    left, right = figure_module("figure1").draw(record).axes
    persistence = record.where(layer=1, epoch=20).column("normalized_neural_persistence")
    assert left.lines[0].get_ydata()[-1] == pytest.approx(np.mean(persistence))
    total = sum(record.where(trial=4, epoch=20).column("normalized_neural_persistence"))
    assert right.lines[4].get_ydata()[-1] == pytest.approx(total)


def test_figure2_is_the_filtration_of_the_two_matrices():
    first, second = figure2.two_layers(0)
    joined = figure2.record_matrix(committed_record("figure2"))
    assert np.array_equal(joined, np.hstack([first.T, second]))
    by_hand = sorted(np.abs(np.concatenate([first.ravel(), second.ravel()])))[::-1]
    assert np.abs(committed_record("figure2").column("weight")).tolist() == by_hand


def test_figure2_shows_the_forest():
    record = committed_record("figure2")
    joined = figure2.record_matrix(record)
    forest, diagram = maximum_spanning_forest(joined), persistence_diagram(joined)
    axes = figure2.draw(record).axes
    levels = figure2.thresholds(diagram.deaths)
    labels = [text.get_text() for ax in axes[:4] for text in ax.texts]
    assert labels == [f"{value:.2f}" for value in diagram.deaths], "every forest edge once, as it enters"
    for ax, level in zip(axes, levels, strict=False):
        bold = ax.collections[-1].get_segments()
        places = figure2.neuron_places()
        count = np.count_nonzero(diagram.deaths >= level)
        ends = np.stack([places[forest.rows], places[3 + forest.cols]], axis=1)[:count]
        assert np.array_equal(bold, ends)
        components = diagram.betti_curve(level)
        assert ax.get_title() == f"$t = {level:.2f}$: {components} component{'s' if components > 1 else ''}"
    assert np.array_equal(axes[4].collections[0].get_offsets(), np.asarray(diagram))
    assert [int(row[-1]) for row in record.rows].count(1) == forest.alpha == 8


def test_figure2_another_seed_is_another_net(tmp_path):
    assert figure2.measure(settings(tmp_path, seed=1)).rows != committed_record("figure2").rows


def test_figure3_bounds_are_the_corollarys_and_supports_exist():
    record = committed_record("figure3")
    for _, m, n, density, support, _, overlap, bound in record.rows:
        assert bound == corollary_3_4(m, n, density).value
        assert 0 <= overlap <= 1
        assert support == "uniform" or round(density * m * n) >= m + n - 1
    assert {(row[1], row[2], row[3]) for row in record.rows if row[-1] is None} == {
        (100, 10, 0.02), (100, 10, 0.05), (100, 10, 0.1)
    }  # fmt: skip


def test_figure3_supports_agree_where_they_are_the_whole_layer():
    record = committed_record("figure3").where(density=1.0)
    assert record.where(support="star").column("overlap") == record.where(support="uniform").column("overlap")


def test_figure3_marks_exactly_the_bounds_above_a_measured_mean():
    record = committed_record("figure3")
    axes = figure3.draw(record).axes
    panels = [(m, n, s) for m, n in ((784, 100), (100, 100), (100, 10)) for s in ("star", "uniform")]
    for ax, (m, n, support) in zip(axes, panels, strict=True):
        part, expected = record.where(m=m, n=n, support=support), []
        for density in part.distinct("density"):
            here = part.where(density=density)
            means = [np.mean(here.where(layer=layer).column("overlap")) for layer in here.distinct("layer")]
            bound = here.column("corollary_3_4")[0]
            if bound is not None and bound > min(means):
                expected.append([density, bound])
        assert ax.lines[-1].get_xydata().tolist() == expected
        assert (len(expected) > 0) == (n == 100), "the trained nets themselves contradict the corollary"
    assert "100×10 at 0.02, 0.05, 0.1" in figure3.caption(record)
    assert "false as printed" in figure3.caption(record)


def test_figure3_k_is_the_alpha_of_the_supports_forest():
    rng = np.random.default_rng(5)
    weights = rng.standard_normal((20, 12))
    mask = read_support(20, 12, 0.1, "uniform").draw_mask(rng)
    forest = maximum_spanning_forest(weights, mask)
    assert forest.alpha < 31, "the support is disconnected"
    assert magnitude_overlap(weights, mask=mask) == forest.overlap(forest.alpha)


def test_table1_17_of_18_to_the_last_digit():
    rows = list(csv.DictReader(io.StringIO(committed_record("table1").csv())))
    misses = [row for row in rows if round(Fraction(row["computed"]), 4) != Fraction(row["printed"])]
    assert len(rows) == 18
    assert [row["printed"] for row in misses] == ["4.3914"]
    assert {f"{float(row['corrected']):.4f}" for row in rows if row["corrected"]} == {"4.0422", "4.8470", "16.7489"}


def test_table1_marks_its_errata():
    record = committed_record("table1")
    markdown, latex = table1.markdown(record), table1.latex(record)
    assert "| VGG11 | CIFAR-10 | FINAL | 4.3914 <sup>b</sup> | 4.3919 | 4.8470 |" in markdown
    assert r"VGG11 & CIFAR-10 & FINAL & 4.3914\rlap{\textsuperscript{b}} & 4.3919 & 4.8470 \\" in latex
    assert "<sup>b</sup> Misprint" in markdown
    assert r"\textsuperscript{b} Misprint" in latex
    assert latex.count(r"\midrule") == 6
    assert latex.count("{") == latex.count("}")


def test_records_of_another_schema_are_refused():
    held = json.loads(committed_record("figure2").json()) | {"schema_version": 99}
    with pytest.raises(ValueError, match="must have schema 1, not 99"):
        FigureRecord.from_json(json.dumps(held))


def test_every_panel_of_figure2_says_what_a_fresh_drawing_says():
    record = committed_record("figure2")
    joined = figure2.record_matrix(record)
    level = figure2.thresholds(persistence_diagram(joined).deaths)[1]
    fresh = draw_filtration(Figure().subplots(), joined, maximum_spanning_forest(joined), level)
    drawn = figure2.draw(record).axes[1].collections
    assert np.array_equal(fresh.vertices.get_facecolors(), drawn[0].get_facecolors())
