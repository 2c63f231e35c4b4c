"""A module and the file of its weights have one report."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import topobounds
from torch_bridge import analyze


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.rnn = nn.LSTM(16, 6, bidirectional=True)
        self.fc1 = nn.Linear(12, 20)
        self.fc2 = nn.Linear(20, 5)

    def forward(self, x):
        x = self.depthwise(self.conv(x)).flatten(2)
        x, _ = self.rnn(x.permute(1, 0, 2))
        return self.fc2(self.fc1(x).relu())


GEOMETRY = """
["conv.weight"]
input = [8, 8]
stride = 2
padding = 1

["depthwise.weight"]
input = [4, 4]
padding = 1
groups = 8
"""


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Net()


def test_a_module_and_its_state_dict_have_the_same_numbers(model, tmp_path):
    torch.save(model.state_dict(), tmp_path / "net.pt")
    (tmp_path / "geometry.toml").write_text(GEOMETRY)
    of_file = topobounds.analyze(tmp_path / "net.pt", geometry=tmp_path / "geometry.toml", seed=0)
    of_module = analyze(model, torch.zeros(1, 3, 8, 8), seed=0)
    read = {layer.name: layer for layer in of_module.layers}
    assert {layer.name for layer in of_file.layers} == set(read)
    for layer in of_file.layers:
        known = ("calls", "neurons", "reason", "read_as", "assumed", "file")  # to one of the two only
        own = {key: getattr(read[layer.name], key) for key in known}
        assert replace(layer, **own) == read[layer.name]
    assert of_module.source.format == "Net"
    assert of_module.source.bytes == of_file.source.bytes
    assert read["rnn.weight_hh_l0[forget]"].read_as.startswith("gate 2 of 4 (forget)")


def test_the_network_of_a_traced_module_is_that_of_its_file(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 10))
    torch.save(model.state_dict(), tmp_path / "mlp.pt")
    (traced,) = analyze(model, torch.zeros(1, 30), chance=False).networks
    (of_file,) = topobounds.analyze(tmp_path / "mlp.pt", chance=False).networks
    assert traced == replace(of_file, assumed=None)
    assert analyze(model, chance=False).networks == ()


def test_what_is_left_out_of_a_module_is_a_finding():
    model = nn.Sequential(nn.Linear(30, 20), nn.Linear(20, 20))
    nn.init.zeros_(model[1].weight)
    rules = {finding.rule for finding in analyze(model, trials=0).findings}
    assert "all-zero" in rules
