#!/usr/bin/env python3
"""The pocket model from nothing: the recipe of models/pocket, one stage after another.

    recipes/pocket.py DATA OUT [--held-out FILE] [--quick]

DATA is a folder with stories, dialogues, quotes, twitch and books as NAME.txt.xz, whose
documents are separated by lines of <|endoftext|>.  OUT gets all that is made; what is there
already is not made again, and a training that was stopped goes on.  docs/POCKET.md says why
each number is what it is."""
import argparse
import hashlib
import json
import lzma
import os
import re
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RUNT = os.environ.get("RUNT_BIN") or os.path.join(TOP, "build", "runt")
MARK = "<|endoftext|>"

# One document of so many is held out, told by its content; books are not measured.
HELD_OUT = {"stories": 40, "dialogues": 25, "quotes": 40, "twitch": 40, "books": 0}
# Our own conversations grew while the model learned: so many of them were there in its stages.
EVERYDAY = (2654, 3798, 9190, 13473)
VOCAB = "8192"
QUICK = []  # options of a run that only tries the script
SHAPE = ["--layers", "4", "--heads", "4", "--embd", "256"]


def documents(path):
    with (lzma.open if path.endswith(".xz") else open)(path, "rt", encoding="utf-8") as f:
        return [d.strip() for d in f.read().split(MARK) if d.strip()]


def write(path, docs):
    with open(path, "w", encoding="utf-8") as f:
        f.write("".join(d + "\n" + MARK + "\n" for d in docs))


def number(d):
    """Of a document, by its content."""
    return int(hashlib.sha256(d.encode()).hexdigest()[:8], 16)


def refuse_openings(docs, name):
    """What the chat is judged by is not learned from."""
    everything = "\n".join(docs).lower()
    with open(os.path.join(TOP, "tests", "data", "openings.txt"), encoding="utf-8") as f:
        for line in f:
            assert line.split("\t")[0].lower() not in everything, "an opening is in " + name


def split(data, out, extra):
    """NAME.txt to learn from and NAME.val.txt to measure by; no document of `extra` is learned
    from."""
    for name, every in HELD_OUT.items():
        if os.path.exists(out(name + ".txt")):
            continue
        learn, held = [], []
        for d in documents(os.path.join(data, name + ".txt.xz")):
            (held if d in extra or (every and number(d) % every == 0) else learn).append(d)
        refuse_openings(learn, name)
        if held:
            write(out(name + ".val.txt"), held)
        write(out(name + ".txt"), learn)
        if name == "quotes":  # those that name who said them count more than their number
            write(out("attributed.txt"), [d for d in learn if re.match(r'".*" - \S', d, re.S)])


def runt(*words):
    print("$ runt", *words, flush=True)
    done = subprocess.run([RUNT, *words])
    if done.returncode:
        sys.exit(done.returncode)


# ---- what the chat is tuned on ----

def tidy(d):
    """One collection has blanks around every mark: `I ' m fine , thanks .`"""
    d = re.sub(r" ?(['’]) ?(m|s|re|ve|ll|d|t)\b", r"'\2", d)
    d = re.sub(r" +([.,?!;:])", r"\1", d)
    return re.sub(r"[ \t]+", " ", d)


def is_usable(d):
    """Two speakers in turn, no blanks to fill in such as [name], no turn too long to be read."""
    turns = d.split("\n")
    return (not re.search(r"\[|\(name|\{", d) and len(turns) > 1 and
            all(t.startswith(("User: ", "Bot: ")[i % 2]) and len(t) < 400
                for i, t in enumerate(turns)))


def sentences(text):
    return re.findall(r"\S.*?[.!?][\"']?(?=\s|$)", text, re.S)


BEINGS = ("dog cat bird bear rabbit fox frog mouse fish lion horse duck cow monkey elephant bee "
          "butterfly turtle squirrel wolf dragon princess king queen boy girl farmer sailor doctor "
          "knight fairy robot ghost pirate snake owl sheep pig goat ant spider whale").split()
ASK = ("Tell me a story about a {}.", "Can you tell me a story about a {}?",
       "I would like to hear a story about a {}.", "Please tell me a little story. It should be about a {}.",
       "Do you know a story with a {} in it?", "Make up a story about a {}, please.")
NEXT = ("What happened next?", "And then?", "Go on, please.", "What did the {} do then?",
        "Tell me more.", "I like it so far. What comes next?")
END = ("How does it end?", "And what happened in the end?", "How did it end for the {}?",
       "Does it have a happy ending?", "What is the end of the story?")


def as_chat(turns):
    return "\n".join(("User: ", "Bot: ")[i % 2] + t for i, t in enumerate(turns))


def story_chats(stories):
    """A story in three parts, each asked for."""
    for i, story in enumerate(stories):
        story = " ".join(story.split())
        parts = sentences(story)
        being = re.search(r"\b(%s)\b" % "|".join(BEINGS), " ".join(parts[:2]).lower())
        if not being or not 6 <= len(parts) <= 24 or re.search(r"[^ -~]", story):
            continue
        n = being.group(1)
        third = len(parts) // 3
        told = [parts[:third], parts[third:2 * third], parts[2 * third:]]
        asked = [ASK[i % 6].format(n), NEXT[i // 6 % 6].format(n), END[i // 36 % 5].format(n)]
        turns = [t for a, b in zip(asked, told) for t in (a, " ".join(b))]
        yield as_chat([t.replace(" a a", " an a").replace(" a e", " an e").replace(" a o", " an o")
                       if k % 2 == 0 else t for k, t in enumerate(turns)])


THEMES = ("life love time friends work truth books music money happiness dreams hope fear war peace "
          "art science nature beauty freedom courage wisdom success failure children age death god "
          "history knowledge language laughter luck memory patience power reading silence trust "
          "writing cats dogs coffee food computers programming").split()
WISH = ("Tell me a quote about {}.", "Do you know a good quote about {}?", "Give me some words about {}.",
        "What did wise people say about {}?", "I need a quote about {}.")


def quote_chats(quotes):
    for i, q in enumerate(quotes):
        words = set(re.findall(r"[a-z]+", q.lower()))
        theme = next((t for t in THEMES if t in words), None)
        if theme and "\n" not in q and 30 < len(q) < 240:
            yield as_chat([WISH[i % 5].format(theme), q])


def messages(d):
    return [{"role": ("user", "assistant")[i % 2], "content": turn.split(": ", 1)[1]}
            for i, turn in enumerate(d.split("\n"))]


def chats(out):
    """chat-NAME.txt, and everyday-NUMBER.jsonl: what is tuned on."""
    if os.path.exists(out("chat-quotes.txt")):
        return
    everyday = documents(os.path.join(TOP, "recipes", "everyday.txt.xz"))
    refuse_openings(everyday, "everyday.txt.xz")
    held = [d for d in everyday if number(d) % 25 == 0]
    talks = [d for d in map(tidy, documents(out("dialogues.txt"))) if is_usable(d)]
    for n in EVERYDAY:
        with open(out(f"everyday-{n}.jsonl"), "w", encoding="utf-8") as f:
            f.writelines(json.dumps({"messages": messages(d)}) + "\n"
                         for d in everyday[:n] if number(d) % 25)
    write(out("everyday.val.txt"), held)
    write(out("chat.val.txt"),
          held + [d for d in map(tidy, documents(out("dialogues.val.txt"))) if is_usable(d)])
    write(out("chat-talks.txt"), talks)
    write(out("chat-stories.txt"), list(story_chats(documents(out("stories.txt")))))
    write(out("chat-quotes.txt"), list(quote_chats(documents(out("quotes.txt")))))


# ---- the stages ----

def train(out, stage, weights, steps, rate, *more, val="everyday", warmup=20, dropout=0.1):
    """Begins with the model of the stage before; goes on where it was stopped.  rate: the first and
    the last.  weights: of each text; those of our own are messages, by which the model learns
    that it is talked to."""
    if os.path.exists(out(stage + "/model.gguf")):
        return
    if os.path.exists(out(stage + "/log.jsonl")):
        runt("train", "--out", out(stage), "--resume")
        return
    words = []
    for name, weight in weights.items():
        end = ".jsonl" if name.startswith("everyday_") else ".txt"
        words += ["--data", f"{out(name.replace('_', '-') + end)}:{weight}"]
    for name in ("stories", "quotes", val):
        words += ["--val", out(name + ".val.txt")]
    how = QUICK if QUICK else ["--batch", "8", "--context", "512", "--eval-every", "250",
                               "--eval-tokens", "98304", "--save-every", "250"]
    runt("train", "--out", out(stage), *words, "--steps", str(steps), "--lr", rate[0], "--min-lr",
         rate[1], "--warmup", str(warmup), "--dropout", str(dropout), "--weight-decay", "0.3",
         *more, *how)


def after(out, stage):
    return "--init", out(stage + "/model.gguf"), "--schedule", "linear"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data")
    parser.add_argument("out")
    parser.add_argument("--held-out", help="a file whose documents are not learned from")
    parser.add_argument("--quick", action="store_true", help="two small steps a stage: does it work?")
    args = parser.parse_args()
    if args.quick:
        QUICK.extend(["--steps", "2", "--batch", "2", "--context", "64", "--eval-tokens", "256"])
    os.makedirs(args.out, exist_ok=True)

    def out(name):
        return os.path.join(args.out, name)

    split(args.data, out, set(documents(args.held_out)) if args.held_out else set())
    chats(out)
    kinds = ("stories", "dialogues", "quotes", "twitch")
    if not os.path.exists(out("tokenizer")):
        runt("tokenizer", "train", "--vocab", VOCAB, "-o", out("tokenizer"),
             *(w for k in kinds for w in ("--data", out(k + ".txt"))))
    train(out, "pre",
          dict(stories=22, books=19, quotes=19, attributed=5, dialogues=20, everyday_2654=7,
               chat_stories=6, chat_quotes=3, twitch=1),
          2000, ("3e-3", "2.4e-3"), "--init", "gpt2", "--tokenizer", out("tokenizer"), *SHAPE,
          val="dialogues", warmup=100)
    train(out, "talk",
          dict(stories=38, chat_stories=7, quotes=12, attributed=6, everyday_2654=17,
               chat_talks=11, chat_quotes=2, books=6, twitch=1),
          4000, ("2.4e-3", "7.5e-4"), *after(out, "pre"), val="chat")
    train(out, "more",
          dict(stories=28, chat_stories=8, quotes=6, attributed=6, everyday_3798=42, chat_talks=6,
               chat_quotes=1, books=3),
          1479, ("1.5e-3", "1.3e-3"), *after(out, "talk"), warmup=50)
    train(out, "still-more",
          dict(stories=26, chat_stories=6, quotes=6, attributed=6, everyday_9190=48, chat_talks=4,
               chat_quotes=1, books=3),
          1500, ("1.3e-3", "1.2e-3"), *after(out, "more"))
    train(out, "all",
          dict(stories=24, chat_stories=6, quotes=5, attributed=5, everyday_13473=54, chat_talks=3,
               chat_quotes=1, books=2),
          3200, ("1.25e-3", "7.5e-4"), *after(out, "still-more"))
    train(out, "chat",
          dict(stories=22, chat_stories=5, quotes=5, attributed=5, everyday_13473=59, chat_talks=2,
               chat_quotes=1, books=1),
          3800, ("7.5e-4", "1e-5"), *after(out, "all"), dropout=0.05)
    train(out, "last",
          dict(stories=11, chat_stories=4, quotes=3, attributed=4, everyday_13473=76, chat_talks=1,
               chat_quotes=1),
          1900, ("7.5e-4", "1e-5"), *after(out, "chat"), dropout=0.02)
    if not os.path.exists(out("pocket")):
        runt("export", out("last/model.gguf"), out("pocket"), "--type", "bf16")


if __name__ == "__main__":
    main()
