"""``imp`` as a question of sweeps: an experiment a point, a small record of its levels. No torch until it is asked."""

import math
import tempfile
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from topobounds.sweeps.questions import Question
from torch_bridge.experiment import history
from torch_bridge.experiment.plan import ImpPlan

_TABLES = ("model", "data", "recipe", "pruning")
_LISTS = ("milestones", "factors")  # keys of a plan that no single value stands for
KEPT = (*history.COLUMNS[2:], "kept", "critical", "validation_accuracy")
"""What a point tells of each level."""


def _places() -> dict[str, tuple[str, str]]:
    """Return the table and the key of a plan for each parameter.

    A parameter has the name of the key; ``name`` has that of its table, and a key that two tables have has both.
    """
    keys = [(table, each.name) for table in _TABLES for each in fields(ImpPlan.PARTS[table])]  # type: ignore[arg-type]
    names = [key for _, key in keys]
    found = {}
    for table, key in keys:
        if key == "name":
            found[table] = (table, key)
        elif key not in _LISTS:
            found[key if names.count(key) == 1 else f"{table}_{key}"] = (table, key)
    return found


PLACES = _places()


def plan_of(seed: int, parameters: Mapping[str, Any]) -> ImpPlan:
    """Return the plan of a point: one replicate, all of whose seeds are `seed`.

    Parameters
    ----------
    seed : int
        From 0 to 2^64 - 1.
    parameters : mapping of str to number or text
        Those of `PLACES`; ``hidden`` as a text, ``"100-50"``.

    Raises
    ------
    ValueError
        If they make no plan.

    Examples
    --------
    >>> plan = plan_of(3, {"model": "mlp", "hidden": "100-50", "data": "digits", "method": "t-imp", "epochs": 5})
    >>> plan.model.hidden, plan.pruning.method, plan.recipe.epochs, plan.seeds.order
    ((100, 50), 't-imp', 5, 3)
    """
    tables: dict[str, dict[str, Any]] = {table: {} for table in _TABLES}
    for name, value in parameters.items():
        table, key = PLACES[name]
        tables[table][key] = _widths(value) if key == "hidden" else value
    seeds = dict.fromkeys(("init", "order", "split", "pruning"), seed)
    return ImpPlan.from_dict({**tables, "seeds": seeds})


def _widths(text: Any) -> Any:
    """Return ``"100-50"`` as numbers; what is none is refused by the plan."""
    parts = str(text).split("-")
    return [int(part) for part in parts] if all(part.isdecimal() for part in parts) else text


def _imp(seed: int, **parameters: Any) -> Mapping[str, Any]:
    plan = plan_of(seed, parameters)
    from torch_bridge.experiment.run import run_imp  # noqa: PLC0415 -- brings torch

    with tempfile.TemporaryDirectory(prefix="topobounds-imp-") as folder:
        run = run_imp(plan, folder, device="cpu", checkpoint_seconds=math.inf)  # on every machine the same numbers
        levels = {str(level["level"]): {key: level[key] for key in KEPT} for level in history.level_records(run)}
        return {"test_images": history.test_images(run), "levels": levels}


IMP = Question(_imp, _TABLES[:2], tuple(name for name in PLACES if name not in _TABLES[:2]), draws=True)
"""An experiment of `run_imp` with one of our nets; its parameters are keys of its plan, as single values."""
