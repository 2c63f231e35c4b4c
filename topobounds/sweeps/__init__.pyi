from .plan import Grid, Point, SweepPlan
from .run import SweepResult, sweep, sweep_status

__all__ = ["Grid", "Point", "SweepPlan", "SweepResult", "sweep", "sweep_status"]
