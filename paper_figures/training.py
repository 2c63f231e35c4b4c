"""The trained nets that figures measure: made where missing, read as matrices of inputs by outputs."""

from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from paper_figures.settings import Settings
from topobounds._text import counted
from topobounds.figures.record import DATASETS, provenance
from topobounds.runs import Level, RunFolder


def trained(settings: Settings) -> RunFolder:
    """Return the run folder of the paper's nets with the finished trials; what is missing is trained first.

    Its name under ``OUT/runs`` is the plan's, so runs of other plans stay beside it.
    """
    from torch_bridge.training.figure_nets import TrainingPlan, train  # noqa: PLC0415 -- torch is needed only to train

    plan = TrainingPlan(dataset=settings.dataset, trials=settings.trials, epochs=settings.epochs, seed=settings.seed)
    return train(
        plan,
        settings.out / "runs" / plan.name,
        data_dir=settings.data_dir,
        download=settings.download,
        device=settings.device,
        jobs=settings.jobs,
        progress=settings.progress,
    )


def trials(run: RunFolder, settings: Settings) -> Iterator[tuple[int, Level]]:
    """Yield the number and the level of each trial asked for; the folder may hold more."""
    for trial in range(settings.trials):
        yield trial, run.level(f"trial-{trial}")


def layer_weights(level: Level, epoch: int) -> list[NDArray[Any]]:
    """Return the weight matrices after an epoch, first layer first, each inputs by outputs."""
    arrays = level.weights(f"epoch-{epoch:02d}").values()
    return [array.T for array in arrays if array.ndim == 2]


def run_provenance(name: str, settings: Settings, run: RunFolder) -> dict[str, Any]:
    """Return where the numbers of a trained figure come from."""
    facts = run.levels[0].metrics[0]
    starts = [level.metrics[0] for _, level in trials(run, settings)]
    flags = f"--dataset {settings.dataset} --trials {settings.trials} --epochs {settings.epochs} --seed {settings.seed}"
    made = provenance(
        f"topobounds figures {name} {flags}",
        seed=settings.seed,
        trials=settings.trials,
        epochs=settings.epochs,
        data=facts["data"],
        widths=_widths(run.levels[0]),
        plan=run.plan,
        device=facts["device"],
        trained_on=list(dict.fromkeys(start.get("processor") for start in starts)),
    )
    made["versions"]["torch"] = facts["torch"]
    return made


def source_line(made: dict[str, Any]) -> str:
    """Return what a caption says of the training: the data, the trials, the epochs, the seed."""
    passes = made["plan"]["passes_per_epoch"]
    each = f" (an epoch is {passes} passes)" if passes > 1 else ""
    return (
        f"Data: {DATASETS[made['data']['name']]}; {counted(made['trials'], 'trial')} of "
        f"{counted(made['epochs'], 'epoch')}{each}; seed {made['seed']}."
    )


def net_name(made: dict[str, Any]) -> str:
    """Return the widths of the net as they are printed, ``784-100-10``."""
    return "-".join(map(str, made["widths"]))


def _widths(level: Level) -> list[int]:
    shapes = [weights.shape for weights in layer_weights(level, 0)]
    return [shapes[0][0], *(n for _, n in shapes)]
