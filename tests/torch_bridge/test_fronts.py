"""The fronts of T-IMP in torch: one mask whatever the front, and zeros that stay zero in training, copies and files."""

import copy
import itertools
import json
from shutil import which

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import prune
from torch.optim.swa_utils import AveragedModel

from topobounds import open_checkpoint, prune_checkpoint, topological_mask
from topobounds.layers import Conv
from torch_bridge import Masked, TopologicalSparsifier, analyze, topological_, topological_unstructured, unmask
from torch_bridge.model.conv_geometry import conv_geometry
from torch_bridge.model.masked import current_mask
from torch_bridge.model.weight_tensors import model_weight_tensors


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


class Block(nn.Module):
    """A block of GPT-2."""

    def __init__(self, width):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


class Gpt(nn.Module):
    """GPT-2, of two blocks where no more are asked for."""

    def __init__(self, width=128, words=50, blocks=2):
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(16, width)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(blocks)))
        self.head = nn.Linear(width, words, bias=False)

    def forward(self, tokens):
        places = torch.arange(tokens.shape[1])
        return self.head(self.blocks(self.words(tokens) + self.places(places)))


class Residual(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.short = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else nn.Identity()

    def forward(self, x):
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.short(x))


class ResNet18(nn.Module):
    """A ResNet-18, an eighth as wide."""

    def __init__(self, width=8):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        widths = [(width, width, 1), (width, 2 * width, 2), (2 * width, 4 * width, 2), (4 * width, 8 * width, 2)]
        self.stages = nn.Sequential(
            *(nn.Sequential(Residual(a, b, stride), Residual(b, b, 1)) for a, b, stride in widths)
        )
        self.head = nn.Linear(8 * width, 10)

    def forward(self, x):
        return self.head(self.stages(self.stem(x)).mean((2, 3)))


MODELS = {
    "gpt": (Gpt, torch.randint(50, (2, 16), generator=torch.Generator().manual_seed(0))),
    "resnet": (ResNet18, torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))),
}


WHOLE = {
    "gpt": (lambda: Gpt(768, 50257, 12), torch.randint(50257, (1, 16), generator=torch.Generator().manual_seed(0))),
    "resnet": (lambda: ResNet18(64), torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))),
}
"""The same in the sizes in which they are used: 163 and 11 million parameters."""


def made(name, models=MODELS):
    torch.manual_seed(1)
    return models[name][0]()


def pruned_by(front, model, example=None):
    """Prune half of every layer through a front, and return the model."""
    if front == "sparsifier":
        sparsifier = TopologicalSparsifier(0.5)
        sparsifier.prepare(model, None)
        sparsifier.step()
    else:
        topological_(model, 0.5, front=front, convention="flattened")
    return model


def masks_of(model):
    found = {}
    for module, tensors in model_weight_tensors(model).items():
        for tensor in tensors:
            mask = current_mask(module, tensor.own_name)
            if mask is not None:
                found[tensor.name] = (module, tensor.own_name, mask != 0)
    return found


def assert_zero(model, example):
    """Pruned weights are zero in what the model computes with."""
    model(example)
    for module, name, mask in masks_of(model).values():
        assert not getattr(module, name)[~mask].any()


@pytest.mark.parametrize("name", MODELS)
def test_all_fronts_make_one_mask(name):
    fronts = [masks_of(pruned_by(front, made(name))) for front in ("prune", "parametrize", "sparsifier")]
    assert fronts[0].keys() == fronts[1].keys() == fronts[2].keys()
    assert len(fronts[0]) > 6
    for tensor, (_, _, mask) in fronts[0].items():
        assert torch.equal(mask, fronts[1][tensor][2])
        assert torch.equal(mask, fronts[2][tensor][2])
        assert abs(int(mask.sum()) - mask.numel() / 2) <= 1


def check_it_stays_pruned(folder, front, make, example, backend):
    """Prune, train 20 steps, some of them compiled, average, copy, save and reload: what was pruned is zero in all."""
    model = pruned_by(front, make())
    average = AveragedModel(model)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=0.1)
    before = {key: mask.clone() for key, (_, _, mask) in masks_of(model).items()}
    compiled = torch.compile(model, backend=backend)
    for step in range(20):
        optimizer.zero_grad()
        (compiled if step >= 17 else model)(example).square().mean().backward()
        optimizer.step()
        assert_zero(model, example)
        average.update_parameters(model)
    assert_zero(average.module, example)
    del average
    twin = copy.deepcopy(model)
    assert_zero(twin, example)
    twin(example).sum().backward()
    del twin
    expected = model.eval()(example).detach()
    rounding = 1e-4 * float(expected.abs().max())  # of a compiler that adds in another order
    torch.testing.assert_close(compiled.eval()(example), expected, rtol=0.0, atol=rounding)
    with torch.inference_mode():
        assert_zero(model, example)
    torch.save(model.state_dict(), folder / "model.pt")
    other = pruned_by(front, make())
    other.load_state_dict(torch.load(folder / "model.pt", weights_only=True))
    torch.testing.assert_close(other.eval()(example), model.eval()(example))
    assert all(torch.equal(mask, before[key]) for key, (_, _, mask) in masks_of(other).items())
    with open_checkpoint(folder / "model.pt") as checkpoint:  # under the names of the plain model
        for key, mask in before.items():
            assert not checkpoint.tensor(key)[~mask.numpy()].any()


def every_pair(*in_every_run):
    """Return all models with all fronts, marked long but for those that are given."""
    pairs = itertools.product(MODELS, ("prune", "parametrize", "sparsifier"))
    return [pair if pair in in_every_run else pytest.param(*pair, marks=pytest.mark.long) for pair in pairs]


@pytest.mark.parametrize(("name", "front"), every_pair(("gpt", "prune")))
def test_what_is_pruned_stays_zero_in_training_copies_and_files(tmp_path, name, front):
    check_it_stays_pruned(tmp_path, front, lambda: made(name), MODELS[name][1], "eager")


@pytest.mark.attack
@pytest.mark.filterwarnings("ignore")  # of the compiler, about the machine
@pytest.mark.parametrize("front", ["prune", "parametrize", "sparsifier"])
@pytest.mark.parametrize("name", WHOLE)
def test_the_same_in_the_sizes_in_which_nets_are_used(tmp_path, name, front):
    backend = "inductor" if which("g++") else "eager"
    check_it_stays_pruned(tmp_path, front, lambda: made(name, WHOLE), WHOLE[name][1], backend)
    (tmp_path / "model.pt").unlink()


@pytest.mark.parametrize("front", ["parametrize", "sparsifier"])
def test_a_plain_model_again(front):
    model, example = pruned_by(front, made("gpt")), MODELS["gpt"][1]
    expected, masks = model(example), {key: mask for key, (_, _, mask) in masks_of(model).items()}
    unmask(model)
    assert list(model.state_dict()) != []
    assert set(model.state_dict()) == set(made("gpt").state_dict())
    torch.testing.assert_close(model(example), expected)
    assert all(not model.get_parameter(key)[~mask].any() for key, mask in masks.items())


def test_a_second_round_goes_on_from_the_first():
    hooked, parametrised = made("gpt"), made("gpt")
    for _ in range(2):
        one = topological_(hooked, 0.5, on_infeasible="clamp")
        two = topological_(parametrised, 0.5, on_infeasible="clamp", front="parametrize")
        assert one.to_dict() == two.to_dict()
    assert analyze(parametrised, chance=False).density == analyze(hooked, chance=False).density
    mixed = topological_(parametrised, 0.1, on_infeasible="clamp")  # what is masked goes on as it is
    assert isinstance(parametrised.head.parametrizations.weight[0], Masked)
    assert mixed.density < two.density


@pytest.mark.parametrize("front", ["prune", "parametrize"])
def test_recurrent_layers_and_their_copies(front):
    layer, x = nn.LSTM(8, 16, 2, bidirectional=True), torch.randn(3, 2, 8)
    topological_(layer, 0.5, front=front)
    layer(x)[0].sum().backward()
    twin = copy.deepcopy(layer)
    torch.testing.assert_close(twin(x)[0], layer(x)[0])
    assert_zero(twin, x)
    twin(x)[0].sum().backward()


@pytest.mark.parametrize("front", ["prune", "parametrize"])
def test_a_copy_after_training_is_one_of_its_own(front):
    layer = nn.Linear(30, 20)
    topological_(layer, 0.5, front=front)
    layer(torch.randn(2, 30)).sum().backward()
    twin, again = copy.deepcopy(layer), copy.deepcopy(copy.deepcopy(layer))
    for parameter in layer.parameters():
        parameter.data.zero_()
    assert all(each(torch.randn(2, 30)).abs().sum() > 0 for each in (twin, again))


def test_one_tensor_pruned_through_torchs_door_can_be_copied():
    layer = topological_unstructured(nn.Linear(30, 20), "weight", 0.5)
    layer(torch.randn(2, 30)).sum().backward()
    twin = copy.deepcopy(layer)
    prune.remove(layer, "weight")
    assert torch.equal(twin.weight, layer.weight)
    assert torch.equal(copy.deepcopy(layer).weight, layer.weight)


def test_a_weight_that_is_read_without_its_module_is_served_by_the_parametrisation():
    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(20, 30)

        def forward(self, x):
            return functional.linear(x, self.layer.weight)

    model = Reads()
    topological_(model, 0.5, front="parametrize")
    optimizer = torch.optim.SGD(model.parameters(), 0.5, momentum=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(4, 20)).square().sum().backward()
        optimizer.step()
    assert int((model.layer.weight != 0).sum()) == 300
    torch.testing.assert_close(model(torch.eye(20)), model.layer.weight.T)


# -- the sparsifier ---------------------------------------------------------------------------------------------------


def test_levels_of_ones_own_rise_and_kernels_have_a_geometry():
    torch.manual_seed(2)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(72, 10))
    weights = model[0].weight.detach().numpy().copy()
    conv = conv_geometry(model[0], (5, 5))
    sparsifier = TopologicalSparsifier(0.2, convs={"0.weight": conv})
    sparsifier.prepare(model, [{"tensor_fqn": "0.weight", "sparsity_level": 0.5}, {"tensor_fqn": "2.weight"}])
    sparsifier.step()
    first = model[2].weight != 0
    np.testing.assert_array_equal(model[0].weight.detach().numpy() != 0, topological_mask(weights, 0.5, conv=conv))
    assert int(first.sum()) == 576
    sparsifier.groups[1]["sparsity_level"] = 0.7
    sparsifier.step()
    second = model[2].weight != 0
    assert int(second.sum()) == 216
    assert not (second & ~first).any()
    sparsifier.squash_mask()
    assert sorted(model.state_dict()) == ["0.bias", "0.weight", "2.bias", "2.weight"]


def test_what_a_sparsifier_refuses():
    model = nn.Sequential(nn.Linear(30, 20), nn.ReLU())
    for arguments in ({"sparsity_level": 1.5}, {"on_infeasible": "share"}, {"convs": {"a": 3}}):
        with pytest.raises(ValueError, match="must be"):
            TopologicalSparsifier(**arguments)
    assert isinstance(conv_geometry(nn.Conv1d(2, 3, 3), (8,)), Conv)
    with pytest.raises(
        ValueError, match=r"'config' must be a list of layers' weights, such as 0\.weight, not '9\.weight'"
    ):
        TopologicalSparsifier().prepare(model, [{"tensor_fqn": "9.weight"}])
    sparsifier = TopologicalSparsifier(0.95)
    sparsifier.prepare(model, None)
    with pytest.raises(ValueError, match=r"'0\.weight'.*'sparsity_level' must leave at least alpha = 49 weights"):
        sparsifier.step()


def test_the_sparsities_of_a_file_and_its_masks(tmp_path):
    model = nn.Sequential(nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 8))
    torch.save(model.state_dict(), tmp_path / "model.pt")
    report = prune_checkpoint(tmp_path / "model.pt", tmp_path / "new.pt", density=0.3, allocate="safe")
    config = [{"tensor_fqn": each.name, "sparsity_level": 1 - each.kept / each.weights} for each in report.layers]
    sparsifier = TopologicalSparsifier()
    sparsifier.prepare(model, json.loads(json.dumps(config)))
    sparsifier.step()
    sparsifier.squash_mask()
    pruned = torch.load(tmp_path / "new.pt", weights_only=True)
    assert all(torch.equal(pruned[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.filterwarnings("ignore")  # torch's own, of what torchao still calls
def test_it_goes_on_where_torchao_has_pruned():
    wanda = pytest.importorskip("torchao.sparsity").WandaSparsifier
    model, x = nn.Sequential(nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 8)), torch.randn(16, 40)
    theirs, ours = wanda(sparsity_level=0.3), TopologicalSparsifier(0.6)
    config = [{"tensor_fqn": "0.weight"}, {"tensor_fqn": "2.weight"}]
    theirs.prepare(model, config)
    model(x)
    theirs.step()
    theirs.squash_mask()
    before = {name: tensor != 0 for name, tensor in model.state_dict().items() if name.endswith("weight")}
    ours.prepare(model, config)
    ours.step()
    ours.squash_mask()
    for name, mask in before.items():
        left = model.state_dict()[name] != 0
        assert not (left & ~mask).any()
        assert int(left.sum()) == round(0.4 * left.numel())
