"""Findings: every rule sees what it is for, and nothing else."""

import dataclasses

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from topobounds import LayerReport, ModelReport, critical_rank_law, layer_report, topological_mask
from topobounds._arguments import nearest
from topobounds.analysis.findings import RULES, SEVERITIES, checked_rule, find
from topobounds.analysis.fixed import looks_fixed
from topobounds.layers import Conv, Dense

RNG = np.random.default_rng(0)


def dense(weights, name="fc.weight", **options):
    """Return the report of a matrix that is stored as (outputs, inputs)."""
    n, m = weights.shape
    return layer_report(name, weights, Dense(m, n), inputs_first=False, **{"chance": False, "seed": 0} | options)


def kernel(weights, conv, **options):
    return layer_report("conv.weight", weights, conv, kind="conv", chance=False, **options)


def found(*layers, **others):
    """Return the layers of what is found, by rule."""
    report = ModelReport(layers, **{"left_out": {}} | others)
    return {rule: [f.layer for f in find(report) if f.rule == rule] for rule in {f.rule for f in find(report)}}


def pruned(weights, density):
    """Return weights of which the largest are left."""
    threshold = np.sort(np.abs(weights).ravel())[-round(density * weights.size)]
    return np.where(np.abs(weights) >= threshold, weights, 0)


WHOLE = RNG.uniform(1, 2, (40, 60)) * RNG.choice([-1, 1], (40, 60))
"""Without zeros, without a weight that stands out; its silent neurons are what any such layer has."""
DEAD = WHOLE.copy()
DEAD[3] = 0
DEAD[:, [5, 7]] = 0
SPIKE = WHOLE.copy()
SPIKE[0, 0] = 4.1
NEARLY = WHOLE.copy()
NEARLY[0, 0] = 3.9
SAFE = critical_rank_law(60, 40).median.lower / WHOLE.size
BLOCKS = np.kron(np.eye(2), np.ones((20, 30))) * WHOLE
CONV = Conv(4, 6, (3, 3), (8, 8), padding=1, groups=2)
TRANSPOSED = Conv(4, 6, (3, 3), (8, 8), padding=1, groups=2, transposed=True)
KERNEL = RNG.uniform(1, 2, CONV.weight_shape)
DEAD_CHANNEL = KERNEL.copy()
DEAD_CHANNEL[0] = 0
DEAD_IN_A_GROUP = np.ones(TRANSPOSED.weight_shape)
DEAD_IN_A_GROUP[:2, 1] = 0
STAR = np.full((5, 9), 0.1)
STAR[0], STAR[:, 0] = np.linspace(1, 1.5, 9), np.linspace(1.4, 1.9, 5)

SEEN = {
    "all-zero": dense(np.zeros((4, 3))),
    "below-critical": dense(pruned(WHOLE, 0.5 * SAFE)),
    "disconnected": dense(BLOCKS),
    "dead-neurons": dense(DEAD),
    "one-weight-dominates": dense(SPIKE),
    "overlap-below-chance": dense(np.vstack([np.full((10, 60), 9.0), np.ones((30, 60))]) + WHOLE, chance=True),
    "silent-neurons": dense(np.vstack([np.full((20, 60), 9.0), np.ones((20, 60))]) + WHOLE),
    "looks-fixed": dense(WHOLE, name="stft.weight"),
}
NOT_SEEN = {
    "all-zero": dense(np.eye(4, 3)),
    "below-critical": dense(pruned(WHOLE, 4 * SAFE)),
    "disconnected": dense(np.where(BLOCKS == 0, np.eye(40, 60, 30), BLOCKS)),
    "dead-neurons": dense(pruned(WHOLE, 4 * SAFE)),
    "one-weight-dominates": dense(NEARLY),
    "overlap-below-chance": dense(RNG.standard_normal((40, 60)), chance=True),
    "silent-neurons": dense(STAR),
    "looks-fixed": dense(WHOLE, name="first.weight"),
}


@pytest.mark.parametrize("rule", SEEN)
def test_a_rule_sees_what_it_is_for(rule):
    assert found(SEEN[rule])[rule] == [SEEN[rule].name]


@pytest.mark.parametrize("rule", NOT_SEEN)
def test_a_rule_sees_nothing_else(rule):
    assert rule not in found(NOT_SEEN[rule])


def test_every_rule_is_tested():
    elsewhere = {"not-finite", "damaged", "left-out", "assumed-geometry", "lora-pair"}
    assert set(SEEN) == set(NOT_SEEN) == set(RULES) - elsewhere
    assert {rule.severity for rule in RULES.values()} == set(SEVERITIES)


def test_a_layer_cut_by_magnitude_is_seen_and_one_that_kept_its_tree_is_not():
    """Of so few weights, those of the forest connect the layer, and the largest do not."""
    density = 0.5 * SAFE
    tree = np.where(topological_mask(WHOLE, density), WHOLE, 0)
    assert found(dense(tree)).keys().isdisjoint({"below-critical", "disconnected", "dead-neurons"})
    cut = found(dense(pruned(WHOLE, density)))
    assert {"below-critical", "disconnected"} <= cut.keys()


def test_a_report_with_another_safe_density_is_believed():
    layer = LayerReport("a", "dense", (4, 3), 3, 4, 12, 6, 6, 1, 6, 8, None, None, 1.0, 0.5)
    (finding,) = find(ModelReport((layer,), {}))
    assert (finding.severity, finding.rule) == ("warning", "below-critical")
    assert finding.text == "The density 0.5 is below 0.6667, where magnitude pruning stops keeping its tree."


@pytest.mark.parametrize(
    ("weights", "conv", "inputs", "outputs"),
    [
        (KERNEL, CONV, 0, 0),
        (DEAD_CHANNEL, CONV, 0, 1),
        (DEAD_IN_A_GROUP, TRANSPOSED, 0, 1),
        (np.where(np.arange(6)[:, None, None, None] < 3, DEAD_CHANNEL, 0), CONV, 2, 4),
    ],
)
def test_dead_channels_of_a_kernel(weights, conv, inputs, outputs):
    report = kernel(weights, conv)
    assert (report.dead_inputs, report.dead_outputs) == (inputs, outputs)
    assert ("dead-neurons" in found(report)) == bool(inputs or outputs)


def test_a_channel_whose_weights_meet_nothing_but_padding_is_not_said_to_have_only_zeros():
    weights = np.ones((2, 3, 3))
    weights[0, :, 1] = 0  # the only tap that reads the one cell
    report = kernel(weights, Conv(3, 2, 3, 1, padding=1))
    assert (report.dead_outputs, report.nonzero) == (1, 15)
    texts = {finding.rule: finding.text for finding in find(ModelReport((report,), {}))}
    assert texts["dead-neurons"] == "1 output channel has only zeros, or weights that meet nothing but padding."


def test_a_kernel_that_is_in_pieces_by_its_shape_is_not_disconnected():
    report = kernel(KERNEL, CONV)
    assert report.components == report.components_unpruned == 2
    assert "disconnected" not in found(report)
    assert "disconnected" in found(kernel(DEAD_CHANNEL, CONV))


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
def test_the_second_largest_weight(dtype):
    weights = RNG.standard_normal((30, 20)).astype(dtype)
    assert dense(weights).w_second == np.sort(np.abs(weights.astype(float)).ravel())[-2]
    values = RNG.standard_normal(CONV.weight_shape).astype(dtype)
    assert kernel(values, CONV).w_second == np.sort(np.abs(values.astype(float)).ravel())[-2]
    assert dense(np.ones((1, 1))).w_second is None


LEFT_OUT = {
    "nan.weight": "1 of its 6 entries are NaN or infinite.",
    "cut.weight": "model.safetensors, tensor 'cut.weight', is damaged.",
    "pos.weight": "no name or neighbour tells what its 3 dimensions are",
    "bn.weight": "norm",
    "other.weight": "excluded",
}
FORMS = dict.fromkeys(LEFT_OUT, ((2, 3), "float32")) | {"bn.weight": ((3,), "float32")}
FAULTS = {"nan.weight": "not-finite", "cut.weight": "damaged"}


def test_tensors_that_are_left_out():
    assert found(left_out=LEFT_OUT, forms=FORMS, faults=FAULTS) == {
        "not-finite": ["nan.weight"],
        "damaged": ["cut.weight"],
        "left-out": ["pos.weight"],
    }
    assert found(left_out={"bn.weight": "norm"}, forms=FORMS) == {}


def test_a_guess_is_a_finding():
    report = kernel(KERNEL, CONV)
    guessed = dataclasses.replace(report, assumed="stride 1, map 8x8")
    assert found(guessed)["assumed-geometry"] == ["conv.weight"]
    assert "assumed-geometry" not in found(report)


@pytest.mark.parametrize(
    ("first", "second", "is_pair"),
    [
        ("q.lora_A.weight", "q.lora_B.weight", True),
        ("q.lora_A.default.weight", "q.lora_B.default.weight", True),
        ("q.lora_down.weight", "q.lora_up.weight", True),
        ("q.lora_A.weight", "k.lora_B.weight", False),
        ("q.laura_A.weight", "q.laura_B.weight", False),
    ],
)
def test_two_factors_of_an_update(first, second, is_pair):
    layers = dense(WHOLE, name=first), dense(WHOLE, name=second)
    assert found(*layers).get("lora-pair") == ([first] if is_pair else None)


def test_findings_come_by_severity():
    report = ModelReport(tuple(SEEN.values()), LEFT_OUT, forms=FORMS, faults=FAULTS)
    severities = [finding.severity for finding in find(report)]
    assert severities == sorted(severities, key=SEVERITIES.index)
    assert set(severities) == set(SEVERITIES)


def test_texts_have_the_numbers():
    texts = {f.rule: f.text for f in find(ModelReport((SEEN["dead-neurons"], SEEN["one-weight-dominates"]), {}))}
    assert texts["dead-neurons"] == "2 inputs and 1 output have only zeros."
    assert texts["one-weight-dominates"].startswith("The largest |w|, 4.1, is 2.05 times the second largest")
    assert texts["disconnected"].endswith("are in 4 pieces; without zeros there is 1.")


def test_of_no_weight_but_one_nothing_is_said_of_the_largest_weights():
    assert found(dense(np.zeros((4, 3)))).keys() == {"all-zero"}
    single = np.zeros((4, 3))
    single[1, 2] = 2.0
    assert found(dense(single)).keys() >= {"dead-neurons"}
    assert "silent-neurons" not in found(dense(single))
    (told,) = find(ModelReport((dense(np.zeros((1, 1))),), {}))
    assert told.text == "Its only weight is zero."


def test_one_neuron_and_one_edge_are_one():
    weights = np.array([[9.0, 8.0, 7.0], [6.0, 5.0, 4.0], [1.0, 1.5, 2.0]])
    (told,) = (f.text for f in find(ModelReport((dense(weights, chance=True),), {})) if f.rule == "silent-neurons")
    assert told.startswith("1 of 3 outputs has none of the 5 largest weights, which miss 1 edge of the forest, ")


def test_an_unknown_rule_is_refused_with_the_nearest():
    assert checked_rule("--fail-on", "all-zero") == "all-zero"
    with pytest.raises(ValueError, match=r"'--fail-on' must be a rule, such as 'dead-neurons'.*, not 'dead-neuron'\."):
        checked_rule("--fail-on", "dead-neuron")
    assert nearest("", ["b", "a"]) == "'b' or 'a'"


# -- what looks fixed --------------------------------------------------------------------------------------------------


def positions(n, width):
    """Return the table of positions of the first transformers."""
    angles = np.arange(n)[:, None] / 10000 ** (np.arange(0, width, 2) / width)
    return np.stack([np.sin(angles), np.cos(angles)], axis=2).reshape(n, width)


def windowed_waves(size, window):
    angles = 2 * np.pi / size * np.outer(np.arange(size // 2 + 1), np.arange(size))
    return np.vstack([np.cos(angles), -np.sin(angles)]) * window(size)


TABLES = {
    "Fourier": windowed_waves(64, np.ones),
    "Fourier, windowed": windowed_waves(256, np.hanning)[:, None],
    "Fourier, another window": windowed_waves(100, lambda size: np.kaiser(size, 8)),
    "cosines": np.cos(np.pi / 64 * np.outer(np.arange(64), np.arange(64) + 0.5)),
    "positions": positions(512, 128),
    "many positions": positions(3000, 32),
    "few positions": positions(50, 16),
}


@pytest.mark.parametrize(
    "dtype", [np.float64, pytest.param(np.float32, marks=pytest.mark.long), np.float16, ml_dtypes.bfloat16]
)
@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_known_by_its_values(name, dtype):
    assert "sampled sinusoids" in looks_fixed("weight", TABLES[name].astype(dtype))


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_was_trained_on_is_none(name):
    noise = np.random.default_rng(1).standard_normal(TABLES[name].shape)
    assert looks_fixed("weight", TABLES[name] + 0.01 * noise) is None


@pytest.mark.parametrize(
    "weights",
    [
        WHOLE,
        np.abs(RNG.standard_normal((300, 100))),
        np.cumsum(RNG.standard_normal((64, 64)), axis=1),
        np.ones((64, 64)),
        np.zeros((64, 64)),
        np.eye(64),
        RNG.standard_normal((64, 3)),
        np.ones((1, 1)),
    ],
)
def test_what_is_no_table_is_not_taken_for_one(weights):
    assert looks_fixed("model.layers.0.mlp.up_proj.weight", weights) is None


@pytest.mark.parametrize("name", ["stft.weight", "mel_basis", "encoder.inv_freq", "net.fourier.weight", "a.idct"])
def test_a_table_is_known_by_its_name(name):
    assert "its name has" in looks_fixed(name, WHOLE)


@pytest.mark.parametrize("name", ["fastft.weight", "drift.weight", "caramel_basis", "verdict.weight", "conv1.weight"])
def test_a_name_is_read_in_words(name):
    assert looks_fixed(name, WHOLE) is None


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", [2.0**1000, 2.0**-1000])
def test_values_whose_squares_overflow_are_looked_at(scale):
    assert looks_fixed("weight", RNG.standard_normal((20, 30)) * scale) is None
    assert looks_fixed("weight", TABLES["Fourier, windowed"] * scale)


def test_the_basis_of_a_published_network(data_dir):
    tensors = load_file(data_dir / "checkpoints" / "silero_vad_16k.safetensors")
    fixed = [name for name, array in tensors.items() if array.ndim > 1 and looks_fixed("", array)]
    assert fixed == ["stft_conv.weight"]


def test_edges_that_are_missed_because_of_how_ties_are_ranked_are_told_as_that():
    """By place, the first rows have all of the largest weights."""
    layer = dense(np.random.default_rng(0).choice([-1.0, 1.0], (64, 64)), chance=True)
    (told,) = (f.text for f in find(ModelReport((layer,), left_out={})) if f.rule == "silent-neurons")
    assert told.endswith(" edges of the forest, weights that tie being ranked by their place.")
    assert "by chance" not in told
