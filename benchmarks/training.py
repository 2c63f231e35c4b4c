"""What makes training a net's replicates faster, and what does not.

python benchmarks/training.py [--device cuda] [--quick]

The first table is the time of one step of one replicate: forward, backward, optimiser, masks. "ours" is what the IMP
driver does (a fused optimiser, eager); the other columns are how many times as long the alternatives take, the median
over rounds in which every contestant runs once:

foreach, loop   the same with torch's other two implementations of the optimiser
compiled        the same with ``torch.compile`` around the net
vmapped         five replicates in one, by ``torch.func.vmap``, a fifth of its time

The second is a whole run of several replicates, start-up included, by the number of processes.
"""

import argparse
import copy
import math
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import replace

import torch
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional

from torch_bridge import ImpPlan, run_imp
from torch_bridge.experiment.command import CONFIGS
from torch_bridge.training.models import build_model
from torch_bridge.training.plan import ModelPlan

NETS = {
    "mlp 64-100-50-10": (ModelPlan(name="mlp", hidden=[100, 50]), 8, 60, 100),
    "lenet-300-100": (ModelPlan(name="lenet-300-100"), 28, 60, 40),
    "lenet-5": (ModelPlan(name="lenet-5"), 28, 60, 10),
    "lstm": (ModelPlan(name="lstm"), 28, 60, 10),
    "resnet-20": (ModelPlan(name="resnet-20"), 32, 128, 1),
}
"""Net, side of its images, batch, steps that are timed together."""
REPLICATES = 5
RUN_OF = 4
"""Replicates of the whole run."""


def stepper(net, images, labels, **kind):
    """Return a function that takes one step as the driver does, with masks over all matrices."""
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, **kind)
    masked = [(p, (torch.rand_like(p) > 0.5).to(p)) for p in net.parameters() if p.ndim > 1]

    def step():
        optimizer.zero_grad()
        functional.nll_loss(net(images), labels).backward()
        optimizer.step()
        with torch.no_grad():
            for parameter, mask in masked:
                parameter.mul_(mask)

    return step


def vmapped_stepper(nets, images, labels):
    """Return a function that takes one step of all nets at once."""
    parameters, buffers = stack_module_state(nets)
    skeleton = copy.deepcopy(nets[0]).to("meta")
    optimizer = torch.optim.Adam(parameters.values(), lr=1e-3, fused=True)
    masked = [(p, (torch.rand_like(p) > 0.5).to(p)) for p in parameters.values() if p.ndim > 2]
    batches = (images.expand(len(nets), *images.shape).contiguous(), labels.expand(len(nets), -1).contiguous())

    def loss(parameters, buffers, images, labels):
        return functional.nll_loss(functional_call(skeleton, (parameters, buffers), (images,)), labels)

    def step():
        optimizer.zero_grad()
        vmap(loss)(parameters, buffers, *batches).sum().backward()
        optimizer.step()
        with torch.no_grad():
            for parameter, mask in masked:
                parameter.mul_(mask)

    return step


def contestants(name, device):
    """Return name -> (function, steps of one replicate that it takes)."""
    plan, side, batch, _ = NETS[name]
    torch.manual_seed(0)
    nets = [build_model(plan, side).to(device) for _ in range(REPLICATES)]
    images = torch.randn(batch, 1, side, side, device=device)
    labels = torch.randint(0, 10, (batch,), device=device)
    found = {
        "ours": (stepper(copy.deepcopy(nets[0]), images, labels, fused=True), 1),
        "foreach": (stepper(copy.deepcopy(nets[0]), images, labels, foreach=True), 1),
        "loop": (stepper(copy.deepcopy(nets[0]), images, labels, foreach=False), 1),
        "compiled": (stepper(torch.compile(copy.deepcopy(nets[0])), images, labels, fused=True), 1),
        "vmapped": (vmapped_stepper(nets, images, labels), REPLICATES),
    }
    for rival in list(found):
        try:
            found[rival][0]()
        except (RuntimeError, NotImplementedError) as error:
            print(f"{name}, {rival}: {str(error).splitlines()[0][:150]}", file=sys.stderr)
            del found[rival]
    return found


def seconds(step, count, device):
    """Return how long `count` steps take."""
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    synchronize()
    start = time.perf_counter()
    for _ in range(count):
        step()
    synchronize()
    return time.perf_counter() - start


def measure(name, device, rounds):
    """Return name of a contestant -> seconds of a step of one replicate, in each round."""
    steps, found = NETS[name][3], contestants(name, device)
    times = {rival: [] for rival in found}
    for _ in range(rounds):
        for rival, (step, replicates) in found.items():
            count = math.ceil(steps / replicates)
            times[rival].append(seconds(step, count, device) / (count * replicates))
    return times


def ratio(times, rival):
    """Return the median over the rounds of a rival's time over ours."""
    if rival not in times:
        return "-"
    return f"{statistics.median(a / b for a, b in zip(times[rival], times['ours'], strict=True)):.2f}"


def whole_run(device, jobs):
    """Return the seconds of a run of the plan `digits` with several replicates."""
    plan = replace(ImpPlan.read(CONFIGS / "digits.toml"), replicates=RUN_OF)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run_imp(plan, folder, device=device.type, jobs=jobs)
        return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    device, rounds = torch.device(asked.device), 3 if asked.quick else 15
    torch.set_num_threads(1)
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()}, {os.cpu_count()} CPUs"
    load = f"load {os.getloadavg()[0]:.1f}"
    print(f"{where}, {load}, Python {platform.python_version()}, torch {torch.__version__}; {rounds} rounds\n")
    rivals = ["foreach", "loop", "compiled", "vmapped"]
    print(f"| one step | batch | ours | {' | '.join(f'{rival} / ours' for rival in rivals)} |")
    print(f"|---|---:|---:|{'---:|' * len(rivals)}")
    for name, (_, _, batch, _) in NETS.items():
        times = measure(name, device, rounds)
        ours = f"{1e3 * statistics.median(times['ours']):.3g} ms"
        print(f"| {name} | {batch} | {ours} | {' | '.join(ratio(times, rival) for rival in rivals)} |", flush=True)
    print(f"\n| `digits`, {RUN_OF} replicates | seconds | against one process |\n|---|---:|---:|")
    runs = {jobs: [] for jobs in (1, 2)}
    for _ in range(max(1, rounds // 5)):
        for jobs, times in runs.items():
            times.append(whole_run(device, jobs))
    for jobs, times in runs.items():
        gain = statistics.median(a / b for a, b in zip(runs[1], times, strict=True))
        print(f"| {jobs} process{'es' * (jobs > 1)} | {statistics.median(times):.1f} | {gain:.2f} |")


if __name__ == "__main__":
    main()
