"""Measures unified-nats beside a bare nats-server. Run by scripts/bench.sh, which see.

Both sides are measured in turn, A B B A A B ..., so that whatever else the machine does hits both
alike, by the same polling code, and are told as medians. Numbers of ours are rounded up; whether
a target is met is decided before rounding.
"""

import argparse
import contextlib
import ctypes
import datetime
import json
import math
import os
import platform
import select
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import rest_load  # noqa: E402

# ---- figures ----

MILLISECOND = 1e-3
MEGABYTE = 1e6


def percentile(values, share):
    """The value that this share of all is not above (nearest rank)."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def number(value, up=True):
    """Three significant digits or so, up unless told otherwise; a negative one towards 0."""
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2 if abs(value) >= 1 else 3
    scale = 10**digits
    # What is left of a binary fraction is no reason to round up.
    scaled = round(value * scale, 6)
    rounded = math.ceil(scaled) if up else round(scaled)
    return f"{rounded / scale:.{digits}f}"


class Samples:
    def __init__(self, values, unit, scale):
        self.values = [value / scale for value in values]
        self.unit = unit
        self.median = statistics.median(self.values)

    def show(self, up=True):
        if len(self.values) == 1:
            return f"{number(self.median, up)} {self.unit}"
        low, high = min(self.values), percentile(self.values, 0.9)
        return (
            f"{number(self.median, up)} {self.unit}"
            f" (min {number(low, up)}, p90 {number(high, up)}, n {len(self.values)})"
        )


def milliseconds(values):
    return Samples(values, "ms", MILLISECOND)


def megabytes(value):
    return Samples([value], "MB", MEGABYTE)


class Table:
    def __init__(self):
        self.rows = []
        self.counts = {"yes": 0, "**NO**": 0, "not measured": 0}

    def add(self, what, bare, ours, comparison, target, met):
        word = met if isinstance(met, str) else "yes" if met else "**NO**"
        self.counts[word] = self.counts.get(word, 0) + 1
        row = [what, bare, ours, comparison, target, word]
        self.rows.append(row)
        print(" | ".join(row), file=sys.stderr, flush=True)

    def ratio(self, what, bare, ours, limit):
        ratio = ours.median / bare.median
        self.add(what, bare.show(up=False), ours.show(), f"× {number(ratio)}", f"≤ × {limit}", ratio <= limit)

    def share(self, what, bare, ours, least):
        """Of something of which more is better."""
        ratio = ours.median / bare.median
        self.add(what, bare.show(), ours.show(up=False), f"× {number(ratio, up=False)}", f"≥ × {least}", ratio >= least)

    def difference(self, what, bare, ours, limit):
        difference = ours.median - bare.median
        shown = f"{number(difference)} {ours.unit}".replace("-", "−")
        shown = shown if difference < 0 else f"+{shown}"
        self.add(
            what, bare.show(up=False), ours.show(), shown, f"≤ bare + {limit} {ours.unit}", difference <= limit
        )

    def limit(self, what, ours, limit, bare=None, strict=False):
        met = ours.median < limit if strict else ours.median <= limit
        sign = "<" if strict else "≤"
        shown = bare.show(up=False) if bare else "–"
        self.add(what, shown, ours.show(), "–", f"{sign} {limit} {ours.unit}", met)

    def fact(self, what, ours, bare=None):
        comparison = f"× {number(ours.median / bare.median)}" if bare else "–"
        self.add(what, bare.show(up=False) if bare else "–", ours.show(), comparison, "–", "–")

    def not_measured(self, what, target, reason):
        self.add(what, "–", "–", reason, target, "not measured")

    def markdown(self):
        head = ["What", "Bare nats-server", "unified-nats, or what the row names", "Difference", "Target", "Met"]
        lines = [head, ["---"] * len(head), *self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def summary(self):
        return f"{self.counts['yes']} met, {self.counts['**NO**']} missed, {self.counts['not measured']} not measured"


# ---- processes ----


def spawn(arguments, environment, output):
    """posix_spawn, because fork copies this interpreter's page tables first."""
    return os.posix_spawn(
        arguments[0],
        arguments,
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setpgroup=0,
    )


def reap(pid):
    _, status, usage = os.wait4(pid, 0)
    return os.waitstatus_to_exitcode(status), usage


def end(pid, by, patience=60):
    """Sends a signal to a process, of whomever, and waits until it has ended."""
    descriptor = os.pidfd_open(pid)
    try:
        os.kill(pid, by)
        if not select.select([descriptor], [], [], patience)[0]:
            raise RuntimeError(f"process {pid} does not end by {signal.Signals(by).name}")
    finally:
        os.close(descriptor)


PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans():
    """What a supervisor leaves behind becomes a child of this process, and is found at the end."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_what_is_left():
    while left := children(os.getpid()):
        for pid in left:
            os.kill(pid, signal.SIGKILL)
            reap(pid)


def children(pid):
    found = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        # Threads come and go meanwhile.
        with (
            contextlib.suppress(FileNotFoundError, ProcessLookupError),
            open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file,
        ):
            found.extend(int(child) for child in file.read().split())
    return found


def kilobytes(path, name):
    """A line such as `VmRSS:  1234 kB` of a file in /proc, in bytes; None where it is missing."""
    try:
        with open(path, encoding="ascii") as file:
            for line in file:
                if line.startswith(name + ":"):
                    return int(line.split()[1]) * 1024
    except PermissionError:
        pass
    return None


def cpu_seconds(pid):
    """Of the whole process, threads that have ended included, to the nanosecond.

    What utime and stime in /proc tell comes in ticks of 10 ms. The clock's number is the one
    that clock_getcpuclockid(3) makes.
    """
    return time.clock_gettime(~pid << 3 | 2)


PTRACE_CONT, PTRACE_SEIZE, PTRACE_O_TRACEEXIT, PTRACE_EVENT_EXIT = 7, 0x4206, 0x40, 6


def peak_memory(arguments, environment):
    """The most resident memory a program had, looked up at its exit.

    ru_maxrss does not tell: it starts from what the process that spawns has, which is this
    interpreter. It is the answer all the same where tracing is not allowed, being too much.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    pid = spawn(arguments, environment, os.devnull)
    if libc.ptrace(PTRACE_SEIZE, pid, None, PTRACE_O_TRACEEXIT) != 0:
        return reap(pid)[1].ru_maxrss * 1024
    peak = None
    while True:
        _, status, usage = os.wait4(pid, 0)
        if not os.WIFSTOPPED(status):
            return peak if peak is not None else usage.ru_maxrss * 1024
        event, stopped_by = status >> 16, os.WSTOPSIG(status)
        if event == PTRACE_EVENT_EXIT:
            peak = kilobytes(f"/proc/{pid}/status", "VmHWM")
        libc.ptrace(PTRACE_CONT, pid, None, None if event else stopped_by)


# ---- questions ----

PAUSE = 0.0002


def poll(question, patience, pid):
    """Asks again and again; returns when the answer was yes."""
    deadline = time.monotonic() + patience
    while True:
        if question.attempt():
            return time.monotonic()
        if time.monotonic() > deadline:
            raise TimeoutError(f"no answer from process {pid} within {patience} s")
        time.sleep(PAUSE)


class Question:
    """A socket to 127.0.0.1 that is kept between attempts."""

    def __init__(self, port, patience=0.25):
        self.port = port
        self.patience = patience
        self.socket = None
        self.buffer = b""

    def attempt(self):
        try:
            if self.socket is None:
                self.connect()
            return self.ask()
        except OSError:
            self.close()
            return False

    def connect(self):
        self.buffer = b""
        self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=self.patience)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.greet()

    def close(self):
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def greet(self):
        pass

    def ask(self):
        raise NotImplementedError

    def more(self):
        chunk = self.socket.recv(65536)
        if not chunk:
            raise ConnectionResetError
        self.buffer += chunk

    def line(self):
        while b"\r\n" not in self.buffer:
            self.more()
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    def take(self, count):
        while len(self.buffer) < count:
            self.more()
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken


class Http(Question):
    def get(self, path):
        """Status and body."""
        self.socket.sendall(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path)
        status = int(self.line().split()[1])
        length = 0
        while header := self.line():
            name, _, value = header.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        return status, self.take(length)


class Listens(Question):
    """Somebody listens."""

    def ask(self):
        return True


class Healthz(Http):
    """GET /healthz answers 200."""

    def ask(self):
        return self.get(b"/healthz")[0] == 200


class Health(Http):
    """GET /health answers 200; keeps what it answered."""

    def ask(self):
        status, body = self.get(b"/health")
        self.answer = json.loads(body)
        return status == 200


class Nats(Question):
    CONNECT = {"verbose": False, "pedantic": False, "headers": True, "no_responders": True, "lang": "bench"}
    INBOX = b"_INBOX.bench"

    def greet(self):
        self.line()
        options = json.dumps(self.CONNECT).encode()
        self.socket.sendall(b"CONNECT " + options + b"\r\nSUB " + self.INBOX + b" 1\r\n")

    def message(self):
        """The payload of the next message; None when nobody listens to what was asked."""
        while True:
            words = self.line().split()
            match words[0]:
                case b"MSG":
                    return self.take(int(words[-1]) + 2)[:-2]
                case b"HMSG":
                    header, total = int(words[-2]), int(words[-1])
                    return self.take(total + 2)[header:-2] or None
                case b"PING":
                    self.socket.sendall(b"PONG\r\n")
                case b"-ERR":
                    raise ConnectionResetError

    def request(self, subject, payload=b""):
        self.socket.sendall(b"PUB %s %s %d\r\n%s\r\n" % (subject, self.INBOX, len(payload), payload))
        answer = self.message()
        return None if answer is None else json.loads(answer)


class Stream(Nats):
    """MARKET_DATA exists, with a subject for each of the eight families."""

    def info(self):
        return self.request(b"$JS.API.STREAM.INFO.MARKET_DATA")

    def ask(self):
        info = self.info()
        return bool(info) and len(info.get("config", {}).get("subjects", [])) == 8


class Published(Nats):
    """A message for MARKET_DATA is stored and acknowledged."""

    def ask(self):
        answer = self.request(b"trade-data.bench.spot.X", b"{}")
        return bool(answer) and "seq" in answer


class Successor:
    """A process has a child other than this one."""

    def __init__(self, parent, child):
        self.parent, self.child = parent, child

    def attempt(self):
        return any(child != self.child for child in children(self.parent))


def free_ports(count):
    sockets = []
    for _ in range(count):
        bound = socket.socket()
        bound.bind(("127.0.0.1", 0))
        sockets.append(bound)
    ports = [bound.getsockname()[1] for bound in sockets]
    for bound in sockets:
        bound.close()
    return ports


# ---- the sides ----


class Side:
    """A directory with a store, ports and an output file, and one way to run on them."""

    # The signal that stops it.
    STOP = signal.SIGTERM

    PATIENCE = 60

    def __init__(self, bench, name, store=None, **extra):
        self.bench = bench
        self.directory = os.path.join(bench.directory, name)
        self.store = store or os.path.join(self.directory, "store")
        self.output = os.path.join(self.directory, "output")
        self.config_file = os.path.join(self.directory, "nats.conf")
        self.extra = extra
        self.pid = None
        os.makedirs(self.directory)

    def choose_ports(self):
        self.nats_port, self.http_port, self.api_port = free_ports(3)
        self.environment = {
            "NATS_SERVER_BIN": self.bench.nats_server,
            "JETSTREAM_STORE_DIR": self.store,
            "NATS_CONFIG_FILE": self.config_file,
            "NATS_HOST": "127.0.0.1",
            "NATS_PORT": str(self.nats_port),
            "NATS_HTTP_PORT": str(self.http_port),
            "API_HOST": "127.0.0.1",
            "API_PORT": str(self.api_port),
            **self.extra,
        }

    def wipe(self):
        shutil.rmtree(self.store, ignore_errors=True)
        os.makedirs(self.store)

    def start(self):
        """Seconds from exec to the first good answer."""
        self.choose_ports()
        self.before_start()
        return self.launch(self.question())

    def launch(self, question):
        begin = time.monotonic()
        self.pid = spawn(self.command(), self.child_environment(), self.output)
        try:
            return poll(question, self.PATIENCE, self.pid) - begin
        except TimeoutError as error:
            raise RuntimeError(f"{error}; its last lines:\n{self.last_lines()}") from None
        finally:
            question.close()

    def stop(self):
        """Seconds from the signal to the end of the process."""
        begin = time.monotonic()
        end(self.pid, self.STOP, self.PATIENCE)
        ended = time.monotonic()
        reap(self.pid)
        self.pid = None
        return ended - begin

    def publish(self):
        question = Published(self.nats_port)
        poll(question, self.PATIENCE, self.pid)
        question.close()

    def render(self):
        """Writes the nats.conf that ours would write."""
        rendered = subprocess.run(
            [self.bench.binary, "config", "render", "--output", self.config_file],
            env=self.environment,
            capture_output=True,
            timeout=30,
            check=False,
        )
        if rendered.returncode != 0:
            raise RuntimeError(f"config render failed: {rendered.stderr.decode()}")

    def server_command(self):
        return [self.bench.nats_server, "-c", self.config_file]

    def last_lines(self):
        with open(self.output, encoding="utf-8", errors="replace") as file:
            return "".join(file.readlines()[-10:])


class Bare(Side):
    # The signal with which the supervisor stops its server.
    STOP = signal.SIGINT

    def before_start(self):
        self.render()

    def command(self):
        return self.server_command()

    def child_environment(self):
        return {}

    def question(self):
        return Healthz(self.http_port)

    def recover(self):
        """Kills it; seconds from the exec of the next one to the first acknowledged message."""
        end(self.pid, signal.SIGKILL)
        reap(self.pid)
        return self.launch(Published(self.nats_port))


class Supervised(Side):
    def server(self):
        [pid] = children(self.pid)
        return pid

    def recover(self):
        """Seconds from SIGKILL of its server to the next acknowledged message."""
        question = Published(self.nats_port)
        victim = self.server()
        begin = time.monotonic()
        # This waits for the end: nothing that the old server may still say counts.
        end(victim, signal.SIGKILL)
        try:
            return poll(question, self.PATIENCE, self.pid) - begin
        finally:
            question.close()

    def replace(self):
        """Seconds from a clean exit of its server to the process that follows."""
        first = self.server()
        end(first, signal.SIGINT)
        begin = time.monotonic()
        return poll(Successor(self.pid, first), self.PATIENCE, self.pid) - begin


class Ours(Supervised):
    def before_start(self):
        with contextlib.suppress(FileNotFoundError):
            os.remove(self.config_file)

    def command(self):
        return [self.bench.binary, "run"]

    def child_environment(self):
        return self.environment

    def question(self):
        return Stream(self.nats_port)


class Peer(Supervised):
    """Another supervisor over a bare nats-server, told to restart it always, the rest as it comes."""

    VERSION = None

    def __init__(self, bench, store=None):
        super().__init__(bench, f"recovery-{self.PROGRAM}", store)
        self.program = shutil.which(self.PROGRAM)

    def name(self):
        if self.VERSION is None or shutil.which(self.VERSION[0]) is None:
            return self.NAME
        return f"{self.NAME} {first_line(self.VERSION)}".strip()

    def before_start(self):
        self.render()
        self.write_service()

    def write(self, name, text, mode=0o600):
        path = os.path.join(self.directory, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, mode)
        return path

    def write_run_script(self):
        self.write("run", f"#!/bin/sh\nexec {shlex.join(self.server_command())}\n", 0o700)

    def child_environment(self):
        return {"PATH": os.defpath}

    def question(self):
        return Healthz(self.http_port)

    def stop(self):
        server = os.pidfd_open(self.server())
        try:
            super().stop()
            if not select.select([server], [], [], self.PATIENCE)[0]:
                raise RuntimeError(f"{self.NAME} leaves its nats-server behind")
        finally:
            os.close(server)


class Supervisord(Peer):
    NAME, PROGRAM = "supervisord", "supervisord"
    VERSION = ["supervisord", "--version"]

    def write_service(self):
        self.config = self.write(
            "supervisord.conf",
            f"[supervisord]\nlogfile={self.directory}/supervisord.log\npidfile={self.directory}/supervisord.pid\n"
            f"childlogdir={self.directory}\n"
            f"[program:nats-server]\ncommand={shlex.join(self.server_command())}\nautorestart=true\n",
        )

    def command(self):
        return [self.program, "--nodaemon", "--configuration", self.config]


class S6(Peer):
    NAME, PROGRAM = "s6", "s6-supervise"
    VERSION = ["dpkg-query", "--show", "--showformat", "${Version}", "s6"]
    write_service = Peer.write_run_script

    def command(self):
        return [self.program, self.directory]


class Runit(Peer):
    NAME, PROGRAM = "runit", "runsv"
    VERSION = ["dpkg-query", "--show", "--showformat", "${Version}", "runit"]
    write_service = Peer.write_run_script

    def command(self):
        return [self.program, self.directory]


class Horust(Peer):
    NAME, PROGRAM = "Horust", "horust"

    def write_service(self):
        # A string in JSON is one in TOML.
        command = json.dumps(shlex.join(self.server_command()))
        self.service = self.write("nats-server.toml", f'command = {command}\n[restart]\nstrategy = "always"\n')

    def command(self):
        return [self.program, "--services-path", self.service, "--uds-folder-path", self.directory]


PEERS = [Supervisord, S6, Runit, Horust]


# ---- measurements ----


class Bench:
    def __init__(self, options, directory):
        self.binary = os.path.abspath(options.binary)
        self.nats_server = os.path.abspath(options.nats_server)
        self.rounds = options.rounds
        self.few = min(5, options.rounds)
        # Below RESTART_MAX, which is 10 within five minutes.
        self.deaths = min(7, options.rounds)
        self.load_seconds = options.load_seconds
        self.directory = directory
        self.table = Table()

    def start_and_stop(self, bare, ours, rounds, wipe):
        times = {(side, what): [] for side in (bare, ours) for what in ("start", "stop")}
        for turn in range(rounds):
            for side in (bare, ours) if turn % 2 == 0 else (ours, bare):
                if wipe:
                    side.wipe()
                times[side, "start"].append(side.start())
                # Let the start come to an end, whatever it does after the first answer.
                time.sleep(0.3)
                times[side, "stop"].append(side.stop())
        return {key: milliseconds(values) for key, values in times.items()}

    def measure_start(self):
        bare, ours = Bare(self, "start-bare"), Ours(self, "start-ours")
        times = self.start_and_stop(bare, ours, self.rounds, wipe=True)
        self.table.ratio("Start, empty store", times[bare, "start"], times[ours, "start"], 2.5)
        self.table.difference("Stop, no clients", times[bare, "stop"], times[ours, "stop"], 10)

    def measure_large(self):
        ours = Ours(self, "large-ours", **LARGE)
        bare = Bare(self, "large-bare", ours.store, **LARGE)
        ours.wipe()
        ours.start()
        state = fill(ours.nats_port)
        ours.stop()
        times = self.start_and_stop(bare, ours, min(10, self.rounds), wipe=False)
        ours.start()
        if (left := stream_state(ours.nats_port)) != state:
            raise RuntimeError(f"the store changed between the rounds: {state} became {left}")
        ours.stop()
        shutil.rmtree(ours.store)
        what = f"{number(state['bytes'] / 1e9, up=False)} GB store"
        self.table.difference(f"Start, {what}", times[bare, "start"], times[ours, "start"], 50)
        self.table.difference(f"Stop, {what}", times[bare, "stop"], times[ours, "stop"], 50)

    def measure_idle(self):
        """Memory and processor time; the window holds one periodic health check."""
        ours = Ours(self, "idle")
        ours.wipe()
        ours.start()
        time.sleep(10)
        status, rollup = f"/proc/{ours.pid}/status", f"/proc/{ours.pid}/smaps_rollup"
        resident = kilobytes(status, "VmRSS")
        self.table.limit("Supervisor's memory, resident 10 s after the start", megabytes(resident), 10)
        begin, before = time.monotonic(), cpu_seconds(ours.pid)
        time.sleep(20)
        self.table.limit("Supervisor's processor time, idle 20 s", share(ours.pid, begin, before), 0.2)
        time.sleep(35)
        self.table.limit(
            "Supervisor's processor time, idle 55 s with a health check", share(ours.pid, begin, before), 0.2
        )
        resident = kilobytes(status, "VmRSS")
        self.table.limit("Supervisor's memory, resident after a health check", megabytes(resident), 10)
        self.table.fact("… of it anonymous (RssAnon)", megabytes(kilobytes(status, "RssAnon")))
        pss = kilobytes(rollup, "Pss")
        if pss is not None:
            self.table.fact("… as its share (PSS)", megabytes(pss))
        ours.stop()

    def measure_check(self):
        ours = Ours(self, "check")
        ours.wipe()
        ours.start()
        # The stream answers a moment before the supervisor says that it is ready.
        time.sleep(2)
        commands = {
            "true": ["/bin/true"],
            "quick": [self.binary, "health-check", "quick"],
            "full": [self.binary, "health-check", "full"],
        }
        times = {name: [] for name in commands}
        for _ in range(max(self.rounds, 50) if self.rounds >= 30 else self.rounds):
            for name, command in commands.items():
                times[name].append(run_once(command, ours.environment, expected=0))
        floor = milliseconds(times["true"])
        peaks = [peak_memory(commands["quick"], ours.environment) for _ in range(self.few)]
        self.table.limit("health-check quick (beside it /bin/true)", milliseconds(times["quick"]), 6, floor)
        self.table.limit("health-check quick, most memory", Samples(peaks, "MB", MEGABYTE), 8)
        self.table.limit("health-check full (beside it /bin/true)", milliseconds(times["full"]), 20, floor)
        ours.stop()

    def measure_streams(self):
        """A thousand streams, made by a bare client that sends all requests at once, and by ours."""
        count = 1000
        server = Bare(self, "streams")
        path = os.path.join(server.directory, "streams.yml")
        with open(path, "w", encoding="utf-8") as file:
            file.write("streams:\n")
            file.writelines(f"  S{i}: {{subjects: [s{i}.>], max_msgs: 1000}}\n" for i in range(count))
        ours_only = {"STREAMS_DEFAULTS": "none", "STREAMS_FILE": path}
        times = {"bare": [], "ours": [], "plan": [], "true": []}
        for turn in range(self.few):
            for side in ("bare", "ours") if turn % 2 == 0 else ("ours", "bare"):
                server.wipe()
                server.start()
                environment = {**server.environment, **ours_only}
                if side == "bare":
                    times[side].append(create_streams(server.nats_port, count))
                else:
                    times[side].append(run_once([self.binary, "streams", "apply"], environment, expected=0))
                    plan = [self.binary, "streams", "plan", "--exit-code"]
                    times["plan"].append(run_once(plan, environment, expected=0))
                    peak = peak_memory(plan, environment)
                server.stop()
        bare, ours = milliseconds(times["bare"]), milliseconds(times["ours"])
        rate = bare.median / ours.median
        self.table.add(
            f"{count} streams created (bare client, all requests at once)",
            bare.show(up=False),
            ours.show(),
            f"× {number(rate, up=False)} of the rate",
            "≥ × 0.8 of the rate",
            rate >= 0.8,
        )
        self.table.limit(f"Drift check over {count} streams, as a command", milliseconds(times["plan"]), 1000)
        # The same command beside the one stream of the eight families.
        server.wipe()
        server.start()
        plan = [self.binary, "streams", "plan"]
        run_once([self.binary, "streams", "apply"], server.environment, expected=0)
        few = peak_memory(plan, server.environment)
        self.table.limit("… more memory than over the eight families", Samples([peak - few], "MB", MEGABYTE), 20)
        times["plan"] = []
        for _ in range(self.rounds):
            times["true"].append(run_once(["/bin/true"], {}, expected=0))
            times["plan"].append(run_once(plan, server.environment, expected=0))
        self.table.limit(
            "Drift check over the eight families, as a command (beside it /bin/true)",
            milliseconds(times["plan"]),
            10,
            milliseconds(times["true"]),
        )
        server.stop()

    def measure_size(self):
        self.table.limit("Size of the binary", megabytes(os.path.getsize(self.binary)), 12)
        image = "marketprism/unified-nats:latest"
        try:
            command = ["docker", "image", "inspect", "--format", "{{.Size}}", image]
            found = subprocess.run(command, capture_output=True, timeout=20, check=False)
        except (FileNotFoundError, subprocess.TimeoutExpired):
            found = None
        if found is None or found.returncode != 0:
            self.table.not_measured("Size of the image", "≤ 40 MB", "there is no such image here")
        else:
            self.table.limit("Size of the image", megabytes(int(found.stdout)), 40)

    def measure_invalid(self):
        environment = {"NATS_PORT": "99999", "JETSTREAM_STORE_DIR": self.directory}
        times = {"true": [], "ours": []}
        for _ in range(self.rounds):
            times["true"].append(run_once(["/bin/true"], {}, expected=0))
            times["ours"].append(run_once([self.binary, "run"], environment, expected=78))
        self.table.limit(
            "Invalid settings, to exit 78 (beside it /bin/true)",
            milliseconds(times["ours"]),
            50,
            milliseconds(times["true"]),
            strict=True,
        )

    def measure_recovery(self):
        """All run at once and die one after the other, so that all wait only once to be healthy."""
        ours, clean, bare = Ours(self, "recovery"), Ours(self, "recovery-clean"), Bare(self, "recovery-bare")
        peers = [kind(self) for kind in PEERS]
        found = [peer for peer in peers if peer.program]
        self.provide_stores([ours, clean, bare, *found])
        full_ours, full_bare = Ours(self, "recovery-full", **LARGE), Bare(self, "recovery-full-bare", **LARGE)
        state = self.provide_stores([full_ours, full_bare], filled=True, **LARGE)
        # What is still to be written to the disk would be written meanwhile.
        os.sync()
        sides = [bare, ours, full_bare, full_ours, *found]
        for side in (clean, *sides):
            side.start()
            # A store to which nothing was added since its start is read much faster.
            side.publish()
        times = {side: [] for side in (clean, *sides)}
        for turn in range(self.deaths):
            # Ours restarts at once what had been healthy for five seconds.
            time.sleep(5.5)
            times[clean].append(clean.replace())
            for side in sides if turn % 2 == 0 else reversed(sides):
                times[side].append(side.recover())
        for side in (clean, *sides):
            side.stop()
        for side in (full_ours, full_bare):
            shutil.rmtree(side.store)
        times = {side: milliseconds(values) for side, values in times.items()}

        what = "nats-server killed, to the next acknowledged message"
        self.table.ratio(f"{what}, empty store", times[bare], times[ours], 2.5)
        for peer in peers:
            if peer in found:
                self.table.fact(f"… under {peer.name()}", times[peer], times[bare])
            else:
                self.table.not_measured(f"… under {peer.name()}", "–", "not installed")
        size = f"{number(state['bytes'] / 1e9, up=False)} GB store"
        self.table.ratio(f"{what}, {size}", times[full_bare], times[full_ours], 2.5)
        self.table.limit("nats-server ends with exit code 0, to its successor", times[clean], 5)

    def measure_flood(self):
        """Probes, recovery, memory and a stop while clients flood the API port."""
        # It dies more often than a broker may.
        ours = Ours(self, "flood", RESTART_MAX="1000")
        ours.wipe()
        ours.start()
        ours.publish()
        alone = [recover_once_healthy(ours) for _ in range(self.deaths)]
        before = kilobytes(f"/proc/{ours.pid}/status", "RssAnon")
        # It ends by itself, long after it is needed.
        arguments = [str(ours.api_port), "2048", "3000", str(60 + 10 * self.deaths), "/health,/nowhere"]
        flood = spawn([sys.executable, FLOOD, *arguments], {}, os.devnull)
        time.sleep(2)
        answers = []
        begin = time.monotonic()
        while time.monotonic() - begin < 10:
            for path in ("/livez", "/readyz", "/startupz", "/health"):
                answers.append(seconds_to_probe(ours.api_port, path))
            time.sleep(0.01)
        during = [recover_once_healthy(ours) for _ in range(self.deaths)]
        memory = kilobytes(f"/proc/{ours.pid}/status", "RssAnon") - before
        stopped = ours.stop()
        end(flood, signal.SIGKILL)
        reap(flood)
        self.table.limit("Slowest probe, 2048 busy and 3000 idle connections", milliseconds([max(answers)]), 200)
        self.table.fact(f"… all {len(answers)} of them", milliseconds(answers))
        self.table.limit("… memory more than without (RssAnon)", megabytes(memory), 16)
        what = "… nats-server killed, to the next acknowledged message (beside it without them)"
        self.table.ratio(what, milliseconds(alone), milliseconds(during), 1.3)
        self.table.limit("… stop", milliseconds([stopped]), 1000)

    def measure_rest(self):
        """The REST API beside what it stands on: a handler that does nothing, and direct clients."""
        ours = Ours(self, "rest", STREAM_MAX_MSGS="3000000", STREAM_MAX_BYTES="1GB", STREAM_MAX_AGE="0")
        ours.wipe()
        ours.start()
        port, body = ours.api_port, rest_load.publish_body()
        memory = lambda: kilobytes(f"/proc/{ours.pid}/status", "RssAnon")
        idle = memory()
        nothing, publish = "/api/v1/nothing-is-here", "/api/v1/broker/publish"
        # A thousand take a moment to come in; their first answers are no more than a hundredth of all.
        for connections, seconds, slowest in ((64, 4, 5), (1000, 10, 75)):
            rounds = [
                tuple(rest_load.Wrk(port, path, connections, seconds, body) for path in (nothing, publish))
                for _ in range(3)
            ]
            if refused := sum(ours.refused for _, ours in rounds):
                raise RuntimeError(f"{refused} publishes were refused")
            rates = [Samples([side.rate for side in sides], "requests/s", 1) for sides in zip(*rounds)]
            what = f"Publish over HTTP, {connections} connections (beside a handler that does nothing)"
            self.table.share(what, *rates, 0.5)
            self.table.limit("… 99th percentile", milliseconds([run.slowest for _, run in rounds]), slowest)
        self.table.limit("… memory more than before (RssAnon)", megabytes(memory() - idle), 64)
        old_port = free_ports(1)[0]
        old = rest_load.old_broker(ours.nats_port, old_port)
        if old is None:
            self.table.not_measured("… the same through aiohttp and nats-py", "–", "its packages are not installed")
        else:
            self.measure_old_broker(old, old_port, publish, body)

        pairs = [
            (rest_load.direct_batches(ours.nats_port, 40, 1000), rest_load.http_batches(port, 40, 1000))
            for _ in range(3)
        ]
        direct, batched = [Samples(list(side), "messages/s", 1) for side in zip(*pairs)]
        self.table.share("Batches of 1000 over HTTP (beside a pipelined publisher)", direct, batched, 0.75)
        held = stream_state(ours.nats_port)["messages"]
        rounds = [
            (
                rest_load.direct_replay(ours.nats_port, held),
                rest_load.direct_pull(ours.nats_port, held),
                rest_load.http_replay(port, held),
            )
            for _ in range(3)
        ]
        direct, pulled, replayed = [Samples(list(side), "messages/s", 1) for side in zip(*rounds)]
        self.table.share("Replay at full speed (beside an ordered consumer)", direct, replayed, 0.7)
        self.table.fact("… a client of NATS that pulls, which bounds what is on its way", pulled, direct)
        ours.stop()
        self.measure_rest_readers()

    def measure_old_broker(self, old, port, path, body):
        try:
            poll(Listens(port), 30, old.pid)
            run = rest_load.Wrk(port, path, 64, 4, body)
            what = "… the same through aiohttp and nats-py, 64 connections"
            self.table.fact(what, Samples([run.rate], "requests/s", 1))
        finally:
            old.kill()
            old.wait()

    def measure_rest_readers(self):
        """A server of its own: one that has served before has memory left for them."""
        ours = Ours(self, "rest-readers")
        ours.wipe()
        ours.start()
        memory = lambda: kilobytes(f"/proc/{ours.pid}/status", "RssAnon")
        before = memory()
        readers = rest_load.follow(ours.api_port, 1000)
        self.table.limit("1000 readers of one subject, memory (RssAnon)", megabytes(memory() - before), 64)
        for reader in readers:
            reader.close()
        ours.stop()

    def measure_rest_load(self):
        """Probes and recovery while clients publish over HTTP as fast as they can."""
        # It dies more often than a broker may. The stream is full before anything is measured: nats-server reads
        # what it holds again at each start.
        ours = Ours(self, "rest-load", RESTART_MAX="1000", STREAM_MAX_MSGS="100000")
        ours.wipe()
        ours.start()
        path, body = "/api/v1/broker/publish", rest_load.publish_body()
        rest_load.Wrk(ours.api_port, path, 64, 10, body)
        alone = [recover_once_healthy(ours) for _ in range(self.deaths)]
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
            seconds = 30 + 10 * self.deaths
            command = rest_load.wrk(script, ours.api_port, path, 64, seconds, body)
            load = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            time.sleep(2)
            answers, begin = [], time.monotonic()
            while time.monotonic() - begin < 15:
                answers.append(seconds_to_probe(ours.api_port, "/readyz"))
                time.sleep(0.01)
            during = [recover_once_healthy(ours) for _ in range(self.deaths)]
            load.kill()
            load.wait()
        ours.stop()
        slowest = percentile(answers, 0.99)
        self.table.limit("/readyz while 64 connections publish, 99th percentile", milliseconds([slowest]), 50)
        what = "… nats-server killed, to the next acknowledged message (beside it without them)"
        self.table.ratio(what, milliseconds(alone), milliseconds(during), 1.5)

    def measure_pages(self):
        """Lists and metrics, over the eight families and over a thousand streams."""
        ours = Ours(self, "pages")
        ours.wipe()
        ours.start()
        ask = lambda path: milliseconds([seconds_to_probe(ours.api_port, path) for _ in range(30)])
        self.table.limit("/metrics over the eight families", ask("/metrics"), 5)
        create_streams(ours.nats_port, 1000)
        self.table.limit("A page of 100 streams of 1000", ask("/api/v1/broker/streams?limit=100"), 50)
        self.table.limit("/metrics over 1000 streams", ask("/metrics"), 60)
        ours.stop()

    def measure_rest_slow(self):
        """Publishes over HTTP while a thousand others send their requests byte by byte."""
        ours = Ours(self, "rest-slow")
        ours.wipe()
        ours.start()
        seconds_to_publish(ours.api_port, 200)
        slowest = [], []
        for _ in range(5):
            slowest[0].append(percentile(seconds_to_publish(ours.api_port, 1500), 0.99))
            arguments = [str(ours.api_port), "1000", "60", "/api/v1/broker/publish"]
            dribble = spawn([sys.executable, DRIBBLE, *arguments], {}, os.devnull)
            time.sleep(2)
            slowest[1].append(percentile(seconds_to_publish(ours.api_port, 1500), 0.99))
            end(dribble, signal.SIGKILL)
            reap(dribble)
        ours.stop()
        what = "99th percentile of a publish over HTTP with 1000 slow clients (beside it without them)"
        self.table.ratio(what, milliseconds(slowest[0]), milliseconds(slowest[1]), 2)

    def provide_stores(self, sides, filled=False, **settings):
        """Gives each a store that holds the stream, filled or not; returns the stream's state.

        All get a copy: files that nats-server has written are cached in other pieces than copied
        ones, and take it longer to read.
        """
        first = Ours(self, "first", **settings)
        first.wipe()
        first.start()
        state = fill(first.nats_port) if filled else stream_state(first.nats_port)
        time.sleep(0.3)
        first.stop()
        for side in sides:
            shutil.copytree(first.store, side.store)
        shutil.rmtree(first.directory)
        return state

    def measure_load(self):
        """Twice as many busy processes as cores, at normal priority, and clients that publish."""
        ours = Ours(self, "load")
        ours.wipe()
        ours.start()
        time.sleep(2)
        count = 2 * os.cpu_count()
        command = [sys.executable, "-I", "-S", "-c", BUSY, str(self.load_seconds)]
        busy = [spawn(command, {}, os.devnull) for _ in range(count)]
        # As patient as a client is by default, or more.
        published, health = Published(ours.nats_port, 10), Health(ours.api_port, 10)
        acknowledged = unanswered = unhealthy = 0
        slowest = 0
        begin, before = time.monotonic(), processor_time()
        seconds = 0
        while seconds < self.load_seconds:
            for _ in range(10):
                asked = time.monotonic()
                if published.attempt():
                    acknowledged += 1
                    slowest = max(slowest, time.monotonic() - asked)
                else:
                    unanswered += 1
            if time.monotonic() - begin >= seconds + 1:
                seconds = int(time.monotonic() - begin)
                unhealthy += not health.attempt()
            time.sleep(0.05)
        idle, total = (after - earlier for after, earlier in zip(processor_time(), before, strict=True))
        share_busy = 100 * (1 - idle / total)
        for pid in busy:
            reap(pid)
        if not poll(health, 60, ours.pid):
            raise RuntimeError("it is not healthy after the load")
        if share_busy < 95:
            raise RuntimeError(f"the processors were busy for {share_busy:.1f} % of the time only")
        restarts = health.answer["checks"]["nats_server"]["restarts"]
        published.close()
        health.close()
        ours.stop()
        self.table.add(
            f"False restarts in {self.load_seconds} s of 100 % CPU load",
            "–",
            str(restarts),
            f"{count} busy processes on {os.cpu_count()} cores, {share_busy:.1f} % busy",
            "0",
            restarts == 0,
        )
        self.table.add("… /health not 200, asked each second", "–", str(unhealthy), "–", "–", "–")
        shown = f"{unanswered} of {acknowledged + unanswered}"
        self.table.add("… messages without acknowledgement", "–", shown, "–", "–", "–")
        self.table.fact("… slowest acknowledgement", milliseconds([slowest]))


def recover_once_healthy(side):
    # Ours restarts at once what had been healthy for five seconds.
    time.sleep(5.5)
    return side.recover()


def seconds_to_publish(port, count):
    """Of so many messages, one after the other over one connection."""
    body = b'{"subject": "trade-data.bench.spot.X", "message": {}}'
    head = f"POST /api/v1/broker/publish HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    took = []
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            begin = time.monotonic()
            connection.sendall(head + body)
            # So small an answer comes in one piece.
            answer = connection.recv(65536)
            took.append(time.monotonic() - begin)
            if not answer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"a publish is answered {answer[:200]!r}")
    return took


def seconds_to_probe(port, path):
    """Over a connection of its own, as a kubelet asks."""
    begin = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    if not answer.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"{path} is answered {answer[:200]!r}")
    return time.monotonic() - begin


DRIBBLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib", "dribble.py")
FLOOD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib", "flood.py")

# Ends by itself, whatever becomes of this script.
BUSY = "import sys, time\nend = time.monotonic() + float(sys.argv[1])\nwhile time.monotonic() < end: pass"

LARGE = {
    "STREAM_MAX_BYTES": "4GB",
    "STREAM_MAX_MSGS": "-1",
    "STREAM_MAX_AGE": "0",
    # nats-server reads all messages of this time again at its start, which would take it ten
    # times as long as the rest and hide what the supervisor adds.
    "STREAM_DUPLICATE_WINDOW": "100ms",
}


def processor_time():
    """Of all processors: idle, and altogether."""
    with open("/proc/stat", encoding="ascii") as file:
        # Without the time of guests, which is part of that of users.
        ticks = [int(word) for word in file.readline().split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def share(pid, begin, before):
    """Percent of one core since."""
    used, passed = cpu_seconds(pid) - before, time.monotonic() - begin
    return Samples([100 * used / passed], "% of a core", 1)


def run_once(command, environment, expected):
    begin = time.monotonic()
    pid = spawn(command, environment, os.devnull)
    code, _ = reap(pid)
    end = time.monotonic()
    if code != expected:
        raise RuntimeError(f"{command} ended with {code}, not {expected}")
    return end - begin


def create_streams(port, count):
    """Seconds for a client to have all streams created, with every request sent before any answer."""
    client = Nats(port)
    begin = time.monotonic()
    client.connect()
    client.socket.settimeout(30)
    data = bytearray()
    for i in range(count):
        config = {"name": f"S{i}", "subjects": [f"s{i}.>"], "max_msgs": 1000, "num_replicas": 1}
        payload = json.dumps({**config, "duplicate_window": 120_000_000_000, "metadata": MARK}).encode()
        data += b"PUB $JS.API.STREAM.CREATE.S%d %s %d\r\n%s\r\n" % (i, client.INBOX, len(payload), payload)
    sender = threading.Thread(target=client.socket.sendall, args=(data,))
    sender.start()
    for _ in range(count):
        answer = client.message()
        if answer is None or "error" in json.loads(answer):
            raise RuntimeError(f"a stream was not created: {answer}")
    sender.join()
    end = time.monotonic()
    client.close()
    return end - begin


MARK = {"managed-by": "unified-nats"}


def fill(port):
    """Publishes 1 GiB in messages of 64 KiB over all eight subjects; returns the stream's state."""
    stream = Stream(port)
    if not stream.attempt():
        raise RuntimeError("the stream does not answer")
    stream.socket.settimeout(30)
    subjects = [s.replace(">", "bench").replace("*", "bench").encode() for s in stream.info()["config"]["subjects"]]
    size, batch, batches = 64 << 10, 64, 256
    payload = os.urandom(size)
    tail = b" %s %d\r\n%s\r\n" % (stream.INBOX, size, payload)
    data = b"".join(b"PUB " + subjects[i % len(subjects)] + tail for i in range(batch))
    for _ in range(batches):
        stream.socket.sendall(data)
        for _ in range(batch):
            answer = stream.message()
            if answer is None or "error" in json.loads(answer):
                raise RuntimeError(f"a message was not stored: {answer}")
    stream.close()
    state = stream_state(port)
    if state["messages"] != batch * batches:
        raise RuntimeError(f"the stream holds {state['messages']} messages, not {batch * batches}")
    return state


def stream_state(port):
    stream = Stream(port)
    if not stream.attempt():
        raise RuntimeError("the stream does not answer")
    state = stream.info()["state"]
    stream.close()
    return {name: state[name] for name in ("messages", "bytes", "first_seq", "last_seq")}


# ---- the result ----


def first_line(command):
    answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return answer.stdout.strip().partition("\n")[0]


def processor():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def describe(options, bench, load):
    now = datetime.datetime.now(datetime.timezone.utc)
    server = first_line([bench.nats_server, "--version"]).removeprefix("nats-server: ")
    return "\n".join(
        [
            f"- Date: {now:%Y-%m-%d}",
            f"- Machine: {os.cpu_count()} cores, {processor()}, Linux {platform.release()};"
            f" load average {load:.1f} before, {os.getloadavg()[0]:.1f} after",
            f"- Versions: commit {options.commit}, nats-server {server}, {first_line(['rustc', '--version'])}",
        ]
    )


def put_into(path, section, result):
    """Between the lines that mark the section."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    first, last = f"<!-- {section}:begin -->", f"<!-- {section}:end -->"
    before, begin, rest = text.partition(first)
    _, end_, after = rest.partition(last)
    if not begin or not end_:
        raise RuntimeError(f"{path} does not have the lines {first} and {last}")
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(f"{before}{first}\n\n{result}\n\n{last}{after}")
    os.replace(path + ".new", path)


# What is measured together and stands in one section of BENCHMARKS.md. The load takes as long as
# it is told to, so it runs only when it is named.
SECTIONS = {
    "bench": ["start", "large", "idle", "check", "streams", "size", "invalid", "recovery", "flood"],
    "bench-load": ["load"],
    "bench-rest": ["rest", "rest-load", "rest-slow", "pages"],
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--nats-server", required=True)
    parser.add_argument("--commit", default="unknown")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--only", default=",".join(SECTIONS["bench"]))
    parser.add_argument("--load-seconds", type=int, default=120)
    parser.add_argument("--write", metavar="FILE")
    options = parser.parse_args()
    wanted = options.only.split(",")
    known = [name for names in SECTIONS.values() for name in names]
    if unknown := set(wanted) - set(known):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if options.rounds < 1 or options.load_seconds < 1:
        parser.error("--rounds and --load-seconds must be at least 1")

    # Whatever ends this script ends what it started.
    for number_ in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number_, lambda *_: sys.exit(143))
    adopt_orphans()
    results = {}
    with tempfile.TemporaryDirectory(prefix="unified-nats-bench-") as directory:
        bench = Bench(options, directory)
        try:
            for section, names in SECTIONS.items():
                if names := [name for name in names if name in wanted]:
                    bench.table, load = Table(), os.getloadavg()[0]
                    for name in names:
                        getattr(bench, f"measure_{name.replace('-', '_')}")()
                    described = describe(options, bench, load)
                    results[section] = f"{described}\n\n{bench.table.markdown()}\n\n{bench.table.summary()}"
        finally:
            end_what_is_left()
    print("\n\n".join(results.values()))
    if options.write:
        for section, result in results.items():
            put_into(options.write, section, result)


if __name__ == "__main__":
    main()
