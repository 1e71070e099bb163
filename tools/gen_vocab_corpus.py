#!/usr/bin/env python3
"""Write the seed corpus of tests/fuzz/fuzz_vocab.c: model files with no tensors and a
vocabulary in either form, honest and lying.

usage: gen_vocab_corpus.py OUTPUT_DIR

The same files each time, a few kilobytes at most.
"""
import pathlib
import sys

from gen_gguf_corpus import I32, STR, U8, U16, U32, array, key, model

A, B, C = 97, 98, 99
GPT2 = key('tokenizer.ggml.model', STR, 'gpt2')
BYTES = list(range(256))


def character(byte):
    """The byte's place in GPT-2's printable alphabet."""
    plain = [b for b in BYTES if 33 <= b < 127 or 161 <= b < 173 or 174 <= b]
    rest = [b for b in BYTES if b not in plain]
    return chr(byte if byte in plain else 256 + rest.index(byte))


def compact(pairs, kind=U16, tail=('<|end|>',), kinds=(256, 3), order=BYTES, more=()):
    return model([GPT2, array('runt.tokenizer.bytes', U8, order),
                  array('runt.tokenizer.merges', kind, [i for p in pairs for i in p]),
                  array('runt.tokenizer.tail', STR, tail),
                  array('runt.tokenizer.kinds', U32, kinds), *more])


def arrays(n_bytes, merges, kinds=None):
    tokens = [character(b) for b in BYTES[:n_bytes]] + [m.replace(' ', '') for m in merges]
    types = [array('tokenizer.ggml.token_type', I32, kinds)] if kinds else []
    return model([GPT2, array('tokenizer.ggml.tokens', STR, tokens), *types,
                  array('tokenizer.ggml.merges', STR, merges)])


def corpus():
    some = [(A, B), (256, C), (B, C), (32, 258)]
    yield 'compact', compact(some, kinds=(260, 3))
    yield 'compact_u32', compact(some, U32, kinds=(260, 3))
    yield 'compact_empty', compact([], tail=(), kinds=())
    yield 'compact_order', compact(some, order=BYTES[::-1], kinds=(3, 4, 260, 2))
    yield 'compact_ends', compact(some, kinds=(), more=[
        key('tokenizer.ggml.bos_token_id', U32, 260),
        key('tokenizer.ggml.eos_token_id', U32, 261)])
    yield 'later_token', compact([(A, 256)])
    yield 'same_token', compact([(A, B), (A, B)], kinds=())
    yield 'same_spelling', compact([(A, B), (B, C), (256, C), (A, 257)], kinds=())
    yield 'doubling', compact([(A, A)] + [(256 + i, 256 + i) for i in range(60)])
    yield 'doubling_short', compact([(A, A)] + [(256 + i, 256 + i) for i in range(9)])
    yield 'many_long', compact([(A, A)] + [(256 + i, 256 + i) for i in range(8)] +
                               [(264, 264)] * 200)
    yield 'odd', model([GPT2, array('runt.tokenizer.bytes', U8, BYTES),
                        array('runt.tokenizer.merges', U16, [A, B, C]),
                        array('runt.tokenizer.tail', STR, [])])
    yield 'bytes_short', compact(some, order=BYTES[:255])
    yield 'bytes_twice', compact(some, order=BYTES[:255] + [3])
    yield 'kinds_wrong', compact(some, kinds=(300, 3))
    yield 'kinds_back', compact(some, kinds=(5, 4, 4, 4))
    yield 'tail_known', compact(some, tail=('ab', 'abc'), kinds=())
    yield 'no_tail', model([GPT2, array('runt.tokenizer.bytes', U8, BYTES),
                            array('runt.tokenizer.merges', U16, [A, B])])
    yield 'both', compact(some, more=[array('tokenizer.ggml.tokens', STR, ['a'])])
    yield 'arrays', arrays(256, ['a b', 'ab c', 'b c'])
    yield 'arrays_kinds', arrays(256, ['a b'], [1] * 256 + [4])
    yield 'arrays_few', arrays(200, ['a b'])
    yield 'arrays_order', arrays(256, ['ab c', 'a b'])
    yield 'other_model', model([key('tokenizer.ggml.model', STR, 'llama')])


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for name, data in corpus():
        (out / (name + '.gguf')).write_bytes(data)


if __name__ == '__main__':
    main()
