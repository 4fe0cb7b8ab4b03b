"""A mutator of bytes, as good as one can be that does not look at what the code does with them."""

import random

# Lengths, counts and signs that readers trip over.
NUMBERS = (0, 1, 27, 28, 255, 256, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutate(seeds: list[bytes], chance: random.Random) -> bytes:
    """Return one of the seeds after a few changes."""
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        _change(data, seeds, chance)
    return bytes(data)


def _change(data: bytearray, seeds: list[bytes], chance: random.Random) -> None:
    # Headers are at the beginning, directories at the end.
    place = chance.choice((chance.randrange(len(data) + 1), min(len(data), chance.randrange(64))))
    place = max(0, len(data) - place) if chance.random() < 0.1 else place
    kind = chance.randrange(6)
    if kind == 0:
        data[place : place + 1] = chance.randbytes(1)
    elif kind == 1:
        size = chance.choice((1, 2, 4, 8))
        number = chance.choice(NUMBERS) % (1 << 8 * size)
        data[place : place + size] = number.to_bytes(size, chance.choice(("little", "big")))
    elif kind == 2:
        del data[place : place + chance.choice((1, 4, 64, len(data)))]
    elif kind == 3:
        data[place:place] = data[place : place + chance.choice((1, 8, 64))]
    elif kind == 4:
        other = chance.choice(seeds)
        start = chance.randrange(len(other))
        data[place : place + chance.choice((0, 8, 64))] = other[start : start + chance.choice((8, 64, 512))]
    elif place < len(data):
        data[place] ^= 1 << chance.randrange(8)
