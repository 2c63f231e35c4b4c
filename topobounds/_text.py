"""Text for people: on one line, of a bounded length, with the right plural, the commonest reasons first."""

from collections import Counter
from collections.abc import Mapping

LONGEST_SHOWN = 200  # characters of what was given
_MOST_REASONS = 4  # for which something is left out that are told


def printable(text: str) -> str:
    r"""Return a text as it may go to a terminal: on one line, what is not printable escaped as in Python.

    Names of tensors and of files may hold anything: a terminal obeys what follows an escape character.

    Examples
    --------
    >>> print(printable("a\x1b[31mRED\n"), printable("Borůvka ×"))
    a\x1b[31mRED\n Borůvka ×
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


def shortened(text: str, longest: int = LONGEST_SHOWN) -> str:
    """Return a text of at most so many characters: the middle of a longer one left out.

    Examples
    --------
    >>> len(shortened("a" * 1000)), shortened("a short one"), shortened("abcdefghijklmnopqrstuvwxyz", 16)
    (200, 'a short one', 'abcde ... uvwxyz')
    """
    half = longest // 2
    return text if len(text) <= longest else f"{text[: half - 3]} ... {text[2 - half :]}"


def counted(number: int, what: str, several: str = "", *, form: str = "") -> str:
    """Return how many there are of something, whose plural has an s unless it is given; `form` is that of the number.

    Examples
    --------
    >>> counted(1, "trial"), counted(5, "trial"), counted(2, "matrix", "matrices"), counted(1000, "point", form=",")
    ('1 trial', '5 trials', '2 matrices', '1,000 points')
    """
    return f"{number:{form}} {what if number == 1 else several or what + 's'}"


def bytes_in_words(count: int) -> str:
    """Return a number of bytes as people say it.

    Examples
    --------
    >>> bytes_in_words(500), bytes_in_words(4_800), bytes_in_words(3 * 10**9)
    ('500 bytes', '4.8 kB', '3 GB')
    """
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"


def grouped_reasons(left_out: Mapping[str, str]) -> str:
    """Return why things are left out, with how many there are of each reason, the commonest first.

    Examples
    --------
    >>> grouped_reasons({"a.bias": "bias", "n.weight": "norm", "b.bias": "bias"})
    'bias (2); norm (1)'
    """
    reasons = Counter(reason.rstrip(".") for reason in left_out.values()).most_common()
    told = [f"{reason} ({count})" for reason, count in reasons[:_MOST_REASONS]]
    if rest := sum(count for _, count in reasons[_MOST_REASONS:]):
        told.append(f"{counted(len(reasons) - _MOST_REASONS, 'other reason')} ({rest})")
    return "; ".join(told)
