#!/usr/bin/env python3
"""Make tests/data/mini_oracle.json: GPT-2 written a second time, in double precision.

Independent of the C code down to the tokenizer (ASCII only) and the number conversion, so
that the core is tested on any checkout.  Takes some minutes: plain Python, no packages.
"""
import json
import math
import operator
import os
import re
import struct

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DIR = os.path.join(TOP, "tests", "data", "mini")


def load_tensors():
    with open(os.path.join(DIR, "model.safetensors"), "rb") as f:
        size = struct.unpack("<Q", f.read(8))[0]
        header = json.loads(f.read(size))
        data = f.read()
    out = {}
    for name, t in header.items():
        if name == "__metadata__":
            continue
        assert t["dtype"] == "F16"
        begin, end = t["data_offsets"]
        flat = struct.unpack(f"<{(end - begin) // 2}e", data[begin:end])
        shape = t["shape"]
        if len(shape) == 2:
            flat = [list(flat[i * shape[1]:(i + 1) * shape[1]]) for i in range(shape[0])]
        out[name.removeprefix("transformer.")] = flat
    return out


class Model:
    def __init__(self):
        with open(os.path.join(DIR, "config.json"), encoding="utf-8") as f:
            self.config = json.load(f)
        self.w = load_tensors()
        for name in list(self.w):  # Conv1D is [in][out]; rows of outputs are quicker here
            if re.search(r"(c_attn|c_proj|c_fc)\.weight$", name):
                self.w[name] = [list(c) for c in zip(*self.w[name])]
        self.cache = [([], []) for _ in range(self.config["n_layer"])]

    def linear(self, name, x):
        return [sum(map(operator.mul, row, x)) + b
                for row, b in zip(self.w[name + ".weight"], self.w[name + ".bias"])]

    def norm(self, name, x):
        mean = sum(x) / len(x)
        var = sum((v - mean) ** 2 for v in x) / len(x)
        inv = 1 / math.sqrt(var + self.config["layer_norm_epsilon"])
        return [(v - mean) * inv * g + b
                for v, g, b in zip(x, self.w[name + ".weight"], self.w[name + ".bias"])]

    def attention(self, layer, x):
        width, heads = self.config["n_embd"], self.config["n_head"]
        dim = width // heads
        qkv = self.linear(f"h.{layer}.attn.c_attn", x)
        keys, values = self.cache[layer]
        keys.append(qkv[width:2 * width])
        values.append(qkv[2 * width:])
        out = []
        for h in range(heads):
            part = slice(h * dim, (h + 1) * dim)
            q = qkv[:width][part]
            scores = [sum(map(operator.mul, q, k[part])) / math.sqrt(dim) for k in keys]
            top = max(scores)
            e = [math.exp(s - top) for s in scores]
            total = sum(e)
            for d in range(h * dim, (h + 1) * dim):
                out.append(sum(p * v[d] for p, v in zip(e, values)) / total)
        return self.linear(f"h.{layer}.attn.c_proj", out)

    def feed_forward(self, layer, x):
        h = self.linear(f"h.{layer}.mlp.c_fc", x)
        c = math.sqrt(2 / math.pi)
        h = [0.5 * v * (1 + math.tanh(c * (v + 0.044715 * v ** 3))) for v in h]
        return self.linear(f"h.{layer}.mlp.c_proj", h)

    def step(self, token):
        """Logits after one more token."""
        pos = len(self.cache[0][0])
        x = [a + b for a, b in zip(self.w["wte.weight"][token], self.w["wpe.weight"][pos])]
        for layer in range(self.config["n_layer"]):
            x = list(map(operator.add, x, self.attention(layer, self.norm(
                f"h.{layer}.ln_1", x))))
            x = list(map(operator.add, x, self.feed_forward(layer, self.norm(
                f"h.{layer}.ln_2", x))))
        x = self.norm("ln_f", x)
        return [sum(map(operator.mul, row, x)) for row in self.w["wte.weight"]]


def tokenize(text):
    """ASCII text without control tokens."""
    with open(os.path.join(DIR, "vocab.json"), encoding="utf-8") as f:
        vocab = json.load(f)
    with open(os.path.join(DIR, "merges.txt"), encoding="utf-8") as f:
        lines = f.read().splitlines()[1:]
    rank = {tuple(line.split(" ")): i for i, line in enumerate(lines)}
    shown = {b: chr(b) for b in range(33, 127)}
    for b in range(33):
        shown[b] = chr(256 + b)
    ids = []
    for word in re.findall(r"'s|'t|'re|'ve|'m|'ll|'d| ?[A-Za-z]+| ?[0-9]+"
                           r"| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+", text):
        parts = [shown[b] for b in word.encode("ascii")]
        while len(parts) > 1:
            best = min(range(len(parts) - 1),
                       key=lambda i: rank.get((parts[i], parts[i + 1]), 1 << 30))
            if (parts[best], parts[best + 1]) not in rank:
                break
            parts[best:best + 2] = [parts[best] + parts[best + 1]]
        ids += [vocab[p] for p in parts]
    return ids


def log_sum_exp(logits):
    top = max(logits)
    return top + math.log(sum(math.exp(v - top) for v in logits))


def main():
    prompt = "The small grey owl looked at the moon and said, \"Who put that there?\" Then"
    tokens = tokenize(prompt)
    model = Model()
    logits = [model.step(t) for t in tokens]
    stride = 61
    oracle = {
        "note": "made by tools/gen_oracle.py in double precision",
        "prompt": prompt,
        "tokens": tokens,
        "stride": stride,
        "logits": [[round(v, 7) for v in row[::stride]] for row in logits],
    }
    greedy = []
    last = logits[-1]
    for _ in range(24):
        greedy.append(max(range(len(last)), key=last.__getitem__))
        last = model.step(greedy[-1])
    oracle["greedy"] = greedy

    with open(os.path.join(TOP, "models", "heldout.txt"), encoding="ascii") as f:
        texts = f.read().split("<|endoftext|>")
    window = 64
    text, stream = next((t, ids) for t in texts
                        if len(ids := tokenize(t)) >= 2 * window)
    stream = stream[:2 * window]
    nll, n = 0.0, 0
    for begin in range(0, len(stream), window):
        model = Model()
        part = stream[begin:begin + window]
        for token, target in zip(part, part[1:]):
            logits = model.step(token)
            nll += log_sum_exp(logits) - logits[target]
            n += 1
    oracle["perplexity"] = {
        "text": text, "window": window, "tokens": stream, "scored": n,
        "perplexity": math.exp(nll / n),
    }
    path = os.path.join(TOP, "tests", "data", "mini_oracle.json")
    with open(path, "w", encoding="utf-8") as f:
        json.dump(oracle, f, indent=0)
        f.write("\n")


if __name__ == "__main__":
    main()
