#!/usr/bin/env python3
"""The whole story on the bundled model: tune it on a file of quips, shrink it, measure what that
cost, compare what it says, talk with it.

Offline, nothing outside the checkout.  On a terminal it ends in the chat; without one a few
lines are said to it."""
import json
import os
import shutil
import statistics
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RUNT = os.path.join(TOP, "build", "runt")
OUT = os.path.join("build", "demo")
MARK = "<|endoftext|>\n"
PROMPT = "The secret of a good stream is"
STEPS = 60  # half a minute on two cores of 2021


def say(*words):
    print("$ runt", *(f"'{w}'" if " " in w else w for w in words), flush=True)


def run(*words, echo=True, show=False):
    """Run a verb; its errors reach the terminal and end the demo with its status."""
    if echo:
        say(*words)
    done = subprocess.run([RUNT, *words], stdout=None if show else subprocess.PIPE)
    if done.returncode:
        sys.exit(done.returncode)
    return (done.stdout or b"").decode()


def last_line(text):
    print(text.splitlines()[-1], flush=True)


def split(path):
    """A fifth of the quips is kept to measure by."""
    with open(path, encoding="utf-8") as f:
        quips = [q for q in f.read().split(MARK) if q.strip()]
    files = []
    for name, part in (("quips.txt", [q for i, q in enumerate(quips) if i % 5]),
                       ("held-out.txt", quips[::5])):
        files.append(os.path.join(OUT, name))
        with open(files[-1], "w", encoding="utf-8") as f:
            f.writelines(q + MARK for q in part)
    return files


def measure(model, base, text):
    """One row of the table."""
    scores = json.loads(run("eval", "-m", model, "--base", base, "-f", text, "--window", "128",
                            "-o", "json", echo=False))
    facts = json.loads(run("inspect", model, "-o", "json", echo=False))
    speed = [json.loads(run("generate", "-m", model, "-p", "One day", "-n", "200", "--temp",
                            "0", "--ignore-eos", "--lookahead", "off", "-o", "json",
                            echo=False))
             for _ in range(5)]
    return (facts["file_bytes"], facts["bits_per_weight"], scores["perplexity"],
            scores["kl_mean"], statistics.median(s["tokens_per_second"] for s in speed))


def print_table(rows):
    print("\n| model               | file bytes | bits/weight | perplexity | mean KL | tokens/s |")
    print("|---------------------|-----------:|------------:|-----------:|--------:|---------:|")
    for name, size, bits, ppl, kl, speed in rows:
        print(f"| {name:19} | {size:10d} | {bits:11.2f} | {ppl:10.2f} | {kl:7.4f} | {speed:8.0f} |")
    print(flush=True)


def answers(files):
    print(f"\nOne prompt, \"{PROMPT} ...\":\n")
    for name, path in files:
        text = run("generate", "-m", path, "-p", PROMPT, "-n", "40", "-s", "4", "--temp", "0.6",
                   "--no-display-prompt", echo=False)
        print(f"{name + ':':21}{text.strip().splitlines()[0] if text.strip() else ''}", flush=True)


def main():
    os.chdir(TOP)
    shutil.rmtree(OUT, ignore_errors=True)
    os.makedirs(OUT)
    learn, held_out = split(os.path.join("demo", "quips.txt"))
    base, tuned = os.path.join(OUT, "pocket.gguf"), os.path.join(OUT, "tuned")

    print("1. The bundled model, tuned on demo/quips.txt:\n", flush=True)
    last_line(run("import", os.path.join("models", "pocket"), "-o", base))
    run("train", "--init", base, "--data", learn, "--val", held_out, "--out", tuned, "--steps",
        str(STEPS), "--batch", "16", "--context", "64", "--lr", "1e-4", "--dropout", "0.1",
        "--eval-every", "20", "--save-every", "0", show=True)

    print("\n2. Made smaller:\n", flush=True)
    tuned = os.path.join(tuned, "model.gguf")
    files = [("before tuning", base), ("tuned, float", tuned)]
    for name, kind, more in (
            ("8 bits", "q8_0", []),
            ("4 bits", "r4", ["--tensor", "token_embd=q5_0", "--calib", learn])):
        path = os.path.join(OUT, f"tuned-{kind}.gguf")
        last_line(run("quantize", tuned, path, kind, *more))
        files.append((f"{name} ({kind})", path))

    print("\n3. What that cost, on the quips held out (KL: from the tuned floats, in nats):", flush=True)
    print_table([(name, *measure(path, tuned, held_out)) for name, path in files])

    answers([files[0], files[1], files[3]])
    small = files[-1][1]
    print("\n4. Talk:\n", flush=True)
    if sys.stdin.isatty() and sys.stdout.isatty():
        say("chat", "-m", small)
        sys.exit(subprocess.call([RUNT, "chat", "-m", small]))
    words = "Hello! How are you today?\nWhat do you like to do?\nTell me a story about a cat.\n"
    say("chat", "-m", small, "-s", "1", "--temp", "0.3")
    subprocess.run([RUNT, "chat", "-m", small, "-s", "1", "--temp", "0.3"], input=words.encode())


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
