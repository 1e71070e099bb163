#!/usr/bin/env python3
"""`runt chat` through a pipe and at a (pseudo-)terminal.  Prints TAP."""
import json
import os
import re
import signal
import subprocess
import sys
import termios
import time
import unicodedata

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from tap import (RUNT, ROOT, SLOW, Skip, case, environment, fails, limits, main, misuse, path,
                 runt, test)
import modelfiles
from modelfiles import Gguf
from terminal import Terminal, has_editor, plain, pts_name

TINY = os.path.join(ROOT, "models", "tiny-gpt2")
BASE_NOTE = "(a base model without a chat template: it continues your text)\n"
FULL_NOTE = "the context is full"


def tiny():
    p = path("tiny.gguf")
    if not os.path.exists(p):
        runt("import", TINY, "-o", p)
    return p


def endless():
    """A model of noise, whose answers practically never end."""
    p = path("endless.gguf")
    if not os.path.exists(p):
        runt("init", "gpt2", "--layers", "2", "--heads", "4", "--embd", "128", "--vocab",
             "20000", "--context", "64", "-o", p)
    return p


def chat(lines, *args, model=None, **more):
    """Lines through a pipe: answers, and what was said on the side."""
    r = runt("chat", "-m", model or tiny(), "--temp", "0", *args, stdin=lines, **more)
    return r.out, r.err


def continuation(prompt, n):
    r = runt("generate", "-m", tiny(), "-p", prompt, "-n", str(n), "--temp", "0",
             "--no-display-prompt")
    return r.out


def answer(prompt, n):
    """What a chat shows of it: an answer starts its line without the space before it."""
    return shown(continuation(prompt, n))


def shown(text):
    return text[1:] if text.startswith(" ") else text


# ---- through a pipe ----

@test
def a_line_in_an_answer_out():
    out, err = chat("Once upon a time\n", "-n", "12")
    assert out == answer("Once upon a time", 12), out
    assert err == BASE_NOTE, err
    with case("without a newline at the end"):
        assert chat("Once upon a time", "-n", "12")[0] == out
    with case("with carriage returns"):
        assert chat("Once upon a time\r\n", "-n", "12")[0] == out
    with case("empty lines are passed over"):
        assert chat("\n\r\n\nOnce upon a time\n\n\n", "-n", "12")[0] == out
    with case("no lines at all"):
        assert chat("", "-n", "12") == ("", BASE_NOTE)
    with case("no prompt and no escapes"):
        assert ">" not in out and "\x1b" not in out + err


@test
def the_conversation_goes_on_from_what_was_said():
    out, _ = chat("One day, a cat\nThen the dog\n", "-n", "10")
    first = continuation("One day, a cat", 10)
    assert out.startswith(shown(first)), (out, first)
    second = answer("One day, a cat" + first[:-1] + "\nThen the dog", 10)
    assert out == shown(first) + second, (out, second)


@test
def commands_answer_on_stderr():
    with case("/help lists every command"):
        out, err = chat("/help\n")
        assert out == ""
        for word in ("/help", "/clear", "/regen", "/stats", "/set", "/bye"):
            assert word in err, err
    with case("/stats has figures"):
        out, err = chat("One day\n/stats\n", "-n", "7")
        assert out == answer("One day", 7), out
        assert re.search(r"\(7 tokens at \d+\.\d tokens/s; context \d+ of 256", err), err
        assert re.search(r"peak memory \d", err), err
    with case("/stats before anything was said"):
        assert "0 tokens" in chat("/stats\n")[1]
    for word in ("/bye", "/exit", "/quit", "/bye  "):
        with case("%r leaves" % word):
            out, _ = chat("One day\n%s\nand then\n" % word, "-n", "5")
            assert out == answer("One day", 5), out
    with case("unknown commands are told and harmless"):
        out, err = chat("/nope\n/\n/HELP\n/by\nOne day\n", "-n", "5")
        assert err.count("no such command") == 4 and "/help" in err, err
        assert out == answer("One day", 5), out


@test
def clear_and_regen():
    one = continuation("One day, a cat", 10)
    with case("/clear forgets"):
        out, err = chat("Some other words\n/clear\nOne day, a cat\n", "-n", "10")
        assert out.endswith(shown(one)) and "forgotten" in err, (out, err)
    with case("/regen answers again, greedily the same"):
        out, _ = chat("One day, a cat\n/regen\n/regen\n", "-n", "10")
        assert out == 3 * shown(one), out
    with case("/regen forgets the first answer"):
        out, _ = chat("One day, a cat\n/regen\nThen\n", "-n", "10")
        assert out == 2 * shown(one) + answer("One day, a cat" + one[:-1] + "\nThen", 10), out
    with case("/regen draws anew"):
        out, _ = chat("One day, a cat\n/regen\n", "-n", "30", "--temp", "1.5", "-s", "1")
        half = out.split("\n")
        assert out != 2 * (half[0] + "\n"), out
    with case("/regen before anything was said"):
        out, err = chat("/regen\n/clear\n/regen\n")
        assert out == "" and err.count("nothing was said") == 2, (out, err)
    with case("/clear leaves no penalty behind"):
        hot = ["-n", "20", "--repeat-penalty", "1.8"]
        want, _ = chat("One day, a cat\n", *hot)
        out, _ = chat("One day, a cat\n/clear\nOne day, a cat\n", *hot)
        assert out == 2 * want, out


@test
def repeat_penalty_counts_the_persons_words():
    """As generate does: the penalty looks back on the text, not only on what was drawn."""
    args = ["-n", "25", "--temp", "0", "--repeat-penalty", "1.7"]
    prompt = "The cat sat. The cat ran. The cat"
    want = runt("generate", "-m", tiny(), "-p", prompt, "--no-display-prompt", *args).out
    assert chat(prompt + "\n", *args)[0] == shown(want)


@test
def set_changes_the_sampler():
    with case("/set alone lists all"):
        err = chat("/set\n", "--top-k", "17", "-n", "3")[1]
        for line in ("(temp 0)", "(top-k 17)", "(top-p 0.95)", "(min-p 0.05)",
                     "(repeat-penalty 1)", "(repeat-last-n 64)", "(seed -1)", "(n 3)"):
            assert line in err, (line, err)
    with case("/set n"):
        out, err = chat("/set n 4\nOne day\n", "-n", "50")
        assert out == answer("One day", 4) and "(n is now 4)" in err, (out, err)
    with case("/set temp and seed repeat"):
        text = "/set temp 1.2\n/set seed 5\nOne day\n/clear\n/set seed 5\nOne day\n"
        out, _ = chat(text, "-n", "12")
        assert len(out) % 2 == 0 and out[:len(out) // 2] == out[len(out) // 2:], out
    with case("large numbers are shown whole"):
        err = chat("/set seed 123456789012\n/set\n")[1]
        assert "seed is now 123456789012" in err and "(seed 123456789012)" in err, err
    for bad in ("temp -1", "temp 101", "temp nan", "temp inf", "temp", "temp warm", "temp 1x",
                "top-p 1.5", "top-p -0.1", "min-p 2", "top-k -1", "top-k 1.5", "top-k 5e9",
                "repeat-penalty 0", "repeat-penalty 101", "repeat-last-n -1",
                "repeat-last-n 5000", "n -1", "n 2.5", "seed 1.5", "seed 1e30", "nothing 1",
                "TEMP 1", "n ''"):
        with case("/set %s is refused" % bad):
            out, err = chat("/set %s\n/set\nOne day\n" % bad, "-n", "5")
            assert "is now" not in err, err
            before = chat("/set\n", "-n", "5")[1]
            assert all(line in err for line in before.splitlines()), (before, err)
            assert out == answer("One day", 5), out


@test
def a_full_context_goes_on():
    lines = "".join("Tell me story number %d about a red ball and a dog.\n" % i
                    for i in range(12))
    out, err = chat(lines, "-n", "40")
    assert out.count("\n") >= 12, out
    assert err.count(FULL_NOTE) == 1, err
    with case("told again after /clear"):
        _, err = chat(lines + "/clear\n" + lines, "-n", "40")
        assert err.count(FULL_NOTE) == 2, err
    with case("an answer longer than the context"):
        out, err = chat("Hello\nHello\n", "-n", "150", "--temp", "1", "-s", "1",
                        model=endless())
        assert len(out) > 300 and err.count(FULL_NOTE) == 1, (out, err)
    with case("a question longer than the context"):
        out, err = chat("the big dog " * 500 + "\nand\n", "-n", "5")
        assert out.count("\n") >= 2 and err.count(FULL_NOTE) == 1, (out, err)
    for n in ("1", "2", "3", "16"):
        with case("a context of " + n):
            out, err = chat("One day\nThe dog\n/regen\n", "-n", "9", "-c", n)
            assert out.count("\n") >= 3, (out, err)
    with case("a full context keeps the words that still fit"):
        many = "".join("Number %d.\n" % i for i in range(60))
        out, err = chat(many + "/stats\n", "-n", "6")
        used = int(re.search(r"context (\d+) of 256", err).group(1))
        assert 128 < used <= 256, err


@test
def templates():
    def told(text, *more):
        return runt("generate", "-m", tiny(), "-p", text, "--temp", "0",
                    "--no-display-prompt", *more).out

    with case("turns"):
        out, err = chat("Hi there\n", "-n", "40", "--template", "turns")
        assert out == shown(told("User: Hi there\nBot:", "-n", "40", "--stop", "\nUser:")), out
        assert err == "", err
    with case("turns, the second"):
        out, _ = chat("Hi\nGood\n", "-n", "10", "--template", "turns")
        first = told("User: Hi\nBot:", "-n", "10", "--stop", "\nUser:")
        second = told("User: Hi\nBot:" + first[:-1] + "\nUser: Good\nBot:", "-n", "10",
                      "--stop", "\nUser:")
        assert out == shown(first) + shown(second), (out, first, second)
    with case("chatml"):
        out, err = chat("Hi there\n", "-n", "40", "--template", "chatml")
        text = "<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\n"
        assert err == "", err
        assert out == shown(told(text, "-n", "40", "--stop", "<|im_end|>")), out
    with case("none, when asked for, needs no note"):
        assert chat("One day\n", "-n", "5", "--template", "none") == (
            answer("One day", 5), "")
    with case("an unknown one"):
        r = misuse("chat", "-m", tiny(), "--template", "llama2", stdin="hi\n",
                   words=["llama2", "turns", "chatml"])
        assert r.raw == b""
        told = runt("chat", "--help").out
        names = r.err.split("there are ")[1].split("\n")[0].split(", ")
        assert len(names) == 8 and all(name in told for name in names), (names, told)
    with open(tiny(), "rb") as f:
        g = Gguf(f.read())
    for name, jinja, note in (("chatml", b"x <|im_start|> y <|im_end|>", ""),
                              ("turns", b"User: {{ m }} Bot:", ""),
                              ("unknown", b"{{ [INST] }}", "none that runt knows")):
        with case("a file with a template: " + name):
            g.set("tokenizer.chat_template", modelfiles.STR, jinja)
            with open(path("template.gguf"), "wb") as f:
                f.write(g.bytes())
            out, err = chat("Hi there\n", "-n", "15", model=path("template.gguf"))
            plain = name if not note else "none"
            assert out == chat("Hi there\n", "-n", "15", "--template", plain)[0], out
            assert (note in err) if note else err == "", err


@test
def words_cannot_speak_for_the_template():
    """Names of control tokens in a person's words are spelt out, not obeyed."""
    with case("the end-of-text token typed"):
        out, _ = chat("a<|endoftext|>b\n", "-n", "8")
        assert out == answer("a<|endoftext|>b", 8), out
    with case("bytes that are no text, and zeros"):
        r = runt("chat", "-m", tiny(), "--temp", "0", "-n", "5",
                 stdin=b"\xff\xfe caf\xc3\n\x00\x01\n\xf0\x9f\x99\x82\n")
        r.out  # valid UTF-8
        assert r.raw.count(b"\n") >= 3, r


@test
def other_templates():
    """As generate sees the same text, so far as it is text."""
    for name, text, stops in (
            ("alpaca", "### Instruction:\nHi\n\n### Response:\n",
             ["\n\n### Instruction:", "\n### Instruction:"]),
            ("human", "Human: Hi\n\nAssistant:", ["\n\nHuman:", "\nHuman:"]),
            ("zephyr", "<|user|>\nHi<|endoftext|>\n<|assistant|>\n", ["<|user|>"]),
            ("dialogpt", "Hi<|endoftext|>", [])):
        with case(name):
            want = runt("generate", "-m", tiny(), "-p", text, "--special", "-n", "20",
                        "--temp", "0", "--no-display-prompt",
                        *[x for s in stops for x in ("--stop", s)]).out
            out, err = chat("Hi\n", "-n", "20", "--template", name)
            assert (out, err) == (shown(want), ""), (out, want, err)


@test
def line_breaks_of_a_template_are_tokens_of_their_own():
    """Where text goes on after them, GPT-2's way of cutting keeps the last one apart, also
    in a vocabulary with a token for two of them."""
    with open(tiny(), "rb") as f:
        g = Gguf(f.read())
    merges, tokens = (g.get("tokenizer.ggml." + k) for k in ("merges", "tokens"))
    made = merges[-1].replace(b" ", b"")
    tokens[tokens.index(made)] = "ĊĊ".encode()
    merges[-1] = "Ċ Ċ".encode()
    model = path("breaks.gguf")
    with open(model, "wb") as f:
        f.write(g.bytes())
    def n_tokens(text):
        return json.loads(runt("generate", "-m", model, "-p", text, "-n", "1", "-o",
                               "json").out)["prompt_tokens"]
    assert n_tokens("a\n\n") == 2
    for name, text in (("human", "Human: Hi\n\nAssistant:"),
                       ("alpaca", "### Instruction:\nHi\n\n### Response:\n")):
        with case(name):
            _, err = chat("Hi\n/stats\n", "--template", name, "-n", "1", model=model)
            assert "context %d of" % (n_tokens(text) + 1) in err, (n_tokens(text), err)


def saved(lines, *args, name="saved.json", **more):
    """What was said, and the messages as /save writes them."""
    target = path(name)
    chat(lines + "/save %s\n" % target, *args, **more)
    with open(target, encoding="utf-8") as f:
        return [(m["role"], m["content"]) for m in json.load(f)["messages"]]


@test
def texts_of_several_lines():
    for name, typed, want in (
            ("on lines of their own", '"""\nOne day\n\na cat\n"""\n', "One day\n\na cat"),
            ("beside the text", '"""One day\na cat"""\n', "One day\na cat"),
            ("in one line", '"""One day"""\n', "One day"),
            ("with carriage returns", '"""One\r\nday"""\r\n', "One\nday"),
            ("commands and quotes are text there", '"""\n/bye\n"quoted" ""\n """\n',
             '/bye\n"quoted" ""\n '),
            ("blanks are kept", '"""  a\n  b  """\n', "  a\n  b  ")):
        with case(name):
            messages = saved(typed, "-n", "3")
            assert messages[0] == ("user", want) and len(messages) == 2, messages
    with case("the answer is that of the text"):
        out, _ = chat('"""\nOne day\na cat\n"""\n', "-n", "12")
        assert out == answer("One day\na cat", 12), out
    with case("an empty text says nothing"):
        for typed in ('""""""\n', '"""\n"""\n'):
            out, err = chat(typed)
            assert out == "" and err == BASE_NOTE, (out, err)
    with case("a file that ends in it"):
        out, err = chat('"""One day\na cat\n', "-n", "12")
        assert out == answer("One day\na cat", 12) and "not closed" in err, (out, err)
    with case("for /system"):
        messages = saved('/system """Be\nkind."""\nHi\n', "-n", "2")
        assert messages[0] == ("system", "Be\nkind."), messages


@test
def what_the_system_says():
    def told(text, n="20", stop="\nUser:"):
        return shown(runt("generate", "-m", tiny(), "-p", text, "--temp", "0", "-n", n,
                          "--stop", stop, "--no-display-prompt").out)

    turns = ["-n", "20", "--template", "turns"]
    want = told("Be kind.\nUser: Hi\nBot:")
    with case("by command"):
        out, err = chat("/system Be kind.\nHi\n", *turns)
        assert out == want and "the system says so" in err, (out, want, err)
    with case("by option"):
        assert chat("Hi\n", "--system", "Be kind.", *turns)[0] == want
    with case("it differs from nothing"):
        assert chat("Hi\n", *turns)[0] != want
    with case("another one counts for what was said before"):
        out, _ = chat("/system Be bad.\nHi\n/system   Be kind.  \n/regen\n", *turns)
        assert out.endswith(want) and out != 2 * want, (out, want)
    with case("/clear keeps it"):
        out, _ = chat("/system Be kind.\nWho are you?\n/clear\nHi\n", *turns)
        assert out.endswith(want), out
    with case("alone it is gone"):
        out, err = chat("/system Be kind.\n/system\nHi\n", *turns)
        assert out == told("User: Hi\nBot:") and "nothing any more" in err, (out, err)
    with case("a full context keeps it"):
        lines = "".join("Tell me story %d of a red ball and a dog.\n" % i for i in range(9))
        target = path("system.json")
        _, err = chat("/system Be kind.\n" + lines + "/save %s\n" % target, "-n", "30",
                      "--template", "turns")
        assert FULL_NOTE in err, err
        with open(target) as f:
            said = json.load(f)["messages"]
        kept, text = [], ""
        for m in reversed(said[1:-1]):  # the newest turns that fit with their answer
            begin = "User: " if m["role"] == "user" else "Bot: "
            longer = begin + m["content"].strip() + "\n" + text
            n = json.loads(runt("generate", "-m", tiny(), "-p",
                                "Be kind.\n" + longer + "Bot:", "-n", "1", "-o",
                                "json").out)["prompt_tokens"]
            if n > 256 - 30:
                break
            if m["role"] == "user":
                kept.append(longer)
            text = longer
        assert told("Be kind.\n" + kept[-1] + "Bot:", "30").strip() == \
            said[-1]["content"].strip(), (kept[-1], said[-1])


@test
def set_knows_every_option_of_the_sampler():
    """Also those that come later: what generate and chat both list, but for what is not
    the sampler's."""
    def listed(verb):
        found = re.findall(r"^ +(?:-\w, )?--([\w-]+)", runt(verb, "--help").out, re.M)
        return set(found) - {"model", "n-predict", "ctx-size", "file", "prompt-cache", "kv",
                             "threads", "help", "lookahead", "lora-adapter"}
    names = re.findall(r"^\((\S+) ", chat("/set\n", "--template", "none")[1], re.M)
    assert set(names) == listed("chat") & listed("generate") | {"n"}, names
    with case("a name alone shows one"):
        assert "(top-k 40)\n" == chat("/set top-k\n")[1].replace(BASE_NOTE, "")
    with case("what is wrong is told as on the command line"):
        err = chat("/set temp 101\n/set top-k x\n")[1]
        assert "(temp must be from 0 to 100, not 101)" in err, err
        assert "(top-k wants a whole number, not 'x')" in err, err


@test
def conversations_are_saved_and_loaded():
    file = path("talk.json")
    whole, _ = chat("One day, a cat\nThen the dog\nAnd then\n", "-n", "10")
    with case("saved in the middle, gone on with elsewhere"):
        first, err = chat("One day, a cat\nThen the dog\n/save %s\n" % file, "-n", "10")
        assert "(saved 4 messages to %s)" % file in err, err
        second, err = chat("Forget this\n/load %s\nAnd then\n" % file, "-n", "10")
        assert "(loaded 4 messages; /show shows them)" in err, err
        assert whole == first + second[len(answer("Forget this", 10)):], (whole, second)
    with case("the file is JSON with messages"):
        with open(file, encoding="utf-8") as f:
            d = json.load(f)
        assert [m["role"] for m in d["messages"]] == ["user", "assistant"] * 2, d
        assert d["messages"][0]["content"] == "One day, a cat", d
        assert d["messages"][1]["content"] == continuation("One day, a cat", 10)[:-1], d
    with case("others' files with more in them"):
        with open(path("other.json"), "w") as f:
            json.dump({"id": 7, "messages": [
                {"role": "system", "content": "x", "name": "y"},
                {"role": "user", "content": "One day, a cat"}], "tools": [{}]}, f)
        out, err = chat("/load %s\n/system\n/regen\n" % path("other.json"), "-n", "10")
        assert out == answer("One day, a cat", 10), out
        assert "loaded 2 messages" in err and "/regen answers the last" in err, err
    with case("over an older file, and with blanks in the name"):
        odd = path("a b c.json")
        for n in (2, 4):
            chat("One\n/save %s\nTwo\n/save %s  \n" % (file, odd), "-n", "2")
        assert len(json.load(open(odd))["messages"]) == 4
        left = [x for x in os.listdir(os.path.dirname(odd)) if "tmp-" in x]
        assert not left, left
    with case("~ is the home"):
        chat("One\n/save ~/home.json\n/load ~/home.json\n", "-n", "2")
        assert os.path.exists(path("home.json"))
    with case("letters of all kinds"):
        words = "Café \\ \"日本\" 🙂 \t end"
        assert saved(words + "\n", "-n", "2")[0] == ("user", words)
    with case("bytes that are no text"):
        chat(b"a\xffb\x00c\n/save odd.json\n", "-n", "1")
        with open(path("odd.json"), encoding="utf-8") as f:
            assert json.load(f)["messages"][0]["content"] == "a\ufffdb\0c"
        assert "loaded 2" in chat("/load odd.json\n")[1]
    with case("an empty conversation"):
        chat("/save empty.json\n")
        assert json.load(open(path("empty.json")))["messages"] == []
        out, err = chat("/load empty.json\n/regen\n")
        assert "loaded 0" in err and "nothing was said" in err, err
    with case("a longer one than the context"):
        many = [{"role": r, "content": "Some words of number %d." % i}
                for i in range(3000) for r in ("user", "assistant")]
        with open(path("many.json"), "w") as f:
            json.dump({"messages": many}, f)
        out, err = chat("/load many.json\nOne day\n/stats\n", "-n", "5", timeout=60)
        assert err.count(FULL_NOTE) == 1 and out.count("\n") == 1, (out, err)
        assert 128 < int(re.search(r"context (\d+) of 256", err).group(1)) <= 256, err


@test
def hostile_conversations_are_refused():
    """With one line, and the conversation goes on as it was."""
    def refused(what, words=()):
        out, err = chat("One day, a cat\n/load %s\nThen the dog\n" % what, "-n", "10")
        lines = err.replace(BASE_NOTE, "").splitlines()
        assert len(lines) == 1 and lines[0].startswith("("), err
        assert all(w in lines[0] for w in words), lines
        assert not re.search(r"[\x00-\x1f\x7f]", lines[0]), lines
        assert out == chat("One day, a cat\nThen the dog\n", "-n", "10")[0], out

    deep = "[" * 100000
    for name, text, words in (
            ("not JSON", "hello", ["bad JSON"]),
            ("an empty file", "", ["bad JSON"]),
            ("cut", '{"messages":[{"role":"user","content":"a', ["bad JSON"]),
            ("a list", "[]", ["messages"]),
            ("messages that are no list", '{"messages":7}', ["messages"]),
            ("a message that is none", '{"messages":[7]}', ["message 1"]),
            ("without content", '{"messages":[{"role":"user"}]}', ["message 1"]),
            ("another role", '{"messages":[{"role":"\\u001b[2J","content":"a"}]}',
             ["message 1"]),
            ("deep", '{"messages":' + deep, ["bad JSON"]),
            ("twice the same key", '{"messages":[],"messages":[]}', ["bad JSON"]),
            ("no UTF-8", b'{"messages":[{"role":"user","content":"\xff"}]}', ["bad JSON"]),
            ("a model", open(tiny(), "rb").read(100000), ["bad JSON"])):
        with case(name):
            with open(path("bad.json"), "wb") as f:
                f.write(text if isinstance(text, bytes) else text.encode())
            refused("bad.json", ["bad.json"] + words)
    with case("too large"):
        with open(path("bad.json"), "wb") as f:
            f.truncate(1 << 30)
        refused("bad.json", ["bad.json", "limit"])
        os.unlink(path("bad.json"))
    with case("no such file"):
        refused("nowhere.json", ["nowhere.json"])
    with case("a folder"):
        refused("/tmp", ["/tmp"])
    with case("a pipe nobody writes to"):
        os.mkfifo(path("fifo"))
        refused("fifo", ["fifo", "not a regular file"])
    with case("no name"):
        refused("", ["/load FILE"])
    with case("names that cannot be written"):
        for name in ("/nowhere/x.json", "/tmp", "/dev/full", "x" * 5000 + ".json", ""):
            out, err = chat("One day\n/save %s\nand\n" % name, "-n", "3")
            assert len(err.replace(BASE_NOTE, "").splitlines()) == 1, err
            assert "saved" not in err and out.count("\n") >= 2, (out, err)
    with case("a full disk leaves the old file"):
        with open(path("old.json"), "w") as f:
            f.write("old")
        words = "some words " * 3000
        out, err = chat(words + "\n/save old.json\n", "-n", "1",
                        preexec=limits(file_size=8192), env={"XDG_STATE_HOME": "/nowhere"})
        assert "old.json" in err and "saved" not in err, err
        assert open(path("old.json")).read() == "old"
        assert not [x for x in os.listdir(path()) if "tmp-" in x]


@test
def show_shows_the_conversation():
    out, err = chat("/system Be kind.\nOne day, a cat\n/show\n", "-n", "10")
    assert out == answer("Be kind.\nOne day, a cat", 10), out
    text = continuation("Be kind.\nOne day, a cat", 10)
    assert "template none, 3 messages)\nsystem: Be kind.\nuser: One day, a cat\n" \
        "assistant:" + text in err, err
    with case("before anything was said"):
        assert "0 messages" in chat("/show\n")[1]


@test
def scripts():
    lines = "One day, a cat\n/set n 5\nThen\n\"\"\"\nof two\nlines\"\"\"\n/stats\n"
    want = chat(lines, "-n", "9")
    with open(path("script"), "w") as f:
        f.write(lines)
    with case("as through a pipe"):
        r = runt("chat", "-m", tiny(), "--temp", "0", "-n", "9", "-f", path("script"),
                 stdin="not read\n")
        assert r.out == want[0], (r.out, want)
        figures = r"\d+\.\d tokens/s|\d+\.\d+ MB\)"
        assert re.sub(figures, "", r.err) == re.sub(figures, "", want[1]), (r.err, want)
    with case("- is standard input"):
        assert chat(lines, "-n", "9", "-f", "-")[0] == want[0]
    with case("a pipe in its place"):
        read, write = os.pipe()
        os.write(write, lines.encode())
        os.close(write)
        p = subprocess.run([RUNT, "chat", "-m", tiny(), "--temp", "0", "-n", "9", "-f",
                            "/dev/fd/%d" % read], pass_fds=[read], capture_output=True,
                           env=environment(), timeout=60 * SLOW)
        os.close(read)
        assert p.stdout.decode() == want[0], p
    with case("an empty one"):
        assert runt("chat", "-m", tiny(), "-f", os.devnull).out == ""
    with case("one that is not there"):
        fails("chat", "-m", tiny(), "-f", "nowhere", words=["nowhere"])
    with case("a folder"):
        fails("chat", "-m", tiny(), "--template", "turns", "-f", "/tmp", words=["/tmp"])
    with case("a folder as standard input"):
        fd = os.open("/tmp", os.O_RDONLY)
        p = subprocess.run([RUNT, "chat", "-m", tiny(), "--template", "turns"], stdin=fd,
                           capture_output=True, env=environment(), timeout=60 * SLOW)
        os.close(fd)
        assert p.returncode == 1 and b"standard input" in p.stderr, p
    with case("/bye in it"):
        with open(path("bye"), "w") as f:
            f.write("/bye\nOne day\n")
        assert runt("chat", "-m", tiny(), "-f", path("bye")).out == ""


@test
def endless_lines_take_no_memory():
    for name, begin in (("a line", b""), ("a text of lines", b'"""\n')):
        with case(name):
            p = subprocess.Popen([RUNT, "chat", "-m", tiny(), "--template", "turns"],
                                 env=environment(), stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                 preexec_fn=limits(address_space=1 << 30))
            chunk = (b"x" * 1000 + (b"\n" if begin else b"x")) * 100
            try:
                p.stdin.write(begin)
                for _ in range(3000):
                    p.stdin.write(chunk)
                p.stdin.close()
            except BrokenPipeError:
                pass
            else:
                raise AssertionError("it took 300 MB")
            assert p.wait(30 * SLOW) == 1
            err = p.stderr.read().decode()
            assert err.count("\n") == 1 and "limit" in err, err
            p.stdout.close()
            p.stderr.close()


@test
def failures_and_interrupts_in_a_pipe():
    with case("a context above the model's"):
        fails("chat", "-m", tiny(), "-c", "257", stdin="", words=["257", "256"])
    with case("SIGINT while waiting for a line"):
        p = subprocess.Popen([RUNT, "chat", "-m", tiny()], env=environment(),
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
        p.stderr.readline()  # the note: it is ready
        time.sleep(0.2)
        p.send_signal(signal.SIGINT)
        p.wait(30 * SLOW)
        assert p.returncode == 130, p.returncode
        for pipe in (p.stdin, p.stdout, p.stderr):
            pipe.close()
    with case("SIGINT stops an answer and the chat goes on"):
        p = subprocess.Popen([RUNT, "chat", "-m", endless(), "-n", "0", "-s", "1"],
                             env=environment(), stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        p.stdin.write(b"hello\n")
        p.stdin.flush()
        os.read(p.stdout.fileno(), 1)
        p.send_signal(signal.SIGINT)
        out, err = p.communicate(b"/set n 3\nagain\n", timeout=30 * SLOW)
        assert p.returncode == 0 and b"stopped" in err and b"n is now 3" in err, (out, err)
    with case("a reader that leaves"):
        p = subprocess.Popen([RUNT, "chat", "-m", endless(), "-n", "0"], env=environment(),
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL)
        p.stdin.write(b"hello\n")
        p.stdin.flush()
        os.read(p.stdout.fileno(), 1)
        p.stdout.close()
        try:
            assert p.wait(30 * SLOW) in (1, -signal.SIGPIPE), p.returncode
        finally:
            p.kill()
            p.stdin.close()


# ---- at a terminal ----

def at_terminal(*args, model=None, **more):
    return Terminal("chat", "-m", model or tiny(), *args, **more)


@test
def terminal_shows_a_prompt_and_answers():
    with at_terminal("-n", "12", "--temp", "0") as t:
        text = plain(t.prompt())
        assert "tiny-gpt2" in text and "context 256" in text and "/help" in text, text
        assert BASE_NOTE.strip() in text, text
        t.line("Once upon a time")
        text = plain(t.prompt())
        assert continuation("Once upon a time", 12).strip() in text, text
        t.line("/bye")
        assert t.end() == 0


@test
def control_d_leaves_with_0():
    with at_terminal() as t:
        t.prompt()
        t.type(b"\x04")
        assert t.end() == 0


@test
def control_c_at_the_prompt_leaves_with_130():
    with at_terminal() as t:
        t.prompt()
        t.type(b"\x03")
        assert t.end() == 130
    with case("with half a line typed"):
        with at_terminal() as t:
            t.prompt()
            t.type("half a li")
            time.sleep(0.2)
            t.type(b"\x03")
            assert t.end() == 130


@test
def control_c_stops_an_answer_and_the_chat_goes_on():
    with at_terminal("-n", "0", "-s", "1", model=endless()) as t:
        t.prompt()
        for _ in range(3):
            t.line("hello")
            t.wait(r"hello[^\n]*\n(.|\n){40}")
            t.type(b"\x03")
            text = plain(t.prompt())
            assert "(stopped)" in text, text
        t.line("/set n 3")
        assert "n is now 3" in plain(t.prompt())
        t.line("again")
        t.prompt()
        with case("a second Ctrl-C leaves"):
            t.type(b"\x03")
            assert t.end() == 130


@test
def control_c_twice_leaves():
    with at_terminal("-n", "0", "-s", "1", model=endless()) as t:
        t.prompt()
        t.line("hello")
        t.wait(r"hello[^\n]*\n(.|\n){40}")
        for _ in range(2):
            t.type(b"\x03")
            time.sleep(0.3 * SLOW)  # two that nobody has heard yet are one signal
        assert t.end() == 130


def columns(text):
    """Of a line at a terminal."""
    wide = {"W": 2, "F": 2}
    return sum(0 if unicodedata.combining(c) else
               wide.get(unicodedata.east_asian_width(c), 1) for c in text)


def answered(t, line):
    """What stands between a line that is typed and the next prompt."""
    t.line(line)
    text = plain(t.prompt())
    return text[text.index("\n") + 1:text.rindex("> ")]


@test
def answers_are_wrapped_at_the_terminals_width():
    args = ["-n", "120", "--temp", "0"]
    want, _ = chat("One day, a little girl\n", *args)
    for width in (20, 60, 100):
        with case("%d columns" % width):
            with at_terminal(*args, columns=width) as t:
                t.prompt()
                text = answered(t, "One day, a little girl")
            lines = text.rstrip("\n").split("\n")
            assert all(columns(x) <= width for x in lines), lines
            assert text.split() == want.split(), (text, want)
            # no line ends earlier than it must, but where the text has a break
            rest, wrapped = want, 0
            for line, following in zip(lines, lines[1:]):
                rest = rest[rest.index(line.split()[0]):] if line.split() else rest
                ends = re.match(r"\s*".join(map(re.escape, line.split())) + r"[ ]*", rest)
                rest = rest[ends.end():]
                if rest[0] != "\n":
                    wrapped += 1
                    assert len(line) + 1 + len(following.split()[0]) > width, (line, following)
            assert wrapped or width == 100, lines
    with case("output in a pipe is left alone"):
        assert "\n" in want.strip() and max(map(len, want.split("\n"))) > 100, want


@test
def a_window_that_changes_its_width():
    with at_terminal("-n", "200", "-s", "4", "--temp", "0.3", columns=100) as t:
        t.prompt()
        for width in (30, 70):
            t.resize(width)
            if has_editor(t):
                t.prompt()  # drawn anew
            text = answered(t, "One day, a little girl went out")
            lines = text.rstrip("\n").split("\n")
            assert all(columns(x) <= width for x in lines), lines
            assert any(columns(x) > width - 12 for x in lines), lines
    with case("in an answer"):
        with at_terminal("-n", "0", "-s", "4", "--temp", "1", columns=100,
                         model=endless()) as t:
            t.prompt()
            t.line("hello")
            t.wait(r"hello[^\n]*\n[^\n]{100}\r\n")
            t.resize(40)
            t.wait(r"\n[^\n]{40}\r\n[^\n]{40}\r\n")
            t.resize(70)
            t.wait(r"\n[^\n]{70}\r\n[^\n]{70}\r\n")
            t.type(b"\x03")
            t.prompt()
    with case("while a line is typed"):
        with at_terminal("-n", "3", columns=100) as t:
            t.prompt()
            if not has_editor(t):
                raise Skip("built without libedit")
            t.type("/set top-k 17")
            t.wait("17")
            t.resize(50)
            t.wait("> /set top-k 17")  # drawn anew
            t.type("4\r")
            assert "top-k is now 174" in plain(t.prompt())


@test
def widths_are_those_of_characters():
    text = ("Café naïve Ångström Łódź über " * 3 + "日本語の文章は空白なしで続きます。" * 4 +
            " e\u0301t\u00e9 a\u0308b " * 4 + "🙂🙂 smile 🙂 " * 6 + "x" * 95)
    with open(path("wide.json"), "w") as f:
        json.dump({"messages": [{"role": "user", "content": text}]}, f)
    for width in (11, 40, 60):
        with case("%d columns" % width):
            with at_terminal(columns=width) as t:
                t.prompt()
                answered(t, "/load wide.json")
                shown_text = answered(t, "/show")
            lines = shown_text[shown_text.index("user:"):].rstrip("\n").split("\n")
            assert all(columns(x) <= width for x in lines), [(columns(x), x) for x in lines]
            assert "".join(lines).replace(" ", "") == "user:" + text.replace(" ", ""), lines
            assert "".join(lines).count("x" * width), lines  # a word longer than a line
            assert any(columns(x) >= width - 1 for x in lines if "日" in x), lines


@test
def going_on_after_a_stop():
    with at_terminal("-n", "3") as t:
        t.prompt()
        if not has_editor(t):
            raise Skip("built without libedit")
        t.type("/set top-k 1")
        t.wait("k 1")
        os.kill(t.pid, signal.SIGSTOP)
        os.waitpid(t.pid, os.WUNTRACED)
        termios.tcsetattr(t.fd, termios.TCSANOW, t.before)  # as a shell does
        assert not has_editor(t)
        os.kill(t.pid, signal.SIGCONT)
        t.wait("> /set top-k 1")
        assert has_editor(t)
        t.type("7\r")
        assert "top-k is now 17" in plain(t.prompt())


@test
def no_text_drives_the_terminal():
    evil = "\x1b[2J\x1b]0;title\x07 \x9b31m \x7f\b\b\rback"
    with open(path("evil.json"), "w") as f:
        json.dump({"messages": [{"role": "user", "content": evil}]}, f)
    with at_terminal(env={"NO_COLOR": "1"}) as t:
        t.prompt()
        t.line("/load evil.json")
        t.prompt()
        t.shown = ""
        t.line("/show")
        t.prompt()
        begin = t.shown.index("user:")
        text = t.shown[begin:t.shown.index("back", begin)]
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", text), repr(text)


@test
def texts_of_several_lines_at_a_terminal():
    with at_terminal("-n", "12", "--temp", "0") as t:
        t.prompt()
        t.line('"""')
        t.wait(r"\.\.\. ")
        t.line("One day")
        t.wait(r"\.\.\. ")
        t.line('a cat"""')
        text = plain(t.prompt())
        assert continuation("One day\na cat", 12).split() == \
            text[text.index('"""') + 3:].rstrip("> ").split(), text
        with case("Ctrl-C gives it up, and the chat goes on"):
            t.line('"""some')
            t.wait(r"\.\.\. ")
            t.type(b"\x03")
            assert "(stopped)" in plain(t.prompt())
            answered(t, "/save one.json")
            assert len(json.load(open(path("one.json")))["messages"]) == 2
        with case("Ctrl-D in it leaves"):
            t.line('"""some')
            t.wait(r"\.\.\. ")
            t.type(b"\x04")
            assert t.end() == 0


# ---- lines of earlier sessions ----

HISTORY = path(".local", "state", "runt", "history")


def type_lines(*lines, env=None, args=()):
    with at_terminal("-n", "2", *args, env=env) as t:
        t.prompt()
        if not has_editor(t):
            raise Skip("built without libedit")
        for line in lines:
            t.line(line)
            t.prompt()
        t.line("/bye")
        assert t.end() == 0
        return plain(t.shown)


def history_lines(file=HISTORY):
    with open(file, encoding="utf-8", errors="replace") as f:
        return f.read().splitlines()


@test
def lines_are_kept_across_sessions():
    if os.path.exists(HISTORY):
        os.unlink(HISTORY)
    type_lines("/set top-k 7", "Café 🙂", "/set top-k 7", "/set top-k 7", "")
    with case("as they were typed, not twice in a row"):
        assert history_lines() == ["/set top-k 7", "Café 🙂", "/set top-k 7", "/bye"]
    with case("they are the person's alone"):
        for p in (HISTORY, os.path.dirname(HISTORY)):
            assert os.stat(p).st_mode & 0o077 == 0, oct(os.stat(p).st_mode)
    with case("arrow up in the next session"):
        with at_terminal() as t:
            t.prompt()
            t.type("\x1b[A\x1b[A9\r")
            assert "top-k is now 79" in plain(t.prompt())
    with case("kept when the session is killed"):
        with at_terminal() as t:
            t.prompt()
            t.line("/set top-k 13")
            t.prompt()
        assert history_lines()[-1] == "/set top-k 13"
    before = history_lines()
    with case("pipes and scripts keep nothing"):
        chat("/set top-k 1\n")
        with open(path("kept"), "w") as f:
            f.write("/set top-k 2\n")
        runt("chat", "-m", tiny(), "-f", path("kept"))
        with Terminal("chat", "-m", tiny(), "-f", path("kept")) as t:
            assert t.end() == 0
        read, write = os.pipe()
        os.write(write, b"/set top-k 3\n")
        os.close(write)
        with Terminal("chat", "-m", tiny(), stdin=read) as t:
            assert t.end() == 0
        os.close(read)
        assert history_lines() == before
    with case("--no-history"):
        type_lines("/set top-k 4", args=["--no-history"])
        assert history_lines() == before
    with case("without a home"):
        assert "not kept" not in type_lines("/set top-k 4", env={"HOME": None})
    with case("XDG_STATE_HOME"):
        type_lines("/set top-k 5", env={"XDG_STATE_HOME": path("state")})
        assert history_lines(path("state", "runt", "history")) == ["/set top-k 5", "/bye"]
    with case("a relative XDG_STATE_HOME counts for nothing"):
        type_lines("/set top-k 6", env={"XDG_STATE_HOME": "state2"})
        assert not os.path.exists(path("state2")) and "/set top-k 6" in history_lines()


@test
def histories_have_bounds():
    type_lines("x")
    with case("the newest thousand lines"):
        with open(HISTORY, "w") as f:
            f.writelines("line %d\n" % i for i in range(5000))
        type_lines("new")
        lines = history_lines()
        assert lines[-2:] == ["new", "/bye"] and len(lines) == 1002, (len(lines), lines[-3:])
        assert lines[0] == "line 4000", lines[0]
        assert os.stat(HISTORY).st_mode & 0o777 == 0o600
    with case("a huge one"):
        with open(HISTORY, "wb") as f:
            f.truncate(1 << 32)
            f.seek(0, 2)
            f.write(b"\nlast\n")
        with at_terminal() as t:
            t.prompt()
            t.type("\x1b[A")
            t.wait("last")
        assert os.stat(HISTORY).st_size < 1 << 19, os.stat(HISTORY).st_size
    with case("lines that are no lines"):
        with open(HISTORY, "wb") as f:
            f.write(b"fine\n\xff\xfe\n\x1b[2Jx\nc1 \xc2\x9b\n" + b"y" * 100000 + b"\n\0\n\n")
        with at_terminal() as t:
            t.prompt()
            t.type("\x1b[A")
            t.wait("fine")
            assert "\x1b[2Jx" not in t.shown
    with case("open to others: closed"):
        os.chmod(HISTORY, 0o666)
        type_lines("y")
        assert os.stat(HISTORY).st_mode & 0o777 == 0o600
    with case("an overlong line is not kept"):
        type_lines("z " * 2500)
        assert "z" not in "".join(history_lines()), history_lines()[-2:]
    os.unlink(HISTORY)
    for name, make in (("a folder", lambda: os.mkdir(HISTORY)),
                       ("a pipe", lambda: os.mkfifo(HISTORY))):
        with case(name + " in its place is told once"):
            make()
            text = type_lines("/set top-k 9", "/set top-k 8")
            assert text.count("is not kept for later sessions") == 1, text
            assert "top-k is now 8" in text
            (os.rmdir if os.path.isdir(HISTORY) else os.unlink)(HISTORY)
    with case("a place that cannot be is told once"):
        text = type_lines("/set top-k 9", env={"XDG_STATE_HOME": "/dev/null"})
        assert text.count("is not kept for later sessions") == 1, text


@test
def the_tab_key_completes():
    with at_terminal("-n", "2") as t:
        t.prompt()
        if not has_editor(t):
            raise Skip("built without libedit")
        for typed, shown_as in (("/st\t", "/stats "), ("/set te\t", "/set temp "),
                                ("/set repeat-l\t", "/set repeat-last-n "),
                                ("/sa\t", "/save "), ("/set top-\tk", "/set top-k")):
            with case(repr(typed)):
                t.type(typed + "\x0c")  # Ctrl-L draws the whole line again
                t.wait("> " + re.escape(shown_as))
                t.type(b"\x15")
        with case("what it may be is listed"):
            t.type("/s\t")
            listed = plain(t.wait("/stats"))
            assert all(w in listed for w in ("/system", "/show", "/save", "/set")), listed
            t.wait("> /s")
            t.type("\x15/set \t")
            listed = plain(t.wait("repeat-last-n"))
            assert all(w in listed for w in ("seed", "temp", "top-k", "min-p")), listed
            t.wait("> /set ")
            t.type(b"\x15")
        with case("a completed command runs"):
            t.type("/set to\tk\t5\r")
            assert "top-k is now 5" in plain(t.wait(r"is now 5\)"))
            t.prompt()
        with case("no words, nothing happens"):
            t.type("hello \t/x\t/set temp \t\x15/set n 7\r")
            assert "n is now 7" in plain(t.wait(r"is now 7\)"))


@test
def scripts_at_a_terminal():
    with open(path("script"), "w") as f:
        f.write('"""One day\na cat"""\n/stats\n')
    with Terminal("chat", "-m", tiny(), "-n", "60", "--temp", "0", "-f", path("script"),
                  columns=40) as t:
        assert t.end() == 0
        text = plain(t.shown)
    assert '> """One day\n... a cat"""\n' in text, text
    assert "> /stats\n(60 tokens at" in text, text
    assert all(len(x) <= 40 for x in text.split("\n")), text


@test
def roles_are_bold_where_there_are_colours():
    for env, want in (({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)):
        with case(str(env)):
            with at_terminal("-n", "2", env=env) as t:
                t.prompt()
                t.line("One day")
                t.prompt()
                t.shown = ""
                t.line("/show")
                t.prompt()
                assert ("\x1b[1muser:\x1b[0m" in t.shown) == want, repr(t.shown)
                assert ("\x1b[2m(model" in t.shown) == want, repr(t.shown)


@test
def signals_from_outside():
    for sig, want in ((signal.SIGINT, (130, -signal.SIGINT)),
                      (signal.SIGTERM, (130, 143, -signal.SIGTERM)),
                      (signal.SIGHUP, (129, 130, -signal.SIGHUP))):
        with case("%s at the prompt ends it" % sig.name):
            with at_terminal() as t:
                t.prompt()
                os.kill(t.pid, sig)
                assert t.end(10) in want, t.status
    with case("SIGTERM in an answer ends it"):
        with at_terminal("-n", "0", model=endless()) as t:
            t.prompt()
            t.line("hello")
            t.wait(r"hello[^\n]*\n(.|\n){40}")
            os.kill(t.pid, signal.SIGTERM)
            assert t.end(10) in (130, 143, -signal.SIGTERM), t.status
    with case("a terminal that goes away"):
        t = at_terminal()
        t.prompt()
        os.close(t.fd)
        deadline = time.monotonic() + 10 * SLOW
        while time.monotonic() < deadline:
            pid, status = os.waitpid(t.pid, os.WNOHANG)
            if pid:
                break
            time.sleep(0.05)
        else:
            os.kill(t.pid, signal.SIGKILL)
            os.waitpid(t.pid, 0)
            raise AssertionError("it lives on without a terminal")


@test
def history_and_editing():
    with at_terminal("-n", "5", "--temp", "0") as t:
        t.prompt()
        if not has_editor(t):
            raise Skip("built without libedit")
        with case("arrow up brings a line back"):
            t.line("/set top-k 7")
            assert "top-k is now 7" in plain(t.prompt())
            t.line("/set top-k 8")
            assert "top-k is now 8" in plain(t.prompt())
            t.type("\x1b[A\x1b[A\r")
            assert "top-k is now 7" in plain(t.prompt())
        with case("arrow down and an edit"):
            t.type("\x1b[A\x1b[A\x1b[B" + "\x7f" + "9\r")
            text = plain(t.prompt())
            assert re.search("top-k is now [789]9?\\b", text), text
        with case("backspace and the start of the line"):
            t.type("et top-k 55\x7f\x01/s\r")
            assert "top-k is now 5)" in plain(t.prompt())
        with case("Ctrl-U clears the line"):
            t.type("rubbish\x15/set top-k 6\r")
            text = plain(t.prompt())
            if "top-k is now 6" not in text:  # clearing may draw the prompt once more
                text = plain(t.prompt())
            assert "top-k is now 6" in text, text
        with case("an empty line asks again"):
            t.line("")
            t.prompt()
        with case("Ctrl-D on a line that is not empty does not leave"):
            t.type("/set top-k 4\x04\r")
            assert "top-k is now 4" in plain(t.prompt())
        t.line("/bye")
        assert t.end() == 0


@test
def letters_beyond_ascii_can_be_typed():
    words = "Café naïve 日本 🙂"
    want, _ = chat(words + "\n", "-n", "10")
    for locale in ("C.UTF-8", "C"):
        with case("typed in locale " + locale):
            with at_terminal("-n", "10", "--temp", "0", env={"LC_ALL": locale}) as t:
                t.prompt()
                t.line(words)
                text = plain(t.prompt())
                assert want.strip() in text, (text, want)
                if locale == "C.UTF-8":
                    assert words in text, text
                t.line("/bye")
                assert t.end() == 0


@test
def long_lines_and_pastes():
    with at_terminal("-n", "3", "--temp", "0") as t:
        t.prompt()
        with case("a line longer than the screen"):
            t.line("the dog " * 60)
            t.prompt()
        with case("several lines at once"):
            t.type("/set top-k 3\r/set top-k 2\r/set top-k 1\r")
            t.wait("top-k is now 1")
            t.prompt()
        t.line("/bye")
        assert t.end() == 0


@test
def colour_only_where_wanted():
    for name, env, want in (("a terminal", {}, True), ("NO_COLOR", {"NO_COLOR": "1"}, False),
                            ("an empty NO_COLOR", {"NO_COLOR": ""}, True),
                            ("a dumb terminal", {"TERM": "dumb"}, False)):
        with case("colour with " + name):
            with at_terminal(env=env) as t:
                text = t.prompt()
                assert (re.search(r"\x1b\[[0-9;]*m", text) is not None) == want, repr(text)
                t.line("/bye")
                assert t.end() == 0


@test
def the_terminal_is_left_as_it_was():
    for how in ("/bye", "control d", "control c", "interrupted answer", "failure"):
        with case("terminal modes after " + how):
            args = ["-n", "0"] if how == "interrupted answer" else ["-n", "5"]
            model = endless() if how == "interrupted answer" else None
            with at_terminal(*args, model=model) as t:
                t.prompt()
                if how == "interrupted answer":
                    t.line("hello")
                    t.wait(r"hello[^\n]*\n(.|\n){40}")
                    assert t.modes()[3] & termios.ISIG, "Ctrl-C is no signal in an answer"
                    t.type(b"\x03")
                    t.prompt()
                if how == "failure":
                    os.kill(t.pid, signal.SIGTERM)
                elif how == "control c":
                    t.type(b"\x03")
                elif how == "control d":
                    t.type(b"\x04")
                else:
                    t.line("/bye")
                slave = os.open(pts_name(t.fd), os.O_RDWR | os.O_NOCTTY)
                try:  # held open: the last one to close it would reset it
                    t.end()
                    assert t.modes() == t.before, (t.before, t.modes())
                finally:
                    os.close(slave)


if __name__ == "__main__":
    main()
