"""Checkpoints and model files made and read in plain Python, independently of the program:
small GPT-2 folders as Hugging Face has them, and GGUF files, whole or with lies in them."""
import array
import copy
import json
import math
import os
import random
import struct

# ---- numbers ----

DTYPES = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8, "I64": 8, "U8": 1, "BOOL": 1}


def f32(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


def pack(values, dtype):
    """Little-endian bytes; BF16 cuts the low half off, so give it values that fit."""
    if dtype == "F32":
        return array.array("f", values).tobytes()
    if dtype == "F16":
        return struct.pack("<%de" % len(values), *values)
    if dtype == "BF16":
        raw = array.array("f", values).tobytes()
        return b"".join(raw[i + 2:i + 4] for i in range(0, len(raw), 4))
    if dtype == "F64":
        return array.array("d", values).tobytes()
    return bytes(len(values) * DTYPES[dtype])


def unpack(data, dtype):
    if dtype == "F32":
        return list(array.array("f", data))
    if dtype == "F16":
        return list(struct.unpack("<%de" % (len(data) // 2), data))
    assert dtype == "BF16"
    wide = b"".join(b"\0\0" + data[i:i + 2] for i in range(0, len(data), 2))
    return list(array.array("f", wide))


# ---- GPT-2's alphabet and a small vocabulary ----

def byte_letters():
    """GPT-2's printable character for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters, extra = {}, 0
    for b in range(256):
        if b in plain:
            letters[b] = chr(b)
        else:
            letters[b] = chr(256 + extra)
            extra += 1
    return letters


def vocabulary(n):
    """(token -> id, merges): the bytes, merged pairs of letters, and the end of the text."""
    tokens = {c: b for b, c in byte_letters().items()}
    merges = []
    for a in "etaoinshrdlu":
        for b in "etaoinshrdlu":
            if len(tokens) < n - 1:
                tokens[a + b] = len(tokens)
                merges.append((a, b))
    tokens["<|endoftext|>"] = len(tokens)
    return tokens, merges


def write_tokenizer(folder, tokens, merges, style="files"):
    """"files": vocab.json and merges.txt; "json": tokenizer.json alone."""
    if style == "files":
        with open(os.path.join(folder, "vocab.json"), "w") as f:
            json.dump(tokens, f)
        with open(os.path.join(folder, "merges.txt"), "w") as f:
            f.write("#version: 0.2\n" + "".join("%s %s\n" % m for m in merges))
        return
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    with open(os.path.join(folder, "tokenizer.json"), "w") as f:
        json.dump({"version": "1.0", "normalizer": None, "pre_tokenizer": level,
                   "decoder": level, "post_processor": level,
                   "added_tokens": [{"id": tokens["<|endoftext|>"],
                                     "content": "<|endoftext|>", "special": True,
                                     "single_word": False, "lstrip": False,
                                     "rstrip": False, "normalized": True}],
                   "model": {"type": "BPE", "vocab": tokens, "dropout": None,
                             "unk_token": None, "continuing_subword_prefix": "",
                             "end_of_word_suffix": "", "fuse_unk": False,
                             "merges": ["%s %s" % m for m in merges]}}, f)


# ---- safetensors ----

def safetensors(tensors, extra=None):
    """Bytes of a file: {name: (dtype, shape, bytes)} -> header and data."""
    header, data = dict(extra or {}), b""
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape),
                        "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    return with_header(header, data)


def with_header(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def read_safetensors(raw):
    n = struct.unpack_from("<Q", raw)[0]
    header = json.loads(raw[8:8 + n])
    return header, raw[8 + n:]


# ---- a whole checkpoint ----

class Checkpoint:
    """A random GPT-2 of any small shape.  `tensors` holds numbers by Hugging Face's names
    without the prefix; change what you like, then save()."""

    def __init__(self, layers=2, heads=5, embd=100, vocab=300, ctx=64, inner=None,
                 dtype="F32", seed=1):
        self.dtype, self.rng = dtype, random.Random(seed)
        self.tokens, self.merges = vocabulary(vocab)
        ff = inner or 4 * embd
        self.config = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2",
                       "activation_function": "gelu_new", "vocab_size": vocab,
                       "n_positions": ctx, "n_embd": embd, "n_layer": layers,
                       "n_head": heads, "n_inner": inner, "layer_norm_epsilon": 1e-05,
                       "bos_token_id": vocab - 1, "eos_token_id": vocab - 1}
        self.tensors = {}
        self.add("wte.weight", vocab, embd)
        self.add("wpe.weight", ctx, embd)
        for i in range(layers):
            h = "h.%d." % i
            for norm in ("ln_1", "ln_2"):
                self.add(h + norm + ".weight", embd, mean=1)
                self.add(h + norm + ".bias", embd)
            for name, rows, cols in (("attn.c_attn", embd, 3 * embd),
                                     ("attn.c_proj", embd, embd),
                                     ("mlp.c_fc", embd, ff), ("mlp.c_proj", ff, embd)):
                self.add(h + name + ".weight", rows, cols)
                self.add(h + name + ".bias", cols)
        self.add("ln_f.weight", embd, mean=1)
        self.add("ln_f.bias", embd)

    def add(self, name, *shape, mean=0.0):
        n = 1
        for d in shape:
            n *= d
        step = 1 / 512  # multiples of it below 1 in size are exact in every float type
        values = [mean + step * self.rng.randint(-100, 100) for _ in range(n)]
        if self.dtype == "F32":
            values = [f32(v + self.rng.uniform(-step, step)) for v in values]
        elif mean:
            values = [mean + round(64 * (v - mean)) / 64 for v in values]
        self.tensors[name] = (shape, values)

    def save(self, folder, prefix="transformer.", shards=1, masks=False, more=None,
             tokenizer="files"):
        """Write the folder.  `more`: {full name: (dtype, shape, bytes)}."""
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "config.json"), "w") as f:
            json.dump(self.config, f)
        write_tokenizer(folder, self.tokens, self.merges, tokenizer)
        out = {prefix + name: (self.dtype, shape, pack(values, self.dtype))
               for name, (shape, values) in self.tensors.items()}
        if masks:
            n = self.config["n_positions"]
            for i in range(self.config["n_layer"]):
                out["%sh.%d.attn.bias" % (prefix, i)] = ("BOOL", (1, 1, n, n), bytes(n * n))
                out["%sh.%d.attn.masked_bias" % (prefix, i)] = ("F32", (), bytes(4))
        out.update(more or {})
        names = list(out)
        if shards == 1:
            with open(os.path.join(folder, "model.safetensors"), "wb") as f:
                f.write(safetensors(out, {"__metadata__": {"format": "pt"}}))
            return folder
        index = {}
        for k in range(shards):
            file = "model-%05d-of-%05d.safetensors" % (k + 1, shards)
            part = {n: out[n] for n in names[k::shards]}
            index.update({n: file for n in part})
            with open(os.path.join(folder, file), "wb") as f:
                f.write(safetensors(part))
        with open(os.path.join(folder, "model.safetensors.index.json"), "w") as f:
            json.dump({"metadata": {"total_size": 1}, "weight_map": index}, f)
        return folder


# ---- GGUF ----

U8, I8, U16, I16, U32, I32, F32, BOOL, STR, ARR, U64, I64, F64 = range(13)
SCALARS = {U8: "<B", I8: "<b", U16: "<H", I16: "<h", U32: "<I", I32: "<i", F32: "<f",
           BOOL: "<B", U64: "<Q", I64: "<q", F64: "<d"}
R4 = 0x3472
TYPES = {0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
         6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34),
         10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144),
         13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 20: ("IQ4_NL", 32, 18),
         30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
         41: ("Q1_0", 128, 18), 42: ("Q2_0", 64, 18)}
NUMBERS = {name: number for number, (name, _, _) in TYPES.items()}
# where a block has its f16 scale, and its f16 minimum or None
HALVES = {"Q4_0": (0, None), "Q4_1": (0, 2), "Q5_0": (0, None), "Q5_1": (0, 2),
          "Q8_0": (0, None), "Q2_K": (80, 82), "Q3_K": (108, None), "Q4_K": (0, 2),
          "Q5_K": (0, 2), "Q6_K": (208, None), "IQ4_NL": (0, None), "TQ1_0": (52, None),
          "TQ2_0": (64, None), "Q1_0": (0, None), "Q2_0": (0, None)}


def r4_tile(n_cols):
    """(bytes before the codes, all bytes) of 16 rows in R4 (src/fmt/r4.h)."""
    groups = -(-n_cols // 64)
    head = -(-(32 + 16 * groups) // 64) * 64
    return head, head + groups * 8 * 64


def tensor_bytes(kind, dims):
    rows = math.prod(dims[1:])
    if kind == R4:
        return -(-rows // 16) * r4_tile(dims[0])[1]
    _, block, size = TYPES[kind]
    return rows * dims[0] // block * size


class Gguf:
    """A model file in pieces that can be changed and written back.

    kv: [key, type, value] (of an array: value is [element type, list]);
    tensors: {name, dims (columns first), type, offset, data}.  Any of the numbers in the
    header may be overridden to lie: n_kv, n_tensors, version, magic."""

    def __init__(self, raw):
        self.raw, self.pos = raw, 0
        self.magic, self.version = raw[:4], struct.unpack_from("<I", raw, 4)[0]
        n_tensors, n_kv = struct.unpack_from("<QQ", raw, 8)
        self.pos = 24
        self.kv = [self._kv() for _ in range(n_kv)]
        self.tensors = [self._tensor() for _ in range(n_tensors)]
        self.meta_bytes = self.pos
        start = (self.pos + 31) // 32 * 32
        for t in self.tensors:
            n, at = tensor_bytes(t["type"], t["dims"]), start + t["offset"]
            t["data"] = raw[at:at + n]
            assert len(t["data"]) == n, t["name"]
        self.n_kv = self.n_tensors = None
        del self.raw

    def _take(self, fmt):
        v = struct.unpack_from(fmt, self.raw, self.pos)[0]
        self.pos += struct.calcsize(fmt)
        return v

    def _str(self):
        n = self._take("<Q")
        self.pos += n
        return self.raw[self.pos - n:self.pos]

    def _value(self, kind):
        return self._str() if kind == STR else self._take(SCALARS[kind])

    def _kv(self):
        key, kind = self._str(), self._take("<I")
        if kind != ARR:
            return [key.decode(), kind, self._value(kind)]
        elem, n = self._take("<I"), self._take("<Q")
        return [key.decode(), kind, [elem, [self._value(elem) for _ in range(n)]]]

    def _tensor(self):
        name = self._str().decode()
        dims = [self._take("<Q") for _ in range(self._take("<I"))]
        return {"name": name, "dims": dims, "type": self._take("<I"),
                "offset": self._take("<Q")}

    def copy(self):
        return copy.deepcopy(self)

    def get(self, key):
        for k, kind, value in self.kv:
            if k == key:
                return value[1] if kind == ARR else value
        return None

    def set(self, key, kind, value):
        for entry in self.kv:
            if entry[0] == key:
                entry[1:] = [kind, value]
                return
        self.kv.append([key, kind, value])

    def drop(self, key):
        self.kv = [e for e in self.kv if e[0] != key]

    def tensor(self, name):
        for t in self.tensors:
            if t["name"] == name:
                return t
        return None

    def keys(self):
        return [e[0] for e in self.kv]

    def bytes(self, place=True):
        """The file.  With `place`, offsets are computed; without, they are as they are,
        each tensor's data at its true place."""
        def s(b):
            b = b.encode() if isinstance(b, str) else b
            return struct.pack("<Q", len(b)) + b

        def value(kind, v):
            return s(v) if kind == STR else struct.pack(SCALARS[kind], v)

        def count(override, items):
            return len(items) if override is None else override

        out = [self.magic, struct.pack("<IQQ", self.version,
                                       count(self.n_tensors, self.tensors),
                                       count(self.n_kv, self.kv))]
        for key, kind, v in self.kv:
            out.append(s(key) + struct.pack("<I", kind))
            if kind == ARR:
                out.append(struct.pack("<IQ", v[0], len(v[1])))
                out.extend(value(v[0], x) for x in v[1])
            else:
                out.append(value(kind, v))
        data, at = [], 0
        for t in self.tensors:
            offset = at if place else t["offset"]
            out.append(s(t["name"]) + struct.pack("<I", len(t["dims"])))
            out.append(struct.pack("<%dQ" % len(t["dims"]), *t["dims"]))
            out.append(struct.pack("<IQ", t["type"], offset))
            data.append(t["data"] + bytes(-len(t["data"]) % 32))
            at += len(data[-1])
        meta = b"".join(out)
        return meta + bytes(-len(meta) % 32) + b"".join(data)


def decode_r4(raw, n_cols, n_rows):
    """Numbers of an R4 tensor, row by row."""
    head, tile = r4_tile(n_cols)
    out = []
    for row in range(n_rows):
        t, r = raw[row // 16 * tile:][:tile], row % 16
        d = struct.unpack_from("<e", t, 2 * r)[0]
        for c in range(n_cols):
            scale = struct.unpack_from("b", t, 32 + c // 64 * 16 + r)[0]
            byte = t[head + c // 8 * 64 + 4 * r + c % 4]
            out.append(d * scale * ((byte >> 4 if c % 8 >= 4 else byte & 15) - 8))
    return out


def random_blocks(rng, type_name, n, scale, low):
    """n random blocks whose codes share this scale, and this minimum where there is one."""
    size = TYPES[NUMBERS[type_name]][2]
    at, at_min = HALVES[type_name]
    out = bytearray(rng.randbytes(n * size))
    for i in range(0, n * size, size):
        struct.pack_into("<e", out, i + at, scale * rng.choice((-1, 1, 0.75)))
        if at_min is not None:
            struct.pack_into("<e", out, i + at_min, low)
    return bytes(out)


IQ4_NL = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]


def codes_of(b, name):
    """The whole numbers of a block that has one scale and no minimum; of the others None."""
    fifth = int.from_bytes(b[-20:-16], "little")
    nibbles = [q & 15 for q in b[-16:]] + [q >> 4 for q in b[-16:]]
    if name == "Q8_0":
        return list(struct.unpack_from("<32b", b, 2))
    if name == "Q4_0":
        return [q - 8 for q in nibbles]
    if name == "Q5_0":
        return [q + 16 * (fifth >> j & 1) - 16 for j, q in enumerate(nibbles)]
    if name == "IQ4_NL":
        return [IQ4_NL[q] for q in nibbles]
    if name == "Q1_0":
        return [2 * (b[2 + j // 8] >> j % 8 & 1) - 1 for j in range(128)]
    if name == "Q2_0":
        return [(b[2 + j // 4] >> j % 4 * 2 & 3) - 1 for j in range(64)]
    if name == "TQ2_0":
        return [(b[h + m] >> s & 3) - 1 for h in (0, 32) for s in (0, 2, 4, 6)
                for m in range(32)]
    if name == "TQ1_0":
        out = []
        for part, digits in ((b[:32], 5), (b[32:48], 5), (b[48:52], 4)):
            for k in range(digits):
                out += [(q * 3 ** k % 256) * 3 // 256 - 1 for q in part]
        return out
    return None


def k_codes(b, name):
    """Of a block of 256: (scale, minimum, code) of each number."""
    if name in ("Q4_K", "Q5_K"):
        p, low = b[4:16], b[-128:]
        scales = [p[j] & 63 for j in range(4)] + \
                 [p[8 + j] & 15 | p[j] >> 6 << 4 for j in range(4)]
        mins = [p[4 + j] & 63 for j in range(4)] + \
               [p[8 + j] >> 4 | p[4 + j] >> 6 << 4 for j in range(4)]
        high = b[16:48] if name == "Q5_K" else bytes(32)
        return [(scales[j // 32], mins[j // 32],
                 (low[j // 64 * 32 + j % 32] >> (4 if j % 64 >= 32 else 0) & 15) +
                 16 * (high[j % 32] >> j // 32 & 1)) for j in range(256)]
    if name == "Q6_K":
        s = struct.unpack_from("<16b", b, 192)
        out = []
        for h in range(2):
            low, high = b[64 * h:64 * h + 64], b[128 + 32 * h:160 + 32 * h]
            codes = [low[j] & 15 for j in range(64)] + [low[j] >> 4 for j in range(64)]
            out += [(s[8 * h + j // 16], 0, (c | (high[j % 32] >> j // 32 * 2 & 3) << 4) - 32)
                    for j, c in enumerate(codes)]
        return out
    low = b[16:80] if name == "Q2_K" else b[32:96]
    codes = [low[h + j] >> s & 3 for h in (0, 32) for s in (0, 2, 4, 6) for j in range(32)]
    if name == "Q2_K":
        return [(b[j // 16] & 15, b[j // 16] >> 4, c) for j, c in enumerate(codes)]
    p = b[96:108]
    lows = [x & 15 for x in p[:8]] + [x >> 4 for x in p[:8]]
    highs = [x >> s & 3 for s in (0, 2, 4, 6) for x in p[8:]]
    return [(lows[j // 16] + 16 * highs[j // 16] - 32, 0,
             c - (0 if b[j % 32] >> j // 32 & 1 else 4)) for j, c in enumerate(codes)]


def blocks(raw, type_name):
    size = TYPES[NUMBERS[type_name]][2]
    return [raw[i:i + size] for i in range(0, len(raw), size)]


def decode_row(raw, type_name):
    """Numbers of a tensor's bytes, by the block layouts of ggml-common.h.  Products are exact
    here; with a minimum, f32() of the difference is what a float has."""
    if type_name in ("F32", "F16", "BF16"):
        return unpack(raw, type_name)
    at, at_min = HALVES[type_name]
    out = []
    for b in blocks(raw, type_name):
        d = struct.unpack_from("<e", b, at)[0]
        m = 0 if at_min is None else struct.unpack_from("<e", b, at_min)[0]
        codes = codes_of(b, type_name)
        if codes is not None:
            out += [d * q for q in codes]
        elif type_name in ("Q4_1", "Q5_1"):
            fifth = int.from_bytes(b[4:8], "little") if type_name == "Q5_1" else 0
            nibbles = [q & 15 for q in b[-16:]] + [q >> 4 for q in b[-16:]]
            out += [d * (q + 16 * (fifth >> j & 1)) + m for j, q in enumerate(nibbles)]
        else:
            out += [d * scale * q - m * low for scale, low, q in k_codes(b, type_name)]
    return out


def as_q8_0(raw, type_name):
    """The same numbers in blocks of Q8_0, of a type that codes_of knows."""
    out = []
    for b in blocks(raw, type_name):
        d, codes = b[HALVES[type_name][0]:][:2], codes_of(b, type_name)
        for i in range(0, len(codes), 32):
            out.append(d + struct.pack("<32b", *codes[i:i + 32]))
    return b"".join(out)
