"""JPEGs: tails, truncations, markers."""

import struct

import numpy as np
from PIL import Image

from tests.data.mutants.mutant import Mutant, by_pillow, encode, picture


def jpegs(rng: np.random.Generator) -> list[Mutant]:
    found = []
    forms = {
        "baseline": {},
        "progressive": {"progressive": True},
        "grey": {},
        "restarts": {"restart_marker_blocks": 1},
        "CMYK": {},
    }
    for form, options in forms.items():
        pixels = picture(rng)
        image = Image.fromarray(pixels).convert({"grey": "L", "CMYK": "CMYK"}.get(form, "RGB"))
        data = encode(image, "JPEG", quality=int(rng.integers(60, 96)), **options)
        whole, other = by_pillow(data), encode(picture(rng), "JPEG")
        noise = rng.bytes(300)
        tails = {
            "text": b"appended by a camera",
            "a start of scan": b"\0\0\0\x18ftypmp42" + noise + b"\xff\xda" + noise,
            "a JPEG": other,
            "half a JPEG": other[: len(other) // 2],
            "a video with markers": b"\xff\xd8\xff\xda\xff\xc4" + noise,
            "zeros": bytes(500),
        }
        found += [Mutant(f"{form} JPEG before {name}", data + tail, whole) for name, tail in tails.items()]
        thumbnail = b"\xff\xe1" + struct.pack(">H", len(other) + 2) + other
        found.append(Mutant(f"{form} JPEG with a thumbnail", data[:2] + thumbnail + data[2:], whole))
        scan = data.index(b"\xff\xda") + 14
        cut = int(rng.integers(scan, len(data) - 2))
        cuts = {
            "cut": data[:cut],
            "cut, and a JPEG behind": data[:cut] + other,
            "cut, its thumbnail whole": data[:2] + thumbnail + data[2:cut],
            "whose rest was never written": data[:cut] + bytes(len(data) - cut),
        }
        found += [Mutant(f"{form} JPEG {name}", broken, None, "truncated") for name, broken in cuts.items()]
    first, second = picture(rng), picture(rng)
    several = encode(first, "MPO", save_all=True, append_images=[Image.fromarray(second)])
    end = several.index(b"\xff\xd9\xff\xd8") + 2
    found.append(Mutant("MPO", several, by_pillow(several[:end])))
    found.append(Mutant("MPO, the second picture cut", several[: end + 200], by_pillow(several[:end])))
    found.append(Mutant("MPO, the first picture cut", several[: end - 20] + several[end:], None, "truncated"))
    return found
