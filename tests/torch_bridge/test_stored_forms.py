"""Weights in every form a module may store them in: read as what they stand for, or listed with the reason."""

import copy
import sys
import threading
import types

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.ao.nn import quantized
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DeviceMesh, DTensor, Replicate
from torch.nn import functional
from torch.nn.utils import prune

from tests.checkpoint.slow_readers import four_bit_weights
from topobounds import maximum_spanning_forest, neural_persistence
from torch_bridge import (
    ImpPlan,
    TopologicalSparsifier,
    TopologyLog,
    analyze,
    run_imp,
    topological_,
    topological_unstructured,
)
from torch_bridge.model.stored import stored_values

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def holding(tensor, n_in=8, n_out=6):
    """Return a linear layer that stores another tensor as its weight."""
    layer = nn.Linear(n_in, n_out, bias=False)
    layer.weight = nn.Parameter(tensor, requires_grad=False)
    return layer


class Scaled(torch.Tensor):
    """Codes with a scale by row, as torchao's tensors are: nothing of it can be read but by its own method."""

    @staticmethod
    def __new__(cls, codes, scale):
        return torch.Tensor._make_wrapper_subclass(cls, codes.shape, dtype=torch.float32)

    def __init__(self, codes, scale):
        self.codes, self.scale = codes, scale

    def dequantize(self):
        return self.codes.float() * self.scale[:, None]

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func.overloadpacket in (torch.ops.aten.detach, torch.ops.aten.alias):
            return cls(args[0].codes, args[0].scale)
        raise NotImplementedError(str(func))


class Opaque(Scaled):
    dequantize = None


class Undecodable(Scaled):
    def dequantize(self):
        raise RuntimeError("no kernel for this device\nmore")


class Linear8bit(nn.Linear):
    """bitsandbytes' Linear8bitLt as stored: codes, and the largest magnitude of every row, at one of two places."""

    def __init__(self, weight, moved):
        super().__init__(weight.shape[1], weight.shape[0], bias=False)
        largest = weight.abs().amax(1)
        codes = (weight / largest[:, None] * 127).round().to(torch.int8)
        self.weight = nn.Parameter(codes, requires_grad=False)
        self.state = types.SimpleNamespace(SCB=largest if moved else None)
        self.weight.SCB = None if moved else largest


class QuantState:
    """What bitsandbytes keeps beside four-bit codes."""

    def __init__(self, shape):
        self.shape = shape


def linear_4_bits(weight, library):
    """Return a layer that stores two codes in a byte; its library is a stand-in for bitsandbytes."""
    codes = (weight.flatten() * 4).round().clamp(-7, 7).to(torch.int64) + 8
    layer = holding((codes[::2] * 16 + codes[1::2]).to(torch.uint8)[:, None], weight.shape[1], weight.shape[0])
    layer.weight.quant_state = type("QuantState", (QuantState,), {"__module__": f"{library}.functional"})(weight.shape)
    return layer


def unpacked(packed, state):
    return torch.stack([packed // 16, packed % 16], -1).float().sub(8).div(4).view(state.shape)


def sparse_weight():
    return torch.arange(48.0).view(6, 8) * (torch.arange(48).view(6, 8) % 3 > 0)


def distributed_linear():
    mesh = DeviceMesh("cpu", [0])
    layer = nn.Linear(8, 6, bias=False)
    layer.weight = nn.Parameter(DTensor.from_local(torch.randn(6, 8), mesh, [Replicate()]))
    return layer


@pytest.fixture
def one_process():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def fake_linear():
    with FakeTensorMode():
        return nn.Linear(8, 6)


def with_scales(name):
    layer = holding(torch.randn(6, 8).to(torch.float8_e4m3fn))
    layer.register_buffer(name, torch.ones(6, 1))
    return layer


class GptqLinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("qweight", torch.zeros(1, 6, dtype=torch.int32))


class Compressed(nn.Linear):
    """Stores its weight under another name, as compressed-tensors does."""

    def __init__(self):
        super().__init__(8, 6, bias=False)
        del self.weight
        self.weight_packed = nn.Parameter(torch.zeros(6, 1, dtype=torch.int32), requires_grad=False)


UNREAD = {
    "bytes of four-bit codes": (lambda: holding(torch.zeros(24, 1, dtype=torch.uint8)), "uint8: codes"),
    "int8 without scales": (lambda: holding(torch.ones(6, 8, dtype=torch.int8)), "It holds int8: codes"),
    "booleans": (lambda: holding(torch.ones(6, 8, dtype=torch.bool)), "It holds bool"),
    "another shape": (lambda: holding(torch.randn(48, 1)), "stored as 48x1, and the sizes of its Linear ask for 6x8"),
    "a flat shard": (lambda: holding(torch.randn(48)), "stored as 48, and the sizes of its Linear ask for 6x8"),
    "complex": (lambda: holding(torch.randn(6, 8, dtype=torch.complex64)), "complex64"),
    "meta": (lambda: nn.Linear(8, 6, device="meta"), "no weights yet"),
    "lazy": (lambda: nn.LazyLinear(6), "no weights yet"),
    "fake": (fake_linear, "fake tensor"),
    "float8 with scales": (lambda: with_scales("weight_scale_inv"), "multiplied by 'weight_scale_inv'"),
    "float8 of TensorRT": (lambda: with_scales("scaling_factor"), "multiplied by 'scaling_factor'"),
    "another name": (Compressed, "in a form that is not known: weight_packed"),
    "a subclass that hides its values": (lambda: holding(Opaque(torch.ones(6, 8), torch.ones(6))), "It is a Opaque"),
    "a subclass that fails": (
        lambda: holding(Undecodable(torch.ones(6, 8), torch.ones(6))),
        "could not be decoded: no kernel for this device.",
    ),
    "scripted": (lambda: torch.jit.script(nn.Linear(8, 6)), "Linear is scripted or traced"),
    "traced": (lambda: torch.jit.trace(nn.Linear(8, 6), torch.zeros(1, 8)), "Linear is scripted or traced"),
    "exported": (
        lambda: torch.export.export(nn.Linear(8, 6), (torch.zeros(1, 8),)).module(),
        "GraphModule is no layer",
    ),
}


@pytest.mark.parametrize("form", UNREAD)
def test_a_weight_in_a_form_that_is_not_known_is_listed_and_stops_no_other(form):
    make, reason = UNREAD[form]
    model = nn.Sequential(make(), nn.Linear(6, 5))
    stored = {name: id(tensor) for name, tensor in model[0].named_parameters()}
    report = analyze(model)
    assert [layer.name for layer in report.layers] == ["1.weight"]
    assert list(report.unread) == ["0.weight"]
    assert reason in report.unread["0.weight"]
    assert list(TopologyLog()(model))[-1] == "topology/1.weight/density"
    pruned = topological_(model, 0.1)
    assert [layer.name for layer in pruned.layers] == ["1.weight"]
    assert reason in pruned.left_out["0.weight"]
    assert {name: id(tensor) for name, tensor in model[0].named_parameters()} == stored


def test_packed_buffers_and_a_distributed_weight_are_listed(one_process):
    model = nn.Sequential(GptqLinear(), distributed_linear(), nn.Linear(6, 5))
    for found in (analyze(model).unread, topological_(model, 0.1).left_out):
        assert "GptqLinear is quantized or packed" in found["0.qweight"]
        assert "distributed" in found["1.weight"]
        assert len(found) == 2


RECURRENT = {
    "LSTM": lambda: nn.LSTM(8, 6, 2, bidirectional=True),
    "GRU": lambda: nn.GRU(8, 6),
    "LSTMCell": lambda: nn.LSTMCell(8, 6),
    "GRUCell": lambda: nn.GRUCell(8, 6),
    "RNNCell": lambda: nn.RNNCell(8, 6),
}


@pytest.mark.parametrize("kind", RECURRENT)
@pytest.mark.parametrize("dtype", [torch.qint8, torch.float16])
def test_dynamically_quantized_recurrent_layers_are_read_gate_by_gate(kind, dtype):
    net = nn.Sequential(RECURRENT[kind]())
    quantized_net = torch.ao.quantization.quantize_dynamic(net, {type(net[0])}, dtype=dtype)
    report, expected = analyze(quantized_net), analyze(net)
    assert report.unread == {}
    assert [(layer.name, layer.kind, layer.shape) for layer in report.layers] == [
        (layer.name, layer.kind, layer.shape) for layer in expected.layers
    ]
    for name, weight in quantized_net[0].get_weight().items():
        values = weight.dequantize() if weight.is_quantized else weight
        gates = np.split(values.numpy(), len(values) // 6)
        found = [layer for layer in report.layers if layer.name.split("[")[0] == f"0.{name}"]
        for layer, gate in zip(found, gates, strict=True):
            assert layer.neural_persistence == pytest.approx(neural_persistence(gate, normalized=True))
    with pytest.raises(ValueError, match="It is quantized: prune before quantizing"):
        topological_(quantized_net, 0.1)


@pytest.mark.parametrize("moved", [False, True])
def test_eight_bits_with_a_scale_by_row(moved):
    weight = torch.randn(20, 30) * torch.logspace(-2, 2, 20)[:, None]
    model = nn.Sequential(Linear8bit(weight, moved))
    (layer,) = analyze(model).layers
    assert (layer.shape, layer.alpha) == ((20, 30), 49)
    expected = neural_persistence(weight.numpy(), normalized=True)
    assert layer.neural_persistence == pytest.approx(expected, abs=0.01)
    with pytest.raises(ValueError, match=r"none\. '0\.weight': It is stored in another form \(torch\.int8\)"):
        topological_(model, 0.1)


def test_four_bits_by_the_function_of_their_library(monkeypatch):
    weight = torch.randn(20, 30)
    layer = linear_4_bits(weight, "someones_library")
    assert "packed, two weights in a byte" in analyze(layer).unread["weight"]
    functional_module = types.ModuleType("someones_library.functional")
    functional_module.dequantize_4bit = unpacked
    monkeypatch.setitem(sys.modules, "someones_library.functional", functional_module)
    (found,) = analyze(layer).layers
    expected = (weight * 4).round().clamp(-7, 7) / 4
    assert (found.shape, found.nonzero) == ((20, 30), int(expected.count_nonzero()))
    assert found.alpha == maximum_spanning_forest(expected.numpy()).alpha


def quantized_by_bitsandbytes(weight, nested, kind, storage=torch.uint8):
    library = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    layer = library.nn.Linear4bit(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = library.nn.Params4bit(
        weight, requires_grad=False, quant_type=kind, compress_statistics=nested, quant_storage=storage
    )
    return layer.to("cpu")


def scales_of_blocks(state):
    """Return the scales of the blocks of a weight of four bits, which may be codes themselves."""
    library = pytest.importorskip("bitsandbytes.functional")
    return library.dequantize_blockwise(state.absmax, state.state2) + state.offset if state.nested else state.absmax


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("n_inputs", [64, 96, 70, 35])
@pytest.mark.parametrize("called", [False, True])
def test_four_bits_of_bitsandbytes_also_where_a_block_crosses_rows(nested, kind, n_inputs, called):
    weight = torch.randn(32, n_inputs) * torch.logspace(-2, 2, 32)[:, None]
    layer = quantized_by_bitsandbytes(weight.clone(), nested, kind)
    if called and n_inputs % 2 == 0:
        layer(torch.randn(3, n_inputs))
    values = stored_values(layer, layer.weight, weight.shape)
    largest = torch.repeat_interleave(
        torch.stack([block.abs().max() for block in weight.flatten().split(64)]), 64
    )[: weight.numel()].view_as(weight)  # fmt: skip
    assert ((values - weight).abs() <= 0.2 * largest + 0.1 * largest.mean() * nested).all()
    (found,) = analyze(nn.Sequential(layer)).layers
    assert (found.shape, found.nonzero) == ((32, n_inputs), int(values.count_nonzero()))


STORAGES = (torch.uint8, torch.bfloat16, torch.float16, torch.float32)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("shape", [(32, 96), (33, 8), (4, 70)])
def test_four_bits_stored_as_numbers_of_another_type(nested, kind, storage, shape):
    weight = torch.randn(shape) * torch.logspace(-2, 2, shape[0])[:, None]
    layer = quantized_by_bitsandbytes(weight.clone(), nested, kind, storage)
    state, codes = layer.weight.quant_state, layer.weight.detach()
    assert codes.dtype == storage
    expected = four_bit_weights(codes.view(torch.uint8).numpy(), state.code, scales_of_blocks(state), 64, shape)
    assert np.array_equal(stored_values(layer, layer.weight, shape), expected)
    report = analyze(nn.Sequential(layer))
    assert ([(found.shape, found.nonzero) for found in report.layers], report.unread) == (
        [(shape, np.count_nonzero(expected))],
        {},
    )


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("storage", STORAGES)
def test_four_bits_that_a_call_on_a_processor_packed_in_its_own_order(nested, storage):
    """As bitsandbytes does on processors that compute in bfloat16, to which it rounds the scales."""
    shape = (32, 192)
    weight = torch.randn(shape) * torch.logspace(-2, 2, 32)[:, None]
    layer = quantized_by_bitsandbytes(weight.clone(), nested, "nf4", storage)
    state, codes = layer.weight.quant_state, layer.weight.detach().clone()
    scale = scales_of_blocks(state).bfloat16().float()
    expected = four_bit_weights(codes.view(torch.uint8).numpy(), state.code, scale, 64, shape)
    pack = sys.modules["bitsandbytes.functional"]._convert_weight_packed_for_cpu
    layer.weight.data, layer.weight.quant_state = pack(codes, state)
    for _ in range(2):  # and reading it leaves it as it is
        assert np.array_equal(stored_values(layer, layer.weight, shape), expected)


def test_a_weight_of_floats_beside_what_is_left_of_its_four_bits_is_read_as_it_is():
    weight = torch.randn(32, 96)
    layer = quantized_by_bitsandbytes(weight.clone(), False, "nf4")
    layer.weight = nn.Parameter(weight.bfloat16())
    layer.weight.quant_state = quantized_by_bitsandbytes(weight.clone(), False, "nf4").weight.quant_state
    assert torch.equal(stored_values(layer, layer.weight, (32, 96)), weight.bfloat16())


def test_eight_bits_and_embeddings_of_bitsandbytes():
    library = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    layer = library.nn.Linear8bitLt(64, 32, bias=False, has_fp16_weights=False)
    weight = torch.randn(32, 64)
    layer.weight = library.nn.Int8Params(weight.half(), requires_grad=False)
    model = nn.Sequential(layer.to("cpu"), library.nn.Embedding8bit(50, 20).to("cpu"), nn.Linear(6, 5))
    report = analyze(model)
    assert ([found.kind for found in report.layers], report.unread) == (["dense", "embedding", "dense"], {})
    values = stored_values(model[0], model[0].weight, (32, 64))
    assert (values - weight).abs().max() < weight.abs().max() / 127
    assert set(topological_(model, 0.1).left_out) == {"0.weight", "1.weight"}


TORCHAO = {
    "Int8WeightOnlyConfig": {},
    "Int8DynamicActivationInt8WeightConfig": {},
    "Float8WeightOnlyConfig": {},
    "IntxWeightOnlyConfig": {"weight_dtype": torch.int4},
    "Int8DynamicActivationIntxWeightConfig": {},
}


@pytest.mark.parametrize("config", TORCHAO)
def test_weights_of_torchao_are_dequantised_by_themselves(config):
    library = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
    model = nn.Sequential(nn.Linear(64, 48, bias=False), nn.Linear(64, 48))
    library.quantize_(model, getattr(library, config)(**TORCHAO[config]), lambda module, path: path == "0")
    report = analyze(model)
    assert ([layer.name for layer in report.layers], report.unread) == (["0.weight", "1.weight"], {})
    expected = model[0].weight.dequantize().float().numpy()
    assert not np.array_equal(expected, model[1].weight.detach().numpy())
    assert report.layers[0].neural_persistence == pytest.approx(neural_persistence(expected, normalized=True))
    assert "in another form" in topological_(model, 0.1).left_out["0.weight"]


@pytest.mark.parametrize(
    "stored",
    [
        lambda weight: Scaled(weight / 4, torch.full((6,), 4.0)),
        lambda weight: weight.to_sparse(),
        lambda weight: weight.to_sparse_csr(),
        lambda weight: torch.quantize_per_tensor(weight, 1.0, 0, torch.qint8),
    ],
)
def test_sparse_weights_and_those_that_decode_themselves_are_read(stored):
    expected = sparse_weight()
    model = nn.Sequential(holding(stored(expected)), nn.Linear(6, 5))
    layer = analyze(model).layers[0]
    assert (layer.shape, layer.nonzero) == ((6, 8), int(expected.count_nonzero()))
    assert layer.alpha == maximum_spanning_forest(expected.numpy()).alpha
    assert "in another form" in topological_(model, 0.1).left_out["0.weight"]


def quantized_net():
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10)).eval()
    twin = nn.Sequential(quantized.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), quantized.Linear(4 * 36, 10))
    for source, target in ((net[0], twin[0]), (net[3], twin[3])):
        weight = source.weight.detach()
        scales, zeros = weight.flatten(1).abs().amax(1) / 127, torch.zeros(len(weight), dtype=torch.int64)
        codes = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        target.set_weight_bias(codes, source.bias.detach())
    return net, twin


def test_torchs_own_quantized_layers_are_read_as_what_they_stand_for():
    net, twin = quantized_net()
    report = analyze(twin)
    assert ([layer.kind for layer in report.layers], report.unread) == (["conv", "dense"], {})
    expected = analyze(net).layers[1]
    assert report.layers[1].neural_persistence == pytest.approx(expected.neural_persistence, abs=0.01)
    with pytest.raises(ValueError, match=r"'3\.weight': It is quantized: prune before quantizing\."):
        topological_(twin, 0.1)


def test_a_quantized_convolution_has_its_geometry():
    net, twin = quantized_net()
    wrapped = nn.Sequential(torch.ao.nn.quantized.Quantize(0.1, 0, torch.quint8), *twin, quantized.DeQuantize())
    example = torch.rand(1, 2, 8, 8)
    found = {layer.name: layer for layer in analyze(wrapped, example).layers}
    expected = analyze(net, example).layers[0]
    assert (found["1.weight"].m, found["1.weight"].n, found["1.weight"].calls) == (expected.m, expected.n, 1)


def test_dynamically_quantized_layers_are_read_once():
    model = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 5)))
    report = analyze(model, torch.randn(2, 30))
    assert [(layer.name, layer.calls) for layer in report.layers] == [("0.weight", 1), ("2.weight", 1)]
    assert report.unread == {}


def test_float8_without_scales_is_read():
    (layer,) = analyze(holding(torch.randn(6, 8).to(torch.float8_e5m2))).layers
    assert layer.alpha == 13


def test_weights_beside_those_of_a_layer_are_listed():
    layer = nn.Linear(8, 6)
    layer.lora_A = nn.Parameter(torch.randn(2, 8))
    layer.bias_table = nn.Parameter(torch.randn(2, 8))
    assert analyze(layer).unread == {"lora_A": "Linear has it beside the weights that topobounds knows."}


@pytest.mark.parametrize("example", [None, torch.zeros(2, 3)])
def test_scripted_and_exported_modules_stop_no_other(example):
    exported = torch.export.export(nn.Tanh(), (torch.zeros(2, 2),)).module()
    odd = [torch.jit.script(nn.ReLU()), exported, torch.jit.trace(nn.Sequential(nn.Tanh()), torch.zeros(1, 2))]
    model = nn.Sequential(nn.Linear(3, 2), *odd)
    (layer,) = analyze(model, example).layers
    assert (layer.name, layer.calls) == ("0.weight", None if example is None else 1)
    assert TopologyLog(example_input=example)(model)["topology/0.weight/density"] == 1.0
    assert all(module.training for module in [model, *model[:2]])


def test_a_scripted_module_whose_call_changes_a_buffer_is_left_as_it_was():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x):
            self.calls += 1
            return x

    model = nn.Sequential(torch.jit.script(Counting()), nn.Linear(3, 2))
    analyze(model, torch.zeros(1, 3))
    assert not model[0].calls.any()


@pytest.mark.parametrize("whole", [True, False])
def test_a_compiled_model_is_traced_as_it_is_written(whole):
    layer = nn.Linear(6, 6)
    model = nn.Sequential(layer, ReadsWeight()) if whole else nn.Sequential(torch.compile(layer, backend="eager"))
    model = torch.compile(model, backend="eager") if whole else model
    report = analyze(model, torch.randn(2, 6))
    assert [layer.calls for layer in report.layers] == ([1, 0] if whole else [1])
    assert model(torch.randn(2, 6)).shape == (2, 6)


# weights that are no parameters


def test_a_weight_in_a_buffer_or_an_attribute_is_read_and_the_reason_why_it_is_not_pruned_is_true():
    buffered, attached = nn.Linear(8, 6), nn.Linear(6, 6)
    del buffered.weight, attached.weight
    buffered.register_buffer("weight", torch.randn(6, 8))
    attached.weight = torch.randn(6, 6)
    model = nn.Sequential(buffered, attached, nn.Linear(6, 5))
    assert len(analyze(model).layers) == 3
    assert topological_(model, 0.1).left_out == {
        "0.weight": "it is a buffer and no parameter, and torch prunes parameters",
        "1.weight": "it is a plain attribute and no parameter, and torch prunes parameters",
    }


# weights that are read without a call of their module


class ReadsWeight(nn.Module):
    def __init__(self):
        super().__init__()
        self.l = nn.Linear(6, 6, bias=False)

    def forward(self, x):
        return functional.linear(x, self.l.weight)


class Mamba(nn.Module):
    """Reads the kernel of its convolution and the weight of a projection, as the fused Mamba block does."""

    def __init__(self, width=8):
        super().__init__()
        self.in_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.conv1d = nn.Conv1d(width, width, 3, groups=width, padding=2)
        self.dt_proj = nn.Linear(2, width)

    def forward(self, x):
        inner = self.in_proj(x.to(self.dt_proj.weight.dtype))
        kernel = self.conv1d.weight.view(self.conv1d.weight.size(0), self.conv1d.weight.size(2))
        inner = inner + inner.roll(1, 1) * kernel[:, 0]
        return self.out_proj(inner + inner[..., :2] @ self.dt_proj.weight.t())


@pytest.mark.parametrize(
    ("model", "example", "read"),
    [
        (ReadsWeight(), torch.randn(3, 6), ["l.weight"]),
        (nn.Sequential(ReadsWeight(), nn.Linear(6, 6)), torch.randn(3, 6), ["0.l.weight"]),
        (Mamba(), torch.randn(2, 5, 8), ["conv1d.weight", "dt_proj.weight"]),
    ],
)
def test_a_weight_that_is_read_without_a_call_of_its_module_keeps_its_mask(model, example, read):
    report = analyze(model, example)
    notes = {layer.name: layer.reason for layer in report.layers if layer.calls == 0}
    assert list(notes) == read
    assert all("its weight is read without a call, by" in note for note in notes.values())
    pruned = topological_(model, 0.3, example_input=example, convention="flattened", on_infeasible="clamp")
    assert [layer.name for layer in pruned.layers if layer.reason and "read without a call" in layer.reason] == read
    fresh = {name: torch.randn_like(tensor) for name, tensor in model.named_parameters()}
    model.load_state_dict({**model.state_dict(), **fresh})
    expected = nn.Sequential(ReadsWeight(), nn.Linear(6, 6)) if isinstance(model, nn.Sequential) else type(model)()
    masks = dict(model.named_buffers())
    for name, value in fresh.items():
        mask = masks.get(name.replace("_orig", "_mask"), torch.ones(()))
        expected.get_parameter(name.removesuffix("_orig")).data = value * mask
    torch.testing.assert_close(model(example), expected(example))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        model(example).square().sum().backward()
        optimizer.step()
    assert all((module.weight_orig.grad[module.weight_mask == 0] == 0).all() for module in model.modules()
               if hasattr(module, "weight_mask"))  # fmt: skip


def test_the_hook_on_a_reader_goes_with_the_first_call_after_remove():
    model, x = ReadsWeight(), torch.randn(3, 6)
    topological_(model, 0.3, example_input=x)
    topological_(model, 0.2, example_input=x)
    assert len(model._forward_pre_hooks) == 1
    before = model(x)
    prune.remove(model.l, "weight")
    torch.testing.assert_close(model(x), before)
    assert not model._forward_pre_hooks


def test_modules_that_read_their_own_weights_have_no_readers():
    model = nn.Sequential(nn.Linear(8, 8), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.LSTM(8, 4))
    report = topological_(model, 0.1, example_input=torch.randn(2, 3, 8), on_infeasible="clamp")
    assert not any(layer.reason for layer in report.layers)
    assert not model._forward_pre_hooks


FRONTS = ("prune", "parametrize", "sparsifier")


def pruned_by(front, model, share=0.3):
    """Prune a share of every layer through a front, without an example; return the names of what was pruned."""
    if front != "sparsifier":
        report = topological_(model, share, front=front, convention="flattened", on_infeasible="clamp")
        return [layer.name for layer in report.layers]
    sparsifier = TopologicalSparsifier(share, on_infeasible="clamp")
    sparsifier.prepare(model, None)
    sparsifier.step()
    return [group["tensor_fqn"] for group in sparsifier.groups]


@pytest.mark.parametrize("front", FRONTS[1:])
def test_a_fused_block_is_served_by_a_parametrisation_without_an_example(front):
    model, example = Mamba(), torch.randn(2, 5, 8)
    assert pruned_by(front, model) == ["in_proj.weight", "out_proj.weight", "conv1d.weight", "dt_proj.weight"]
    masks = {name: mask for name, mask in model.named_buffers() if name.endswith("mask")}
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        model(example).square().sum().backward()
        optimizer.step()
    plain = Mamba()
    for name, mask in masks.items():
        weight = name.replace("parametrizations.", "").removesuffix(".0.mask")
        original = model.get_parameter(name.replace("0.mask", "original"))
        assert (original.grad[mask == 0] == 0).all()
        plain.get_parameter(weight).data = original.detach() * mask
        bias = weight.replace("weight", "bias")
        plain.get_parameter(bias).data = model.get_parameter(bias).detach()
    torch.testing.assert_close(model(example), plain(example))


class HoldsWeight(nn.Module):
    """Has a parameter that may be another module's, and reads it."""

    def __init__(self, weight):
        super().__init__()
        self.w = weight

    def forward(self, x):
        return functional.linear(x, self.w)


SHARERS = {
    "scripted": (torch.jit.script, "1.weight", "Linear is scripted or traced"),
    "written by hand": (
        lambda layer: HoldsWeight(layer.weight),
        "1.w",
        "HoldsWeight is no layer that topobounds knows",
    ),
}


@pytest.mark.filterwarnings("ignore:.torch.jit.script")
@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("kind", SHARERS)
def test_weights_that_a_part_out_of_reach_holds_too_are_left_out(kind, front):
    share, name, reason = SHARERS[kind]
    layer = nn.Linear(8, 8, bias=False)
    model = nn.Sequential(layer, share(layer), nn.Linear(8, 6))
    weight = layer.weight
    assert pruned_by(front, model, 0.1) == ["2.weight"]
    assert layer.weight is weight
    if front == "sparsifier":
        with pytest.raises(ValueError, match=f"'config' must be a list of weights that can be pruned .*'{name}'"):
            TopologicalSparsifier().prepare(model, [{"tensor_fqn": "0.weight"}])
        return
    left_out = topological_(model, 0.1, front=front).left_out
    assert left_out["0.weight"].startswith(f"the same weights as '{name}', which is left alone: {reason}")
    assert reason in left_out[name]
    with pytest.raises(ValueError, match=f"'amount' must be a mapping of parameters that can be pruned .*'{name}'"):
        topological_(model, {"0.weight": 0.1}, front=front)


@pytest.mark.parametrize("front", FRONTS)
def test_weights_that_are_sharded_are_left_out_gathered_or_not(one_process, front):
    model, example = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 6)), torch.randn(3, 8)
    fully_shard(model[0], mesh=init_device_mesh("cpu", (1,)))
    assert isinstance(model[0].weight, DTensor)
    assert "distributed" in analyze(model, example).left_out["0.weight"]
    assert isinstance(model[0].weight, DTensor)
    for gathered in (False, True):
        if gathered:
            with torch.no_grad():
                model(example)
            assert not isinstance(model[0].weight, DTensor)
        if front != "sparsifier" or not gathered:
            assert pruned_by(front, model, 0.1) == ["2.weight"]
        if front != "sparsifier":
            assert "distributed" in topological_(model, 0.1, front=front).left_out["0.weight"]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(example).square().sum().backward()
        optimizer.step()
    assert isinstance(model[0].weight, DTensor)
    assert int((model[2].weight == 0).sum()) >= 5


def test_a_whole_model_that_is_sharded_has_nothing_to_prune(one_process):
    model = fully_shard(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 6)), mesh=init_device_mesh("cpu", (1,)))
    with pytest.raises(
        ValueError, match=r"must have a layer to prune, and this has none\. '0\.weight': It is distributed"
    ):
        topological_(model, 0.1)
    with torch.no_grad():
        model(torch.randn(3, 8))
    with pytest.raises(ValueError, match=r"'0\.weight': It is distributed by FSDP"):
        topological_(model, 0.1)


# zeros that nobody pruned now


def test_zeros_that_an_earlier_pruning_left_are_no_survivors():
    model = nn.Sequential(nn.Linear(60, 40))
    topological_(model, 0.7)
    prune.remove(model[0], "weight")
    (layer,) = topological_(model, 0.2).layers
    assert (layer.survivors, layer.asked, layer.kept, layer.density) == (720, 576, 576, 0.24)
    assert int(model[0].weight.count_nonzero()) == 576


def test_zeros_are_no_survivors_for_one_tensor_either():
    layer = nn.Linear(60, 40)
    topological_unstructured(layer, "weight", 0.7)
    prune.remove(layer, "weight")
    topological_unstructured(layer, "weight", 0.2)
    assert int(layer.weight_mask.sum()) == int(layer.weight.count_nonzero()) == 576
    scores = torch.randn(40, 60).clamp(min=0)  # of one's own: a zero is a score
    layer = topological_unstructured(nn.Linear(60, 40), "weight", 0.2, importance_scores=scores)
    assert int(layer.weight_mask.sum()) == 1920


def test_a_layer_that_starts_at_zero_is_left_alone():
    model = nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 20))
    nn.init.zeros_(model[1].weight)
    assert topological_(model, 0.5).left_out == {"1.weight": "all its weights are zero"}
    assert not prune.is_pruned(model[1])


# amounts, modes and threads


@pytest.mark.parametrize("scalar", [torch.tensor(0.5), torch.tensor(0.5).double(), np.array(0.5), np.float32(0.5)])
def test_an_amount_may_be_a_scalar_of_torch_or_numpy(scalar):
    (layer,) = topological_(nn.Linear(60, 40), scalar).layers
    assert layer.kept == 1200
    assert topological_(nn.Linear(60, 40), {"weight": torch.tensor(1000)}).layers[0].kept == 1400
    assert int(topological_unstructured(nn.Linear(60, 40), "weight", scalar).weight_mask.sum()) == 1200


@pytest.mark.parametrize("whole", [True, False])
def test_what_is_pruned_under_inference_mode_can_be_trained(whole):
    layer = nn.Linear(30, 20)
    with torch.inference_mode():
        if whole:
            topological_(layer, 0.5)
        else:
            topological_unstructured(layer, "weight", 0.5)
    layer(torch.randn(2, 30)).sum().backward()
    assert layer.weight_orig.grad.count_nonzero() == 300


def test_a_pruned_model_is_copied_after_a_call_without_gradients():
    model, x = nn.Sequential(nn.Linear(30, 20), ReadsWeight()), torch.randn(2, 30)
    model[0] = nn.Linear(30, 6)
    topological_(model, 0.3, example_input=x)
    model(x).sum().backward()
    with torch.no_grad():
        expected = model(x)
    twin = copy.deepcopy(model)
    model[1].l.weight_orig.data.zero_()
    torch.testing.assert_close(twin(x), expected)


def test_several_threads_may_ask_about_one_model():
    model = nn.Sequential(*(nn.Sequential(nn.Linear(40, 40), nn.Dropout()) for _ in range(5))).train()
    example, found, failed = torch.randn(2, 40), [], []

    def ask():
        try:
            for _ in range(5):
                found.append(analyze(model, example, seed=0).to_dict())
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert all(each == found[0] for each in found)
    assert all(
        module.training and not module._forward_hooks and not module._forward_pre_hooks for module in model.modules()
    )


def test_several_threads_prune_one_model_one_after_the_other():
    model = nn.Sequential(nn.Linear(60, 40))
    threads = [threading.Thread(target=topological_, args=(model, 0.2)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert int(model[0].weight_mask.sum()) == 1229  # 2400, 1920, 1536, 1229


# an experiment refuses what its folder cannot hold


@pytest.mark.parametrize(
    ("make", "shown"),
    [
        (lambda: torch.randn(20, 30).to(torch.float8_e4m3fn), "torch.float8_e4m3fn"),
        (lambda: torch.empty(20, 30, device="meta"), "a tensor on the device meta"),
        (lambda: torch.randn(20, 30).to_sparse(), "torch.sparse_coo"),
        (lambda: torch.randn(20, 30, dtype=torch.complex64), "torch.complex64"),
        (lambda: torch.quantize_per_tensor(torch.randn(20, 30), 0.1, 0, torch.qint8), "torch.qint8"),
    ],
)
@pytest.mark.parametrize("given", ["model", "function"])
def test_an_experiment_names_the_parameter_that_it_cannot_hold(tmp_path, make, shown, given):
    plan = ImpPlan.from_dict({"pruning": {"rounds": 1}})
    net = nn.Sequential(nn.Linear(30, 30), holding(make(), 30, 20))
    model = net if given == "model" else lambda: net
    with pytest.raises(ValueError, match=f"'model' must be a net .* '1.weight' too, not '{shown}"):
        run_imp(plan, tmp_path / "run", model=model, train_fn=lambda *_: None)
    assert not (tmp_path / "run").exists()


def test_an_experiment_leaves_packed_weights_alone(tmp_path):
    plan = ImpPlan.from_dict({"pruning": {"rounds": 1}})
    net = nn.Sequential(nn.Linear(30, 20), holding(torch.ones(20, 20, dtype=torch.int8), 20, 20))
    run = run_imp(plan, tmp_path / "run", model=net, train_fn=lambda *_: None)
    start = run.levels[0].metrics[0]
    assert "It holds int8" in start["left_alone"]["1.weight"]
    names = {record["name"] for record in run.levels[1].metrics if record["record"] == "layer"}
    assert names == {"0.weight"}
