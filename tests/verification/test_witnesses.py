"""Witnesses: files that show a violation again."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from tests.verification.cases import blocked, exchangeable
from topobounds.topology.spanning import maximum_spanning_forest
from topobounds.verification import CLAIMS, replay, verify, verify_file, write_witnesses


@pytest.mark.parametrize("options", [{"density": 0.12}, {"density": 0.12, "support": "star", "distribution": "normal"}])
def test_a_witness_shows_the_violation_again(tmp_path, options):
    found = verify(60, 50, seed=3, claims=["theorem_3_3", "corollary_3_4"], **options)
    file = tmp_path / "witness.json"
    assert write_witnesses(file, found) == 1
    assert replay(file) == [verdict for verdict in found if verdict.verdict == "violated"]
    (witness,) = json.loads(file.read_text())["witnesses"]
    assert witness["seed"] == 3
    weights = np.zeros(60 * 50)
    weights[witness["matrix"]["cells"]] = witness["matrix"]["values"]
    assert maximum_spanning_forest(weights.reshape(60, 50)).overlap() == witness["overlap"] < witness["bound"]
    assert maximum_spanning_forest(weights.reshape(60, 50)).alpha == 109
    witness["matrix"]["values"].reverse()
    file.write_text(json.dumps(json.loads(file.read_text()) | {"witnesses": [witness]}))
    with pytest.raises(ValueError, match="the matrix in it has the overlap"):
        replay(file)


def test_without_a_violation_no_file_is_written(tmp_path):
    file = tmp_path / "witness.json"
    assert write_witnesses(file, verify(6, 5, claims=["theorem_3_3"])) == 0
    assert not file.exists()


def test_a_counterexample_is_kept(tmp_path, monkeypatch):
    def only_if_the_first_weight_is_small(subject, rng):
        return abs(subject.weights[0, 0]) < 40 and rng.random() < 2

    with monkeypatch.context() as patch:
        claim = replace(CLAIMS["component_identity"], check=only_if_the_first_weight_is_small)
        patch.setitem(CLAIMS, "component_identity", claim)
        (found,) = verify(8, 6, claims=["component_identity"], seed=1)
        assert found.verdict == "violated"
        assert found.trials > 1
        assert found.estimate == (found.trials - 1) / found.trials
        assert f"Matrix {found.trials}" in found.reason
        write_witnesses(tmp_path / "w.json", [found])
        assert replay(tmp_path / "w.json") == [found]
        (witness,) = json.loads((tmp_path / "w.json").read_text())["witnesses"]
        assert witness["matrix"]["values"][0] >= 40
    with pytest.raises(ValueError, match="the matrix in it is no counterexample"):
        replay(tmp_path / "w.json")


def test_the_witness_of_given_weights(tmp_path):
    weights, file = blocked().astype(np.float32), tmp_path / "w.json"
    found = verify(weights=weights, seed=1, claims=["boruvka_bound", "exchangeable"])
    assert write_witnesses(file, found, weights) == 2
    assert replay(file) == found
    with pytest.raises(ValueError, match="'weights' must be given"):
        write_witnesses(file, found)


def test_the_witness_of_a_file(tmp_path):
    file, witness = tmp_path / "layers.npz", tmp_path / "w.json"
    np.savez(file, fair=exchangeable(), unfair=blocked(), bias=np.ones(3))
    found = verify_file(file, claims=["boruvka_bound"], seed=1)
    assert [(v.tensor, v.verdict) for v in found] == [("fair", "holds"), ("unfair", "violated")]
    assert write_witnesses(witness, found) == 1
    assert replay(witness) == [found[1]]
    np.savez(file, fair=exchangeable(), unfair=exchangeable())
    with pytest.raises(ValueError, match="SHA-256"):
        replay(witness)


@pytest.mark.parametrize("target", ["", "absent/w.json", "."])
def test_a_witness_that_cannot_be_written_leaves_nothing_behind(tmp_path, monkeypatch, target):
    monkeypatch.chdir(tmp_path)
    violated = verify(60, 50, density=0.12, trials=32, seed=4, claims=["corollary_3_4"])
    assert violated[0].verdict == "violated"
    with pytest.raises((ValueError, OSError), match=r"'path' must be the name of a file, not|could not be written: "):
        write_witnesses(target, violated)
    assert list(tmp_path.iterdir()) == []


def test_a_witness_that_meets_a_folder_takes_its_partial_file_away(tmp_path):
    violated = verify(60, 50, density=0.12, trials=32, seed=4, claims=["corollary_3_4"])
    (tmp_path / "w.json").mkdir()
    with pytest.raises(OSError, match=r"w\.json could not be written: Is a directory\.$"):
        write_witnesses(tmp_path / "w.json", violated)
    assert [file.name for file in tmp_path.iterdir()] == ["w.json"]


def damaged(witness, **entries):
    record = json.loads(witness.read_text())
    record["witnesses"][0].update(entries)
    return json.dumps(record)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"density": 10**400}, r"'density' must be a number in \(0, 1\], not 1000"),
        ({"trials": 10**30}, "'trials' must be at most 1000000000"),
        ({"claims": []}, "it names no claim"),
        ({"claims": "corollary_3_4"}, "it names no claim"),
        ({"claims": ["corollary_3_4", "star_bound"]}, "it names 2 claims, not one"),
        ({"seed": None}, "'seed' must be a non-negative integer, not None"),
        ({"matrix": {"shape": [2, 2], "dtype": "float64", "cells": [10**30], "values": [1.0]}}, "too large"),
        ({"matrix": {"shape": [10**9, 10**9], "dtype": "float64", "cells": [], "values": []}}, "GiB of memory"),
    ],
)
def test_a_damaged_witness_says_what_is_wrong(tmp_path, entries, message):
    witness = tmp_path / "w.json"
    write_witnesses(witness, verify(60, 50, density=0.12, trials=32, seed=4, claims=["corollary_3_4"]))
    witness.write_text(damaged(witness, **entries))
    with pytest.raises(ValueError, match=rf"^Witness 1 of .*w\.json cannot be replayed: .*{message}"):
        replay(witness)


@pytest.mark.parametrize("key", ["density", "bound", "estimate", "trials_used"])
@pytest.mark.parametrize("value", ["x", {}, math.inf, -math.inf, math.nan, 10**400, None, True, [None], ["x"]])
def test_a_number_of_a_witness_that_is_none_is_refused(tmp_path, key, value):
    witness = tmp_path / "w.json"
    write_witnesses(witness, verify(60, 50, density=0.12, trials=32, seed=4, claims=["corollary_3_4"]))
    witness.write_text(damaged(witness, **{key: value}))
    with pytest.raises(
        ValueError, match=rf"^Witness 1 of .*w\.json cannot be replayed: .*'{key}' must be a (finite )?number"
    ):
        replay(witness)


@pytest.mark.parametrize("key", ["bound", "estimate", "trials_used"])
@pytest.mark.parametrize("change", [lambda value: -1, lambda value: value * (1 + 1e-9), lambda value: [value, value]])
def test_a_number_of_a_witness_that_is_not_found_again_is_named(tmp_path, key, change):
    witness = tmp_path / "w.json"
    (verdict,) = verify(60, 50, density=0.12, trials=32, seed=4, claims=["corollary_3_4"])
    write_witnesses(witness, [verdict])
    now = verdict.trials if key == "trials_used" else getattr(verdict, key)
    witness.write_text(damaged(witness, **{key: change(now)}))
    with pytest.raises(ValueError, match=rf"cannot be replayed: its '{key}' is .*, but {now!r} is found again\.$"):
        replay(witness)


def test_another_density_is_named_or_finds_other_numbers(tmp_path):
    witness = tmp_path / "w.json"
    write_witnesses(witness, verify(60, 50, density=0.12, trials=32, seed=4, claims=["corollary_3_4"]))
    witness.write_text(damaged(witness, density=0.13))
    with pytest.raises(ValueError, match=r"but .* is found again\.$"):
        replay(witness)
    record = json.loads(witness.read_text())
    del record["witnesses"][0]["density"]
    witness.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="it has no entry 'density'"):
        replay(witness)


def test_the_interval_that_given_weights_broke_is_compared_too(tmp_path):
    weights, file = blocked(), tmp_path / "w.json"
    (verdict,) = verify(weights=weights, seed=1, claims=["exchangeable"])
    write_witnesses(file, [verdict], weights)
    file.write_text(damaged(file, bound=[0.0, verdict.bound[1]]))
    with pytest.raises(ValueError, match=r"its 'bound' is \[0\.0, .*\], but \[.*\] is found again"):
        replay(file)


def test_a_witness_too_deep_or_gone_says_so(tmp_path):
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"deep\.json is no witness file of version 1: it is nested too deeply"):
        replay(tmp_path / "deep.json")
    with pytest.raises(OSError, match=r"absent\.json could not be read: No such file or directory\.$"):
        replay(tmp_path / "absent.json")
    np.save(tmp_path / "w.npy", blocked())
    write_witnesses(tmp_path / "w.json", verify_file(tmp_path / "w.npy", seed=2, claims=["exchangeable"]))
    (tmp_path / "w.npy").unlink()
    with pytest.raises(OSError, match=r"w\.npy could not be read: No such file or directory\.$"):
        replay(tmp_path / "w.json")
