"""analyze(): the geometry of any model traced, its layers measured, and the model left as it was."""

import copy
import json
import math
import random
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune

import topobounds.weights
from tests import naive_convolution
from topobounds import (
    critical_compression_ratio,
    magnitude_overlap,
    maximum_spanning_forest,
    network_forest,
    neural_persistence,
    persistence_diagram,
)
from topobounds.layers import Conv, Dense, Recurrent
from topobounds.pruning import magnitude_mask
from topobounds.weights import as_array
from torch_bridge import analyze, topological_unstructured
from torch_bridge.model.conv_geometry import conv_geometry
from torch_bridge.model.tracing import trace
from torch_bridge.model.weight_tensors import weight_tensors


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


class Conv1D(nn.Module):
    """The linear layer of GPT-2 as the package transformers has it: inputs first."""

    __module__ = "transformers.pytorch_utils"

    def __init__(self, nf, nx):
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight, self.bias = nn.Parameter(torch.randn(nx, nf)), nn.Parameter(torch.zeros(nf))

    def forward(self, x):
        return functional.linear(x, self.weight.T, self.bias)


def by_name(report):
    return {layer.name: layer for layer in report.layers}


class Everything(nn.Module):
    """Every kind of layer, one called twice, one never, one tensor that is no layer."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.rnn = nn.GRU(6, 8, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.conv = nn.Conv1d(8, 4, 3, stride=2, padding=1, dilation=2, groups=2)
        self.up = nn.ConvTranspose1d(4, 2, 3, stride=2)
        self.twice = nn.Linear(8, 8)
        self.never = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)
        self.scale = nn.Parameter(torch.ones(2, 17))

    def forward(self, tokens, *, offset=0):
        x, _ = self.rnn(self.embed(tokens))
        x = self.twice(torch.relu(self.twice(self.drop(x)))) + offset
        x, _ = self.attention(x, x, x)
        x = self.norm(self.conv(x.transpose(1, 2)))
        return self.up(x, output_size=(12,))


TOKENS = torch.arange(22).reshape(2, 11) % 11


def test_every_layer_is_there_under_its_own_name():
    report = analyze(Everything(), TOKENS)
    layers = by_name(report)
    assert list(layers) == [
        "embed.weight",
        *(f"rnn.weight_{side}_l0[{gate}]" for side in ("ih", "hh") for gate in ("reset", "update", "new")),
        *(f"attention.in_proj_weight[{part}]" for part in ("query", "key", "value")),
        "attention.out_proj.weight",
        "conv.weight",
        "up.weight",
        "twice.weight",
        "never.weight",
    ]
    assert {name: (layer.kind, layer.m, layer.n, layer.calls) for name, layer in layers.items() if "[" not in name} == {
        "embed.weight": ("embedding", 11, 6, 1),
        "attention.out_proj.weight": ("dense", 8, 8, 1),
        "conv.weight": ("conv", 8 * 11, 4 * 5, 1),
        "up.weight": ("conv", 4 * 5, 2 * 12, 1),
        "twice.weight": ("dense", 8, 8, 2),
        "never.weight": ("dense", 3, 2, 0),
    }
    assert layers["rnn.weight_ih_l0[new]"].kind == "dense"
    assert (layers["rnn.weight_hh_l0[new]"].kind, layers["rnn.weight_hh_l0[new]"].m) == ("recurrent", 8)
    assert layers["never.weight"].reason == "Not called with this example."
    assert layers["never.weight"].alpha == 4
    assert list(report.unread) == ["scale"]
    assert "Everything" in report.unread["scale"]


@pytest.mark.parametrize("example", [TOKENS, None])
def test_each_tensor_is_converted_once_and_each_module_asked_once(example, monkeypatch):
    converted, asked = [], []

    def on_cpu(values):
        converted.append(tuple(values.shape))
        return read(values)

    def tensors_of(module, path):
        asked.append(module)
        return weight_tensors(module, path)

    read = topobounds.weights._on_cpu
    monkeypatch.setattr(topobounds.weights, "_on_cpu", on_cpu)
    monkeypatch.setattr("torch_bridge.model.weight_tensors.weight_tensors", tensors_of)
    model = Everything().to(torch.bfloat16)
    analyze(model, example)
    tensors = [tensor for module in model.modules() for tensor in weight_tensors(module)]
    assert converted == [tensor.shape for tensor in tensors]
    assert asked == list(model.modules())


def test_the_numbers_are_those_of_the_functions_on_the_same_weights():
    model = Everything()
    prune.random_unstructured(model.twice, "weight", 0.6)
    layers = by_name(analyze(model, TOKENS))
    gates = np.split(model.rnn.weight_hh_l0.detach().numpy(), 3)
    for name, weights, shape in (
        ("twice.weight", model.twice.weight.detach().numpy(), Dense(8, 8)),
        ("rnn.weight_hh_l0[update]", gates[1], Recurrent(8)),
    ):
        layer, forest = layers[name], maximum_spanning_forest(weights)
        assert (layer.alpha, layer.components, layer.critical) == (forest.alpha, forest.n_components, forest.alpha)
        assert layer.critical_rank == forest.critical_rank
        assert layer.safe_density == forest.critical_rank / 64
        assert layer.overlap == magnitude_overlap(weights)
        deaths = persistence_diagram(weights).deaths
        persistence = math.sqrt(np.sum((1 - deaths) ** 2) / (len(deaths) - 1))
        assert layer.neural_persistence == pytest.approx(persistence, rel=1e-12)
        assert layer.eta_tau == layer.eta_tau_toeplitz == critical_compression_ratio(shape)
    assert (layers["twice.weight"].nonzero, layers["twice.weight"].density) == (26, 26 / 64)


def test_a_convolution_against_the_oracle():
    model = Everything()
    layer = by_name(analyze(model, TOKENS))["conv.weight"]
    conv = Conv(8, 4, 3, 11, stride=2, padding=1, dilation=2, groups=2)
    kernel = model.conv.weight.detach().numpy()
    merges = naive_convolution.critical(conv, kernel)
    order = np.argsort(-np.abs(kernel).ravel(), kind="stable")
    n_critical = np.count_nonzero(merges)
    assert (layer.alpha, layer.components) == (merges.sum(), conv.n_vertices - merges.sum())
    assert layer.critical == n_critical
    assert layer.critical_rank == 1 + np.flatnonzero(merges[order])[-1]
    assert layer.overlap == np.count_nonzero(merges[order[:n_critical]]) / n_critical
    matrix = naive_convolution.matrix(conv, kernel.astype(float))
    deaths = persistence_diagram(matrix).deaths
    persistence = math.sqrt(np.sum((1 - deaths) ** 2) / (len(deaths) - 1))
    assert layer.neural_persistence == pytest.approx(persistence, rel=1e-12)
    assert layer.eta_tau == critical_compression_ratio(conv)
    assert layer.eta_tau_toeplitz == critical_compression_ratio(conv, "toeplitz")


@pytest.mark.parametrize("seed", range(25))
def test_traced_geometries_are_those_of_torch(seed):
    rng = np.random.default_rng(seed)
    conv = naive_convolution.random_conv(rng)
    name = f"Conv{'Transpose' if conv.transposed else ''}{len(conv.kernel_size)}d"
    options = {"output_padding": conv.output_padding} if conv.transposed else {"padding_mode": conv.padding_mode}
    shape = (conv.in_channels, conv.out_channels, conv.kernel_size)
    options |= {"stride": conv.stride, "padding": conv.padding, "dilation": conv.dilation, "groups": conv.groups}
    layer = getattr(nn, name)(*shape, **options)
    for example in (
        torch.zeros(2, conv.in_channels, *conv.input_size),
        {"input": torch.zeros(conv.in_channels, *conv.input_size)},
    ):
        (found,) = trace(layer, example).convs(layer)
        assert found == conv
    (report,) = analyze(layer, torch.zeros(1, conv.in_channels, *conv.input_size)).layers
    assert (report.m, report.n) == (conv.n_inputs, conv.n_outputs)


def test_magnitude_pruning_is_safe_down_to_the_safe_density_and_not_below():
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Flatten(), nn.Linear(3 * 36, 20))
    example = torch.zeros(1, 2, 6, 6)
    before = analyze(model, example).layers
    for module, layer in zip((model[0], model[2]), before, strict=True):
        weights = module.weight.detach().numpy().copy()
        for keep, preserved in ((layer.critical_rank, True), (layer.critical_rank - 1, False)):
            with torch.no_grad():
                module.weight.copy_(torch.from_numpy(np.where(magnitude_mask(weights, keep), weights, 0)))
            (after,) = (each for each in analyze(model, example).layers if each.name == layer.name)
            assert (after.neural_persistence == layer.neural_persistence and after.alpha == layer.alpha) is preserved


def test_a_pruned_model_reports_what_is_left_now():
    model = nn.Sequential(nn.Linear(30, 20))
    topological_unstructured(model[0], "weight", 0.5)
    with torch.no_grad():
        model[0].weight_orig.mul_(torch.randn(20, 30))  # module.weight is still the old product
    layer = analyze(model).layers[0]
    now = (model[0].weight_orig * model[0].weight_mask).detach().numpy()
    assert layer.name == "0.weight"
    assert (layer.nonzero, layer.critical_rank) == (300, maximum_spanning_forest(now).critical_rank)


def test_the_model_is_left_as_it_was():
    model = Everything().train()
    model.norm.eval()
    state = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    random = torch.get_rng_state()
    analyze(model, {"tokens": TOKENS, "offset": torch.ones(())})
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in state.items())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_a_model_that_fails_keeps_no_hooks():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(3, 2)).train()
    with pytest.raises(RuntimeError):
        analyze(model, torch.zeros(1, 3))
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_layers_on_several_sizes_tied_and_without_an_example():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.a, self.b = nn.Conv2d(2, 2, 3, padding=1), nn.Linear(8, 8), nn.Linear(8, 8)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(self.conv(self.conv(x)[..., ::2, ::2]).flatten(1)))

    layers = by_name(analyze(Model(), torch.zeros(1, 2, 4, 4)))
    assert layers["conv.weight"].reason == "Called on inputs of 2 sizes; this is the first, (4, 4)."
    assert (layers["conv.weight"].calls, layers["conv.weight"].m) == (2, 32)
    assert layers["b.weight"].reason == "The same weights as 'a.weight'."
    bare = by_name(analyze(Model()))["conv.weight"]
    assert (bare.alpha, bare.m, bare.eta_tau, bare.safe_density, bare.calls) == (None,) * 5
    assert (bare.weights, bare.nonzero, bare.reason) == (36, 36, "No example input, so no input size and no graph.")


def test_parametrized_weights_are_read_as_they_come_out():
    layer = parametrizations.weight_norm(nn.Linear(6, 5))
    report = analyze(layer)
    assert report.unread == {}
    assert report.layers[0].critical_rank == maximum_spanning_forest(layer.weight.detach().numpy()).critical_rank
    older = nn.utils.spectral_norm(nn.Linear(6, 5))  # it too keeps a parameter named weight_orig, and no mask
    assert analyze(older, torch.zeros(1, 6)).layers[0].nonzero == 30


def test_a_transformer_is_traced_in_spite_of_its_fast_path():
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2)
    layers = analyze(encoder, torch.zeros(2, 5, 16)).layers
    assert len(layers) == 2 * 6
    assert {layer.calls for layer in layers} == {1}


def test_the_report_becomes_json_and_html():
    model = nn.Sequential(nn.Conv2d(2, 4, 1), nn.Flatten(), nn.Linear(64, 3))
    report = analyze(model, torch.zeros(1, 2, 4, 4))
    record = json.loads(json.dumps(report.to_dict()))
    first, second = record["layers"]
    assert second["eta_tau"] == 192 / 66
    assert second["safe_density"] == report.layers[1].safe_density
    assert first["eta_tau"] == 16 / 31
    assert "Below 1" in first["reason"]
    assert record["summary"]["density"] == 1.0
    total = sum(layer.neural_persistence for layer in report.layers)
    assert (
        record["summary"]["total_neural_persistence"]
        == report.total_neural_persistence
        == pytest.approx(total, rel=1e-12)
    )
    assert "<td>64</td>" in report._repr_html_()


def test_a_layer_of_zeros_and_a_kernel_that_reads_only_padding():
    model = nn.Sequential(nn.Conv1d(1, 1, 2, padding=1), nn.Flatten(), nn.Linear(6, 4))
    nn.init.zeros_(model[2].weight)
    layers = analyze(model, torch.zeros(1, 1, 5)).layers
    assert (layers[1].alpha, layers[1].components, layers[1].critical_rank, layers[1].overlap) == (0, 10, 0, 1.0)
    assert layers[1].neural_persistence == 0.0
    edgeless = nn.Conv1d(1, 1, 1, stride=2, padding=1)
    (layer,) = analyze(edgeless, torch.zeros(1, 1, 1)).layers
    assert (layer.alpha, layer.critical, layer.critical_rank, layer.eta_tau_toeplitz) == (0, 0, 0, None)


def test_a_model_without_layers_has_an_empty_report():
    report = analyze(nn.ReLU(), torch.zeros(3))
    assert (report.layers, report.density, report.total_neural_persistence) == ((), 1.0, 0.0)


def test_a_non_finite_weight_is_refused_by_name():
    model = nn.Sequential(nn.Linear(4, 3), nn.LSTM(3, 2))
    with torch.no_grad():
        model[1].weight_hh_l0[3, 1] = math.inf
    with pytest.raises(ValueError, match=r"Layer '1\.weight_hh_l0\[forget\]': .* 1 of its 4 .* row 1, column 1: inf"):
        analyze(model)


@pytest.mark.parametrize("size", [(8,), 8, (0, 8)])
def test_a_bad_input_size_is_refused(size):
    with pytest.raises(ValueError, match="'input_size' must be"):
        conv_geometry(nn.Conv2d(1, 1, 3), size)
    with pytest.raises(ValueError, match="'module' must be a convolution, not 'Linear'"):
        conv_geometry(nn.Linear(2, 2), (8, 8))


class Calls(nn.Module):
    """Linear layers 4 x 4, and what to do with them."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(4, 4) for _ in range(4))
        for name, layer in layers.items():
            setattr(self, name, layer)
        self._forward = forward

    def forward(self, *inputs):
        return self._forward(self, *inputs)


def neurons(forward, *inputs, **layers):
    """Return the groups of each layer that was called, the layer's letter first."""
    inputs = inputs or (torch.zeros(3, 4),)
    report = analyze(Calls(forward, **layers), inputs)
    return {layer.name[:-7]: layer.neurons for layer in report.layers if layer.calls}


def eta(model, example):
    layers = analyze(model, example).layers
    weights = [model.get_parameter(layer.name).detach().numpy().T for layer in layers]
    return network_forest(
        [(w, *ends) for w, layer in zip(weights, layers, strict=True) for ends in layer.neurons]
    ).ratio


@pytest.mark.parametrize(
    "between",
    [
        nn.ReLU(),
        nn.ReLU(inplace=True),
        nn.Sequential(nn.BatchNorm1d(300), nn.GELU(), nn.Dropout(), nn.LayerNorm(300), nn.PReLU(300), nn.Tanh()),
        nn.Sequential(nn.Unflatten(1, (3, 100)), nn.LeakyReLU(inplace=True), nn.Flatten()),
    ],
)
def test_a_chain_of_dense_layers_is_one_network(between):
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 300), between, nn.Linear(300, 10))
    example = torch.zeros(2, 1, 28, 28)
    report = analyze(model, example)
    assert [layer.neurons for layer in report.layers] == [((0, 1),), ((1, 2),)]
    assert report.sources == {"1.weight": (), "3.weight": ("1.weight",)}
    assert report.to_dict()["fed_by"] == {"1.weight": [], "3.weight": ["1.weight"]}
    assert report.to_dict()["layers"][1]["neurons"] == [[1, 2]]
    assert "<td>1 → 2</td>" in report._repr_html_()
    assert eta(model, example) == Fraction(784 * 300 + 300 * 10, 784 + 300 + 10 - 1)


def test_a_residual_block_adds_to_the_neurons_it_reads():
    def residual(m, x):
        x = m.a(x)
        x = x + m.c(torch.relu(m.b(x)))
        return m.d(x)

    def in_place(m, x):
        x = m.a(x)
        x += m.c(m.b(x).relu_())
        return m.d(x)

    expected = {"a": ((0, 1),), "b": ((1, 2),), "c": ((2, 1),), "d": ((1, 3),)}
    assert neurons(residual) == neurons(in_place) == expected
    assert analyze(Calls(residual), torch.zeros(1, 4)).sources["d.weight"] == ("a.weight", "c.weight")
    assert eta(Calls(residual), torch.zeros(1, 4)) == Fraction(4 * 16, 4 * 4 - 1)


def test_branches_read_one_group_and_what_mixes_neurons_makes_new_ones():
    assert neurons(lambda m, x: m.a(x) * m.b(x.relu())) == {"a": ((0, 1),), "b": ((0, 2),)}
    for mixing in (
        lambda x, y: x * y,
        lambda x, y: torch.cat([x, y], 1)[:, ::2],
        lambda x, y: x.softmax(1),
        lambda x, y: x.flip(1),
        lambda x, y: nn.functional.avg_pool1d(x, 3, 1, 1),
        lambda x, y: x[:, :1] + y[:, :1].expand(3, 4),
    ):
        found = neurons(lambda m, x, mixing=mixing: m.c(mixing(m.a(x), m.b(x))))
        assert found == {"a": ((0, 1),), "b": ((0, 2),), "c": ((3, 4),)}
    swish = neurons(lambda m, x: m.b(m.a(x) * torch.sigmoid(m.a(x) * 2)))
    assert swish == {"a": ((0, 1), (0, 2)), "b": ((3, 4),)}


def test_scales_that_no_layer_made_keep_neurons():
    for scaling in (
        lambda x: 1 - 2 * x / torch.ones(3, 4),
        lambda x: x * torch.sigmoid(torch.zeros(4)),
        lambda x: x * torch.ones(3, 4).abs(),
        lambda x: torch.zeros(4).tanh() + x,
    ):
        assert neurons(lambda m, x, scaling=scaling: m.b(scaling(m.a(x)))) == {"a": ((0, 1),), "b": ((1, 2),)}


def test_a_tensor_changed_in_place_holds_its_neurons_no_longer():
    def forward(m, x):
        x = m.a(x)
        x[:, 0] = x[:, 1]
        return m.c(m.b(x).cumsum_(1))

    assert neurons(forward) == {"a": ((0, 1),), "b": ((2, 3),), "c": ((4, 5),)}


def test_a_layer_called_twice_has_two_pairs():
    assert neurons(lambda m, x: m.b(m.a(m.a(x).tanh()))) == {"a": ((0, 1), (1, 2)), "b": ((2, 3),)}
    chained = Calls(lambda m, x: m.a(m.a(x)))
    report = analyze(chained, torch.zeros(1, 4))
    assert (report.sources["a.weight"], report.sources["b.weight"]) == (("a.weight",), ())


def test_neurons_of_convolutions_pass_to_what_reads_all_their_cells():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(inplace=True),
        nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8), nn.Unflatten(1, (2, 2, 2)),
        nn.ConvTranspose2d(2, 1, 2), nn.MaxPool2d(2), nn.Conv2d(1, 1, 1),
    )  # fmt: skip
    report = analyze(model, torch.zeros(2, 1, 8, 8))
    assert [layer.neurons for layer in report.layers] == [((0, 1),), ((1, 2),), ((2, 3),), ((3, 4),), ((5, 6),)]
    sizes = {}
    for layer in report.layers:
        for source, target in layer.neurons:
            assert (sizes.setdefault(source, layer.m), sizes.setdefault(target, layer.n)) == (layer.m, layer.n)


def test_neurons_do_not_depend_on_the_size_of_the_batch():
    def stream(m, words):
        x = m.a(words) + m.b(torch.arange(words.shape[1])[None])  # positions are added to every sentence
        return m.d(x + m.c(x))

    layers = {"a": nn.Embedding(11, 4), "b": nn.Embedding(5, 4)}
    found = [neurons(stream, torch.zeros(batch, 5, dtype=torch.int64), **layers) for batch in (1, 3)]
    assert found[0] == found[1] == {"a": ((0, 1),), "b": ((2, 1),), "c": ((1, 1),), "d": ((1, 3),)}
    gate = {"c": nn.Linear(4, 1)}
    assert neurons(lambda m, x: m.d(m.a(x) * m.c(x)), **gate) == {"a": ((0, 1),), "c": ((0, 2),), "d": ((3, 4),)}


def test_a_group_has_one_size():
    def tokens(m, x):
        x = m.a(x)  # 3 tokens of 4 neurons
        return m.b(x), m.c(x.flatten()), m.d(x.flatten())

    wide = {"c": nn.Linear(12, 2), "d": nn.Linear(12, 2)}
    expected = {"a": ((0, 1),), "b": ((1, 2),), "c": ((3, 4),), "d": ((3, 5),)}
    assert neurons(tokens, torch.zeros(3, 4), **wide) == expected
    conv = {"b": nn.Conv1d(3, 3, 1), "c": nn.Linear(4, 1)}
    found = neurons(lambda m, x: m.c(m.a(x) + m.b(x)), torch.zeros(2, 3, 4), **conv)
    assert found == {"a": ((0, 1),), "b": ((2, 3),), "c": ((4, 5),)}


def test_a_transformer_has_a_stream_of_neurons():
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 1)
    query, key, value, out, wide, narrow = (layer.neurons[0] for layer in analyze(model, torch.zeros(2, 5, 16)).layers)
    assert query[0] == key[0] == value[0] == 0
    assert len({query[1], key[1], value[1], out[0], wide[1]} - {0}) == 5
    assert out[1] == wide[0] == narrow[1]
    assert narrow[0] == wide[1]
    separate = nn.MultiheadAttention(8, 2, kdim=6, vdim=4)
    given = {"query": torch.zeros(5, 8), "value": torch.zeros(5, 4), "key": torch.zeros(5, 6)}
    assert [layer.neurons for layer in analyze(separate, given).layers] == [((0, 1),), ((2, 3),), ((4, 5),), ((6, 7),)]


def test_embeddings_of_the_same_tokens_share_them_and_recurrent_layers_say_nothing():
    layers = {"a": nn.Embedding(11, 4), "b": nn.Embedding(11, 6), "c": nn.GRU(4, 4)}
    report = analyze(Calls(lambda m, x: (m.c(m.a(x)), m.b(x)), **layers), torch.arange(11))
    assert {layer.name: layer.neurons for layer in report.layers if layer.neurons} == {
        "a.weight": ((0, 1),),
        "b.weight": ((0, 2),),
    }


def test_tracing_neurons_leaves_nothing_behind():
    model, example = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2)), torch.zeros(1, 3)
    analyze(model, example)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        analyze(model, torch.zeros(1, 2))
    assert torch.overrides._get_current_function_mode_stack() == []
    assert [vars(tensor) for tensor in (example, *model.parameters())] == [{}] * 5


def test_without_an_example_no_neurons_are_known():
    report = analyze(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)))
    assert [layer.neurons for layer in report.layers] == [(), ()]
    assert report.sources == {"0.weight": (), "1.weight": ()}


@pytest.mark.parametrize(
    "name",
    ["bfloat16", "float16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"],
)
def test_tensors_of_few_bits_are_read_where_they_are(name):
    tensor = torch.randn(20, 30).abs().to(getattr(torch, name))
    for each in (tensor, tensor.T, tensor[::3, 1::2], nn.Parameter(tensor, requires_grad=name == "bfloat16")):
        array = as_array("weights", each)
        assert array.dtype.name == name
        assert array.__array_interface__["data"][0] == each.data_ptr()
        np.testing.assert_array_equal(array.astype(np.float32), each.detach().float().numpy())
        forest = maximum_spanning_forest(each)
        np.testing.assert_array_equal(forest.weights, maximum_spanning_forest(each.detach().float()).weights)


# the model is left as it was


class Busy(nn.Module):
    """Changes all that a call can change."""

    def __init__(self):
        super().__init__()
        self.normed = parametrizations.spectral_norm(nn.Linear(6, 5))
        self.norm, self.head, self.seen = nn.BatchNorm1d(5), nn.Linear(5, 2), torch.zeros(1)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.calls += 1
        self.seen = self.seen + 1
        random.random(), np.random.rand(), torch.rand(1)  # noqa: NPY002 -- what the model does
        self.norm.train()
        with torch.enable_grad():
            self.head.weight.square().sum().backward()
        return self.head(self.norm(self.normed(x)))


@pytest.mark.parametrize("example", [None, torch.randn(4, 6)])
def test_a_model_is_left_as_it_was(example):
    model = Busy()
    model.head.weight.grad = torch.ones(2, 5)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    identities = {name: id(buffer) for name, buffer in model.named_buffers()}
    modes = [module.training for module in model.modules()]
    generators = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    analyze(model, example)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert {name: id(buffer) for name, buffer in model.named_buffers()} == identities
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(model.head.weight.grad, torch.ones(2, 5))
    assert model.normed.parametrizations.weight.original.grad is None
    assert torch.equal(model.seen, torch.zeros(1))
    assert random.getstate() == generators[0]
    assert np.random.get_state()[1].tolist() == generators[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), generators[2])


def test_a_pruned_model_can_be_trained_on_after_it_was_analyzed():
    model = nn.Sequential(nn.Linear(6, 5))
    prune.l1_unstructured(model[0], "weight", 10)
    analyze(model, torch.zeros(1, 6))
    model[0].weight.abs().sum().backward()
    assert int((model[0].weight_orig.grad != 0).sum()) == 20


@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.spectral_norm])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_older_norms_are_read_as_they_are_now(norm):
    model = nn.Sequential(norm(nn.Linear(6, 5)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.rand_like(parameter))
    stale = analyze(model)
    assert stale.to_dict()["layers"][0]["neural_persistence"] == pytest.approx(
        analyze(model.eval(), torch.zeros(1, 6)).layers[0].neural_persistence, rel=1e-6
    )


# what is no layer, or has no known graph


class Padded(nn.Conv2d):
    """Pads by itself, as some image models do."""

    def forward(self, x):
        return functional.conv2d(functional.pad(x, (0, 1, 0, 1)), self.weight, self.bias, self.stride)


def test_a_convolution_that_pads_by_itself_has_no_known_graph():
    model = nn.Sequential(Padded(2, 2, 3, stride=2), nn.Conv2d(2, 3, 1))
    first, second = analyze(model, torch.zeros(1, 2, 4, 4)).layers
    assert (first.m, first.alpha, first.critical_rank, first.eta_tau) == (None, None, None, None)
    assert first.reason == (
        "Its outputs are not of the size of its geometry, so it pads or crops by itself, and has no known graph."
    )
    assert (second.m, second.n) == (8, 12)


def test_the_linear_layer_of_gpt_2_has_its_inputs_first():
    layer = Conv1D(20, 30)
    model = nn.Sequential(layer, nn.ReLU(), nn.Linear(20, 10))
    first, second = analyze(model, torch.zeros(3, 30)).layers
    same = analyze(nn.Linear(30, 20)).layers[0]
    assert (first.kind, first.m, first.n, first.eta_tau) == ("dense", 30, 20, same.eta_tau)
    assert (first.neurons, second.neurons) == (((0, 1),), ((1, 2),))
    assert first.neural_persistence == pytest.approx(neural_persistence(layer.weight.detach().numpy(), normalized=True))


class SelfAttention(nn.MultiheadAttention):
    def forward(self, x):
        return super().forward(x, x, x, need_weights=False)[0]


class WithStatistics(nn.Conv2d):
    def forward(self, x):
        return super().forward(x), x.mean()


class OfAList(nn.Conv2d):
    def forward(self, xs):
        return super().forward(xs[0])


class OfNothing(nn.Linear):
    def forward(self):
        return self.weight


@pytest.mark.parametrize(
    ("layer", "call", "shape", "alphas"),
    [
        (SelfAttention(8, 2), lambda layer, x: layer(x), (2, 5, 8), [15, 15, 15, 15]),
        (nn.Conv2d(1, 2, 3), lambda layer, x: layer(input=x), (1, 1, 5, 5), [42]),
        (WithStatistics(1, 2, 3), lambda layer, x: layer(x), (1, 1, 5, 5), [None]),
        (OfAList(1, 2, 3), lambda layer, x: layer([x]), (1, 1, 5, 5), [None]),
        (OfNothing(3, 4), lambda layer, x: layer(), (1,), [6]),
    ],
)
def test_layers_with_a_signature_of_their_own(layer, call, shape, alphas):
    report = analyze(Calls(lambda model, x: call(model.a, x), a=layer), torch.ones(shape))
    found = [each for each in report.layers if each.name.startswith("a.")]
    assert [each.alpha for each in found] == alphas
    assert all(each.calls == 1 for each in found)
    assert all(each.reason for each in found if each.alpha is None)


class Cell(nn.RNNCellBase):
    def __init__(self):
        super().__init__(3, 4, True, num_chunks=2)


class Hyper(nn.Linear):
    """Its weights are made by another layer, in each call."""

    def __init__(self):
        super().__init__(3, 4)
        del self.weight
        self.maker = nn.Linear(2, 12)

    def forward(self, x):
        return functional.linear(x, self.maker(torch.ones(2)).view(4, 3), self.bias)


def test_weights_that_cannot_be_read_are_listed():
    assert set(analyze(Cell()).unread) == {"weight_ih", "weight_hh"}
    report = analyze(Hyper(), torch.ones(1, 3))
    assert [layer.name for layer in report.layers] == ["maker.weight"]
    assert report.unread == {"weight": "It is made while the model is called."}


def test_a_diverged_convolution_is_told_without_an_example():
    model = nn.Conv2d(1, 2, 3)
    model.weight.data[1, 0, 2, 2] = math.nan
    with pytest.raises(ValueError, match=r"^Layer 'weight': .* 1 of its 18 entries .* at index \(1, 0, 2, 2\): nan"):
        analyze(model)


def test_a_packed_sequence_is_one_argument():
    packed = nn.utils.rnn.pack_padded_sequence(torch.randn(3, 2, 4), [3, 2])
    assert [layer.calls for layer in analyze(nn.LSTM(4, 5), packed).layers] == [1] * 8


@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_what_a_call_changes_of_tensors_is_put_back():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.linear = nn.Embedding(5, 4, max_norm=0.1), nn.Linear(4, 2)
            self.register_buffer("coo", torch.eye(3).to_sparse())
            self.register_buffer("csr", torch.eye(3).to_sparse_csr())
            self.register_buffer("calls", torch.zeros(1))
            self.cache = torch.zeros(2)

        def forward(self, x):
            self.calls += 1
            self.cache += 1
            self.coo *= 2
            self.register_buffer("made", x)
            return self.linear(self.embed(x))

    model = Counting()
    before = {name: tensor.to_dense().clone() for name, tensor in model.state_dict().items()}
    analyze(model, torch.arange(5))
    assert not model.cache.any()
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name].to_dense(), tensor) for name, tensor in before.items())


def test_lazy_normalisation_is_made_in_the_call():
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d())
    assert analyze(model, torch.randn(2, 3, 8, 8)).layers[0].shape == (4, 3, 3, 3)
    assert len(analyze(nn.Sequential(nn.Linear(3, 3), nn.LazyBatchNorm1d())).layers) == 1


def test_layers_of_no_kind_that_is_known_are_listed():
    model = nn.Sequential(nn.Linear(4, 4), nn.Bilinear(4, 4, 4))
    assert analyze(model).unread == {"1.weight": "Bilinear is no layer that topobounds knows."}


def test_a_layer_that_is_made_in_the_first_call():
    class Late(nn.Module):
        def forward(self, x):
            if not hasattr(self, "late"):
                self.late = nn.Linear(4, 2)
            return self.late(x)

    (layer,) = analyze(Late(), torch.zeros(1, 4)).layers
    assert (layer.name, layer.m, layer.n, layer.calls) == ("late.weight", 4, 2, 0)


@pytest.mark.parametrize("model", [3, {"a": 1}, nn.Linear, None])
def test_what_is_no_module_is_refused(model):
    with pytest.raises(ValueError, match=r"Argument 'model' must be a torch\.nn\.Module, not "):
        analyze(model)


@pytest.mark.parametrize("layer", [nn.LazyLinear(4), nn.Linear(4, 3, device="meta")])
def test_weights_that_are_not_there_are_listed(layer):
    report = analyze(nn.Sequential(layer, nn.Linear(5, 6)))
    assert [layer.name for layer in report.layers] == ["1.weight"]
    assert report.unread["0.weight"].startswith("It has no weights yet")
