"""A rater made of code, for when there is no human at hand."""

import math
import random
from collections.abc import Callable

from helpers.errors import CourseError
from helpers.feedback.pairs import Pair, fingerprint
from helpers.feedback.ratings import Rating

NO_TIME = "1970-01-01T00:00:00+00:00"  # nobody sat there with a clock, and every run makes the same ratings


class SimulatedRater:
    """A rater with a stated taste and error rate. Its ratings are marked as simulated.

    It prefers the text its taste gives more, says tie where the two are close, and errs now and then. Its choice on a
    pair follows from taste, name, seed and that pair alone, and so does the rating's id: `Ratings.add` passes over what it
    said before. Another taste needs another name.

    Args:
        taste: (texts, each a prompt with its continuation) -> a finite number for each.
        error_rate: the probability, 0 to 1, that a preference comes out the wrong way round. Ties have no wrong way.
        tie_margin: in units of the taste; texts that differ by less are a tie.
        seed: another seed, or another name, errs on other pairs.
        name: the rater's name in the ratings.
    Raises:
        CourseError: error_rate or tie_margin out of range; from `rate`, a taste that does not give a number for each text.
    """

    def __init__(
        self,
        taste: Callable[[list[str]], list[float]],
        error_rate: float = 0.1,
        tie_margin: float = 0.1,
        seed: int = 0,
        name: str = "simulated",
    ):
        if not 0 <= error_rate <= 1 or not 0 <= tie_margin < math.inf:
            raise CourseError(
                f"error_rate is {error_rate} and tie_margin {tie_margin}: expected a probability from 0 to 1, and a "
                "difference of at least 0."
            )
        self.taste, self.error_rate, self.tie_margin = taste, error_rate, tie_margin
        self.seed, self.name = seed, name

    def rate(self, pairs: list[Pair]) -> list[Rating]:
        """One rating for each pair, in order; the taste is asked once for all texts."""
        texts = [pair.prompt + output for pair in pairs for output in (pair.first, pair.second)]
        scores = checked_scores(self.taste(texts), len(texts)) if texts else []
        return [
            self._rating(pair, first - second)
            for pair, first, second in zip(pairs, scores[::2], scores[1::2], strict=True)
        ]

    def _rating(self, pair: Pair, difference: float) -> Rating:
        chance = random.Random(f"{self.name} {self.seed} {pair.id}".encode("utf-8", "backslashreplace"))
        shown, errs = chance.choice(("first", "second")), chance.random() < self.error_rate
        if difference == 0 or abs(difference) < self.tie_margin:
            choice = "tie"
        else:
            choice = "first" if (difference > 0) != errs else "second"
        settings = [self.name, self.seed, self.error_rate, self.tie_margin]
        return Rating(
            id=fingerprint([*settings, pair.id, choice])[:32],
            time=NO_TIME,
            rater=self.name,
            simulated=True,
            pair=pair,
            choice=choice,
            shown=shown,
            seconds=0.0,
            reason="",
        )


def checked_scores(scores: object, count: int) -> list[float]:
    """What a taste returned for `count` texts.

    Raises:
        CourseError: it is not one finite number for each.
    """
    scores = scores.tolist() if hasattr(scores, "tolist") else scores
    try:
        numbers = [float(score) for score in scores]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise CourseError(
            f"the rater's taste returned {scores!r:.60} for {count} texts. It should return one finite number for each."
        )
    return numbers
