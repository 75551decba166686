"""Many draws at once: one number of each of many places (data/draws.py) per call, as arrays."""

import functools

import numpy as np

from jaxcnn.data.draws import Draws

HALF = np.uint64(32)
LOW = np.uint64(2**32 - 1)
# Philox4x64-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3), as in NumPy.
ROUNDS, WORDS = 10, 4
MULTIPLIERS = np.array([[0xD2E7470EE14C6C93], [0xCA5A826395121157]], np.uint64)
KEY_STEPS = np.array([[0x9E3779B97F4A7C15], [0xBB67AE8584CAA73B]], np.uint64)


class ManyDraws:
    """`integers` and `random` of the generators of the places [first, first + count), called on all of them.

    `unlike` says, bool [count], whose numbers are not those of the generator: it throws the one away that it has drawn,
    as it does once in a hundred million times, or needs more words than are computed here.

    Args:
      key: as of `Draws`.
    """

    def __init__(self, key: int, first: int, count: int):
        self._words = philox(key, np.arange(first, first + count, dtype=np.uint64))
        self._next = 0
        self._upper: np.ndarray | None = None  # half of a word is left for the next integer
        self.unlike = np.zeros(count, bool)

    def integers(self, high: int) -> np.ndarray:
        """Of [0, high), int64; high at most 2**31. By multiplication (Lemire 2019)."""
        if high == 1:
            return np.zeros(len(self.unlike), np.int64)  # nothing is drawn
        if self._upper is None:
            word = self._word()
            half, self._upper = word & LOW, word >> HALF
        else:
            half, self._upper = self._upper, None
        product = half * np.uint64(high)
        self.unlike |= (product & LOW) < (2**32 - high) % high
        return (product >> HALF).astype(np.int64)

    def random(self) -> np.ndarray:
        """Of [0, 1), float64."""
        return (self._word() >> np.uint64(11)) * 2.0**-53

    def _word(self) -> np.ndarray:
        if self._next == WORDS:
            self.unlike[:] = True
            return self._words[0]
        self._next += 1
        return self._words[self._next - 1]


def philox(key: int, places: np.ndarray) -> np.ndarray:
    """The first words that Philox draws with the keys (key, place), uint64 [4, N] for places uint64 [N]."""
    keys = np.stack([np.full_like(places, key), places])
    even, odd = np.zeros_like(keys), np.zeros_like(keys)
    even[0] = 1  # NumPy counts before it draws
    for _ in range(ROUNDS):
        high, low = _product(even)
        even, odd = high[::-1] ^ odd ^ keys, low[::-1]
        keys += KEY_STEPS
    return np.stack([even[0], odd[0], even[1], odd[1]])


def _product(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The upper and the lower 64 bits of words times MULTIPLIERS."""
    upper, lower = words >> HALF, words & LOW
    by_upper, by_lower = MULTIPLIERS >> HALF, MULTIPLIERS & LOW
    middle = by_upper * lower + (by_lower * lower >> HALF)
    carry = by_lower * upper + (middle & LOW)
    return by_upper * upper + (middle >> HALF) + (carry >> HALF), words * MULTIPLIERS


@functools.cache
def numpy_draws_so() -> bool:
    """Whether NumPy's generators draw what ManyDraws computes: it promises Philox's words, not what is made of them."""
    many, draws = ManyDraws(3, 0, 16), Draws(3)
    ours = np.stack([many.integers(9), many.random(), many.integers(2**20)], 1)
    generators = (draws.at(place) for place in range(16))
    theirs = [(generator.integers(9), generator.random(), generator.integers(2**20)) for generator in generators]
    return np.array_equal(ours, np.array(theirs))
