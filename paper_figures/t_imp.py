"""Beyond the paper: T-IMP, which it proposes and does not run, beside IMP, level by level, with the same net and data.

Trains for minutes, and so is made only when it is named. A record that comes with the package is drawn at once.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from paper_figures.settings import TRAINING_OPTIONS, Settings
from topobounds._arguments import integer
from topobounds._text import counted
from topobounds.figures.publish import publish
from topobounds.figures.record import DATASETS, FigureRecord, provenance
from topobounds.runs import MOST_LEVELS, RunFolder
from torch_bridge.experiment import picture
from torch_bridge.experiment.command import CONFIGS
from torch_bridge.experiment.plan import ImpPlan
from torch_bridge.training.plan import Seeds

TRAINS = True
OPTIONS = (*(option for option in TRAINING_OPTIONS if option != "epochs"), "seed", "no_caption")
"""The plan settles the epochs."""

METHODS = ("imp", "t-imp")
_PLANS = {"mnist": "lenet-300-100", "fashion-mnist": "lenet-300-100", "digits": "digits"}
"""The plan of each data set, by its name in ``torch_bridge/configs``; it settles the epochs."""
_ROUNDS = {"mnist": 18, "fashion-mnist": 18}
"""How far to go where the plan stops before the methods part: nearly as far as T-IMP can keep the forests."""


def measure(settings: Settings) -> FigureRecord:
    """Return accuracy, overlap and neural persistence of each level of both methods; missing levels are made first."""
    runs = [_complete_run(_method_plan(settings, method), settings) for method in METHODS]
    record = picture.measure([run.path for run in runs], settings.trials)
    flags = f"--dataset {settings.dataset} --trials {settings.trials} --seed {settings.seed}"
    data = runs[0].levels[0].metrics[0]["data"]
    made_from = {"trials": settings.trials, "seed": settings.seed, "data": data, "runs": record.provenance["runs"]}
    source = provenance(f"topobounds figures t_imp {flags}", **made_from)
    return replace(record, name="t_imp", provenance=source)


def _method_plan(settings: Settings, method: str) -> ImpPlan:
    """Return the plan of one method on the data set, with one seed for everything."""
    plan = ImpPlan.read(CONFIGS / f"{_PLANS[settings.dataset]}.toml")
    assert plan.data is not None
    rounds = _ROUNDS.get(settings.dataset, plan.pruning.rounds)
    integer("trials", settings.trials, 1, most=MOST_LEVELS // (rounds + 1))
    return replace(
        plan,
        data=replace(plan.data, name=settings.dataset),
        pruning=replace(plan.pruning, method=method, rounds=rounds),
        replicates=settings.trials,
        seeds=Seeds(init=settings.seed, order=settings.seed, split=settings.seed, pruning=settings.seed),
    )


def _complete_run(plan: ImpPlan, settings: Settings) -> RunFolder:
    """Return the run folder of a plan, whole; what is missing is made first."""
    from torch_bridge.experiment.run import run_imp  # noqa: PLC0415 -- torch is needed only to train

    label = picture.METHODS[plan.pruning.method]

    def progress(done: int, total: int, message: str) -> None:
        settings.progress(done, total, f"{label}: {message}")

    return run_imp(
        plan,
        settings.out / "runs" / _run_name(plan, settings),
        data_dir=settings.data_dir,
        download=settings.download,
        device=settings.device,
        jobs=settings.jobs,
        progress=progress,
    )


def _run_name(plan: ImpPlan, settings: Settings) -> str:
    """Return a folder name that no other plan has."""
    return f"{plan.pruning.method}-{settings.dataset}-seed-{settings.seed}-{plan.sha256[:8]}"


def render(record: FigureRecord, folder: Path, *, caption_drawn: bool = True) -> list[Path]:
    """Write PDF, PNG and caption."""
    return publish(draw, caption(record), record, folder, caption_drawn=caption_drawn)


def draw(record: FigureRecord) -> Figure:
    """Return the figure: a panel for each quantity, a curve for each method."""
    figure: Figure = picture.draw(record)
    return figure


def caption(record: FigureRecord) -> str:
    """Return the caption."""
    source = record.provenance
    plan = next(iter(source["runs"].values()))["plan"]
    replicates = counted(source["trials"], "replicate")
    spread = " Means over the replicates, and one sample standard deviation to either side."
    return (
        f"Beyond the paper: IMP and T-IMP of {picture.net_name(plan)}, {_rounds(plan['pruning'])}. "
        f"{picture.QUANTITIES}{spread if source['trials'] > 1 else ''} Both start from the same weights, and prune "
        f"the same as long as the largest hold the forests. Data: {DATASETS[source['data']['name']]}; {replicates} of "
        f"{counted(plan['pruning']['rounds'] + 1, 'level')} of {counted(plan['recipe']['epochs'], 'epoch')}; "
        f"seed {source['seed']}."
    )


def _rounds(pruning: dict[str, Any]) -> str:
    rate, output = pruning["rate"], pruning["rate"] * pruning["output_factor"]
    return f"{rate:.0%} of the survivors pruned a round (output layer {output:.0%}), then {pruning['after']}"
