"""T-IMP in torch: the counts of torch's own methods, the topology of the layer, and nothing lost on the way."""

import copy
import io
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from tests.torch_bridge.test_analyze import Conv1D, Padded
from topobounds import critical_kernel_weights, persistence_diagram
from topobounds.pruning import network_masks, topological_mask
from torch_bridge import TopologicalUnstructured, analyze, topological_, topological_unstructured
from torch_bridge.model.conv_geometry import conv_geometry
from torch_bridge.model.weight_tensors import weight_tensors

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def array(tensor):
    return tensor.detach().numpy().copy()


def same_diagram(one, other, conv=None):
    a, b = (critical_kernel_weights(w, conv).diagram if conv else persistence_diagram(w) for w in (one, other))
    return np.array_equal(a.deaths, b.deaths) and (a.n_essential, a.w_max) == (b.n_essential, b.w_max)


def train(module, loss, steps=3, **options):
    optimizer = torch.optim.SGD(module.parameters(), **{"lr": 0.5, "momentum": 0.9, "weight_decay": 0.1, **options})
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()


def test_a_stock_linear_layer_twice_and_removed():
    layer = nn.Linear(60, 40)
    before = array(layer.weight)
    assert topological_unstructured(layer, "weight", amount=0.5) is layer
    np.testing.assert_array_equal(array(layer.weight_mask) > 0, topological_mask(before, 0.5))
    assert topological_unstructured(layer, "weight", amount=0.5) is layer
    assert layer.weight_mask.sum() == 600
    assert same_diagram(before, array(layer.weight))
    masked = array(layer.weight)
    assert prune.is_pruned(layer)
    prune.remove(layer, "weight")
    assert not prune.is_pruned(layer)
    assert sorted(layer.state_dict()) == ["bias", "weight"]
    np.testing.assert_array_equal(array(layer.weight), masked)
    assert (copy.deepcopy(layer).weight == layer.weight).all()


@pytest.mark.parametrize("amount", [0, 1, 137, 0.0, 0.2, 0.25, 0.333, 0.5, 0.9, 300])
def test_the_counts_are_those_of_torch_in_every_round(amount):
    ours, theirs = nn.Linear(30, 20), nn.Linear(30, 20)
    for _ in range(2 if amount != 300 else 1):
        topological_unstructured(ours, "weight", amount, on_infeasible="clamp")
        prune.l1_unstructured(theirs, "weight", amount)
        assert ours.weight_mask.sum() == max(49, theirs.weight_mask.sum())


def test_a_fifth_twice_leaves_sixty_four_percent():
    layer = nn.Linear(50, 20)
    for left in (800, 640, 512):
        topological_unstructured(layer, "weight", 0.2)
        assert layer.weight_mask.sum() == left


def test_scores_are_the_current_weights_and_pruned_ones_stay_pruned():
    layer = nn.Linear(30, 20)
    topological_unstructured(layer, "weight", 0.5)
    pruned = layer.weight_mask == 0
    with torch.no_grad():  # what an optimiser does between the last call of the layer and the next round
        layer.weight_orig.copy_(torch.randn(20, 30))
        layer.weight_orig[pruned] = 1e6
    now = array(layer.weight_orig * layer.weight_mask)
    topological_unstructured(layer, "weight", 0.5)
    np.testing.assert_array_equal(array(layer.weight_mask) > 0, topological_mask(now, 150, ~pruned.numpy()))
    assert same_diagram(now, array(layer.weight))
    assert not layer.weight_mask[pruned].any()


def test_masked_weights_are_zero_after_training_with_momentum_and_decay():
    layer = nn.Linear(30, 20)
    topological_unstructured(layer, "weight", 0.8)
    inputs = torch.randn(64, 30)
    train(layer, lambda: layer(inputs).square().mean())
    layer(inputs)
    assert (layer.weight[layer.weight_mask == 0] == 0).all()
    assert layer.weight_orig[layer.weight_mask == 0].any()


def test_it_follows_and_precedes_other_methods():
    layer = nn.Linear(30, 20)
    prune.random_unstructured(layer, "weight", 0.5)
    survivors = array(layer.weight)
    topological_unstructured(layer, "weight", 0.5)
    assert layer.weight_mask.sum() == 150
    assert same_diagram(survivors, array(layer.weight))
    prune.l1_unstructured(layer, "weight", 0.5)
    assert layer.weight_mask.sum() == 75
    assert [type(m).__name__ for m in next(iter(layer._forward_pre_hooks.values()))] == [
        "RandomUnstructured",
        "TopologicalUnstructured",
        "L1Unstructured",
    ]


@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_a_refused_request_leaves_the_module_as_it_was(rounds):
    layer = nn.Linear(30, 20)
    for _ in range(rounds):
        topological_unstructured(layer, "weight", 0.3)
    state = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    hooks = list(layer._forward_pre_hooks.values())
    with pytest.raises(ValueError, match="at least alpha = 49 weights"):
        topological_unstructured(layer, "weight", 0.99)
    assert layer.state_dict().keys() == state.keys()
    assert all(torch.equal(layer.state_dict()[name], tensor) for name, tensor in state.items())
    assert list(layer._forward_pre_hooks.values()) == hooks
    if rounds:
        topological_unstructured(layer, "weight", 0.3)
        prune.remove(layer, "weight")
    assert layer(torch.ones(1, 30)).shape == (1, 20)


def test_a_non_finite_weight_is_told_by_its_place_in_the_tensor():
    layer = nn.LSTM(4, 3)
    layer.weight_hh_l0.data[4, 0] = math.inf
    with pytest.raises(ValueError, match=r"^Layer 'weight_hh_l0': .*1 of its 36 entries .* at row 4, column 0: inf"):
        topological_(layer, 0.1)


def test_a_non_finite_weight_is_refused_and_the_module_left_as_it_was():
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight[1, 2] = math.nan
    with pytest.raises(ValueError, match="1 of its 6 entries are NaN or infinite, the first at row 1, column 2: nan"):
        topological_unstructured(layer, "weight", 1)
    assert isinstance(layer.weight, nn.Parameter)


def test_the_pruned_state_dict_comes_back():
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 10))
    other = copy.deepcopy(model)
    inputs = torch.randn(8, 20)
    topological_(model, 0.5)
    train(model, lambda: model(inputs).square().mean())
    topological_(other, 0.1)  # another mask, to be replaced
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(inputs), model(inputs))
    for each in (model, other):
        for layer in (each[0], each[2]):
            prune.remove(layer, "weight")
    plain = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 10))
    plain.load_state_dict(other.state_dict())
    assert torch.equal(plain(inputs), model(inputs))


def test_importance_scores_stand_in_for_the_weights():
    layer, scores = nn.Linear(30, 20), torch.randn(20, 30)
    topological_unstructured(layer, "weight", 400, scores)
    np.testing.assert_array_equal(array(layer.weight_mask) > 0, topological_mask(array(scores), 200))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_types(dtype):
    layer = nn.Linear(30, 20, dtype=dtype)
    before = layer.weight.detach().double().numpy()
    topological_unstructured(layer, "weight", 0.5)
    assert layer.weight_mask.dtype == dtype
    assert layer.weight_mask.sum() == 300
    assert same_diagram(before, layer.weight.detach().double().numpy())


CONVS = [
    nn.Conv1d(4, 6, 3, padding=1),
    nn.Conv2d(4, 6, 3, stride=2, padding=1),
    nn.Conv2d(4, 6, (3, 1), padding="same", dilation=2),
    nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"),
    nn.Conv2d(6, 6, 3, padding=1, groups=3),
    nn.Conv2d(6, 6, 3, padding=1, groups=6),
    nn.Conv3d(2, 3, 2),
    nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1),
    nn.ConvTranspose1d(4, 6, 4, stride=2, groups=2),
]


@pytest.mark.parametrize("layer", CONVS, ids=str)
def test_a_convolution_by_its_critical_kernel_weights(layer):
    layer = copy.deepcopy(layer)
    size = (7, 6, 5)[: len(layer.kernel_size)]
    conv = conv_geometry(layer, size)
    inputs = torch.randn(2, layer.in_channels, *size)
    assert tuple(layer(inputs).shape[2:]) == conv.output_size
    before = array(layer.weight)
    for left in (0.8, 0.64):
        topological_unstructured(layer, "weight", 0.2, input_size=size)
        assert abs(layer.weight_mask.sum() - left * before.size) <= 1
        assert same_diagram(before, array(layer.weight), conv)
    n_critical = critical_kernel_weights(before, conv).n_critical
    topological_unstructured(layer, "weight", 1.0, convention="shared", input_size=size, on_infeasible="clamp")
    assert layer.weight_mask.sum() == n_critical
    assert same_diagram(before, array(layer.weight), conv)
    layer(inputs).sum().backward()


@pytest.mark.parametrize("layer", CONVS, ids=str)
def test_a_convolution_as_a_matrix_each_group_on_its_own(layer):
    layer = copy.deepcopy(layer)
    before = array(layer.weight)
    topological_unstructured(layer, "weight", 0.7, on_infeasible="clamp")
    mask = array(layer.weight_mask) > 0
    blocks = np.split(before.reshape(len(before), -1), layer.groups)
    masks = np.split(mask.reshape(len(before), -1), layer.groups)
    for block, kept in zip(blocks, masks, strict=True):
        assert same_diagram(block, np.where(kept, block, 0))
    alpha = sum(sum(block.shape) - 1 for block in blocks)
    assert mask.sum() == max(alpha, before.size - round(0.7 * before.size))


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize(
    ("module", "inputs"),
    [
        (nn.LSTM(6, 8, num_layers=2, bidirectional=True), (5, 3, 6)),
        (nn.LSTM(6, 8, proj_size=4), (5, 3, 6)),
        (nn.GRU(6, 8), (5, 3, 6)),
        (nn.RNN(6, 8), (5, 3, 6)),
        (nn.LSTMCell(6, 8), (3, 6)),
        (nn.GRUCell(6, 8), (3, 6)),
    ],
    ids=str,
)
def test_recurrent_weights_gate_by_gate(module, inputs):
    module, x = copy.deepcopy(module), torch.randn(*inputs)
    before = {t.name: (array(getattr(module, t.name)), len(t.parts)) for t in weight_tensors(module)}
    for name in before:
        topological_unstructured(module, name, 0.4)
    for name, (weights, gates) in before.items():
        mask = array(getattr(module, f"{name}_mask")) > 0
        assert mask.sum() == weights.size - round(0.4 * weights.size)
        for block, kept in zip(np.split(weights, gates), np.split(mask, gates), strict=True):
            assert same_diagram(block, np.where(kept, block, 0))

    def loss():
        found = module(x)
        return (found[0] if isinstance(found, tuple) else found).square().sum()

    train(module, loss, lr=0.01)
    masked = loss().item()
    for name in before:
        prune.remove(module, name)
        assert (getattr(module, name) == 0).any()
    assert loss().item() == masked


@pytest.mark.parametrize("options", [{}, {"kdim": 6, "vdim": 10}])
def test_attention_projection_by_projection(options):
    attention = nn.MultiheadAttention(8, 2, batch_first=True, **options)
    inputs = [torch.randn(2, 3, width) for width in (8, options.get("kdim", 8), options.get("vdim", 8))]
    before = {t.name: (array(getattr(attention, t.name)), len(t.parts)) for t in weight_tensors(attention)}
    report = topological_(attention, 0.5)
    assert [layer.name for layer in report.layers] == [*before, "out_proj.weight"]
    for name, (weights, parts) in before.items():
        mask = array(getattr(attention, f"{name}_mask")) > 0
        assert mask.sum() == weights.size // 2
        for block, kept in zip(np.split(weights, parts), np.split(mask, parts), strict=True):
            assert same_diagram(block, np.where(kept, block, 0))
    # torch's own hook on out_proj never runs, for attention reads its weight without calling it
    train(attention, lambda: attention(*inputs)[0].square().sum(), lr=0.01)
    attention.eval()
    masked = attention(*inputs)[0]
    out_proj = attention.out_proj
    assert torch.equal(out_proj.weight, out_proj.weight_orig * out_proj.weight_mask)
    for name in before:
        prune.remove(attention, name)
    prune.remove(out_proj, "weight")
    torch.testing.assert_close(attention(*inputs)[0], masked)
    assert (out_proj.weight == 0).sum() == 32


def block(channels_in, channels, stride):
    def conv(n_in, size, stride):
        return [nn.Conv2d(n_in, channels, size, stride, size // 2, bias=False), nn.BatchNorm2d(channels)]

    main = nn.Sequential(*conv(channels_in, 3, stride), nn.ReLU(), *conv(channels, 3, 1))
    return main, nn.Sequential(*conv(channels_in, 1, stride)) if stride > 1 else nn.Identity()


class ResNet18(nn.Module):
    def __init__(self, width=64, classes=1000):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.pool, self.head = nn.MaxPool2d(3, 2, 1), nn.Linear(8 * width, classes)
        self.mains, self.shortcuts = nn.ModuleList(), nn.ModuleList()
        for n_in, n_out in zip((1, 1, 1, 2, 2, 4, 4, 8), (1, 1, 2, 2, 4, 4, 8, 8), strict=True):
            main, shortcut = block(n_in * width, n_out * width, 2 if n_in != n_out else 1)
            self.mains.append(main)
            self.shortcuts.append(shortcut)

    def forward(self, x):
        x = self.pool(self.stem(x))
        for main, shortcut in zip(self.mains, self.shortcuts, strict=True):
            x = torch.relu(main(x) + shortcut(x))
        return self.head(x.mean((2, 3)))


def test_a_resnet_18_loses_no_persistence():
    model, example = ResNet18(), torch.randn(1, 3, 224, 224)
    assert sum(p.numel() for p in model.parameters()) == 11_689_512
    report = topological_(model, 0.9, example_input=example)
    assert len(report.layers) == 21
    assert report.preserved
    assert report.density == pytest.approx(0.1, abs=1e-6)
    kept = sum(int(buffer.sum()) for name, buffer in model.named_buffers() if name.endswith("_mask"))
    assert kept == sum(layer.kept for layer in report.layers)


@pytest.mark.parametrize("example", [None, torch.randn(1, 3, 32, 32)])
def test_global_scope_counts_exactly_and_keeps_every_layer(example):
    model = ResNet18(width=4, classes=10)
    total = sum(p.numel() for name, p in model.named_parameters() if p.ndim > 1)
    report = topological_(model, 0.7, scope="global", example_input=example)
    assert sum(layer.kept for layer in report.layers) == total - round(0.7 * total)
    assert report.preserved
    assert len({round(layer.density, 3) for layer in report.layers}) > 5
    convention = "flattened" if example is None else "shared"
    assert {layer.convention for layer in report.layers} == {convention, None}
    again = topological_(model, 100, scope="global", example_input=example)
    assert sum(layer.kept for layer in again.layers) == total - round(0.7 * total) - 100
    assert [layer.survivors for layer in again.layers] == [layer.kept for layer in report.layers]


def test_the_global_ranking_is_that_of_the_numpy_masks():
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 10))
    weights = [array(model[0].weight), array(model[2].weight)]
    topological_(model, 0.6, scope="global")
    expected = network_masks(weights, 0.4, scope="global")
    for layer, mask in zip((model[0], model[2]), expected, strict=True):
        np.testing.assert_array_equal(array(layer.weight_mask) > 0, mask)


def test_amounts_by_layer_and_layers_left_alone():
    model = nn.Sequential(nn.Embedding(50, 20), nn.Linear(20, 30), nn.Linear(30, 10), nn.Linear(10, 9))
    parametrizations.weight_norm(model[2])
    nn.utils.spectral_norm(model[3])
    report = topological_(model, 0.5)
    assert [layer.name for layer in report.layers] == ["1.weight"]
    assert set(report.left_alone) == {"0.weight", "2.weight", "3.weight"}
    report = topological_(model, {"0.weight": 0.25, "1.weight": 100})
    assert [(layer.name, layer.kept) for layer in report.layers] == [("0.weight", 750), ("1.weight", 200)]
    with pytest.raises(
        ValueError,
        match=r"'skip' names '4\.weight'; the model has no such layer, only: 0\.weight, 1\.weight, 2\.weight",
    ):
        topological_(model, 0.1, skip=["4.weight"])


def test_tied_weights_get_one_mask():
    model = nn.Sequential(nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 20))
    model[2].weight = model[0].weight
    report = topological_(model, 100, scope="global")
    assert [layer.kept for layer in report.layers] == [300, 300]
    assert report.layers[1].reason == "the same weights as '0.weight'"
    assert torch.equal(model[0].weight_mask, model[2].weight_mask)
    assert model[0].weight_orig is model[2].weight_orig


class Language(nn.Module):
    """A head that has the weights of the embedding, as language models have."""

    def __init__(self):
        super().__init__()
        self.words, self.inner, self.head = nn.Embedding(50, 20), nn.Linear(20, 20), nn.Linear(20, 50, bias=False)
        self.head.weight = self.words.weight

    def forward(self, tokens):
        return self.head(self.inner(self.words(tokens)))


def remove_all(model):
    for module in model.modules():
        for hook in [h for h in module._forward_pre_hooks.values() if isinstance(h, prune.BasePruningMethod)]:
            prune.remove(module, hook._tensor_name)


def test_weights_of_an_embedding_and_a_head_are_left_alone_or_pruned_in_both():
    model, tokens = Language(), torch.arange(10)
    report = topological_(model, 0.5)
    assert [layer.name for layer in report.layers] == ["inner.weight"]
    assert report.left_alone == {
        "words.weight": "embeddings are pruned where 'amount' names them",
        "head.weight": "the same weights as 'words.weight', which is left alone",
    }
    for named in ("words.weight", "head.weight"):
        model = Language()
        report = topological_(model, {named: 0.5})
        assert [(layer.name, layer.kept, layer.reason) for layer in report.layers] == [
            ("words.weight", 500, None),
            ("head.weight", 500, "the same weights as 'words.weight'"),
        ]
        before = model(tokens)
        remove_all(model)
        assert torch.equal(model(tokens), before)
        assert model.head.weight is model.words.weight
        assert int((model.words.weight != 0).sum()) == 500


def tied():
    model = nn.Sequential(nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 20), nn.Linear(20, 10))
    model[2].weight = model[0].weight
    return model


def test_layers_with_the_same_weights_are_skipped_together():
    model = tied()
    report = topological_(model, 0.5, skip=["2.weight"])
    assert [layer.name for layer in report.layers] == ["3.weight"]
    assert report.left_alone == {
        "0.weight": "the same weights as '2.weight', which is left alone",
        "2.weight": "skipped",
    }
    assert (
        topological_(model, {"0.weight": 0.1, "3.weight": 0.1}, skip=["2.weight"]).left_alone["2.weight"] == "skipped"
    )


def test_layers_with_the_same_weights_have_one_amount_and_one_mask():
    with pytest.raises(ValueError, match=r"'amount' must be the same for '0\.weight' and '2\.weight', which share"):
        topological_(tied(), {"0.weight": 0.5, "2.weight": 0.25})
    assert [layer.kept for layer in topological_(tied(), {"0.weight": 0.5, "2.weight": 0.5}).layers] == [200, 200]
    model = tied()
    prune.l1_unstructured(model[2], "weight", 0.5)
    with pytest.raises(
        ValueError, match=r"Layers '0\.weight' and '2\.weight' share their weights but have different m"
    ):
        topological_(model, 0.1)
    assert not hasattr(model[0], "weight_mask")


@pytest.mark.parametrize("amount", [0.4, 1.0])
def test_tied_weights_keep_what_carries_the_topology_of_every_graph(amount):
    convs = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 2, 3, stride=3))
    convs[2].weight = convs[0].weight
    gates = nn.ModuleList([nn.Linear(6, 20), nn.LSTM(6, 5)])
    gates[1].weight_ih_l0 = gates[0].weight
    for model, example in ((convs, torch.zeros(1, 2, 8, 8)), (gates, None)):
        before = [(layer.name, layer.alpha, layer.neural_persistence) for layer in analyze(model, example).layers]
        report = topological_(model, amount, example_input=example, on_infeasible="clamp")
        after = [(layer.name, layer.alpha, layer.neural_persistence) for layer in analyze(model, example).layers]
        assert after == before
        assert report.preserved
        own = {name: value for name, _, value in before}
        measured = {layer.name: layer.neural_persistence_before for layer in report.layers}
        assert all(measured[name] == own[name] for name in measured if name in own)
        first, second = report.layers[:2]
        assert (first.kept, second.kept) == (first.kept,) * 2 > (first.alpha, second.alpha)


def test_an_output_projection_of_two_attentions():
    first, second = nn.MultiheadAttention(8, 2), nn.MultiheadAttention(8, 2)
    second.out_proj = first.out_proj
    model = nn.ModuleList([first, second])
    topological_(model, 0.3)
    dead = first.out_proj.weight_mask == 0
    x = torch.randn(5, 1, 8)
    train(model, lambda: second(*[first(x, x, x)[0]] * 3)[0].square().sum(), lr=0.01)
    second(x, x, x)
    assert dead.any()
    assert not first.out_proj.weight[dead].any()


def test_layers_that_it_does_not_know_are_listed():
    model = nn.Sequential(nn.Linear(20, 20), nn.Bilinear(20, 20, 5))
    assert topological_(model, 0.5).left_alone == {"1.weight": "Bilinear is no layer that topobounds knows."}


def test_the_linear_layer_of_gpt_2():
    model = nn.Sequential(Conv1D(60, 20), nn.Linear(60, 10))
    before = array(model[0].weight)
    report = topological_(model, 0.5)
    assert [(layer.name, layer.kind, layer.alpha, layer.kept) for layer in report.layers] == [
        ("0.weight", "dense", 79, 600),
        ("1.weight", "dense", 69, 300),
    ]
    np.testing.assert_array_equal(array(model[0].weight_mask) > 0, topological_mask(before, 600))


def test_rounds_do_not_add_up_masks():
    model, bare = nn.Sequential(nn.Linear(100, 80)), nn.Sequential(nn.Linear(100, 80))
    prune.l1_unstructured(bare[0], "weight", 0.5)
    sizes = []
    for _ in range(4):
        topological_(model, 0.2)
        (hook,) = model[0]._forward_pre_hooks.values()
        assert all(method.mask is None for method in getattr(hook, "_pruning_methods", (hook,)))
        content = io.BytesIO()
        torch.save(model, content)
        sizes.append(content.tell())
    plain = io.BytesIO()
    torch.save(bare, plain)
    assert max(sizes) < plain.tell() + 4000
    prune.l1_unstructured(model[0], "weight", 100)
    topological_unstructured(model[0], "weight", 100)
    assert model[0].weight_mask.sum() == 3277 - 200


def state_of(model):
    """Return what pruning may change, in its order."""
    return [
        (list(m._parameters), list(m._buffers), list(m._forward_pre_hooks.values()), list(vars(m)), [*m.parameters()])
        for m in model.modules()
    ]


def test_a_refusal_keeps_the_order_of_the_parameters():
    layer = nn.Linear(4, 4)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    before = state_of(layer)
    with pytest.raises(ValueError, match="at least alpha = 7"):
        topological_unstructured(layer, "weight", 1.0)
    assert [list(map(str, each)) for each in state_of(layer)[0]] == [list(map(str, each)) for each in before[0]]
    again = torch.optim.Adam(layer.parameters())
    again.load_state_dict(optimizer.state_dict())
    assert all(again.state[p]["exp_avg"].shape == p.shape for p in layer.parameters())


@pytest.mark.parametrize("rounds", [0, 2])
def test_what_fails_half_way_changes_nothing(monkeypatch, rounds):
    model = nn.Sequential(nn.Linear(30, 20), nn.LSTM(20, 10), nn.Linear(10, 8), nn.MultiheadAttention(20, 2))
    for _ in range(rounds):
        topological_(model, 0.1)
    before, flat = state_of(model), list(model[1]._flat_weights)
    masks = {name: buffer.clone() for name, buffer in model.named_buffers()}
    apply, calls = prune.CustomFromMask.apply, []

    def fail_at_the_fourth(*args):
        calls.append(args)
        if len(calls) == 4:
            raise RuntimeError("no more memory")
        return apply(*args)

    monkeypatch.setattr(prune.CustomFromMask, "apply", fail_at_the_fourth)
    with pytest.raises(RuntimeError, match="no more memory"):
        topological_(model, 0.1)
    after = state_of(model)
    for mine, theirs in zip(after, before, strict=True):
        assert mine[:4] == theirs[:4]
        assert all(a is b for a, b in zip(mine[4], theirs[4], strict=True))
    assert all(a is b for a, b in zip(model[1]._flat_weights, flat, strict=True))
    assert all(torch.equal(buffer, masks[name]) for name, buffer in model.named_buffers())
    monkeypatch.undo()
    assert topological_(model, 0.1).preserved


@pytest.mark.parametrize("norm", [parametrizations.spectral_norm, nn.utils.spectral_norm, nn.utils.weight_norm])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_computed_weights_cannot_be_asked_for(norm):
    model = nn.Sequential(nn.Linear(8, 8), norm(nn.Linear(8, 8)))
    with pytest.raises(
        ValueError,
        match=r"'amount' must be a mapping of parameters that can be pruned \(it is computed .*\), not '1\.weight'",
    ):
        topological_(model, {"0.weight": 0.5, "1.weight": 0.5})
    assert not prune.is_pruned(model[0])
    assert topological_(model, 0.5).left_alone == {"1.weight": "it is computed from other parameters"}


def test_a_convolution_that_pads_by_itself_is_refused():
    model = nn.Sequential(Padded(2, 2, 3, stride=2))
    example = torch.zeros(1, 2, 4, 4)
    with pytest.raises(ValueError, match=r"Layer '0\.weight' gives outputs that are not of the size of its geometry"):
        topological_(model, 0.1, example_input=example)
    assert topological_(model, 0.1, example_input=example, convention="flattened").preserved


def test_attention_is_plain_again_after_remove():
    attention = nn.MultiheadAttention(16, 4, batch_first=True).eval()
    topological_(attention, 0.5)
    x = torch.randn(2, 3, 16)
    pruned, _ = attention(x, x, x)
    for module, name in ((attention, "in_proj_weight"), (attention.out_proj, "weight")):
        prune.remove(module, name)
    assert attention._forward_pre_hooks
    again, _ = attention(x, x, x)
    assert not attention._forward_pre_hooks
    torch.testing.assert_close(again, pruned, rtol=0, atol=0)


def test_a_model_is_not_called_without_an_example():
    class Never(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(9, 9)

        def forward(self, x):
            raise AssertionError("it was called")

    assert topological_(Never(), 0.1).preserved


def test_a_model_is_pruned_whole_or_not_at_all():
    model = nn.Sequential(nn.Linear(40, 30), nn.Linear(30, 2))  # the head: 60 weights, 31 of them its tree
    with pytest.raises(ValueError, match=r"Layer '1\.weight': .* at least alpha = 31 weights"):
        topological_(model, 0.9)
    assert not prune.is_pruned(model)
    report = topological_(model, 0.9, on_infeasible="clamp")
    assert [(layer.alpha, layer.kept) for layer in report.layers] == [(69, 120), (31, 31)]


def test_the_report_becomes_json_and_html():
    report = topological_(nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten()), 0.2)
    record = json.loads(json.dumps(report.to_dict()))
    assert record["layers"][0]["name"] == "0.weight"
    assert record["layers"][0]["neural_persistence_before"] == record["layers"][0]["neural_persistence_after"] > 0
    assert (record["preserved"], record["density"]) == (True, 58 / 72)
    assert "<td>4×2×3×3</td>" in report._repr_html_()


def test_the_report_says_what_was_asked_for_and_what_was_left_out():
    model = nn.Sequential(nn.Linear(30, 20), nn.Linear(20, 10))
    report = topological_(model, 0.95, on_infeasible="clamp", skip=["1.weight"])
    assert [(layer.asked, layer.kept) for layer in report.layers] == [(30, 49)]
    assert report.left_out == report.left_alone == {"1.weight": "skipped"}
    record = report.to_dict()
    assert record["left_out"] == record["left_alone"] == report.left_out
    together = topological_(nn.Sequential(nn.Linear(30, 20), nn.Linear(20, 10)), 0.5, scope="global")
    assert [layer.asked for layer in together.layers] == [None, None]
    assert sum(layer.kept for layer in together.layers) == 400


def test_the_report_measures_what_it_says(monkeypatch):
    def by_magnitude(group, request, method, on_infeasible):
        weights, masks = [tensor.weights for tensor in group], [tensor.survivors for tensor in group]
        return network_masks(weights, request.count, masks, method="magnitude", scope="global")

    monkeypatch.setattr("torch_bridge.pruning.method.kept_masks", by_magnitude)
    report = topological_(
        nn.Sequential(nn.Linear(30, 20), nn.Conv1d(20, 20, 1)), 0.88, example_input=(torch.zeros(20, 30),)
    )
    assert [layer.preserved for layer in report.layers] == [False, False]
    assert not report.preserved
    assert all(layer.neural_persistence_after != layer.neural_persistence_before for layer in report.layers)


def test_a_convolution_on_two_sizes_or_none_has_no_one_graph():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.idle = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 1)

        def forward(self, x):
            return self.conv(self.conv(x)[..., ::2, ::2])

    model, example = Twice(), torch.zeros(1, 2, 8, 8)
    with pytest.raises(ValueError, match=r"Layer 'conv\.weight' was called with inputs of several sizes"):
        topological_(model, 0.1, example_input=example)
    with pytest.raises(ValueError, match=r"Layer 'idle\.weight' was not called with this example"):
        topological_(model, 0.1, example_input=example, skip=["conv.weight"])
    assert len(topological_(model, 1, convention="flattened", example_input=example, skip=["idle.weight"]).layers) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_same_masks_on_cuda():
    model = ResNet18(width=4, classes=10)
    other, example = copy.deepcopy(model).cuda(), torch.randn(1, 3, 32, 32)
    topological_(model, 0.7, example_input=example)
    topological_(other, 0.7, example_input=example.cuda())
    masks = zip(model.named_buffers(), other.named_buffers(), strict=True)
    assert all(torch.equal(mine, theirs.cpu()) for (name, mine), (_, theirs) in masks if name.endswith("_mask"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: topological_unstructured(m, "weight", -1), "'amount' must be a non-negative integer, not -1"),
        (lambda m: topological_unstructured(m, "weight", 601), "'amount' must be an integer from 0 to 600, not 601"),
        (
            lambda m: topological_unstructured(m, "weight", 1.5),
            r"'amount' must be a number of weights or a share.*1\.5",
        ),
        (lambda m: topological_unstructured(m, "weight", "half"), "'amount'.*not 'half'"),
        (lambda m: topological_unstructured(m, "weight", True), "'amount'.*not True"),
        (lambda m: topological_unstructured(m, "bias", 1), r"two or more dimensions, not one of \(20,\)"),
        (lambda m: topological_unstructured(m, "weights", 1), "'name' must be a parameter of Linear, not 'weights'"),
        (
            lambda m: topological_unstructured(m, "weight", 1, input_size=(8,)),
            "are for the weights of convolutions, not 'weight' of Linear",
        ),
        (lambda m: topological_unstructured(m, "weight", 1, on_infeasible="x"), "'on_infeasible' must be one of"),
        (lambda m: TopologicalUnstructured(1, parts=0), "'parts' must be a positive integer, not 0"),
        (lambda m: TopologicalUnstructured.apply(m, "weight", 1, parts=3), "'parts' must be a divisor of the 20 rows"),
        (
            lambda m: topological_unstructured(nn.Conv1d(1, 1, 3), "weight", 1, convention="shared"),
            "'input_size' must be given where convention is 'shared', not None",
        ),
        (
            lambda m: topological_unstructured(nn.Conv1d(1, 1, 3), "weight", 1, convention="x"),
            "'convention' must be one",
        ),
        (
            lambda m: topological_unstructured(nn.Conv1d(1, 1, 3), "weight", 1, input_size=(8, 8)),
            "'input_size' must be a sequence of 1 positive integers",
        ),
        (lambda m: topological_(nn.ReLU(), 0.5), r"must have a layer to prune, and this has none\.$"),
        (lambda m: topological_(m, 0.5, skip=["weight"]), r"this has none\. 'weight': skipped\.$"),
        (lambda m: topological_(nn.Embedding(5, 3), 0.5), "'weight': embeddings are pruned where 'amount' names them"),
        (
            lambda m: topological_unstructured(nn.LazyLinear(3), "weight", 0.5),
            "'module' must be one that has its weights: .*, not 'LazyLinear'",
        ),
        (
            lambda m: topological_unstructured(m, "weight", 0.5, torch.full((20, 30), math.nan)),
            "'importance_scores' must be finite, but 600 of its 600",
        ),
        (
            lambda m: TopologicalUnstructured(2).compute_mask(torch.ones(4, 4), torch.ones(4, 3)),
            r"'default_mask' must be of the shape \(4, 4\) of the weights, not \(4, 3\)",
        ),
        (
            lambda m: topological_unstructured(
                nn.Conv1d(1, 1, 3), "weight", 0.5, convention="flattened", input_size=(8,)
            ),
            r"'input_size' must be left out where convention is 'flattened', not \(8,\)",
        ),
        (
            lambda m: topological_unstructured(nn.Linear(4, 0), "weight", 0.5),
            r"'name' must be a parameter that can be pruned \(It has no entries: its shape is 0x4\.\)",
        ),
        (lambda m: topological_(3, 0.5), r"'model' must be a torch\.nn\.Module, not 'int'"),
        (lambda m: topological_(nn.Linear, 0.5), r"'model' must be a torch\.nn\.Module, not <class"),
        (lambda m: topological_unstructured({}, "weight", 1), r"'module' must be a torch\.nn\.Module, not 'dict'"),
        (
            lambda m: topological_unstructured(torch.jit.script(nn.Linear(3, 3)), "weight", 1),
            "'module' must be one that is",
        ),
        (
            lambda m: topological_unstructured(m, ["weight"], 1),
            r"'name' must be a parameter of Linear, not \['weight'\]",
        ),
        (lambda m: TopologicalUnstructured.apply(m, "nope", 1), "'name' must be a parameter of Linear, not 'nope'"),
        (lambda m: TopologicalUnstructured(1, conv=3), "'conv' must be a Conv or None, not 3"),
        (lambda m: topological_unstructured(m, "weight", torch.tensor([0.5])), "'amount' must be a number of weights"),
        (lambda m: topological_unstructured(m, "weight", torch.tensor(True)), "'amount' must be a number of weights"),
        (lambda m: topological_(m, np.array([0.5])), "'amount' must be a number of weights"),
        (
            lambda m: topological_unstructured(m, "weight", 1, importance_scores=torch.ones(3)),
            r"'importance_scores' must be a tensor of the shape \(20, 30\), not",
        ),
        (
            lambda m: topological_unstructured(m, "weight", 1, importance_scores=[1]),
            "'importance_scores' must be a tensor of the shape .*, not 'list'",
        ),
        (lambda m: topological_(m, 0.5, skip="weight"), "'skip' must be a collection of parameter names, not 'weight'"),
        (lambda m: topological_(m, 0.5, skip=5), "'skip' must be a collection of parameter names, not 5"),
        (
            lambda m: topological_(m, {"wight": 0.5}),
            "'amount' names 'wight'; the model has no such layer, only: weight",
        ),
        (
            lambda m: topological_(nn.Linear(4, 0), 0.5),
            r"this has none\. 'weight': It has no entries: its shape is 0x4\.$",
        ),
        (
            lambda m: topological_(nn.Sequential(m, nn.Linear(9, 9)), 0.9),
            r"^Layer '1\.weight': Argument 'amount' must leave at least alpha = 17 weights, .*; 0\.9 leaves 8 of 81",
        ),
        (lambda m: topological_(m, {"weight": 0.5}, scope="global"), "'amount' must be one number where the scope"),
        (lambda m: topological_(m, 0.5, scope="each"), "'scope' must be one of 'local', 'global'"),
        (lambda m: topological_(m, 0.5, convention="shared"), "'example_input' must be given where convention"),
    ],
)
@pytest.mark.filterwarnings("ignore:.torch.jit.script", "ignore:Initializing zero-element tensors")
def test_what_cannot_be_is_refused(call, message):
    layer = nn.Linear(30, 20)
    with pytest.raises(ValueError, match=message):
        call(layer)
    assert isinstance(layer.weight, nn.Parameter)


def readme_script():
    (script,) = re.findall(r"^```python\n(.*?)^```$", README.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert len([line for line in script.splitlines() if line]) <= 12
    return script


def test_the_script_of_the_readme_runs_as_it_stands(capsys):
    names = {}
    exec(readme_script(), names)
    model, report = names["model"], names["report"]
    assert not any(name.endswith(("_mask", "_orig")) for name in model.state_dict())
    assert report.preserved
    layers = {layer.name: layer for layer in report.layers}
    assert (layers["5.weight"].alpha, layers["5.weight"].kept) == (109, 109)
    assert layers["3.weight"].kept == 54080
    assert all(int(model.get_parameter(name).count_nonzero()) == layer.kept for name, layer in layers.items())
    printed = capsys.readouterr().out
    assert all(f"{name}: {layer.kept} of {layer.weights} left" in printed for name, layer in layers.items())


@pytest.mark.parametrize(
    ("model", "example"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 10)), torch.zeros(1, 1, 28, 28)),
        (ResNet18(width=8, classes=10), torch.zeros(1, 3, 32, 32)),
    ],
)
def test_the_call_of_the_readme_works_on_other_nets(model, example):
    (call,) = re.findall(r"topological_\(model, 0\.9, .*?(on_infeasible=\"\w+\")", readme_script())
    report = topological_(model, 0.9, example_input=example, on_infeasible=call.split('"')[1])
    assert report.preserved
    assert all(layer.kept in (layer.alpha, layer.asked) for layer in report.layers)
