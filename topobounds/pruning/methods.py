"""The methods of pruning, one table: what each is called, how it ranks weights, and whether it protects some."""

from dataclasses import dataclass

from topobounds._arguments import choice


@dataclass(frozen=True)
class Method:
    """A method of pruning.

    Attributes
    ----------
    name : str
        As it is asked for.
    label : str
        As it is printed in figures.
    rank : str
        How it ranks the weights that it does not protect: a name in `topobounds.pruning.selection.RANKINGS`.
    protects : bool
        Whether it keeps first the weights that carry a layer's topology.
    by_paths : bool
        Whether it ranks weights by the paths that they lie on, not by size, and so needs layers in a row, together.
    counts_of : str or None
        The method that decides how many weights each layer keeps; this one then chooses them. None: it decides itself.
    aliases : tuple of str
        Other names that stand for it.
    recorded_as : str or None
        The alias by which plans and run folders call it; None for its own name.
    """

    name: str
    label: str
    rank: str
    protects: bool = False
    by_paths: bool = False
    counts_of: str | None = None
    aliases: tuple[str, ...] = ()
    recorded_as: str | None = None

    @property
    def is_random(self) -> bool:
        """Whether it needs a seed."""
        return self.rank == "random"

    @property
    def counted_by(self) -> "Method":
        """The method that decides how many weights each layer keeps: itself, or that of `counts_of`."""
        return METHODS[self.counts_of] if self.counts_of else self


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("magnitude", "IMP", rank="magnitude", aliases=("imp",), recorded_as="imp"),
        Method("t-imp", "T-IMP", rank="magnitude", protects=True, aliases=("topological",)),
        Method("random", "random", rank="random"),
        Method("shuffled", "shuffled T-IMP", rank="random", counts_of="t-imp"),
        Method("effective", "effective weights", rank="magnitude", by_paths=True),
    )
}
"""Every method by name. A new one is a row here; one that ranks in a new way also a function in `RANKINGS`."""
RECORDED_NAMES = tuple(method.recorded_as or method.name for method in METHODS.values())
"""Every method as plans and run folders call it."""
_ALIASES = {alias: method.name for method in METHODS.values() for alias in method.aliases}


def pruning_method(name: str) -> Method:
    """Return the method of a name or an alias.

    Raises
    ------
    ValueError
        If there is none.

    Examples
    --------
    >>> pruning_method("imp").name, pruning_method("t-imp").protects
    ('magnitude', True)
    """
    known = _ALIASES.get(name, name) if isinstance(name, str) else name
    return METHODS[choice("method", known, tuple(METHODS))]


def recorded_name(name: str) -> str:
    """Return what plans and run folders call the method of a name or an alias.

    Raises
    ------
    ValueError
        If there is none.

    Examples
    --------
    >>> recorded_name("magnitude"), recorded_name("topological")
    ('imp', 't-imp')
    """
    known = _ALIASES.get(name, name) if isinstance(name, str) else None
    if known not in METHODS:
        return choice("method", name, RECORDED_NAMES)
    return METHODS[known].recorded_as or known
