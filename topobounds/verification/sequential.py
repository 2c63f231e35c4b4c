"""How sure one may be of a mean after any number of samples.

Nothing is assumed but that the samples are independent, lie in [0, 1] and have one mean mu. The interval is a
confidence *sequence*: with the probability asked for it holds mu after every batch at once, so one may look after each
and stop when one likes.

Proof (the empirical-Bernstein sequence of Waudby-Smith and Ramdas, "Estimating means of bounded random variables by
betting", J. R. Stat. Soc. B 86, 2024, theorem 2, scaled by the guess). Let 0 < g < 1 be a guess of mu and 0 <= s < 1 a
stake, both fixed before the batch, and put x = (X - g) / g >= -1 and psi(s) = -log(1 - s) - s. Then

    exp(s x - x^2 psi(s)) <= 1 + s x        (Fan, Grama and Liu 2015: log(1 + s x) >= s x - x^2 psi(s) for x >= -1)

so that E exp(s x - x^2 psi(s)) <= 1 + s (mu - g) / g <= exp(s (mu - g) / g), and the product over the samples of
exp(s (X - mu) / g - ((X - g) / g)^2 psi(s)) is a non-negative supermartingale that starts at 1. By Ville's inequality
it ever reaches 1 / error with at most the probability `error`; solved for mu, that is the lower limit below. The upper
limit is that of 1 - X.
"""

import math

from topobounds.verification.batches import Batch

MAX_STAKE = 0.75


class MeanInterval:
    """A confidence interval for a mean that may be looked at after every batch.

    Parameters
    ----------
    confidence : float
        In (0, 1): the probability that the interval holds the mean after every batch.

    Attributes
    ----------
    seen : Batch
        All samples so far.
    """

    def __init__(self, confidence: float) -> None:
        self.seen = Batch(0, 0.5, 0.0)
        self._lower, self._upper = _LowerLimit((1 - confidence) / 2), _LowerLimit((1 - confidence) / 2)

    def add(self, batch: Batch) -> None:
        """Take in a batch; neither its size nor anything before may depend on its values."""
        before, total = self.seen, self.seen.count + batch.count
        guess = (0.5 + before.count * before.mean) / (before.count + 1)
        variance = (0.25 + before.squares) / (before.count + 1)
        self._lower.add(batch, guess, variance, total)
        self._upper.add(batch.mirrored, 1 - guess, variance, total)
        self.seen = before + batch

    @property
    def ends(self) -> tuple[float, float]:
        """The interval, within [0, 1]."""
        return self._lower.value, 1 - self._upper.value

    @property
    def standard_error(self) -> float:
        """Of the mean of all samples; NaN below two samples."""
        count = self.seen.count
        return math.sqrt(self.seen.squares / (count - 1) / count) if count > 1 else math.nan


class _LowerLimit:
    """A lower limit that lies above the mean, ever, with at most the probability `error`."""

    def __init__(self, error: float) -> None:
        self._price = math.log(1 / error)
        self._weight = self._gain = self._penalty = 0.0

    def add(self, batch: Batch, guess: float, variance: float, total: int) -> None:
        """Take in a batch; `variance` is a guess too, and sets the stake so that the limit is best after `total`."""
        if not batch.count:
            return
        stake = min(MAX_STAKE, guess * math.sqrt(2 * self._price / (variance * total)))
        spread = batch.squares + batch.count * (batch.mean - guess) ** 2
        self._weight += batch.count * stake / guess
        self._gain += batch.count * batch.mean * stake / guess
        self._penalty += spread / guess**2 * (-math.log1p(-stake) - stake)

    @property
    def value(self) -> float:
        if not self._weight:
            return 0.0
        return min(1.0, max(0.0, (self._gain - self._penalty - self._price) / self._weight))


def share_interval(trials: int, *, failed: bool, confidence: float) -> tuple[float, float]:
    """Return a confidence interval for the share of successes, drawing having stopped at the first failure, if any.

    With share p the first failure comes later than trial T - 1 with probability p^(T - 1), and by trial T with
    1 - p^T; the limits are where these fall to (1 - confidence) / 2.

    Examples
    --------
    >>> [round(end, 4) for end in share_interval(1000, failed=False, confidence=0.999)]
    [0.9924, 1.0]
    """
    error = (1 - confidence) / 2
    successes = trials - failed
    lower = error ** (1 / successes) if successes else 0.0
    return lower, (1 - error) ** (1 / trials) if failed else 1.0
