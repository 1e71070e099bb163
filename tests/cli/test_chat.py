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
from tap import (RUNT, ROOT, SLOW, Skip, case, environment, fails, main, misuse, path, runt,
                 test)
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
