#!/usr/bin/env python3
"""Make tests/data/task_oracle.json: tasks of our own writing, prepared and scored a second
time by the rules of EleutherAI's lm-evaluation-harness, with tools/gen_oracle.py's GPT-2 in
double precision.  Some minutes: plain Python, no packages."""
import json
import math
import os
import re

from gen_oracle import Model, TOP, log_sum_exp, tokenize

PASSAGES = [
    "Lily had a red ball. She threw the ball up high, and it got stuck in a tree. \"Oh no,\" "
    "said her brother Tom, \"now we must get the ball",
    "Once upon a time there was a little girl named Mia. Mia loved to play in the park with "
    "her dog. One day, it began to rain, so Mia and her dog ran home. Her mom was happy to "
    "see Mia and her dog",
    "The sky went dark and the wind blew. \"I am scared,\" said the mouse. \"Do not be "
    "scared,\" said the",
    "word",
    "Tim wanted to help his mom bake a big",
    "Two spaces stand before the last  word",
    " ".join("Once upon a time there was a frog who lived in a pond, and number %d of its "
             "friends was a fish." % i for i in range(1, 18)) + " The frog and the fish",
]

SENTENCES = [
    {"activity_label": "Home and Garden", "label": 2, "ctx": "unused",
     "ctx_a": "[header] How to grow a bean [title] Find a pot. [step] Look for one with a  hole.",
     "ctx_b": "the Child THEN",
     "endings": ["eats the pot.", "[substeps] runs away from the  moon. ",
                 "puts some dirt into the pot and waters it.", "sleeps [title] and is sad."]},
    {"activity_label": "Playing ball", "label": "0",
     "ctx_a": "A boy holds a ball [in his hand]. His dog looks at him.", "ctx_b": "",
     "endings": ["He throws the ball and the dog runs after it.", "The moon is hot.",
                 "He throws the.", "It was a very very very very long day for the cake."]},
    {"activity_label": "Cooking", "label": 3, "ctx": "A woman stands in a kitchen. she",
     "endings": ["flies.", "cuts a cake for her friends.", "is a spoon!", "makes some soup"]},
]

LINES = [["Jumping: The frog sees a log in the water. the frog", 1,
          "is a very big house.", "jumps onto the log.", "eats the sky", "says \"log\" to a box"]]


def preprocess(text):
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


class Scorer:
    def __init__(self):
        self.model = Model()
        self.held = []

    def logits_behind(self, tokens):
        """Of the last token; what the last call had in common is not computed again."""
        same = 0
        while same < min(len(self.held), len(tokens) - 1) and self.held[same] == tokens[same]:
            same += 1
        for keys, values in self.model.cache:
            del keys[same:], values[same:]
        for t in tokens[same:]:
            logits = self.model.step(t)
        self.held = list(tokens)
        return logits

    def score(self, context, continuation):
        n_ctx = self.model.config["n_positions"]
        spaces = len(context) - len(context.rstrip())
        if spaces:
            context, continuation = context[:-spaces], context[-spaces:] + continuation
        if context:
            whole, n = tokenize(context + continuation), len(tokenize(context))
        else:
            whole, n = [self.model.config["eos_token_id"]] + tokenize(continuation), 1
        target = whole[n:]
        tokens = whole[-(n_ctx + 1):]
        total, greedy = 0.0, True
        for i in range(len(tokens) - len(target), len(tokens)):
            logits = self.logits_behind(tokens[:i])
            total += logits[tokens[i]] - log_sum_exp(logits)
            greedy = greedy and max(logits) == logits[tokens[i]]
        return total, greedy, len(target), len(whole) > len(tokens)


def main():
    s = Scorer()
    lambada, hellaswag, text = [], [], []
    for passage in PASSAGES:
        words = passage.split(" ")
        logp, greedy, n, cut = s.score(" ".join(words[:-1]), " " + words[-1])
        lambada.append({"line": json.dumps({"text": passage}), "logp": [logp],
                        "greedy": greedy, "n": n, "cut": cut})
        print(lambada[-1])
    for d in SENTENCES:
        ctx = d["ctx_a"] + " " + d["ctx_b"].capitalize() if "ctx_a" in d else d["ctx"]
        hellaswag.append((json.dumps(d), preprocess(d["activity_label"] + ": " + ctx),
                          int(d["label"]), [preprocess(e) for e in d["endings"]]))
    for d in LINES:
        text.append(("\n".join(map(str, d)), d[0], d[1], d[2:]))
    for rows in (hellaswag, text):
        for i, (line, query, label, endings) in enumerate(rows):
            logps = [s.score(query, " " + e) for e in endings]
            lp = [x[0] for x in logps]
            norm = [x / len(e) for x, e in zip(lp, endings)]
            rows[i] = {"line": line, "query": query, "label": label, "endings": endings,
                       "logp": lp, "n": sum(x[2] for x in logps),
                       "pick": lp.index(max(lp)), "pick_norm": norm.index(max(norm))}
            print(rows[i])
    right = [r["greedy"] for r in lambada]
    nll = [-r["logp"][0] for r in lambada]
    mean = sum(nll) / len(nll)
    sd = math.sqrt(sum((x - mean) ** 2 for x in nll) / (len(nll) - 1))
    p = sum(right) / len(right)
    out = {"note": "made by tools/gen_task_oracle.py in double precision",
           "lambada": lambada, "hellaswag": hellaswag, "text": text,
           "acc": p, "acc_se": math.sqrt(p * (1 - p) / (len(right) - 1)),
           "perplexity": math.exp(mean),
           "perplexity_se": math.exp(mean) * sd / math.sqrt(len(nll))}
    with open(os.path.join(TOP, "tests", "data", "task_oracle.json"), "w") as f:
        json.dump(out, f, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main()
