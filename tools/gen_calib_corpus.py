#!/usr/bin/env python3
"""Seeds for fuzzing kept calibrations (tests/fuzz/corpus/calib): the form that
src/quant/calib_file.c describes, written a second time; whole, unfinished and damaged."""
import os
import struct

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "fuzz", "corpus",
                   "calib")
MASK = (1 << 64) - 1


def fold(h, data):
    for i in range(0, len(data), 8):
        w = int.from_bytes(data[i:i + 8].ljust(8, b"\0"), "little")
        h = ((h ^ w) * 0x9e3779b97f4a7c15) & MASK
        h ^= h >> 32
    return h ^ len(data)


def calibration(widths, n_tokens=64, n_wanted=64, window=32, count=None):
    pieces = [b"RUNTCAL1", struct.pack("<6Q", 1, 2, n_tokens, n_wanted, window,
                                       len(widths) if count is None else count)]
    for i, n in enumerate(widths):
        pieces += [("blk.%d.ffn_up.weight" % i).encode().ljust(64, b"\0"),
                   struct.pack("<Q", n)]
        pieces += [struct.pack("<%df" % (r + 1), *([0.5] * r + [2.0])) for r in range(n)]
    h = 1
    for p in pieces:
        h = fold(h, p)
    return b"".join(pieces) + struct.pack("<Q", h)


def main():
    os.makedirs(OUT, exist_ok=True)
    whole = calibration([3, 8])
    files = {"whole": whole, "unfinished": calibration([4], n_tokens=32),
             "one": calibration([1]), "cut": whole[:-20], "flipped": whole[:90] + b"\xff" +
             whole[91:], "wide": calibration([2])[:120] + struct.pack("<Q", 1 << 40) + b"\0" * 40,
             "many": calibration([2], count=1 << 60), "more_than_wanted":
             calibration([2], n_tokens=96), "no_window": calibration([2], window=0),
             "magic": b"RUNTCAL1"}
    for name, data in files.items():
        with open(os.path.join(OUT, name), "wb") as f:
            f.write(data)


main()
