"""The rig that the benchmarks share: it builds the programs, starts one pinned server at a time,
drives load against it, and ends what it started, whatever happens."""

import argparse
import json
import os
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BENCHES = Path(__file__).resolve().parent
ROOT = BENCHES.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
BUILT = TARGET / "benches"
LOAD = BUILT / "load"
COMPANY = BUILT / "company"
ENDINGS = BUILT / "endings"
EPOLL_ECHO = BUILT / "epoll_echo"
C_PEER = f"{EPOLL_ECHO} {{port}}"

LOAD_SECONDS = 120
START_SECONDS = 20
STOP_SECONDS = 20

CONFIG = """\
workers = 1

[[listener]]
name = "bench"
address = "127.0.0.1:{port}"
framing = "{framing}"
responder = "echo"

[limits]
{limits}

[metrics]
address = ""

[log]
level = "warn"
"""


class Trouble(Exception):
    """What stops a benchmark, in one line for the one who runs it."""


def main_with(function):
    """Runs `function`; trouble and signals end in one line and an exit code, not a traceback."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    name = Path(sys.argv[0]).name
    try:
        sys.exit(function())
    except Trouble as trouble:
        sys.exit(f"{name}: {trouble}")
    except KeyboardInterrupt:
        sys.exit(130)


def need(tool, package):
    if shutil.which(tool) is None:
        raise Trouble(f"{tool} is missing: apt-get install {package}")


def cpus():
    """One CPU for the server and another for the load, else each would measure the other."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise Trouble("two CPUs are needed, one for the server and one for the load")
    return allowed[0], allowed[1]


def build_c():
    need("gcc", "gcc libc6-dev")
    BUILT.mkdir(parents=True, exist_ok=True)
    peers = ("peers/epoll_echo.c", "peers/epoll_pool.c", "peers/pipe.c")
    sources = ("load.c", "company.c", "endings.c", *peers)
    for source in (BENCHES / name for name in sources):
        program = BUILT / source.stem
        command = ["gcc", "-std=c11", "-O2", "-Wall", "-Wextra", "-pthread", "-o", program, source]
        if subprocess.run(command, check=False).returncode != 0:
            raise Trouble(f"gcc could not build {source.name}")


def talkback_command(server, command):
    """The command that takes talkback's place: the one given, a built binary, or a fresh build."""
    if command:
        return command
    if server is None:
        need("cargo", "cargo, or see rustup.rs")
        build = ["cargo", "build", "--release", "--bin", "talkback"]
        if subprocess.run(build, cwd=ROOT, check=False).returncode != 0:
            raise Trouble("cargo could not build talkback")
        server = TARGET / "release/talkback"
    server = Path(server).resolve()
    if not os.access(server, os.X_OK):
        raise Trouble(f"{server} is not a program")
    return f"{shlex.quote(str(server))} serve --config {{config}}"


def unmeasured_command():
    """talkback without its metrics: nothing is observed, asked of the kernel or told."""
    need("cargo", "cargo, or see rustup.rs")
    target = TARGET / "unmeasured"
    build = ["cargo", "build", "--release", "--bin", "talkback", "--target-dir", target]
    flags = os.environ | {"RUSTFLAGS": "--cfg unmeasured"}
    if subprocess.run(build, cwd=ROOT, env=flags, check=False).returncode != 0:
        raise Trouble("cargo could not build talkback without its metrics")
    return talkback_command(target / "release/talkback", None)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def end(process):
    """SIGTERM, and SIGKILL for what does not heed it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


class Server:
    """A server on the CPUs given, else on one. `config` is a talkback config; it may name {port}
    and the other values, and `command` those and the config's path as {config}."""

    def __init__(self, command, config=CONFIG, wrapper=(), on=None, **values):
        self.port = free_port()
        self.directory = tempfile.TemporaryDirectory(prefix="talkback-bench-")
        path = Path(self.directory.name) / "talkback.toml"
        values = {"port": self.port, "framing": "raw", "limits": "", **values}
        path.write_text(config.format(**values))
        words = [word.format(config=path, **values) for word in shlex.split(command)]
        self.log = Path(self.directory.name) / "stderr"
        on = on or {cpus()[0]}
        try:
            with self.log.open("wb") as log:
                self.process = subprocess.Popen(
                    [*wrapper, *words],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                    preexec_fn=lambda: os.sched_setaffinity(0, on),
                )
        except OSError as error:
            self.directory.cleanup()
            raise Trouble(f"cannot start {words[0]}: {error.strerror}") from error
        self.pid = self.process.pid

    def __enter__(self):
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        end(self.process)
        self.directory.cleanup()

    def _wait_until_it_answers(self):
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                lines = self.log.read_text(errors="replace").strip().splitlines() or ["no word"]
                code = self.process.returncode
                raise Trouble(f"the server ended at its start with {code}: {lines[-1]}")
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                    return
            except OSError:
                time.sleep(0.02)
        raise Trouble(f"no answer on port {self.port} after {START_SECONDS} s")

    def cpu_ns(self):
        """CPU time of all its threads, ended ones too, in ns: the process's own CPU clock.

        The clock's id is clock_getcpuclockid(3)'s, which Python does not have. Read it while the
        server sleeps: the kernel adds up a running thread only at its next switch or tick."""
        if self.process.poll() is not None:
            raise Trouble(f"the server ended early with {self.process.returncode}")
        return time.clock_gettime_ns((~self.pid << 3) | 2)


    def waited_ns(self):
        """How long its threads were ready to run and did not: its CPU had something else to do."""
        tasks = Path(f"/proc/{self.pid}/task")
        return sum(int((task / "schedstat").read_text().split()[1]) for task in tasks.iterdir())


class Clients:
    """A program of clients that says when all of them are connected, goes on at a line of input,
    tells its figures, and closes at the next line."""

    def __init__(self, program, port, arguments, seconds_max=LOAD_SECONDS):
        cpu = cpus()[1]
        self.seconds_max = seconds_max
        command = [program, "127.0.0.1", str(port), "--seconds-max", str(seconds_max)]
        self.process = subprocess.Popen(
            [*command, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {cpu}),
        )

    def __enter__(self):
        try:
            self._line()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass  # It is gone already, and has said why.
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        end(self.process)
        self.process.stdout.close()
        self.process.stderr.close()

    def go(self):
        """Lets it go on, waits for its figures, and returns them."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self._line())

    def _line(self):
        ready, _, _ = select.select([self.process.stdout], [], [], self.seconds_max + 5)
        line = self.process.stdout.readline() if ready else ""
        if not line:
            end(self.process)
            program = Path(self.process.args[0]).name
            words = self.process.stderr.read().strip().splitlines() or [f"{program}: no word"]
            raise Trouble(words[-1])
        return line


class Load(Clients):
    """Connected and waiting; `go` sends all messages and waits for all replies."""

    def __init__(self, port, arguments):
        super().__init__(LOAD, port, ("--gate", *arguments))


class Company(Clients):
    """Hostile from the first moment until `go`, which tells what it did."""

    def __init__(self, port):
        super().__init__(COMPANY, port, ())


def settle():
    """Lets a server go to sleep, so that its CPU clock is complete and its last closes are done."""
    time.sleep(0.05)


def show(header, rows, markdown):
    table = [header, *rows]
    if markdown:
        table.insert(1, ["---"] * len(header))
        for row in table:
            print("| " + " | ".join(row) + " |")
        return
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def positive(text):
    value = int(text)
    if not 1 <= value <= 100_000_000:
        raise argparse.ArgumentTypeError("must be 1 to 100000000")
    return value
