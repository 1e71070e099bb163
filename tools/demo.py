#!/usr/bin/env python3
"""The main job on the bundled model: import, quantize, measure, talk.

Offline, nothing outside the checkout.  On a terminal it ends in the chat; without one it
completes the prompts of models/prompts.txt.
"""
import json
import os
import statistics
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RUNT = os.path.join(TOP, "build", "runt")
MODELS = os.path.join(TOP, "models")
OUT = os.path.join(TOP, "build", "demo")


def shown(path):
    return os.path.relpath(path, os.getcwd())


def say(*words):
    print("$ runt", *(f"'{w}'" if " " in w else w for w in words), flush=True)


def run(*words, echo=True):
    """Run a verb; its errors reach the terminal and end the demo with its status."""
    if echo:
        say(*(shown(w) if os.path.isabs(w) else w for w in words))
    done = subprocess.run([RUNT, *words], stdout=subprocess.PIPE)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


def measure(model, base):
    """One row of the table."""
    text = os.path.join(MODELS, "heldout.txt")
    scores = json.loads(run("eval", "-m", model, "--base", base, "-f", text, "-o", "json"))
    facts = json.loads(run("inspect", model, "-o", "json", echo=False))
    speed = [json.loads(run("generate", "-m", model, "-p", "One day", "-n", "200", "--temp",
                            "0", "--ignore-eos", "-o", "json", echo=False))
             for _ in range(5)]
    return (facts["file_bytes"], facts["bits_per_weight"], scores["perplexity"],
            scores["kl_mean"], statistics.median(s["tokens_per_second"] for s in speed),
            max(s["peak_bytes"] for s in speed) / 1e6)


def main():
    os.makedirs(OUT, exist_ok=True)
    base = os.path.join(OUT, "tiny.gguf")
    print("The bundled checkpoint, imported and made smaller:\n", flush=True)
    sys.stdout.write(run("import", os.path.join(MODELS, "tiny-gpt2"), "-o", base)
                     .decode().splitlines()[-1] + "\n")
    files = [("float 16", base)]
    for bits, kind in (("8 bits", "q8_0"), ("4 bits", "q4_0"), ("4 bits", "r4")):
        path = os.path.join(OUT, f"tiny-{kind}.gguf")
        sys.stdout.write(run("quantize", base, path, kind).decode().splitlines()[-1] + "\n")
        files.append((f"{bits} ({kind})", path))
    print("\nMeasured on models/heldout.txt:\n", flush=True)
    rows = [(name, *measure(path, base)) for name, path in files]
    print("\n| model         | file bytes | bits/weight | perplexity | mean KL | tokens/s | "
          "peak MB |")
    print("|---------------|-----------:|------------:|-----------:|--------:|---------:|"
          "--------:|")
    for name, size, bits, ppl, kl, speed, peak in rows:
        print(f"| {name:13} | {size:10d} | {bits:11.2f} | {ppl:10.3f} | {kl:7.4f} | "
              f"{speed:8.0f} | {peak:7.1f} |")
    print(flush=True)
    small = files[-1][1]
    if sys.stdin.isatty() and sys.stdout.isatty():
        say("chat", "-m", shown(small))
        sys.exit(subprocess.call([RUNT, "chat", "-m", small]))
    with open(os.path.join(MODELS, "prompts.txt"), encoding="utf-8") as f:
        prompts = f.read().splitlines()
    for prompt in prompts:
        sys.stdout.write(run("generate", "-m", small, "-p", prompt, "-n", "60", "-s", "1")
                         .decode() + "\n")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
