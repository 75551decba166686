"""Draws: the random numbers of an example as a pure function of a seed and the example's place in a stream.

NumPy's Philox is counter-based, so its state is this function: nothing has to be drawn in order. Making one generator
for each example would cost 15 to 30 microseconds; placing one that exists costs half of one.
"""

import numpy as np

AUGMENTATION = 0x9E3779B97F4A7C15  # keeps the augmentation's keys apart from those of the shuffle, (seed, epoch)
EVALUATION = 0xD1B54A32D192ED03  # and the evaluation's from both


class Draws:
    """The generators of all places of one stream.

    `Draws(key).at(place)` is `Generator(Philox(key=np.array([key, place], np.uint64)))` of np.random, to the bit.

    Args:
      key: names the stream, in [0, 2**64): `seed ^ AUGMENTATION`, say.
    """

    def __init__(self, key: int):
        bits = np.random.Philox(key=philox_key(key, 0))
        self._bits, self._generator = bits, np.random.Generator(bits)
        # Python's integers, for NumPy reads the state number by number: an array would only be slower.
        self._key = [key, 0]
        self._state = {
            "bit_generator": "Philox",
            "state": {"counter": [0] * 4, "key": self._key},
            "buffer": [0] * 4,
            "buffer_pos": 4,  # nothing is left over from the position before
            "has_uint32": 0,
            "uinteger": 0,
        }

    def at(self, position: int) -> np.random.Generator:
        """The generator of this position, before its first draw. It serves until the next call."""
        self._key[1] = position
        self._bits.state = self._state  # pyright: ignore[reportAttributeAccessIssue]  # its stub asks for arrays
        return self._generator


def philox_key(*words: int) -> np.ndarray:
    """Two words as Philox's key. A list with a word of 2**63 or more would become floats, which lose the low bits."""
    return np.array(words, np.uint64)
