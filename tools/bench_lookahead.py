#!/usr/bin/env python3
"""What --lookahead is worth: MODEL...: each text is drawn with and without, in turns, and the
ratios of neighbours are sorted.  Whole runs of the program; its own clock, so loading and the
prompt do not count.  Prints the table of docs/SPEED.md."""
import argparse
import json
import os
import statistics
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
REPETITIVE = {
    "a refrain": "The cat sat on the mat. The dog sat on the mat. The cat sat on the mat. The dog "
                 "sat on the",
    "counting": "One bird is on the tree. Two birds are on the tree. Three birds are on the tree. "
                "Four birds are on the tree. Five",
    "a list": "- red ball\n- blue ball\n- red ball\n- blue ball\n- red ball\n-",
}


def ordinary():
    with open(os.path.join(ROOT, "models", "heldout.txt"), encoding="utf-8") as f:
        stories = [s.strip() for s in f.read().split("<|endoftext|>")]
    stories = [s for s in stories if len(s) > 300]
    return {"story %d" % (i + 1): stories[i * len(stories) // 4][:250] for i in range(4)}


def draw(args, model, prompt, temp, seed, ahead):
    done = subprocess.run(
        [args.runt, "generate", "-m", model, "-p", prompt, "-n", str(args.n), "--temp", temp,
         "-s", str(seed), "--ignore-eos", "-t", str(args.threads), "--lookahead", ahead, "-o",
         "json"], check=True, capture_output=True)
    return json.loads(done.stdout)


def row(args, model, name, prompt, temp):
    ratios, off, drafted, accepted = [], [], 0, 0
    for i in range(args.repeat):
        ways = ["off", args.ahead] if i % 2 else [args.ahead, "off"]
        got = {w: draw(args, model, prompt, temp, i, w) for w in ways}
        plain, ahead = got["off"], got[args.ahead]
        assert plain["text"] == ahead["text"], (plain, ahead)
        ratios.append(plain["seconds"] / ahead["seconds"])
        off.append(plain["tokens_per_second"])
        drafted += ahead["drafted_tokens"]
        accepted += ahead["accepted_tokens"]
    quarters = statistics.quantiles(ratios, n=4)
    print("| %s | %s | %s | %.0f | %.3f (%.3f to %.3f) | %.0f%% | %.0f%% |" % (
        os.path.basename(model), name, temp, statistics.median(off), statistics.median(ratios),
        quarters[0], quarters[2], 100 * accepted / (args.n * args.repeat),
        100 * accepted / max(drafted, 1)), flush=True)
    return ratios


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("models", nargs="+")
    p.add_argument("--runt", default=os.path.join(ROOT, "build", "runt"))
    p.add_argument("--ahead", default="auto", help="auto or a number of drafts; off: the noise")
    p.add_argument("-n", type=int, default=150)
    p.add_argument("-r", "--repeat", type=int, default=21)
    p.add_argument("-t", "--threads", type=int, default=1)
    args = p.parse_args()
    print("| model | text | temperature | off, tok/s | %s / off: median (quarters) | "
          "of the tokens drafted | of the drafts right |\n|---|---|---|---|---|---|---|" % args.ahead)
    for model in args.models:
        for kind, texts in (("repetitive", REPETITIVE), ("ordinary", ordinary())):
            for temp in ("0", "0.8"):
                ratios = []
                for name, prompt in texts.items():
                    ratios += row(args, model, name, prompt, temp)
                print("| %s | all %s | %s | | **%.3f** | | |" % (
                    os.path.basename(model), kind, temp, statistics.median(ratios)), flush=True)


if __name__ == "__main__":
    main()
