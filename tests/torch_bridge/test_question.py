"""IMP as a question of sweeps: a point is an experiment, and tells what the run of its plan does."""

import importlib
import json
import tomllib
from pathlib import Path

import pytest

from topobounds.sweeps import SweepPlan, sweep
from topobounds.sweeps.questions import GROUP, QUESTIONS
from topobounds.sweeps.store import Store
from torch_bridge.experiment.history import level_records
from torch_bridge.experiment.plan import ImpPlan
from torch_bridge.experiment.question import IMP, KEPT, PLACES, plan_of
from torch_bridge.experiment.run import run_imp

GRID = {
    "question": "imp", "model": "mlp", "hidden": "20-15", "data": "digits", "method": ["imp", "t-imp"],
    "epochs": 1, "rounds": 2, "rate": 0.5, "seed": 7,
}  # fmt: skip


@pytest.fixture
def imp(monkeypatch):
    """Return the question that pyproject.toml registers, whatever is installed."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    module, _, name = project["entry-points"][GROUP]["imp"].partition(":")
    question = getattr(importlib.import_module(module), name)
    assert question is IMP
    monkeypatch.setitem(QUESTIONS, "imp", question)
    return question


def test_a_point_tells_what_the_run_of_its_plan_does(imp, tmp_path):
    result = sweep(SweepPlan.of({"grid": [GRID]}), tmp_path / "sweep", jobs=1)
    assert (result.done, result.failed) == (2, 0)
    plan = ImpPlan.from_dict(
        {
            "model": {"name": "mlp", "hidden": [20, 15]},
            "data": {"name": "digits"},
            "recipe": {"epochs": 1},
            "pruning": {"method": "t-imp", "rounds": 2, "rate": 0.5},
            "seeds": {"init": 7, "order": 7, "split": 7, "pruning": 7},
        }
    )
    levels = level_records(run_imp(plan, tmp_path / "run", device="cpu"))
    with Store.open(tmp_path / "sweep") as store:
        (row,) = [row for row in store.records() if row["method"] == "t-imp"]
    for level in levels:
        assert {key: row[f"levels.{level['level']}.{key}"] for key in KEPT} == {key: level[key] for key in KEPT}
    assert row["test_images"] == 500


def test_a_point_that_makes_no_plan_is_a_failed_row(imp, tmp_path):
    grid = GRID | {"method": "imp", "hidden": ["20-15", "20-", "twenty"], "pruning_schedule": "linear", "density": 0.5}
    result = sweep(SweepPlan.of({"grid": [grid]}), tmp_path, jobs=1)
    assert (result.done, result.failed) == (1, 2)
    with Store.open(tmp_path) as store:
        errors = {row["hidden"]: row["error"] for row in store.records() if row["error"]}
    assert errors["twenty"] == "[model] Key 'hidden' must be a sequence of positive integers, not 'twenty'."


def test_every_key_of_a_plan_that_a_value_stands_for_is_a_parameter():
    tables = {table for table, _ in PLACES.values()}
    keys = {f"{table}.{key}" for table in tables for key in ImpPlan.PARTS[table].__dataclass_fields__}
    reached = {f"{table}.{key}" for table, key in PLACES.values()}
    assert keys - reached == {"recipe.milestones", "pruning.factors"}
    assert {name for name in PLACES if name not in {key for _, key in PLACES.values()}} == {
        "model", "data", "recipe_schedule", "pruning_schedule",
    }  # fmt: skip
    plan = plan_of(2**53 - 1, {"model": "lenet-5", "data": "mnist", "recipe_schedule": "cosine"})
    assert (plan.recipe.schedule, plan.pruning.schedule) == ("cosine", "geometric")


def test_the_answer_is_small_and_ready_for_json():
    answer = IMP.answer(
        seed=1, **{key: value for key, value in GRID.items() if key not in ("question", "seed")} | {"method": "imp"}
    )
    assert len(json.dumps(answer, allow_nan=False)) < 1000
