"""A hostile corpus: real containers, mutated by seed."""

import random
import struct
from pathlib import Path

from tests.videos import write_video

CONTAINERS = {
    "mp4": {"codec": "libx264"},
    "mkv": {"codec": "libx264"},
    "avi": {"codec": "mpeg4"},
    "mpg": {"codec": "mpeg1video"},
    "ts": {"codec": "mpeg2video"},
    "webm": {"codec": "libvpx"},
}
EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
# Names of boxes, chunks and elements, and the start of an MPEG sequence.
NAMES = (
    "moov trak mdia vide stbl stsd stts stsz stco avc1 avcC mdat "
    "hdrl strl strh strf movi idx1 vids FMP4"
)
FOURCC = [name.encode() for name in NAMES.split()]
FOURCC += [bytes.fromhex(name) for name in ("1a45dfa3", "1654ae6b", "1f43b675", "000001b3")]


def truncated(data: bytearray, chance: random.Random, other: bytes) -> None:
    del data[int(len(data) * chance.random()) :]


def bits_flipped(data: bytearray, chance: random.Random, other: bytes) -> None:
    for _ in range(1 + int(len(data) * 10 ** chance.uniform(-4, -1.5))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def header_flipped(data: bytearray, chance: random.Random, other: bytes) -> None:
    for _ in range(chance.randint(1, 12)):
        data[chance.randrange(min(900, len(data)))] ^= 1 << chance.randrange(8)


def numbers_rewritten(data: bytearray, chance: random.Random, other: bytes) -> None:
    for _ in range(chance.randint(1, 6)):
        place = chance.randrange(min(1200, len(data) - 8))
        if chance.random() < 0.3:
            place = len(data) - 8 - chance.randrange(min(1200, len(data) - 8))
        form = chance.choice([">I", "<I", ">H", "<H"])
        mask = 0xFFFFFFFF if form.endswith("I") else 0xFFFF
        struct.pack_into(form, data, place, chance.choice(EXTREMES) & mask)


def parts_renamed(data: bytearray, chance: random.Random, other: bytes) -> None:
    present = [name for name in FOURCC if name in data]
    for name in chance.sample(present, min(len(present), chance.randint(1, 3))):
        place = data.index(name)
        data[place : place + 4] = chance.choice([b"free", b"soun", b"\0\0\0\0", b"JUNK", b"zzzz"])


def zeroed(data: bytearray, chance: random.Random, other: bytes) -> None:
    start = chance.randrange(len(data))
    stop = min(len(data), start + chance.randint(1, max(1, len(data) // 3)))
    data[start:stop] = bytes(stop - start)


def spliced(data: bytearray, chance: random.Random, other: bytes) -> None:
    start = chance.randrange(len(data))
    data[start:] = other[chance.randrange(len(other)) :]


def repeated(data: bytearray, chance: random.Random, other: bytes) -> None:
    start = chance.randrange(len(data))
    piece = bytes(data[start : start + chance.randint(1, 3000)])
    data[start:start] = piece * chance.randint(1, 20)


MUTATIONS = (truncated, bits_flipped, header_flipped, numbers_rewritten, parts_renamed, zeroed,
             spliced, repeated)  # fmt: skip


def write_corpus(folder: Path, each: int, seed: int = 0) -> int:
    """Write the whole containers and `each` mutations of every one; returns how many files."""
    originals = {}
    for suffix, options in CONTAINERS.items():
        path = folder / f"whole.{suffix}"
        width, height = (64, 48)
        write_video(path, frames=10, width=width, height=height, **options)
        originals[suffix] = path.read_bytes()
    written = len(originals)
    for suffix, original in originals.items():
        chance = random.Random(f"{seed}-{suffix}")
        for number in range(each):
            mutation = MUTATIONS[number % len(MUTATIONS)]
            data = bytearray(original)
            mutation(data, chance, originals[chance.choice(sorted(originals))])
            path = folder / f"{number:03}-{mutation.__name__}.{suffix}"
            path.write_bytes(data)
            written += 1
    return written
