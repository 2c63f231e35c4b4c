"""What the figures show: the records' numbers, and the paper's claims measured on them."""

import csv
import io
import itertools
import json
import os
import subprocess
import sys
from fractions import Fraction
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from paper_figures import figure2, figure3, table1
from paper_figures.registry import FIGURES, figure_module
from paper_figures.settings import COMMITTED, Settings, committed_record
from tests.paper_figures.conftest import SOME
from topobounds._parallel import processor_name
from topobounds.figures import publish
from topobounds.figures.record import FigureRecord, provenance
from topobounds.plotting import draw_filtration
from topobounds.supports import read_support
from topobounds.theory.paper import corollary_3_4
from topobounds.topology.persistence import neural_persistence, persistence_diagram
from topobounds.topology.spanning import magnitude_overlap, maximum_spanning_forest

DRAWN = [name for name in FIGURES if name != "table1"]
SEEN = [name if name in SOME else pytest.param(name, marks=pytest.mark.long) for name in DRAWN]
"""Those that are drawn, and of which a few are drawn in every run."""
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


OWN_SETTINGS = """
text.usetex: True
savefig.dpi: 30
savefig.bbox: tight
savefig.transparent: True
figure.facecolor: black
font.size: 20
lines.linewidth: 5
axes.grid: True
axes.prop_cycle: cycler('color', ['r'])
image.cmap: jet
path.sketch: 1, 100, 2
pdf.compression: 0
"""


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


def edges(band, x):
    """Return the two ends of a drawn band at an abscissa."""
    heights = [y for place, y in band.get_paths()[0].vertices if place == x]
    return min(heights), max(heights)


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


def in_another_process():
    """Return each figure and what draws it in another process; few of them in every run."""
    few = [(name, "some_from_records") for name in SOME if name in DRAWN]
    others = [name for name in DRAWN if name not in SOME]
    return few + [pytest.param(name, "from_records", marks=pytest.mark.long) for name in others]


@pytest.mark.parametrize(("name", "there"), in_another_process())
def test_rendered_files_are_the_same_bytes_in_every_process(name, there, request, tmp_path):
    before, record = dict(mpl.rcParams), committed_record(name)
    first = {file.name: file.read_bytes() for file in figure_module(name).render(record, tmp_path)}
    folder, _ = request.getfixturevalue(there)
    assert first == {file: (folder / file).read_bytes() for file in first}
    assert set(first) == {f"{name}.pdf", f"{name}.png", f"{name}.txt"} | TABLES.get(name, set())
    assert b"/FontFile2" in first[f"{name}.pdf"], "fonts are embedded"
    assert b"CreationDate" not in first[f"{name}.pdf"]
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("name", SEEN)
def test_nothing_sticks_out_of_the_page(name, tmp_path):
    with publish.style():
        record = committed_record(name)
        figure = figure_module(name).draw(record)
        publish.add_caption(figure, figure_module(name).caption(record))
        figure.draw_without_rendering()
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


def test_figure1_has_a_panel_for_each_layer():
    record = committed_record("figure1")
    *panels, _ = figure_module("figure1").draw(record).axes
    assert [ax.get_title() for ax in panels] == [f"layer {layer}" for layer in range(1, 7)]
    for layer, ax in enumerate(panels, 1):
        persistence = record.where(layer=layer, epoch=20).column("normalized_neural_persistence")
        mean, spread = np.mean(persistence), np.std(persistence, ddof=1)
        assert ax.lines[-1].get_xdata().tolist() == list(range(21))
        assert ax.lines[-1].get_ydata()[-1] == pytest.approx(mean)
        ends = edges(ax.collections[0], 20)
        assert ends == pytest.approx((mean - spread, mean + spread))
        assert len(ax.lines) == 6, "the other layers stand behind"


def test_figure1_shades_each_trials_total_by_the_spread_of_its_layers():
    record = committed_record("figure1")
    right = figure_module("figure1").draw(record).axes[-1]
    for trial in range(5):
        persistence = record.where(trial=trial, epoch=20).column("normalized_neural_persistence")
        total, spread = sum(persistence), np.std(persistence, ddof=0)
        assert right.lines[trial].get_ydata()[-1] == pytest.approx(total)
        assert edges(right.collections[trial], 20) == pytest.approx((total - spread, total + spread))
    caption = figure_module("figure1").caption(record)
    assert "standard deviation (ddof=1)" in caption
    assert "the standard deviation of the trial's layers (ddof=0)" in caption


def test_epoch_0_of_figure1_is_the_initialisation():
    torch = pytest.importorskip("torch")
    record = committed_record("figure1")
    widths = record.provenance["widths"]
    for trial in range(2):
        seed = np.random.SeedSequence([0, trial]).spawn(2)[0].generate_state(1, np.uint64)[0]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(seed))
            layers = [torch.nn.Linear(m, n) for m, n in pairwise(widths)]
        expected = [neural_persistence(each.weight.detach().numpy().T, normalized=True) for each in layers]
        found = record.where(trial=trial, epoch=0).column("normalized_neural_persistence")
        assert found == pytest.approx(expected, rel=1e-6)


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
    panels = [(layer, support) for support in ("star", "uniform") for layer in range(1, 7)]
    for ax, (layer, support) in zip(axes, panels, strict=True):
        part, expected = record.where(layer=layer, support=support), []
        for density in part.distinct("density"):
            here = part.where(density=density)
            bound = here.column("corollary_3_4")[0]
            if bound is not None and bound > np.mean(here.column("overlap")):
                expected.append([density, bound])
        assert ax.lines[-1].get_xydata().tolist() == expected
        assert (len(expected) > 0) == (layer < 6), "the trained nets themselves contradict the corollary"
    assert "100×10 at 0.02, 0.05, 0.1" in figure3.caption(record)
    assert "false as printed" in figure3.caption(record)


def test_figure3_has_a_panel_for_each_layer_and_speaks_in_percent_as_the_paper_does():
    record = committed_record("figure3")
    axes = figure3.draw(record).axes
    shapes = [(784, 100), *[(100, 100)] * 4, (100, 10)]
    assert [ax.get_title() for ax in axes[:6]] == [f"layer {i}\n{m} × {n}" for i, (m, n) in enumerate(shapes, 1)]
    assert {ax.yaxis.get_major_formatter()(0.5) for ax in axes} == {"50%"}
    for ax, (support, layer) in zip(axes, itertools.product(("star", "uniform"), range(1, 7)), strict=True):
        densities, overlaps = record.where(layer=layer, support=support).pivot("overlap", across="density")
        assert ax.lines[0].get_xydata() == pytest.approx(np.stack([densities, overlaps.mean(axis=0)], axis=1))


def test_figure2_points_at_the_most_persistent_of_the_finite_points():
    joined = figure2.record_matrix(committed_record("figure2"))
    diagram = persistence_diagram(joined)
    (arrow,) = figure2.draw(committed_record("figure2")).axes[4].texts
    assert arrow.xy == (1, min(diagram.deaths))
    assert arrow.arrow_patch is not None


@pytest.mark.parametrize("name", DRAWN)
def test_no_caption_ends_in_a_stray_word(name):
    caption = figure_module(name).caption(committed_record(name))
    lines = publish.caption_lines(caption)
    assert " ".join(lines) == caption
    assert len(lines[-1]) >= publish.SHORTEST_LAST_LINE
    assert max(map(len, lines)) <= publish.CAPTION_COLUMNS


@pytest.mark.parametrize("name", SEEN)
def test_a_caption_is_drawn_or_left_out_and_the_text_has_it(name, tmp_path, monkeypatch):
    saved, record = [], committed_record(name)
    monkeypatch.setattr(publish, "_image", lambda figure, *_: saved.append(figure) or b"")
    texts = []
    for caption_drawn in (True, False):
        figure_module(name).render(record, tmp_path, caption_drawn=caption_drawn)
        texts.append((tmp_path / f"{name}.txt").read_text())
    caption = figure_module(name).caption(record)
    assert texts == [f"{caption}\n"] * 2
    assert [" ".join(figure.get_supxlabel().split("\n")) for figure in saved] == [caption, caption, "", ""]


@pytest.mark.long
def test_a_picture_without_its_caption_is_what_is_drawn(some_from_records, tmp_path):
    record, with_it = committed_record("figure2"), some_from_records[0]
    figure2.render(record, tmp_path, caption_drawn=False)
    assert (with_it / "figure2.png").read_bytes() != (tmp_path / "figure2.png").read_bytes()
    with publish.style():
        figure = figure2.draw(record)
        figure.savefig(io.BytesIO(), format="pdf")  # a layout settles as it is drawn
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    assert (tmp_path / "figure2.png").read_bytes() == buffer.getvalue()


@pytest.mark.long
def test_the_users_matplotlibrc_does_not_reach_the_figures(some_from_records, tmp_path):
    names = ["figure2", "bounds"]
    (tmp_path / "matplotlibrc").write_text(OWN_SETTINGS)
    code = (
        "import sys, pathlib, matplotlib; assert matplotlib.rcParams['savefig.dpi'] == 30\n"
        "from paper_figures.registry import figure_module; from paper_figures.settings import committed_record\n"
        "folder, *names = sys.argv[1:]\n"
        "for name in names: figure_module(name).render(committed_record(name), pathlib.Path(folder))\n"
        "assert matplotlib.rcParams['text.usetex'], 'the settings are as they were'"
    )
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    env = {**os.environ, "MATPLOTLIBRC": str(tmp_path / "matplotlibrc")}
    subprocess.run([sys.executable, "-c", code, str(theirs), *names], check=True, env=env)
    assert len(list(theirs.iterdir())) == 3 * len(names)
    for file in theirs.iterdir():
        assert file.read_bytes() == (some_from_records[0] / file.name).read_bytes()


@pytest.mark.parametrize("name", sorted(set(FIGURES) - {*TRAINED, "t_imp"}))
def test_records_without_a_net_name_the_processor(name):
    assert committed_record(name).provenance["processor"]


def test_a_record_names_the_processor_that_measures():
    made = provenance("command", seed=1)
    assert list(made) == ["command", "seed", "processor", "versions"]
    assert made["processor"] == processor_name() != ""


def test_figure3_k_is_the_alpha_of_the_supports_forest():
    rng = np.random.default_rng(5)
    weights = rng.standard_normal((20, 12))
    mask = read_support(20, 12, 0.1, "uniform").draw_mask(rng)
    forest = maximum_spanning_forest(weights, mask)
    assert forest.alpha < 31, "the support is disconnected"
    assert magnitude_overlap(weights, mask=mask) == forest.overlap(forest.alpha)


def test_table1_17_of_18_to_the_last_digit():
    rows = list(csv.DictReader(io.StringIO(committed_record("table1").csv())))
    places = [len(row["printed"].partition(".")[2]) for row in rows]
    misses = [
        row
        for row, digits in zip(rows, places, strict=True)
        if round(Fraction(row["computed"]), digits) != Fraction(row["printed"])
    ]
    assert len(rows) == 18
    assert [row["printed"] for row in misses] == ["4.3914"]
    assert {f"{float(row['corrected']):.4f}" for row in rows if row["corrected"]} == {"4.0422", "4.8470", "16.7489"}


def test_table1_marks_its_errata():
    record = committed_record("table1")
    markdown, latex = table1.markdown(record), table1.latex(record)
    assert "| VGG11 | CIFAR-10 | FINAL | 4.3914 <sup>b</sup> | 4.3919 | 4.8470 |" in markdown
    assert r"VGG11 & CIFAR-10 & FINAL & 4.3914\rlap{\textsuperscript{b}} & 4.3919 & 4.8470 \\" in latex
    assert "| ResNet-18 | Tiny-ImageNet | FINAL | 6.13182 | 6.13182 |  |" in markdown
    assert r"ResNet-18 & Tiny-ImageNet & FINAL & 6.13182 & 6.13182 &  \\" in latex
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
