#!/usr/bin/env python3
"""Write the seed corpus of tests/fuzz/fuzz_gguf.c: small model files, valid and lying.

usage: gen_gguf_corpus.py OUTPUT_DIR

The same files each time.  Each is a kilobyte at most, so that a fuzzer can change every
part of it.
"""
import pathlib
import struct
import sys

U8, I8, U16, I16, U32, I32, F32, BOOL, STR, ARR, U64, I64, F64 = range(13)
PACK = {U8: 'B', I8: 'b', U16: 'H', I16: 'h', U32: 'I', I32: 'i', F32: 'f', BOOL: 'B',
        U64: 'Q', I64: 'q', F64: 'd'}
R4 = 0x3472
BLOCK_BYTES = {0: (1, 4), 1: (1, 2), 30: (1, 2), 8: (32, 34), 2: (32, 18), 3: (32, 20)}
SMALL_BLOCKS = {6: (32, 22), 7: (32, 24), 20: (32, 18), 42: (64, 18), 41: (128, 18)}
K_BLOCKS = {10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176)}
OTHER_BLOCKS = {14: (256, 210), 34: (256, 54), 35: (256, 66)}


def string(s):
    s = s.encode() if isinstance(s, str) else s
    return struct.pack('<Q', len(s)) + s


def value(kind, v):
    return string(v) if kind == STR else struct.pack('<' + PACK[kind], v)


def key(name, kind, v):
    return string(name) + struct.pack('<I', kind) + value(kind, v)


def array(name, kind, items, n=None):
    head = struct.pack('<IIQ', ARR, kind, len(items) if n is None else n)
    return string(name) + head + b''.join(value(kind, v) for v in items)


def tensor(name, dims, kind, offset):
    shape = struct.pack('<I%dQ' % len(dims), len(dims), *dims)
    return string(name) + shape + struct.pack('<IQ', kind, offset)


def model(keys=(), tensors=(), data=b'', version=3, n_keys=None, n_tensors=None,
          alignment=32):
    head = b'GGUF' + struct.pack('<IQQ', version,
                                 len(tensors) if n_tensors is None else n_tensors,
                                 len(keys) if n_keys is None else n_keys)
    table = head + b''.join(keys) + b''.join(tensors)
    return table + bytes(-len(table) % alignment) + data


def bytes_of(n):
    return bytes(i * 37 % 251 for i in range(n))


def formats(kinds=BLOCK_BYTES, columns=64, rows=2):
    """One tensor of each format."""
    entries, data = [], b''
    for kind, (length, size) in kinds.items():
        entries.append(tensor('blk.0.%d' % kind, [columns, rows], kind, len(data)))
        data += bytes_of(columns * rows // length * size)
        data += bytes(-len(data) % 32)
    return model([], entries, data)


def corpus():
    some = [key('general.architecture', STR, 'gpt2'), key('gpt2.block_count', U32, 2)]
    t = tensor('t', [4], 0, 0)
    whole = model(some, [t, tensor('m', [2, 3], 1, 32)], bytes_of(64))
    yield 'empty', b''
    yield 'magic_only', b'GGUF'
    yield 'no_content', model()
    yield 'whole', whole
    yield 'version_2', model(some, [t], bytes_of(16), version=2)
    yield 'version_1', model(some, version=1)
    yield 'big_endian', model(some, version=3 << 24)
    yield 'scalars', model([key('s.%d' % k, k, 1) for k in PACK])
    yield 'arrays', model([array('a.%d' % k, k, [0, 1, 1]) for k in PACK])
    yield 'tokens', model([array('tokenizer.ggml.tokens', STR, ['a', 'b', '', 'ab']),
                           array('tokenizer.ggml.token_type', I32, [1, 1, 3, 1]),
                           array('tokenizer.ggml.merges', STR, ['a b'])])
    yield 'formats', formats()
    yield 'formats_small', formats(SMALL_BLOCKS, 128, 1)
    yield 'formats_k', formats(K_BLOCKS, 256, 1)
    yield 'formats_other', formats(OTHER_BLOCKS, 256, 1)
    yield 'alignment_64', model([key('general.alignment', U32, 64)],
                                [tensor('b', [4], 0, 64), tensor('a', [4], 0, 0)],
                                bytes_of(128), alignment=64)
    yield 'alignment_0', model([key('general.alignment', U32, 0)], [t], bytes_of(16))
    yield 'dims_4', model([], [tensor('d', [4, 2, 1, 1], 0, 0)], bytes_of(32))
    yield 'dims_3_real', model([], [tensor('d', [2, 2, 2], 0, 0)], bytes_of(32))
    yield 'truncated_header', whole[:20]
    yield 'truncated_key', whole[:50]
    yield 'truncated_table', whole[:130]
    yield 'truncated_data', whole[:-30]
    yield 'count_lies', model(some, n_keys=1 << 60, n_tensors=(1 << 64) - 1)
    yield 'array_lies', model([array('k', U64, [1], n=1 << 61)])
    yield 'string_lies', model([string('k') + struct.pack('<IQ', STR, (1 << 64) - 1)])
    yield 'nested_array', model([string('k') + struct.pack('<IIQIQ', ARR, ARR, 1, U8, 0)])
    yield 'bool_2', model([array('k', BOOL, [0, 1, 2])])
    yield 'key_twice', model([key('k', U8, 1), key('k', U8, 1)])
    yield 'tensor_twice', model([], [t, tensor('t', [4], 0, 32)], bytes_of(64))
    yield 'overlap', model([], [tensor('a', [16], 0, 0), tensor('b', [4], 0, 32)],
                           bytes_of(64))
    yield 'size_overflows', model([], [tensor('t', [1 << 32, 1 << 32], 0, 0)], bytes(64))
    yield 'offset_overflows', model([], [tensor('t', [4], 0, (1 << 64) - 32)], bytes(64))
    for name, rows, n_tiles in (('r4', 17, 2), ('r4_short', 17, 1), ('r4_huge', 1 << 60, 1)):
        yield name, model([], [tensor('t', [5, rows], R4, 0)], bytes_of(n_tiles * 576))
    yield 'unknown_format', model([], [tensor('t', [256], 14, 0)], bytes(210))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for name, data in corpus():
        (out / (name + '.gguf')).write_bytes(data)


if __name__ == '__main__':
    main()
