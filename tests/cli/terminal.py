"""The program at a pseudo-terminal."""
import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time

from tap import RUNT, SLOW, TMP, environment


def pts_name(fd):
    """Of the terminal behind a pty's other side."""
    get_number = 0x80045430  # TIOCGPTN
    return "/dev/pts/%d" % struct.unpack("i", fcntl.ioctl(fd, get_number, bytes(4)))


class Terminal:
    """The program at a terminal of its own; what it shows is read as it comes."""

    def __init__(self, *args, env=None, columns=80, stdin=None):
        self.seen = self.shown = ""
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        env = environment({"TERM": "xterm", **(env or {})})
        self.status = None
        ready, go = os.pipe()
        self.pid, self.fd = pty.fork()
        if not self.pid:
            os.close(go)
            if stdin is not None:  # not the terminal, which stays the output
                os.dup2(stdin, 0)
            os.read(ready, 1)
            os.chdir(TMP)
            os.execve(RUNT, [RUNT, *args], env)
        os.close(ready)
        self.resize(columns)
        self.before = self.modes()
        os.close(go)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)

    def pump(self, seconds):
        """Read what comes within so long; False when the program has left."""
        ready, _, _ = select.select([self.fd], [], [], seconds)
        if not ready:
            return True
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # Linux's way to say that the other side is closed
            return False
        text = self.decoder.decode(data)
        self.seen += text
        self.shown += text
        return bool(data)

    def wait(self, pattern, seconds=30):
        """Wait until the pattern shows in what came since the last wait; what came before
        it and with it."""
        deadline = time.monotonic() + seconds * SLOW
        alive = True
        while True:
            m = re.search(pattern, self.seen)
            if m:
                taken, self.seen = self.seen[:m.end()], self.seen[m.end():]
                return taken
            assert alive, "it left before %r: %r" % (pattern, self.shown[-1500:])
            assert time.monotonic() < deadline, "no %r in %r" % (pattern, self.shown[-1500:])
            alive = self.pump(0.1)

    def prompt(self):
        text = self.wait(r"> (\x1b\[[0-9;?]*[A-Za-z])*$")
        # the prompt shows a moment before the keys are read
        time.sleep(0.1)
        return text

    def type(self, text):
        os.write(self.fd, text if isinstance(text, bytes) else text.encode())

    def line(self, text):
        self.type(text + "\r")

    def end(self, seconds=30):
        """Wait until it leaves; its exit status, negative for a signal."""
        deadline = time.monotonic() + seconds * SLOW
        while self.pump(0.05):
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = status
                break
            assert time.monotonic() < deadline, "it does not leave: %r" % self.shown[-1500:]
        if self.status is None:
            self.status = os.waitpid(self.pid, 0)[1]
        return os.waitstatus_to_exitcode(self.status)

    def resize(self, columns):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))

    def modes(self):
        return termios.tcgetattr(self.fd)


def plain(text):
    """Without escape sequences and carriage returns."""
    return re.sub(r"\x1b(\[[0-9;?]*[A-Za-z]|[()][A-Z0-9]|[=>])|\r|\x07", "", text)


def has_editor(t):
    """Line editing takes the keys one by one."""
    return not t.modes()[3] & termios.ICANON
