"""Whatever does the work, the bits are the same: threads, processes, a Dask cluster of which a worker is killed."""

import json
import multiprocessing
import subprocess
import sys
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.cluster import Cluster
from tests.command_line import topobounds
from topobounds import analyze, prune_checkpoint, verify
from topobounds._parallel import MOST_LOST, ExecutorWork
from topobounds.checkpoint import CheckpointError
from topobounds.sweeps import sweep
from topobounds.sweeps.store import Store
from topobounds.verification import verify_file

PLAN = '[[grid]]\nquestion = "overlap"\nm = {from = 2, to = 41}\nn = [30, 31]\ntrials = 200\n'
CLAIMS = ("component_identity", "diagram_equals_gudhi", "theorem_3_3")


def weights():
    draw = np.random.default_rng(0)
    layers = {f"{i}.weight": draw.standard_normal((24 + i, 30)).astype(np.float32) for i in range(5)}
    return layers | {"conv.weight": draw.standard_normal((6, 3, 3, 3)).astype(np.float32)}


@pytest.fixture
def model(tmp_path):
    save_file(weights(), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def verified(model, out, **options):
    return [verdict.to_dict() for verdict in verify(40, 30, density=0.3, claims=CLAIMS, trials=30, seed=1, **options)]


def verified_file(model, out, **options):
    return [
        verdict.to_dict()
        for verdict in verify_file(model, claims=[*CLAIMS, "exchangeable"], trials=30, seed=1, **options)
    ]


def analyzed(model, out, **options):
    return analyze(model, trials=5, seed=1, **options).to_dict()


def pruned(model, out, **options):
    return _pruned(model, out, {"density": 0.3}, options)


def pruned_at_random(model, out, **options):
    return _pruned(model, out, {"keep": 0.4, "method": "random", "scope": "global", "seed": 5}, options)


def _pruned(model, out, arguments, options):
    report = prune_checkpoint(model, out / "new.safetensors", **arguments, **options)
    found = [file.read_bytes() for file in sorted(out.iterdir())]
    return repr(report.layers), report.summary, found


def swept(model, out, **options):
    (out / "plan.toml").write_text(PLAN)
    sweep(out / "plan.toml", out / "rows", **options)
    with Store.open(out / "rows") as store:
        known = ("seconds", "worker", "finished")
        return [{key: value for key, value in record.items() if key not in known} for record in store.records()]


ROADS = (verified, verified_file, analyzed, pruned, pruned_at_random, swept)


def results(model, folder, **options):
    found = {}
    for road in ROADS:
        (folder / road.__name__).mkdir(parents=True)
        found[road.__name__] = repr(road(model, folder / road.__name__, **options))
    return found


@pytest.mark.parametrize("threads", [pytest.param(1, marks=pytest.mark.long), 2])
def test_threads_give_the_same_bits(model, tmp_path, threads):
    with ThreadPoolExecutor(threads) as executor:
        assert results(model, tmp_path / "there", executor=executor) == results(model, tmp_path / "here")


@pytest.mark.attack
def test_eight_processes_give_the_same_bits(model, tmp_path):
    with ProcessPoolExecutor(8, multiprocessing.get_context("spawn")) as executor:
        assert results(model, tmp_path / "there", executor=executor) == results(model, tmp_path / "here")


@pytest.fixture
def cluster(tmp_path):
    made = Cluster(tmp_path)
    yield made
    made.close()


ROADS_ON_A_CLUSTER = [
    *(pytest.param(road, marks=pytest.mark.long) for road in (verified, pruned)),
    *(pytest.param(road, marks=pytest.mark.attack) for road in ROADS if road not in (verified, pruned)),
]


@pytest.mark.parametrize("road", ROADS_ON_A_CLUSTER)
def test_two_workers_of_which_one_is_killed_give_the_same_bits(road, cluster, model, tmp_path):
    distributed = pytest.importorskip("distributed", reason="distributed is not installed")
    cluster.start_workers(2)
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    told = []

    def kill(*progress):
        told.append(progress)
        if len(told) == 2:
            cluster.workers[0].kill()
            cluster.workers[0].wait()

    with (
        distributed.Client(cluster.address, set_as_default=False) as client,
        client.get_executor(pure=False) as executor,
    ):
        found = road(model, tmp_path / "there", executor=executor, progress=kill)
    assert len(told) > 2, "nothing was under way when the worker was killed"
    assert repr(found) == repr(road(model, tmp_path / "here"))


OPTIONS = ["--seed", "1", *(word for claim in CLAIMS for word in ("--claim", claim))]
COMMANDS = {
    "verify": ["verify", "--m", "300", "--n", "100", "--density", "0.3", "--trials", "60", *OPTIONS],
    "verify FILE": ["verify", "model.safetensors", "--trials", "2000", *OPTIONS],
    "analyze": ["analyze", "model.safetensors", "--seed", "1"],
    "prune": ["prune", "model.safetensors", "new.safetensors", "--density", "0.3"],
    "sweep": ["sweep", "plan.toml", "--out", "rows"],
}


def started(command, folder, *options):
    """Start a command in a folder of its own, with the files that it names."""
    folder.mkdir()
    save_file(weights(), folder / "model.safetensors")
    (folder / "plan.toml").write_text(PLAN)
    words = [sys.executable, "-m", "topobounds", *COMMANDS[command], *options, "--json"]
    return subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process, folder):
    """Return what a command has printed and written, without when and where."""
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    record = json.loads(output)
    for key in ("rate", "folder"):
        record.pop(key, None)
    files = {file.name: file.read_bytes() for file in folder.glob("*.safetensors")}
    if (folder / "rows").exists():
        with Store.open(folder / "rows") as store:
            files["rows"] = [(row["m"], row["n"], row["monte_carlo.mean"]) for row in store.records()]
    return record, files


@pytest.mark.attack
@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_line_gives_the_same_bits_with_jobs(command, tmp_path):
    here = ended(started(command, tmp_path / "here"), tmp_path / "here")
    assert ended(started(command, tmp_path / "there", "--jobs", "8"), tmp_path / "there") == here


@pytest.mark.attack
@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_line_gives_the_same_bits_on_a_cluster_of_which_a_worker_is_killed(command, cluster, tmp_path):
    distributed = pytest.importorskip("distributed", reason="distributed is not installed")
    cluster.start_workers(2)
    here = ended(started(command, tmp_path / "here"), tmp_path / "here")
    with distributed.Client(cluster.address, set_as_default=False) as client:
        busy = next(iter(client.scheduler_info()["workers"]))
        process = started(command, tmp_path / "there", "--scheduler", cluster.address)
        until = time.monotonic() + 60
        while not any(client.processing().values()) and process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        assert process.poll() is None, process.communicate()
        busy = [address for address, tasks in client.processing().items() if tasks]
        name = client.scheduler_info()["workers"][busy[0]]["name"]
    cluster.kill(name)
    assert ended(process, tmp_path / "there") == here


@pytest.mark.parametrize("command", ["verify", "verify FILE", "prune"])
def test_jobs_and_a_scheduler_are_refused_together(command, model, tmp_path, monkeypatch):
    monkeypatch.chdir(model.parent)
    run = topobounds(*COMMANDS[command], "--jobs", "2", "--scheduler", "tcp://127.0.0.1:9")
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == "Error: --jobs is for this machine; with --scheduler its workers decide.\n"


# -- workers that are lost ---------------------------------------------------------------------------------------------


class Piece:
    def __init__(self, name):
        self.name = name


class Losing(Executor):
    """Does the work at once, or loses the worker of it."""

    def __init__(self, loses):
        self.loses, self.submitted = loses, []

    def submit(self, fn, /, *args, **kwargs):
        self.submitted.append(args[-1].name)
        future = Future()
        if self.loses(len(self.submitted)):
            future.set_exception(OSError("killed"))
        else:
            future.set_result(fn(*args, **kwargs))
        return future


def length(piece):
    if piece.name == "bad":
        raise ValueError("a bad piece")
    return len(piece.name)


def test_what_is_lost_with_its_worker_is_asked_again():
    losing = Losing(lambda count: count in (2, 4))
    assert list(ExecutorWork(losing, length).in_order([Piece("a"), Piece("bb"), Piece("ccc")])) == [1, 2, 3]
    assert losing.submitted == ["a", "bb", "ccc", "bb", "bb"]


def test_what_loses_every_worker_is_said_by_name():
    losing = Losing(lambda count: True)
    with pytest.raises(ChildProcessError, match=f"^The worker of 'a' was lost {MOST_LOST} times, .* OSError: killed$"):
        list(ExecutorWork(losing, length).in_order([Piece("a")]))
    assert len(losing.submitted) == MOST_LOST


def test_what_the_work_raises_is_raised_and_not_asked_again():
    losing = Losing(lambda count: False)
    with pytest.raises(ValueError, match=r"^a bad piece$"):
        list(ExecutorWork(losing, length).in_order([Piece("bad"), Piece("a")]))
    assert losing.submitted == ["bad", "a"]


def test_an_executor_that_takes_no_more_work_is_said_to_be_lost(model):
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(ChildProcessError, match=r"The worker of '0\.weight' was lost .* RuntimeError"):
        verify_file(model, trials=10, seed=1, executor=executor)


def test_arrays_are_not_sent(model, tmp_path):
    losing = Losing(lambda count: False)
    with pytest.raises(ValueError, match="'scores' must be a path where 'executor' does the work"):
        prune_checkpoint(model, tmp_path / "new.npz", density=0.3, scores=weights(), executor=losing)
    with pytest.raises(ValueError, match="'executor' must be left out where 'weights' are given"):
        verify(weights=np.eye(3), executor=losing)
    assert losing.submitted == []


class OnOtherFiles(Losing):
    """Does the work on a machine that has another file under the same path."""

    def __init__(self, link, other):
        super().__init__(lambda count: False)
        self.link, self.own, self.other = link, link.readlink(), other

    def submit(self, fn, /, *args, **kwargs):
        self._point_to(self.other)
        try:
            return super().submit(fn, *args, **kwargs)
        finally:
            self._point_to(self.own)

    def _point_to(self, folder):
        new = self.link.with_name("new-link")
        new.symlink_to(folder)
        new.replace(self.link)  # at once, for the files are being read in this process too


def test_a_worker_with_another_file_is_found_out(tmp_path):
    for place, factor in (("a", 1), ("b", -2)):
        (tmp_path / place).mkdir()
        save_file({name: factor * array for name, array in weights().items()}, tmp_path / place / "model.safetensors")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "a")
    executor = OnOtherFiles(link, tmp_path / "b")
    with pytest.raises(CheckpointError, match=r"is not the same file on all workers: tensor '0\.weight' differs there"):
        prune_checkpoint(link / "model.safetensors", tmp_path / "new.safetensors", density=0.3, executor=executor)
    assert not (tmp_path / "new.safetensors").exists()
