#!/usr/bin/env python3
"""Make tests/data/train_oracle.json: what training GPT-2 gives, in double precision.

The forward pass, the gradients by hand and AdamW, written a second time and independent of
the C code; every gradient is checked against central differences before it is written.
Takes some minutes and wants numpy (Debian: python3-numpy).  Another BLAS may change the
last digits.

A batch is {"inputs", "targets"}: lists of sequences of token ids, where a target of -1 is
ignored.  Its loss is the mean of -log p(target) over the other targets.  Tensors have their
names in a GGUF file; matrices are [outputs][inputs], row by row.  "tiny" is the bundled model
(its F16 weights as they are), "odd" a random one of odd sizes, with a head of its own; its
weights are the float32 numbers next to the decimals in "weights".  "gradients" has a tensor
in full, or {"l2", "at", "value"}: its norm and some elements by their place in the tensor.
"scaled" is the gradient of the sum of scale * loss over several batches.  "adamw" has, of
every step on "batch", the loss and the norm of the gradient before clipping, and the weights
after the last step.

"lora" adapts some matrices of "odd" (Hu et al. 2021): w + alpha / rank b a; "weights" and
"gradients" are those of the adapters, NAME.lora_a [rank][inputs] and NAME.lora_b
[outputs][rank].

The biases of keys have no influence on the loss: their gradient is zero but for rounding,
which AdamW makes steps of, in single precision visible ones.  So none of them is among the
elements, and the norm of attn_qkv.bias after AdamW wants a wide tolerance.
"""
import json
import math
import os
import random
import re

import numpy as np

from gen_oracle import DIR, TOP, load_tensors, tokenize

EPS = 1e-5
HF_NAMES = {"ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output",
            "ln_2": "ffn_norm", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"}


def norm_forward(x, g, b):
    inv = 1 / np.sqrt(x.var(axis=-1, keepdims=True) + EPS)
    unit = (x - x.mean(axis=-1, keepdims=True)) * inv
    return unit * g + b, (unit, inv)


def norm_backward(dy, g, kept):
    unit, inv = kept
    d = dy * g
    dx = inv * (d - d.mean(axis=-1, keepdims=True)
                - unit * (d * unit).mean(axis=-1, keepdims=True))
    return dx, (dy * unit).sum(axis=(0, 1)), dy.sum(axis=(0, 1))


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


C, CUBE = math.sqrt(2 / math.pi), 0.044715


def gelu(x):
    return 0.5 * x * (1 + np.tanh(C * (x + CUBE * x ** 3)))


def gelu_slope(x):
    t = np.tanh(C * (x + CUBE * x ** 3))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * C * (1 + 3 * CUBE * x * x)


class Model:
    """Weights by name; `layers`, `heads`; the head is tied unless there is output.weight."""

    def __init__(self, layers, heads, weights):
        self.layers, self.heads, self.w = layers, heads, weights
        self.head = "output.weight" if "output.weight" in weights else "token_embd.weight"

    def split(self, x):
        """[batch][time][width] to [batch][head][time][width of a head]"""
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(0, 2, 1, 3)

    def join(self, x):
        return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)

    def linear(self, name, x):
        return x @ self.w[name + ".weight"].T + self.w[name + ".bias"]

    def norm(self, name, x):
        return norm_forward(x, self.w[name + ".weight"], self.w[name + ".bias"])

    def forward(self, batch):
        """The loss, and what the way back needs."""
        inputs, targets = np.array(batch["inputs"]), np.array(batch["targets"])
        time = inputs.shape[1]
        later = np.triu(np.ones((time, time), dtype=bool), 1)
        x = self.w["token_embd.weight"][inputs] + self.w["position_embd.weight"][:time]
        kept = []
        for i in range(self.layers):
            k = {}
            k["x1"], k["norm1"] = self.norm(f"blk.{i}.attn_norm", x)
            qkv = self.linear(f"blk.{i}.attn_qkv", k["x1"])
            q, key, v = k["qkv"] = [self.split(part) for part in np.split(qkv, 3, axis=-1)]
            scores = q @ key.transpose(0, 1, 3, 2) / math.sqrt(q.shape[-1])
            k["p"] = softmax(np.where(later, -np.inf, scores))
            k["mixed"] = self.join(k["p"] @ v)
            x = x + self.linear(f"blk.{i}.attn_output", k["mixed"])
            k["x2"], k["norm2"] = self.norm(f"blk.{i}.ffn_norm", x)
            k["up"] = self.linear(f"blk.{i}.ffn_up", k["x2"])
            k["act"] = gelu(k["up"])
            x = x + self.linear(f"blk.{i}.ffn_down", k["act"])
            kept.append(k)
        x, norm = self.norm("output_norm", x)
        p = softmax(x @ self.w[self.head].T)
        scored = targets >= 0
        hit = np.take_along_axis(p, np.maximum(targets, 0)[..., None], axis=-1)[..., 0]
        loss = -np.log(hit[scored]).mean()
        return loss, (inputs, targets, kept, norm, x, p)

    def gradients(self, batch):
        """The loss, and the gradient of every tensor."""
        loss, (inputs, targets, kept, norm, x, p) = self.forward(batch)
        grad = {name: np.zeros_like(w) for name, w in self.w.items()}

        def linear_back(name, dy, x):
            grad[name + ".weight"] += np.einsum("bto,bti->oi", dy, x, optimize=True)
            grad[name + ".bias"] += dy.sum(axis=(0, 1))
            return dy @ self.w[name + ".weight"]

        def norm_back(name, dy, kept):
            dx, dg, db = norm_backward(dy, self.w[name + ".weight"], kept)
            grad[name + ".weight"] += dg
            grad[name + ".bias"] += db
            return dx

        scored = targets >= 0
        d = p.copy()
        np.put_along_axis(d, np.maximum(targets, 0)[..., None], np.take_along_axis(
            d, np.maximum(targets, 0)[..., None], axis=-1) - 1, axis=-1)
        d *= (scored / scored.sum())[..., None]
        grad[self.head] += np.einsum("bto,bti->oi", d, x, optimize=True)
        dx = norm_back("output_norm", d @ self.w[self.head], norm)
        for i in reversed(range(self.layers)):
            k = kept[i]
            d = linear_back(f"blk.{i}.ffn_down", dx, k["act"]) * gelu_slope(k["up"])
            d = linear_back(f"blk.{i}.ffn_up", d, k["x2"])
            dx = dx + norm_back(f"blk.{i}.ffn_norm", d, k["norm2"])
            d = self.split(linear_back(f"blk.{i}.attn_output", dx, k["mixed"]))
            q, key, v = k["qkv"]
            dp = d @ v.transpose(0, 1, 3, 2)
            ds = k["p"] * (dp - (dp * k["p"]).sum(axis=-1, keepdims=True))
            ds /= math.sqrt(q.shape[-1])
            parts = ds @ key, ds.transpose(0, 1, 3, 2) @ q, k["p"].transpose(0, 1, 3, 2) @ d
            dqkv = np.concatenate([self.join(part) for part in parts], axis=-1)
            d = linear_back(f"blk.{i}.attn_qkv", dqkv, k["x1"])
            dx = dx + norm_back(f"blk.{i}.attn_norm", d, k["norm1"])
        np.add.at(grad["token_embd.weight"], inputs, dx)
        grad["position_embd.weight"][:dx.shape[1]] += dx.sum(axis=0)
        return loss, grad


class Adapted:
    """A model whose own weights stay: `w` has the adapters' a and b, NAME.lora_a and
    NAME.lora_b.  Their gradients follow from that of the whole matrix by the chain rule."""

    def __init__(self, model, scale, adapters):
        self.model, self.scale, self.w = model, scale, adapters
        self.names = [name.removesuffix(".lora_a") for name in adapters
                      if name.endswith(".lora_a")]

    def merged(self):
        weights = dict(self.model.w)
        for name in self.names:
            change = self.w[name + ".lora_b"] @ self.w[name + ".lora_a"]
            weights[name] = weights[name] + self.scale * change
        return Model(self.model.layers, self.model.heads, weights)

    def forward(self, batch):
        return self.merged().forward(batch)

    def gradients(self, batch):
        loss, whole = self.merged().gradients(batch)
        grad = {}
        for name in self.names:
            a, b = self.w[name + ".lora_a"], self.w[name + ".lora_b"]
            grad[name + ".lora_a"] = self.scale * b.T @ whole[name]
            grad[name + ".lora_b"] = self.scale * whole[name] @ a.T
        return loss, grad


def slope_along(model, batch, name, direction, h=1e-3):
    """The derivative of the loss by central differences, to the fourth power of h."""
    w = model.w[name]

    def at(t):
        model.w[name] = w + t * direction
        return model.forward(batch)[0]

    slope = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
    model.w[name] = w
    return slope


def check_every_element(model, batch, grad):
    """One in a million of the number, or of a thousandth of the tensor's largest."""
    for name, g in grad.items():
        found = np.zeros_like(g)
        for at in np.ndindex(g.shape):
            one = np.zeros_like(g)
            one[at] = 1
            found[at] = slope_along(model, batch, name, one)
        near = 1e-6 * np.maximum(np.abs(g), 1e-3 * np.abs(g).max())
        assert (np.abs(found - g) <= near).all(), (name, np.abs(found - g).max())


def check_directions(model, batch, grad, rng):
    """Random directions: one within the whole tensor, one within each third of it (which
    are a projection's queries, keys and values)."""
    for name, g in grad.items():
        parts = [slice(None)] + [slice(k * g.size // 3, (k + 1) * g.size // 3)
                                 for k in range(3)]
        for part in parts:
            d = np.zeros(g.size)
            d[part] = rng.normal(size=d[part].size)
            d = d.reshape(g.shape) / np.linalg.norm(d)
            want = (g * d).sum()
            found = slope_along(model, batch, name, d)
            near = 1e-6 * max(abs(want), 1e-3 * np.linalg.norm(g))
            assert abs(found - want) <= near, (name, part, found, want)


def summary(tensors, rng):
    """Norms, and eight elements of each tensor, large ones more often."""
    out = {}
    for name, t in tensors.items():
        p = np.abs(t).flatten() + 0.1 * np.abs(t).mean()
        if name.endswith("attn_qkv.bias"):
            p[t.size // 3:2 * t.size // 3] = 0
        at = sorted(rng.choice(t.size, size=8, replace=False, p=p / p.sum()).tolist())
        out[name] = {"l2": float(np.linalg.norm(t)), "at": at,
                     "value": [float(t.flat[i]) for i in at]}
    return out


def adamw(model, batch, rng, steps, lr, clip):
    """Decoupled weight decay (Loshchilov and Hutter 2019) on matrices, in PyTorch's order:
    decay, moments, step; epsilon is added to the root after the bias correction."""
    beta1, beta2, eps, decay = 0.9, 0.95, 1e-8, 0.1
    first = {name: np.zeros_like(w) for name, w in model.w.items()}
    second = {name: np.zeros_like(w) for name, w in model.w.items()}
    weights = model.w
    model.w = dict(weights)
    out = {"lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": decay,
           "clip_norm": clip, "clip": "scale = clip_norm / (norm + 1e-6), where less than 1",
           "decayed": "matrices, both embeddings among them; not vectors",
           "loss": [], "norm": []}
    for step in range(1, steps + 1):
        loss, grad = model.gradients(batch)
        norm = math.sqrt(sum((g * g).sum() for g in grad.values()))
        scale = min(1, clip / (norm + 1e-6))
        for name, g in grad.items():
            g = g * scale
            first[name] = beta1 * first[name] + (1 - beta1) * g
            second[name] = beta2 * second[name] + (1 - beta2) * g * g
            w = model.w[name] * (1 - lr * decay if g.ndim == 2 else 1)
            root = np.sqrt(second[name] / (1 - beta2 ** step)) + eps
            model.w[name] = w - lr * first[name] / (1 - beta1 ** step) / root
        out["loss"].append(float(loss))
        out["norm"].append(norm)
    out["loss_after"] = float(model.forward(batch)[0])
    out["weights"] = summary(model.w, rng)
    model.w = weights
    return out


def bundled_model():
    with open(os.path.join(DIR, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    assert config["layer_norm_epsilon"] == EPS
    weights = {}
    for name, t in load_tensors().items():
        t = np.array(t)
        stem, kind = name.rsplit(".", 1)
        if stem.startswith("h."):
            layer, part = stem[2:].split(".", 1)
            if kind == "weight" and t.ndim == 2:  # Conv1D is [in][out]
                t = t.T.copy()
            weights[f"blk.{layer}.{HF_NAMES[part]}.{kind}"] = t
        else:
            weights[{"wte": "token_embd", "wpe": "position_embd",
                     "ln_f": "output_norm"}[stem] + "." + kind] = t
    return Model(config["n_layer"], config["n_head"], weights), config["eos_token_id"]


def bundled_batch(end):
    """The heads of two held-out texts: one with its beginning and a hole ignored, one that
    ends early and is filled up."""
    length = 48
    with open(os.path.join(TOP, "models", "heldout.txt"), encoding="ascii") as f:
        texts = [ids for t in f.read().split("<|endoftext|>") if len(ids := tokenize(t)) > length]
    batch = {"inputs": [t[:length] for t in texts[:2]],
             "targets": [t[1:length + 1] for t in texts[:2]]}
    batch["targets"][0][:5] = [-1] * 5
    batch["targets"][0][20:23] = [-1] * 3
    batch["inputs"][1][39:] = [end] * 9
    batch["targets"][1][38:] = [end] + [-1] * 9
    return batch


def odd_model(rng):
    sizes = {"n_layer": 2, "n_head": 3, "n_embd": 15, "n_ff": 60, "n_ctx": 11, "n_vocab": 37}
    width, wide = sizes["n_embd"], sizes["n_ff"]
    shapes = {"token_embd": (sizes["n_vocab"], width), "position_embd": (sizes["n_ctx"], width)}
    for i in range(sizes["n_layer"]):
        shapes |= {f"blk.{i}.attn_norm": (width,), f"blk.{i}.attn_qkv": (3 * width, width),
                   f"blk.{i}.attn_output": (width, width), f"blk.{i}.ffn_norm": (width,),
                   f"blk.{i}.ffn_up": (wide, width), f"blk.{i}.ffn_down": (width, wide)}
    shapes |= {"output_norm": (width,), "output": (sizes["n_vocab"], width)}
    decimals = {}
    for name, shape in shapes.items():
        mean = 1 if len(shape) == 1 else 0
        decimals[name + ".weight"] = [round(rng.gauss(mean, 0.3), 4)
                                      for _ in range(math.prod(shape))]
        if name not in ("token_embd", "position_embd", "output"):
            decimals[name + ".bias"] = [round(rng.gauss(0, 0.2), 4) for _ in range(shape[0])]
    weights = {name: np.array(d, dtype=np.float32).astype(np.float64)
               for name, d in decimals.items()}
    for name, shape in shapes.items():
        weights[name + ".weight"] = weights[name + ".weight"].reshape(shape)
    return sizes, decimals, Model(sizes["n_layer"], sizes["n_head"], weights)


def odd_batch(rng, lengths, time, n_vocab):
    """Sequences of several lengths, filled up with token 0."""
    batch = {"inputs": [], "targets": []}
    for n in lengths:
        ids = [rng.randrange(n_vocab) for _ in range(n + 1)]
        batch["inputs"].append(ids[:n] + [0] * (time - n))
        batch["targets"].append(ids[1:] + [-1] * (time - n))
    return batch


def make_tiny(picks):
    model, end = bundled_model()
    batch = bundled_batch(end)
    loss, grad = model.gradients(batch)
    check_directions(model, batch, grad, picks)
    return {"model": "models/tiny-gpt2", "batch": batch, "loss": float(loss),
            "gradients": summary(grad, picks),
            "adamw": adamw(model, batch, picks, 10, 1e-3, 1.0)}


def make_odd(picks):
    rng = random.Random(15)
    sizes, decimals, model = odd_model(rng)
    batch = odd_batch(rng, [7, 4, 6], 7, sizes["n_vocab"])
    other = odd_batch(rng, [11, 3], 11, sizes["n_vocab"])
    loss, grad = model.gradients(batch)
    check_every_element(model, batch, grad)
    other_loss, other_grad = model.gradients(other)
    check_directions(model, other, other_grad, picks)
    scales = [0.375, 0.25]
    total = {name: scales[0] * g + scales[1] * other_grad[name] for name, g in grad.items()}
    return {"sizes": sizes, "norm_eps": EPS, "weights": decimals, "batch": batch,
            "loss": float(loss),
            "gradients": {name: g.flatten().tolist() for name, g in grad.items()},
            "scaled": {"batches": [batch, other], "scales": scales,
                       "losses": [float(loss), float(other_loss)],
                       "gradients": summary(total, picks)},
            "adamw": adamw(model, batch, picks, 20, 1e-2, 2.0)}


def make_lora(picks):
    rng = random.Random(15)
    sizes, _, model = odd_model(rng)
    batch = odd_batch(rng, [7, 4, 6], 7, sizes["n_vocab"])
    rank, alpha, targets = 3, 5, r"qkv|up|^blk\.1\.|^token|^output\."
    decimals, adapters = {}, {}
    for name, w in model.w.items():
        if w.ndim < 2 or not re.search(targets, name):
            continue
        for kind, shape in (("a", (rank, w.shape[1])), ("b", (w.shape[0], rank))):
            d = [round(rng.gauss(0, 0.2), 4) for _ in range(math.prod(shape))]
            decimals[f"{name}.lora_{kind}"] = d
            adapters[f"{name}.lora_{kind}"] = np.array(d, dtype=np.float32).astype(
                np.float64).reshape(shape)
    adapted = Adapted(model, alpha / rank, adapters)
    loss, grad = adapted.gradients(batch)
    check_every_element(adapted, batch, grad)
    return {"rank": rank, "alpha": alpha, "targets": targets, "batch": batch,
            "weights": decimals, "loss": float(loss),
            "gradients": {name: g.flatten().tolist() for name, g in grad.items()},
            "adamw": adamw(adapted, batch, picks, 20, 1e-2, 2.0)}


def main():
    picks = np.random.Generator(np.random.PCG64(4))
    oracle = {"note": "made by tools/gen_train_oracle.py in double precision; its head says "
                      "what is what",
              "tiny": make_tiny(picks), "odd": make_odd(picks), "lora": make_lora(picks)}
    path = os.path.join(TOP, "tests", "data", "train_oracle.json")
    with open(path, "w", encoding="utf-8") as f:
        text = json.dumps(oracle, separators=(",", ":"))
        f.write(text.replace('],"', '],\n"').replace('},"', '},\n"') + "\n")


if __name__ == "__main__":
    main()
