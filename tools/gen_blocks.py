#!/usr/bin/env python3
"""Make tests/data/ggml_blocks.bin: what ggml itself decodes and encodes.

Takes a shared library with ggml's dequantize_row_* and quantize_row_*_ref, built without
fused multiply-add from a version that has Q1_0 and Q2_0 (2026):
    gcc -O2 -ffp-contract=off -shared -fPIC -Iinclude -Isrc -o q.so src/ggml-quants.c \\
        stubs.c -lm   (ggml_abort, ggml_type_name, ggml_type_size, ggml_row_size)
    tools/gen_blocks.py ./q.so

The file, little-endian: entries until the end, each
    u32 type, kind (0 decoded, 1 encoded), block length, block bytes, n blocks
    u8 blocks[n][bytes], f32 numbers[n][length]
"""
import ctypes
import math
import os
import random
import struct
import sys

OUT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests",
                   "data", "ggml_blocks.bin")
# type number: (name of the function, block length, block bytes, where its f16 are)
TYPES = {6: ("q5_0", 32, 22, [0]), 7: ("q5_1", 32, 24, [0, 2]),
         10: ("q2_K", 256, 84, [80, 82]), 11: ("q3_K", 256, 110, [108]),
         12: ("q4_K", 256, 144, [0, 2]), 13: ("q5_K", 256, 176, [0, 2]),
         14: ("q6_K", 256, 210, [208]), 20: ("iq4_nl", 32, 18, [0]),
         34: ("tq1_0", 256, 54, [52]), 35: ("tq2_0", 256, 66, [64]),
         41: ("q1_0", 128, 18, [0]), 42: ("q2_0", 64, 18, [0])}
# f16 bits: an ordinary one, the largest, the least, -0, the least normal, a negative one
SCALES = [0x2e66, 0x7bff, 0x0001, 0x8000, 0x0400, 0xb555]


def decoded(lib, rng, number):
    name, length, size, halves = TYPES[number]
    blocks = b""
    for i, scale in enumerate(SCALES[:3] if length == 256 else SCALES):
        block = bytearray(rng.randbytes(size))
        for k, at in enumerate(halves):
            struct.pack_into("<H", block, at, scale if k == 0 else SCALES[-1 - i])
        blocks += block
    n = len(blocks) // size
    out = (ctypes.c_float * (n * length))()
    getattr(lib, "dequantize_row_" + name)(blocks, out, ctypes.c_int64(n * length))
    return struct.pack("<5I", number, 0, length, size, n) + blocks + bytes(out)


def encoded(lib, rng, number):
    name, length, size, _ = TYPES[number]
    numbers = []
    for scale in (1, 0.02, 1e-3, 300, 0.7):
        numbers += [scale * rng.gauss(0, 1) for _ in range(length)]
    numbers += [0.0] * length
    numbers += [0.25] * length
    numbers += [(i % 8 - 4) / 8 for i in range(length)]           # two of the largest size
    numbers += [(i - 15.5) / 16 for i in range(length)]           # half way between codes
    numbers += [math.ldexp(rng.choice((-1, 1)), -i) for i in range(length)]
    n = len(numbers) // length
    x = (ctypes.c_float * len(numbers))(*numbers)
    out = (ctypes.c_uint8 * (n * size))()
    getattr(lib, "quantize_row_%s_ref" % name)(x, out, ctypes.c_int64(len(numbers)))
    return struct.pack("<5I", number, 1, length, size, n) + bytes(out) + bytes(x)


def main():
    lib = ctypes.CDLL(os.path.abspath(sys.argv[1]))
    rng = random.Random(11)
    out = [decoded(lib, rng, number) for number in TYPES]
    out += [encoded(lib, rng, number) for number in (6, 7)]
    with open(OUT, "wb") as f:
        f.write(b"".join(out))


main()
