"""Table 1 of the paper: its architectures as data, and one function that computes the table from them.

Every architecture is kept as it really is (channels, kernels, strides, input sizes, projections), with the sizes that
the printed table uses beside it where they differ. Its convention: one channel per convolution, padded inputs, every
convolution of a stage at the stage's output size, projections not counted, ratios of sums over the layers.
"""

from dataclasses import dataclass
from fractions import Fraction

from topobounds._arguments import argument_error, spelled
from topobounds._records import Record, html_table
from topobounds.layers import Conv, Dense, Layer
from topobounds.theory.compression import compression

PARTS = ("CONV", "DENSE", "FINAL")
_UNPOOLED = "Erratum: printed without pooling, all activations 32x32."

_VGG11_WIDTHS = (64, 128, 256, 256, 512, 512, 512, 512)
_VGG11_SIDES = {  # of the activations, each with 2x2 pooling where the next is smaller
    "cifar10": (32, 16, 8, 8, 4, 4, 2, 2),
    "cifar100": (32, 16, 8, 8, 4, 4, 2, 2),
    "tiny-imagenet": (64, 32, 16, 16, 8, 8, 4, 4),
}
_VGG11_PRINTED_SIDES = {  # erratum: on CIFAR the printed rows leave out the pooling
    "cifar10": (32,) * 8,
    "cifar100": (32,) * 8,
    "tiny-imagenet": (64, 32, 16, 16, 8, 8, 4, 4),
}
_VGG16_WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)  # no row of Table 1
_VGG16_SIDES = (32, 32, 16, 16, 8, 8, 8, 4, 4, 4, 2, 2, 2)
_RESNET20_STAGES = ((16, 32), (32, 16), (64, 8))  # (width, side of the activations); parameter-free shortcuts
_RESNET18_STAGES = ((64, 64), (128, 32), (256, 16), (512, 8))  # 3x3 stem without pooling; 1x1 projections
_DENSE_WIDTHS = {
    ("vgg11", "cifar10"): (512, 10),
    ("vgg11", "cifar100"): (512, 100),
    ("vgg11", "tiny-imagenet"): (2048, 1024, 1024, 200),
    ("resnet20", "cifar10"): (64, 10),
    ("resnet20", "cifar100"): (64, 100),
    ("resnet18", "tiny-imagenet"): (512, 200),
    ("vgg16", "cifar100"): (512, 100),
}
# As the paper prints them, digit by digit: CONV, DENSE, FINAL. The last number alone has five decimals.
PRINTED = {
    ("vgg11", "cifar10"): ("4.2295", "9.8273", "4.3914"),
    ("vgg11", "cifar100"): ("4.2295", "83.7971", "6.9239"),
    ("vgg11", "tiny-imagenet"): ("4.2672", "528.3911", "183.3624"),
    ("resnet20", "cifar10"): ("4.1508", "8.7671", "4.1679"),
    ("resnet20", "cifar100"): ("4.1508", "39.2638", "4.4389"),
    ("resnet18", "tiny-imagenet"): ("4.3142", "144.0225", "6.13182"),
}


@dataclass(frozen=True)
class ConvLayer:
    """A convolution of an architecture, and how the printed table counts it.

    Attributes
    ----------
    name : str
        Its name in the architecture.
    conv : Conv
        The true geometry.
    printed_side : int or None
        Side of the activations at which the printed table counts it; None if it does not count it.
    """

    name: str
    conv: Conv
    printed_side: int | None


@dataclass(frozen=True)
class Architecture(Record):
    """A network of Table 1, or VGG-16, which is none of its rows.

    Attributes
    ----------
    name, dataset : str
        As `architecture` takes them.
    convs : tuple of ConvLayer
        All convolutions, those that the printed table leaves out included.
    dense : tuple of Dense
        The dense layers.
    """

    name: str
    dataset: str
    convs: tuple[ConvLayer, ...]
    dense: tuple[Dense, ...]

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All layers, at their true geometry."""
        return (*(layer.conv for layer in self.convs), *self.dense)

    @property
    def has_skips(self) -> bool:
        """Whether shortcuts pass some of its layers: a residual network."""
        return any("block" in layer.name for layer in self.convs)

    @property
    def printed_layers(self) -> tuple[Layer, ...]:
        """The layers as the printed table counts them."""
        return (*self.printed_convs, *self.dense)

    @property
    def printed_note(self) -> str:
        """What the printed table leaves out of this network; empty if nothing."""
        uncounted = sum(layer.printed_side is None for layer in self.convs)
        notes = [_UNPOOLED] if self.pooled_convs != self.printed_convs else []
        if uncounted:
            notes.append(f"Printed without the {uncounted} 1x1 projections.")
        return " ".join(notes)

    @property
    def pooled_convs(self) -> tuple[Conv, ...]:
        """The convolutions that the printed table counts, by its convention, at the true size of their outputs."""
        sides = [layer.conv.output_size[0] for layer in self.convs if layer.printed_side is not None]
        return tuple(_conv3x3(1, 1, side) for side in sides)

    @property
    def printed_convs(self) -> tuple[Conv, ...]:
        """The same convolutions as the printed table counts them: one channel, stride 1, at the printed side."""
        sides = [layer.printed_side for layer in self.convs if layer.printed_side is not None]
        return tuple(_conv3x3(1, 1, side) for side in sides)


@dataclass(frozen=True)
class Table1Row(Record):
    """One number of Table 1: printed beside computed beside corrected.

    Attributes
    ----------
    architecture, dataset : str
        The network.
    part : str
        ``"CONV"``, ``"DENSE"`` or ``"FINAL"`` (all layers).
    printed : str
        The number as printed, to its digits.
    computed : Fraction
        The number by the convention of the printed table.
    corrected : Fraction or None
        The number by the same convention at the true, pooled activations; None where nothing differs.
    matches : bool
        Whether `computed`, rounded to the digits printed, is what is printed.
    note : str
        What is wrong or differs; empty if nothing.
    """

    architecture: str
    dataset: str
    part: str
    printed: str
    computed: Fraction
    corrected: Fraction | None
    matches: bool
    note: str

    @property
    def decimals(self) -> int:
        """Decimals of the printed number; the others of the row are shown with as many."""
        return decimals(self.printed)


def decimals(printed: str) -> int:
    """Return how many decimals a printed number has, so that what stands beside it is shown with as many.

    Parameters
    ----------
    printed : str
        A number as it is printed.

    Examples
    --------
    >>> decimals("6.13182"), decimals("7")
    (5, 0)
    """
    return len(printed.partition(".")[2])


def architecture(name: str, dataset: str) -> Architecture:
    """Return a network of Table 1, or VGG-16 for CIFAR-100, on which global pruning was published.

    Parameters
    ----------
    name : {"vgg11", "resnet20", "resnet18", "vgg16"}
        The network; ``"resnet-20"`` is the same, as are other hyphens and capitals.
    dataset : {"cifar10", "cifar100", "tiny-imagenet"}
        The data set, which gives the input size and the number of classes. ResNet-18 is there for Tiny-ImageNet only,
        ResNet-20 for the two CIFARs, VGG-16 for CIFAR-100.

    Returns
    -------
    Architecture
        The layers with their true geometry.

    Raises
    ------
    ValueError
        If there is no such pair; the message lists those there are.

    Examples
    --------
    >>> network = architecture("resnet20", "cifar10")
    >>> len(network.convs), network.dense
    (19, (Dense(m=64, n=10),))
    """
    name = spelled(name, (network for network, _ in _DENSE_WIDTHS))
    dataset = spelled(dataset, (data for _, data in _DENSE_WIDTHS))
    if f"{name}/{dataset}" not in (pairs := [f"{n}/{d}" for n, d in _DENSE_WIDTHS]):
        raise argument_error("architecture", f"one of these with its data set: {', '.join(pairs)}", f"{name}/{dataset}")
    convs = _vgg(name, dataset) if name.startswith("vgg") else _resnet(name)
    widths = _DENSE_WIDTHS[name, dataset]
    return Architecture(name, dataset, convs, tuple(map(Dense, widths, widths[1:])))


class Table1(tuple[Table1Row, ...]):
    """The rows of Table 1; a notebook shows them as a table."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        columns: dict[str, list[object]] = {
            name: [getattr(row, name) for row in self] for name in ("architecture", "dataset", "part", "printed")
        }
        for name in ("computed", "corrected"):
            ratios = [(getattr(row, name), row.decimals) for row in self]
            columns[name] = [None if ratio is None else f"{float(ratio):.{digits}f}" for ratio, digits in ratios]
        return html_table({**columns, "note": [row.note for row in self]})


def table1() -> Table1:
    """Return Table 1, number by number, recomputed.

    Returns
    -------
    tuple of Table1Row
        18 rows in the order of the paper: by architecture, data set and part. A notebook shows them as a table.

    Examples
    --------
    >>> [(row.printed, float(round(row.computed, 4))) for row in table1() if not row.matches]
    [('4.3914', 4.3919)]
    """
    return Table1(row for key in PRINTED for row in _rows(architecture(*key), PRINTED[key]))


def _rows(network: Architecture, printed: tuple[str, ...]) -> list[Table1Row]:
    computed = _ratios(network.printed_convs, network.dense)
    corrected = _ratios(network.pooled_convs, network.dense)
    return [_row(network, *each) for each in zip(PARTS, printed, computed, corrected, strict=True)]


def _row(network: Architecture, part: str, printed: str, computed: Fraction, corrected: Fraction) -> Table1Row:
    matches = round(computed, decimals(printed)) == Fraction(printed)
    differs = corrected != computed
    notes = [] if matches else [f"Misprint: the table's own convention gives {float(computed):.{decimals(printed)}f}."]
    if differs:
        notes.append(_UNPOOLED)
    return Table1Row(
        network.name, network.dataset, part, printed, computed, corrected if differs else None, matches, " ".join(notes)
    )


def _ratios(convs: tuple[Conv, ...], dense: tuple[Dense, ...]) -> list[Fraction]:
    parts: tuple[tuple[Layer, ...], ...] = (convs, dense, convs + dense)
    counts = [compression(part) for part in parts]
    return [Fraction(c.weights, c.kept) for c in counts]


def _vgg(name: str, dataset: str) -> tuple[ConvLayer, ...]:
    small = name == "vgg11"
    widths: tuple[int, ...] = _VGG11_WIDTHS if small else _VGG16_WIDTHS
    true_sides: tuple[int, ...] = _VGG11_SIDES[dataset] if small else _VGG16_SIDES
    printed_sides: tuple[int, ...] = _VGG11_PRINTED_SIDES[dataset] if small else _VGG16_SIDES
    channels = zip((3, *widths), widths, strict=False)
    sides = zip(true_sides, printed_sides, strict=True)
    return tuple(
        ConvLayer(f"conv{i}", _conv3x3(*c, side), printed)
        for i, (c, (side, printed)) in enumerate(zip(channels, sides, strict=True), 1)
    )


def _resnet(name: str) -> tuple[ConvLayer, ...]:
    stages, blocks = (_RESNET18_STAGES, 2) if name == "resnet18" else (_RESNET20_STAGES, 3)
    width, side = stages[0]
    convs = [ConvLayer("stem", _conv3x3(3, width, side), side)]
    for s, (next_width, next_side) in enumerate(stages, 1):
        for b in range(1, blocks + 1):
            stride = side // next_side
            first = _conv3x3(width, next_width, side, stride)
            convs.append(ConvLayer(f"stage{s}.block{b}.conv1", first, next_side))
            convs.append(ConvLayer(f"stage{s}.block{b}.conv2", _conv3x3(next_width, next_width, next_side), next_side))
            if name == "resnet18" and width != next_width:
                projection = Conv(width, next_width, (1, 1), (side, side), stride)
                convs.append(ConvLayer(f"stage{s}.block{b}.projection", projection, None))
            width, side = next_width, next_side
    return tuple(convs)


def _conv3x3(in_channels: int, out_channels: int, side: int, stride: int = 1) -> Conv:
    return Conv(in_channels, out_channels, (3, 3), (side, side), stride, padding=1)
