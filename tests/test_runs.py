"""The run folder: what is finished, what is damaged, who may write."""

import json
import os
import signal
import subprocess
import sys
import threading
from importlib import metadata
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from topobounds.runs import Level, RunError, RunFolder, json_sha256

PLAN = {"dataset": "digits", "epochs": 2, "optimizer": {"name": "sgd", "rate": 0.01}, "hidden": (3, 4)}
WEIGHTS = {f"layers.{i}.weight": np.arange(6, dtype=np.float32).reshape(2, 3) + i for i in (0, 2, 10)}


def write_level(run, name="trial-0"):
    with run.writing(name) as level:
        for epoch in (0, 1, 2, 10):
            level.save_weights(f"epoch-{epoch}", {key: value * epoch for key, value in WEIGHTS.items()})
            level.append_metrics({"epoch": epoch, "loss": 1 / (1 + epoch)})
    return run.level(name)


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.glob("[!.]*/*"))}


def start(script, *arguments):
    """Run a script of this file's names in a process of its own."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom test_runs import *\n{script}"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "parent" / "run", PLAN)


# what was written is what is read


def test_weights_and_metrics_come_back_in_order(run):
    write_level(run)
    level = RunFolder.open(run.path).level("trial-0")
    assert level.weight_files == ["epoch-0", "epoch-1", "epoch-2", "epoch-10"]
    assert [record["epoch"] for record in level.metrics] == [0, 1, 2, 10]
    assert level.metrics[2]["loss"] == 1 / 3
    weights = level.weights("epoch-2")
    assert list(weights) == ["layers.0.weight", "layers.2.weight", "layers.10.weight"]
    for name, array in weights.items():
        np.testing.assert_array_equal(array, WEIGHTS[name] * 2)
        assert array.dtype == np.float32
    level.verify()


@pytest.mark.parametrize(
    "dtype",
    [np.bool_, np.int8, np.uint16, np.int64, np.float16, np.float64, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn],
)
def test_every_dtype_comes_back(run, dtype):
    array = np.array([[0, 1, 2], [3, 0, 1]]).astype(dtype)
    with run.writing("level") as level:
        level.save_weights("masks", {"a": array, "empty": np.zeros((0, 3), dtype), "scalar": array[1, 0]})
    back = run.level("level").weights("masks")
    assert back["a"].dtype == array.dtype
    assert back["a"].tobytes() == array.tobytes()
    assert back["empty"].shape == (0, 3)
    assert back["scalar"].tobytes() == array[1, 0].tobytes()
    assert back["scalar"].shape == ()


def test_strides_and_byte_order_do_not_matter(run):
    array = np.arange(12.0).reshape(3, 4)
    with run.writing("level") as level:
        level.save_weights("w", {"transposed": array.T, "big-endian": array.astype(">f8"), "step": array[::2, ::-1]})
    back = run.level("level").weights("w")
    np.testing.assert_array_equal(back["transposed"], array.T)
    np.testing.assert_array_equal(back["big-endian"], array)
    np.testing.assert_array_equal(back["step"], array[::2, ::-1])


def test_levels_are_sorted_by_number_and_only_finished_ones_count(run):
    for name in ("trial-10", "trial-2", "trial-0"):
        write_level(run, name)
    (run.path / "trial-3").mkdir()
    (run.path / ".trial-4.partial").mkdir()
    assert [level.name for level in run.levels] == ["trial-0", "trial-2", "trial-10"]
    with pytest.raises(RunError, match=r"trial-3 is not a finished level: it has no manifest\.json"):
        run.level("trial-3")


def test_a_number_that_is_not_finite_is_null(run):
    with run.writing("level") as level:
        level.append_metrics({"loss": float("nan"), "best": np.float32(0.5)})
    assert run.level("level").metrics == [{"loss": None, "best": 0.5}]
    assert run.level("level").weight_files == []


def test_a_level_without_metrics_has_none(run):
    with run.writing("level") as level:
        level.save_weights("w", WEIGHTS)
    assert run.level("level").metrics == []


def test_complex_numbers_and_objects_are_refused_by_name(run):
    with run.writing("level") as level, pytest.raises(ValueError, match=r"tensor 'b' too, not dtype\('complex128'\)"):
        level.save_weights("w", {"a": np.ones(2), "b": np.ones(2, complex)})


def test_a_weight_file_is_written_once(run):
    with run.writing("level") as level:
        level.save_weights("w", WEIGHTS)
        with pytest.raises(RunError, match=r"w\.safetensors could not be written: File exists"):
            level.save_weights("w", WEIGHTS)


def test_weights_that_are_not_there_are_listed(run):
    with pytest.raises(RunError, match="no weights 'epoch-7', only: epoch-0, epoch-1, epoch-2, epoch-10"):
        write_level(run).weights("epoch-7")


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "../up", "a b", "a\n"])
def test_names_stay_inside_the_folder(run, name):
    with pytest.raises(ValueError, match="Argument 'name' must be a file name"), run.writing(name):
        pass
    with run.writing("level") as level, pytest.raises(ValueError, match="Argument 'stem' must be a file name"):
        level.save_weights(name, WEIGHTS)


# plans


def test_the_same_plan_reopens_the_folder(run):
    write_level(run)
    again = RunFolder.create(run.path, PLAN | {"hidden": [3, 4]})
    assert again.plan == {**PLAN, "hidden": [3, 4]}
    assert [level.name for level in again.levels] == ["trial-0"]
    assert again.sha256 == json_sha256(json.loads(json.dumps(PLAN)))


def test_another_plan_is_refused_key_by_key(run):
    other = PLAN | {"epochs": 3, "optimizer": {"name": "sgd", "rate": 0.1}, "seed": 1}
    before = (run.path / "plan.json").read_bytes()
    with pytest.raises(RunError) as error:
        RunFolder.create(run.path, other)
    assert "epochs is 2 there and 3 here; " in str(error.value)
    assert "optimizer.rate is 0.01 there and 0.1 here; seed is absent there and 1 here." in str(error.value)
    assert "hidden" not in str(error.value)
    assert (run.path / "plan.json").read_bytes() == before


def test_keys_that_a_plan_leaves_out_stand_for_their_defaults_in_a_refusal(tmp_path):
    defaults = {"epochs": 10, "optimizer": {"rate": 0.1, "momentum": 0.0}}
    RunFolder.create(tmp_path, {"optimizer": {"momentum": 0.9}}, defaults=defaults)
    RunFolder.create(tmp_path, {"optimizer": {"momentum": 0.9}}, defaults=defaults | {"new": 1})
    with pytest.raises(RunError) as error:
        RunFolder.create(tmp_path, {"epochs": 3}, defaults=defaults)
    assert str(error.value).endswith(
        "another plan: epochs is 10 there and 3 here; optimizer.momentum is 0.9 there and 0.0 here."
    )


def test_the_extent_grows_and_is_no_part_of_the_plan(tmp_path):
    first = RunFolder.create(tmp_path, PLAN, extent={"trials": 2})
    write_level(first)
    for asked, kept in (({"trials": 5}, {"trials": 5}), ({"trials": 3}, {"trials": 5}), ({}, {"trials": 5})):
        again = RunFolder.create(tmp_path, PLAN, extent=asked)
        assert again.extent == RunFolder.open(tmp_path).extent == kept
        assert again.sha256 == first.sha256
        assert [level.name for level in again.levels] == ["trial-0"]
    with first.locked(), pytest.raises(RunError, match=rf"in use by another process \(process {os.getpid()}\)"):
        RunFolder.create(tmp_path, PLAN, extent={"trials": 6})
    assert RunFolder.create(tmp_path, PLAN, extent={"folds": 2}).extent == {"trials": 5, "folds": 2}
    with pytest.raises(RunError, match="epochs is 2 there and 3 here"):
        RunFolder.create(tmp_path, PLAN | {"epochs": 3}, extent={"trials": 9})
    assert RunFolder.open(tmp_path).extent == {"trials": 5, "folds": 2}


@pytest.mark.parametrize("extent", ['"many"', '{"trials": "5"}', '{"trials": true}', "[1]"])
def test_a_damaged_extent_is_refused(run, extent):
    file = run.path / "plan.json"
    file.write_text(file.read_text().replace('"extent": {}', f'"extent": {extent}'))
    with pytest.raises(RunError, match=r"plan\.json is damaged: 'extent' must be a mapping of names to integers"):
        RunFolder.open(run.path)


def test_an_altered_plan_is_refused(run):
    file = run.path / "plan.json"
    file.write_text(file.read_text().replace("0.01", "0.02"))
    with pytest.raises(RunError, match=r"plan\.json is damaged: the plan in it does not have the SHA-256"):
        RunFolder.open(run.path)


def test_a_plan_of_another_format_is_refused(run):
    file = run.path / "plan.json"
    file.write_text(file.read_text().replace('"schema_version": 2', '"schema_version": 3'))
    told = (
        r"plan\.json is of schema 3 \(topobounds [\d.]+\), and this topobounds reads 1 and 2: .* in another folder\.$"
    )
    with pytest.raises(RunError, match=told):
        RunFolder.open(run.path)


def as_of_schema_1(run, plan):
    """Make a folder what the first version made of a plan: without its defaults, and without a version."""
    old = {"version": 1, "plan": plan, "sha256": json_sha256(plan), "extent": {"trials": 1}}
    (run.path / "plan.json").write_text(json.dumps(old))


def test_a_folder_says_which_version_began_it(run):
    assert run.made_by == RunFolder.open(run.path).made_by == metadata.version("topobounds")


def test_a_folder_of_the_first_schema_is_read_and_goes_on(tmp_path):
    run = RunFolder.create(tmp_path / "run", {"epochs": 3, "rate": 0.1})
    as_of_schema_1(run, {"epochs": 3})
    old = RunFolder.open(run.path)
    assert (old.plan, old.made_by) == ({"epochs": 3}, None)
    with old.writing("trial-0") as level:
        level.append_metrics({"epoch": 0})
    grown = RunFolder.create(run.path, {"epochs": 3, "rate": 0.1}, defaults={"rate": 0.1}, extent={"trials": 2})
    assert (grown.plan, grown.extent) == ({"epochs": 3}, {"trials": 2})
    assert RunFolder.open(run.path).level("trial-0").metrics == [{"epoch": 0}]
    with pytest.raises(RunError, match=r"rate is 0\.1 there and 0\.2 here"):
        RunFolder.create(run.path, {"epochs": 3, "rate": 0.2}, defaults={"rate": 0.1})


def test_a_truncated_plan_names_the_line(run):
    file = run.path / "plan.json"
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(RunError, match=r"plan\.json is damaged: line \d+: "):
        RunFolder.open(run.path)


def test_a_folder_that_is_not_a_run_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match=r"is not empty and has no plan\.json"):
        RunFolder.create(tmp_path, PLAN)
    with pytest.raises(RunError, match=r"plan\.json could not be read: No such file"):
        RunFolder.open(tmp_path)


def test_a_level_of_another_plan_is_refused(run, tmp_path):
    other = RunFolder.create(tmp_path / "other", {"epochs": 5})
    write_level(other).path.rename(run.path / "trial-0")
    with pytest.raises(RunError, match=r"trial-0/manifest\.json belongs to another plan"):
        run.level("trial-0")


# damage


def test_a_truncated_file_is_named_with_tensor_and_byte(run):
    file = write_level(run).path / "epoch-2.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-30])
    where = f"it ends at byte {len(whole) - 30} of {len(whole)}, inside tensor 'layers.10.weight'"
    with pytest.raises(RunError, match=rf"epoch-2\.safetensors is damaged: {where}"):
        run.level("trial-0").weights("epoch-2")
    file.write_bytes(whole[:20])
    with pytest.raises(RunError, match=f"ends at byte 20 of {len(whole)}, inside the header"):
        run.level("trial-0").verify()
    run.level("trial-0").weights("epoch-1")


def test_an_altered_byte_is_seen(run):
    level = write_level(run)
    file = level.path / "epoch-1.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    for read in (level.verify, lambda: level.weights("epoch-1")):
        with pytest.raises(RunError, match=r"epoch-1\.safetensors is damaged: it was altered"):
            read()


def test_added_bytes_are_seen(run):
    level = write_level(run)
    with (level.path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 11}\n')
    with pytest.raises(RunError, match=r"metrics\.jsonl is damaged: it has \d+ bytes, the manifest says"):
        _ = level.metrics


def test_a_missing_file_is_named(run):
    level = write_level(run)
    (level.path / "epoch-1.safetensors").unlink()
    with pytest.raises(RunError, match=r"epoch-1\.safetensors could not be read: No such file"):
        level.verify()


@pytest.mark.parametrize("content", [b'{"files": {}', b"[]", b'{"files": {}}', b"\xff\xfe"])
def test_a_damaged_manifest_is_named(run, content):
    file = write_level(run).path / "manifest.json"
    file.write_bytes(content)
    with pytest.raises(RunError, match=r"trial-0/manifest\.json is damaged: "):
        _ = run.levels


@pytest.mark.parametrize(
    ("content", "message", "since"),
    [
        (b"\x02\0\0\0\0\0\0\0{]", r"x\.safetensors is damaged: .+header", (0, 6)),
        (
            b"\x3a\0\0\0\0\0\0\0" + b'{"t":{"dtype":"C64","shape":[1],"data_offsets":[0,8]}}'.ljust(58) + bytes(8),
            "tensor 't' is of dtype C64, which numpy has no name for",
            (0, 7),
        ),
    ],
)
def test_a_file_that_was_never_right_is_refused(run, content, message, since):
    if tuple(map(int, metadata.version("safetensors").split(".")[:2])) < since:  # it says less, or refuses sooner
        message = r"x\.safetensors is damaged: Error while deserializing: "
    with run.writing("level") as level:
        (level.path / "x.safetensors").write_bytes(content)
    with pytest.raises(RunError, match=message):
        run.level("level").weights("x")


# exceptions, kills, two writers, disks that refuse


def test_an_exception_leaves_nothing(run):
    def fail():
        with run.writing("trial-0") as level:
            level.save_weights("epoch-0", WEIGHTS)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert run.levels == []
    assert sorted(each.name for each in run.path.iterdir()) == [".lock", "plan.json"]


def test_a_finished_level_is_not_written_again(run):
    before = contents(write_level(run).path.parent)
    with pytest.raises(RunError, match="trial-0 is finished already"):
        write_level(run)
    assert contents(run.path) == before


def test_a_level_without_its_manifest_is_written_again(run):
    level = write_level(run)
    before = contents(run.path)
    (level.path / "manifest.json").unlink()
    (level.path / "stray.safetensors").write_bytes(b"")
    assert not run.is_finished("trial-0")
    write_level(run)
    assert contents(run.path) == before


def test_a_killed_writer_leaves_no_level_and_no_lock(run, tmp_path):
    script = """
with RunFolder.open(sys.argv[1]).writing("trial-0") as level:
    level.save_weights("epoch-0", WEIGHTS)
    level.save_weights("epoch-3", WEIGHTS)
    print("in the middle", flush=True)
    sys.stdin.read()
"""
    with start(script, run.path) as writer:
        assert writer.stdout.readline() == "in the middle\n"
        assert RunFolder.open(run.path).levels == []
        with pytest.raises(RunError, match=rf"is in use by another process \(process {writer.pid}\)"):
            write_level(run)
        writer.send_signal(signal.SIGKILL)
    assert run.levels == []
    assert (run.path / ".trial-0.partial" / "epoch-3.safetensors").exists()
    write_level(run)
    assert not (run.path / ".trial-0.partial").exists()
    uninterrupted = RunFolder.create(tmp_path / "uninterrupted", PLAN)
    write_level(uninterrupted)
    assert contents(run.path) == contents(uninterrupted.path)


def test_a_second_opening_in_the_same_process_is_refused_too(run):
    with run.locked(), run.locked():
        write_level(run)
        with pytest.raises(RunError, match=f"in use by another process .process {os.getpid()}."):
            write_level(RunFolder.open(run.path), "trial-1")
    write_level(RunFolder.open(run.path), "trial-1")


def test_processes_share_a_run_part_by_part(run):
    workers = [RunFolder.open(run.path) for _ in range(2)]
    with run.locked(), workers[0].locked("a"), workers[1].locked("b"):
        write_level(workers[0], "a-0")
        write_level(workers[1], "b-0")
        for part in ("", "a", "b"):
            with pytest.raises(RunError, match="in use by another process"), RunFolder.open(run.path).locked(part):
                pass
    with RunFolder.open(run.path).locked("a"):
        pass
    holder = RunFolder.open(run.path).locked("a")
    holder.__enter__()
    threading.Timer(0.2, holder.__exit__, (None, None, None)).start()
    with RunFolder.open(run.path).locked("a", patience=30):
        pass
    with pytest.raises(ValueError, match="Argument 'part' must be a file name"), run.locked("a/b"):
        pass
    assert [level.name for level in run.levels] == ["a-0", "b-0"]


def test_a_lock_that_is_free_in_a_moment_is_waited_for(run):
    holder = RunFolder.open(run.path).locked()
    holder.__enter__()
    threading.Timer(0.2, holder.__exit__, (None, None, None)).start()
    with run.locked():
        assert run.is_in_use


def test_a_forked_child_does_not_hold_the_lock_of_its_parent(run):
    script = """
import os, time
with RunFolder.open(sys.argv[1]).locked():
    if os.fork() == 0:
        os.close(1)
        time.sleep(20)
        os._exit(0)
    print("forked", flush=True)
    time.sleep(60)
"""
    with start(script, run.path) as parent:
        assert parent.stdout.readline() == "forked\n"
        with pytest.raises(RunError, match=rf"in use by another process \(process {parent.pid}\)"), run.locked():
            pass
        parent.kill()
        parent.wait()
        with run.locked():
            pass


def test_what_a_killed_writer_left_of_a_checkpoint_goes_with_it(run):
    run.save_checkpoint("trial-0", b"content")
    for left in ("..trial-0.checkpoint.a1b2.partial", ".trial-0.checkpoint.partial"):
        (run.path / left).write_bytes(b"cont")
    run.drop_checkpoint("trial-0")
    run.drop_checkpoint("trial-0")
    assert sorted(file.name for file in run.path.iterdir()) == [".lock", "plan.json"]


def test_a_full_disk_is_one_clear_error_and_earlier_levels_stay(run):
    write_level(run)
    before = contents(run.path)
    script = """
import resource
run = RunFolder.open(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # no file beyond this: the write fails as on a full disk
try:
    with run.writing("trial-1") as level:
        level.save_weights("epoch-0", WEIGHTS)
        level.save_weights("epoch-1", {"w": np.ones(10000)})
except RunError as error:
    print(error)
"""
    with start(script, run.path) as writer:
        message, _ = writer.communicate()
    assert message == f"{run.path}/.trial-1.partial/epoch-1.safetensors could not be written: File too large.\n"
    assert contents(run.path) == before
    assert not (run.path / ".trial-1.partial").exists()


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="no folder here that refuses even the superuser")
def test_a_read_only_folder_is_one_clear_error():
    with pytest.raises(RunError, match=r"/sys/kernel/\.lock could not be locked: "):
        RunFolder.create("/sys/kernel", PLAN)
    with pytest.raises(RunError, match="/sys/kernel/run could not be made: "):
        RunFolder.create("/sys/kernel/run", PLAN)


def test_a_file_in_the_place_of_the_folder_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="file could not be made: File exists"):
        RunFolder.create(tmp_path / "file", PLAN)


def test_a_level_can_be_read_by_its_path_alone(run):
    path = write_level(run).path
    assert Level(path).weights("epoch-0").keys() == WEIGHTS.keys()


def test_a_file_of_a_level_as_it_is(run):
    level = write_level(run)
    assert level.read("metrics.jsonl").count(b"\n") == 4
    assert level.read("epoch-0.safetensors") == (level.path / "epoch-0.safetensors").read_bytes()
    with pytest.raises(RunError, match="trial-0 has no file 'manifest'"):
        level.read("manifest")
    (level.path / "metrics.jsonl").write_bytes(b"{}")
    with pytest.raises(RunError, match="damaged: it ends at byte 2"):
        level.read("metrics.jsonl")


# checkpoints


def test_a_checkpoint_is_the_last_that_was_saved(run):
    assert run.checkpoint("trial-0") is None
    for content in (b"first", b"second" * 1000):
        run.save_checkpoint("trial-0", content)
        assert run.checkpoint("trial-0") == content
    assert run.checkpoint("trial-1") is None
    assert run.levels == []
    run.drop_checkpoint("trial-0")
    run.drop_checkpoint("trial-0")
    assert run.checkpoint("trial-0") is None
    assert [file.name for file in run.path.iterdir() if "trial" in file.name] == []


@pytest.mark.parametrize("damage", [lambda c: c[:-1], lambda c: c[:20], lambda c: b"", lambda c: c[:-1] + b"x"])
def test_a_damaged_checkpoint_is_none(run, damage):
    run.save_checkpoint("trial-0", b"content")
    file = run.path / ".trial-0.checkpoint"
    file.write_bytes(damage(file.read_bytes()))
    assert run.checkpoint("trial-0") is None


def test_a_checkpoint_on_a_full_disk_leaves_the_one_before(run):
    script = """
import resource
run = RunFolder.open(sys.argv[1])
run.save_checkpoint("trial-0", b"before")
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    run.save_checkpoint("trial-0", bytes(10000))
except RunError as error:
    print(error)
"""
    with start(script, run.path) as writer:
        message, _ = writer.communicate()
    assert message == f"{run.path}/.trial-0.checkpoint could not be written: File too large.\n"
    assert run.checkpoint("trial-0") == b"before"
    run.save_checkpoint("trial-0", b"after")  # what is left of the failed one is no obstacle
    assert run.checkpoint("trial-0") == b"after"


def test_whether_somebody_is_at_it_can_be_asked(tmp_path):
    run = RunFolder.create(tmp_path, PLAN)
    script = """
with RunFolder.open(sys.argv[1]).locked():
    print("locked", flush=True)
    sys.stdin.readline()
"""
    with start(script, run.path) as other:
        assert other.stdout.readline() == "locked\n"
        assert run.is_in_use
        other.communicate("\n")
    assert not run.is_in_use
    (run.path / ".lock").unlink()
    assert not run.is_in_use
