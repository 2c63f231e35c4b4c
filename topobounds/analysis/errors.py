"""What is raised while a checkpoint is analysed: a tensor that is left out, and Ctrl-C."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from topobounds.analysis.reports import ModelReport


class UnreadTensorError(ValueError):
    """Why a tensor is left out; `fault` is the rule of the finding, if its values are to blame."""

    def __init__(self, reason: str, fault: str | None = None) -> None:
        super().__init__(reason)
        self.fault = fault


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during `analyze`.

    Attributes
    ----------
    report : ModelReport
        What was done until then; what was not is among its `left_out`.
    """

    def __init__(self, report: "ModelReport") -> None:
        super().__init__("Interrupted.")
        self.report = report
