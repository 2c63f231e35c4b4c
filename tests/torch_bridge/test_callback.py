"""The callback: in a loop of one's own, and as Lightning calls it."""

import types

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from topobounds import overlap_null, persistence_null
from topobounds.topology.persistence import neural_persistence
from topobounds.topology.spanning import maximum_spanning_forest
from torch_bridge.model.callback import TopologyLog, topology_metrics


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 10))


def test_the_numbers_are_those_of_the_layers(net):
    metrics = topology_metrics(net)
    values = {}
    for name in ("0", "2"):
        weights = net[int(name)].weight.detach().numpy()
        values[name] = neural_persistence(weights, normalized=True)
        assert metrics[f"topology/{name}.weight/neural_persistence"] == values[name]
        assert metrics[f"topology/{name}.weight/overlap"] == maximum_spanning_forest(weights).overlap()
        assert metrics[f"topology/{name}.weight/density"] == 1.0
    assert metrics["topology/neural_persistence"] == pytest.approx(sum(values.values()))
    assert len(metrics) == 2 + 2 * 7


def test_beside_the_numbers_stands_what_chance_gives(net):
    metrics = topology_metrics(net, trials=30, seed=4)
    for name in ("0", "2"):
        weights = net[int(name)].weight.detach().numpy()
        overlap = overlap_null(weights, trials=30, seed=4)
        persistence = persistence_null(weights, trials=30, seed=4)
        assert metrics[f"topology/{name}.weight/overlap_z"] == overlap.z
        assert metrics[f"topology/{name}.weight/overlap_expected"] in overlap.expected
        assert metrics[f"topology/{name}.weight/neural_persistence_z"] == persistence.z
        assert metrics[f"topology/{name}.weight/neural_persistence_expected"] == persistence.norm
    without = topology_metrics(net, chance=False)
    assert set(without) == {name for name in metrics if not name.endswith(("_expected", "_z"))}
    assert without.items() <= metrics.items()


def test_a_log_takes_the_same_options(net):
    log = TopologyLog(trials=7, seed=3)
    assert log(net) == {"epoch": 0, **topology_metrics(net, trials=7, seed=3)}
    with pytest.raises(ValueError, match="'trials' must be 0 or at least 2"):
        TopologyLog(trials=1)


def test_pruned_layers_are_read_through_their_masks(net):
    prune.l1_unstructured(net[0], "weight", 0.5)
    metrics = topology_metrics(net)
    weights = (net[0].weight_orig * net[0].weight_mask).detach().numpy()
    assert metrics["topology/0.weight/density"] == 0.5
    assert metrics["topology/0.weight/overlap"] == maximum_spanning_forest(weights).overlap()


def test_convolutions_need_an_example():
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Flatten(), nn.Linear(64, 3))
    assert "topology/0.weight/overlap" not in topology_metrics(net)
    assert 0 < topology_metrics(net, torch.zeros(1, 1, 4, 4))["topology/0.weight/overlap"] <= 1


def test_a_loop_of_ones_own(net):
    seen = []
    log = TopologyLog(every=2, sink=seen.append)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    for _ in range(4):
        optimizer.zero_grad()
        net(torch.ones(3, 30)).square().sum().backward()
        optimizer.step()
        log(net)
    assert [record["epoch"] for record in log.records] == [0, 2]
    assert seen == log.records
    assert log.records[0] != {**log.records[1], "epoch": 0}
    with pytest.raises(ValueError, match="'every' must be a positive integer, not 0"):
        TopologyLog(every=0)


@pytest.mark.parametrize(
    ("sink", "epoch", "message"), [(3, 0, "'sink' must be a function or None, not 3"), (None, "a", "'epoch' must be")]
)
def test_what_cannot_be_is_refused(net, sink, epoch, message):
    with pytest.raises(ValueError, match=message):
        TopologyLog(sink=sink)(net, epoch)


def test_the_example_follows_the_model():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 10)).bfloat16()
    log = TopologyLog(example_input=(torch.zeros(1, 1, 8, 8),))
    assert log(net) == {"epoch": 0, **topology_metrics(net, torch.zeros(1, 1, 8, 8, dtype=torch.bfloat16))}
    words = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2)).double()
    assert TopologyLog(example_input={"input": torch.tensor([1, 2])})(words)["topology/density"] == 1
    counted = nn.Sequential(nn.Linear(3, 3))
    counted.register_parameter("steps", nn.Parameter(torch.arange(4), requires_grad=False))
    assert TopologyLog(example_input=torch.randn(1, 3))(counted)["epoch"] == 0


def test_as_lightning_calls_it(net):
    logged = []
    net.log_dict = logged.append
    log = TopologyLog(every=3)
    for epoch in range(5):
        log.on_train_epoch_end(types.SimpleNamespace(current_epoch=epoch), net)
    assert [record["epoch"] for record in log.records] == [0, 3]
    assert logged == [topology_metrics(net)] * 2


def test_in_lightning_itself(net, tmp_path):
    lightning = pytest.importorskip("pytorch_lightning", reason="Lightning is not installed")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = net

        def training_step(self, batch, _):
            return self.net(batch[0]).square().sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01)

    log = TopologyLog()
    callback = lightning.callbacks.LambdaCallback(on_train_epoch_end=log.on_train_epoch_end)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = lightning.Trainer(max_epochs=2, accelerator="cpu", callbacks=[callback], **quiet)
    data = torch.utils.data.TensorDataset(torch.ones(8, 30))
    trainer.fit(Module(), torch.utils.data.DataLoader(data, 4))
    assert [record["epoch"] for record in log.records] == [0, 1]
    assert float(trainer.callback_metrics["topology/density"]) == 1.0
