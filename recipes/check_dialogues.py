#!/usr/bin/env python3
"""Checks the form of a file of dialogues and prints what it holds.

usage: check_dialogues.py [FILE]    (everyday.txt.xz beside this script; also not compressed)

A document is lines that begin with "User: " and "Bot: " in turn, the first with User: and
the last with Bot:, and is closed by a line <|endoftext|>.  Exits 1 if anything is amiss.
"""
import collections
import lzma
import os
import re
import sys

END = "<|endoftext|>"
USER, BOT = "User: ", "Bot: "
EXCHANGES = (3, 6)         # in a conversation
USER_CHARS = (2, 150)      # in a turn
BOT_CHARS = (12, 170)
BOT_WORDS = (4, 30)
ALLOWED = re.compile(r"[A-Za-z0-9 .,;:!?'\"()+=/%-]+")


def words(s):
    return re.findall(r"[a-z0-9']+", s.lower())


def key(s):
    return " ".join(words(s))


def main():
    path = sys.argv[1] if len(sys.argv) > 1 else os.path.join(
        os.path.dirname(os.path.abspath(__file__)), "everyday.txt.xz")
    with (lzma.open if path.endswith(".xz") else open)(path, "rb") as f:
        raw = f.read()
    bad = []

    def say(n, what):
        bad.append(f"{path}:{n}: {what}")

    try:
        text = raw.decode("ascii")
    except UnicodeDecodeError as e:
        say(raw[:e.start].count(b"\n") + 1, "a byte that is not ASCII")
        text = raw.decode("ascii", "replace")
    if not text.endswith(END + "\n"):
        say(text.count("\n") + 1, f"does not end with a line {END}")

    talks, turns, start = [], [], 1
    for n, line in enumerate(text.split("\n")[:-1], 1):
        if line == END:
            if len(turns) % 2:
                say(n, "does not end with a Bot: turn")
            if not EXCHANGES[0] <= len(turns) // 2 <= EXCHANGES[1]:
                say(start, f"{len(turns) // 2} exchanges")
            talks.append((start, turns))
            turns, start = [], n + 1
            continue
        who = BOT if len(turns) % 2 else USER
        if not line.startswith(who):
            say(n, f"does not begin with {who!r}")
            who = line[:line.find(" ") + 1]
        said = line[len(who):]
        turns.append(said)
        if not said.strip():
            say(n, "an empty turn")
            continue
        if said != " ".join(said.split()):
            say(n, "spaces at an end or doubled, or a tab")
        if not ALLOWED.fullmatch(said):
            say(n, "an odd character: " + re.sub(ALLOWED, "", said))
        if re.search(r"\b(User|Bot):", said):
            say(n, "a speaker's name within a turn")
        low, high = USER_CHARS if who == USER else BOT_CHARS
        if not low <= len(said) <= high:
            say(n, f"{len(said)} characters")
        if who == BOT:
            if not BOT_WORDS[0] <= len(said.split()) <= BOT_WORDS[1]:
                say(n, f"{len(said.split())} words")
            if said[-1] not in ".!?\"":
                say(n, "an answer without an end")
            if not (said[0].isupper() or said[0] in "\"'" or said[0].isdigit()):
                say(n, "an answer that begins small")
    if turns:
        say(start, "a conversation that is not closed")

    whole, first = {}, {}
    for n, t in talks:
        k = "\n".join(map(key, t))
        if k in whole:
            say(n, f"the same conversation as at line {whole[k]}")
        elif t and key(t[0]) in first:
            say(n, f"the same opening as at line {first[key(t[0])]}: {t[0]}")
        if t:
            whole.setdefault(k, n)
            first.setdefault(key(t[0]), n)

    asked = [s for _, t in talks for s in t[::2]]
    given = [s for _, t in talks for s in t[1::2]]
    size = sorted(len(s.split()) for s in given) or [0]
    lengths = collections.Counter(len(t) // 2 for _, t in talks)
    print(f"conversations  {len(talks)}")
    print("exchanges      %d (%s)" % (len(given), ", ".join(
        f"{k}: {v}" for k, v in sorted(lengths.items()))))
    print(f"characters     {len(text)}")
    print(f"words          {len(words(text))}, {len(set(words(text)))} different")
    print(f"answer         {size[0]} to {size[-1]} words, median {size[len(size) // 2]}; "
          f"{100 * sum('?' in s for s in given) // max(1, len(given))}% ask back")
    print(f"different      {len(set(map(key, asked)))} of {len(asked)} user turns, "
          f"{len(set(map(key, given)))} of {len(given)} answers")
    for line in bad:
        print(line, file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
