"""What every result record can do: turn itself into plain Python, ready for JSON."""

import dataclasses
import math
from fractions import Fraction
from typing import Any, ClassVar


class Record:
    """Base of the frozen dataclasses that functions return.

    ``to_dict()`` gives plain Python: exact fractions as strings (``"346/385"``), arrays as lists, a number that is
    not finite as None. ``schema_version`` rises when a key changes its meaning or goes.
    """

    schema_version: ClassVar[int] = 1

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and ``schema_version`` as plain Python, ready for ``json.dumps``."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        record = {f.name: plain(getattr(self, f.name)) for f in fields if not f.name.startswith("_")}
        return {"schema_version": self.schema_version, **record}


def plain(value: Any) -> Any:
    """Return `value` in terms of None, bool, int, float, str, list and dict."""
    if isinstance(value, Fraction) or (isinstance(value, float) and not math.isfinite(value)):
        return str(value) if isinstance(value, Fraction) else None
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if hasattr(value, "tolist"):  # numpy arrays and scalars, without importing numpy
        return plain(value.tolist())
    return value
