"""Load for the REST rows of bench.py: each function gives plain numbers, in seconds and per second."""

import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time

SUBJECT = "trade-data.binance.spot.BTCUSDT"
MESSAGE = {"symbol": "BTCUSDT", "price": "50000.00", "quantity": "0.1", "timestamp": "2024-01-01T12:00:00Z"}
PAYLOAD = json.dumps(MESSAGE, separators=(",", ":")).encode()
JSON = {"Content-Type": "application/json"}
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


class Wrk:
    """What one run of wrk found."""

    def __init__(self, port, path, connections, seconds, body):
        if not shutil.which("wrk"):
            raise RuntimeError("wrk is not installed: apt-get install wrk")
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
            command = wrk(script, port, path, connections, seconds, body)
            found = subprocess.run(command, capture_output=True, text=True, check=True)
        text = found.stdout
        self.rate = float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])
        value, unit = re.search(r"99%\s+([\d.]+)(us|ms|s|m)", text).groups()
        self.slowest = float(value) * UNITS[unit]
        failed = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
        self.refused = int(failed[1]) if failed else 0


def wrk(script, port, path, connections, seconds, body):
    """The command; the script is there for as long as it runs."""
    script.write(f'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\nwrk.body = {json.dumps(body)}\n')
    script.flush()
    options = ["-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", script.name]
    return ["wrk", *options, f"http://127.0.0.1:{port}{path}"]


def publish_body():
    return json.dumps({"subject": SUBJECT, "message": MESSAGE}, separators=(",", ":"))


class Nats:
    """A NATS connection that sends what was made before and counts what comes."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.buffer = b""
        self.until(b"\r\n")
        self.send(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\nPING\r\n')
        self.until(b"PONG\r\n")

    def receive(self, most):
        piece = self.socket.recv(most)
        if not piece:
            raise RuntimeError("nats-server has closed the connection")
        return piece

    def send(self, data):
        self.socket.sendall(data)

    def until(self, mark):
        while mark not in self.buffer:
            self.buffer += self.receive(1 << 16)
        taken, self.buffer = self.buffer.split(mark, 1)
        return taken

    def count(self, mark, number):
        """Waits for so many of these, and forgets everything that came."""
        found, last = 0, b""
        while found < number:
            piece = last + self.receive(1 << 18)
            found += piece.count(mark)
            last = piece[-len(mark) + 1 :]
        self.buffer = b""

    def request(self, subject, payload):
        body = b"" if payload is None else json.dumps(payload).encode()
        self.send(b"SUB _INBOX.bench.r 9\r\nUNSUB 9 1\r\nPUB %s _INBOX.bench.r %d\r\n%s\r\n" % (subject.encode(), len(body), body))
        self.until(b"_INBOX.bench.r 9 ")
        length = int(self.until(b"\r\n"))
        while len(self.buffer) < length + 2:
            self.buffer += self.receive(1 << 16)
        answer, self.buffer = self.buffer[:length], self.buffer[length + 2 :]
        return json.loads(answer)


def direct_batches(port, batches, size):
    """Messages a second that a client stores which sends so many, and waits for all acknowledgements."""
    nats = Nats(port)
    nats.send(b"SUB _INBOX.bench.a 1\r\n")
    one = b"PUB %s _INBOX.bench.a %d\r\n%s\r\n" % (SUBJECT.encode(), len(PAYLOAD), PAYLOAD)
    sent = one * size
    begin = time.monotonic()
    for _ in range(batches):
        nats.send(sent)
        nats.count(b'"seq":', size)
    return batches * size / (time.monotonic() - begin)


class Http:
    """One connection that is kept alive, with requests made before."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.file = self.socket.makefile("rb", buffering=1 << 18)

    def exchange(self, request):
        self.socket.sendall(request)
        status = self.file.readline()
        length = None
        while (line := self.file.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if length is not None:
            body = self.file.read(length)
        else:
            body = b""
            while (size := int(self.file.readline(), 16)) > 0:
                body += self.file.read(size)
                self.file.readline()
            self.file.readline()
        return int(status.split()[1]), body


def post(path, body, kind="application/json"):
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def http_batches(port, batches, size):
    """The same over HTTP, in arrays."""
    entry = json.loads(publish_body())
    request = post("/api/v1/broker/publish/batch?results=failed", json.dumps([entry] * size, separators=(",", ":")).encode())
    http = Http(port)
    begin = time.monotonic()
    for _ in range(batches):
        status, body = http.exchange(request)
        if status != 200:
            raise RuntimeError(f"a batch was answered {status}: {body[:300]}")
    return batches * size / (time.monotonic() - begin)


def direct_replay(port, messages):
    """Messages a second that an ordered push consumer gets."""
    nats = Nats(port)
    config = {
        "deliver_subject": "_INBOX.bench.d",
        "deliver_policy": "all",
        "ack_policy": "none",
        "filter_subject": "trade-data.>",
        "flow_control": True,
        "idle_heartbeat": 5_000_000_000,
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": 60_000_000_000,
    }
    nats.send(b"SUB _INBOX.bench.d 2\r\n")
    begin = time.monotonic()
    # Over another connection: messages may come before its answer.
    made = Nats(port).request("$JS.API.CONSUMER.CREATE.MARKET_DATA.bench", {"stream_name": "MARKET_DATA", "config": config})
    if "error" in made:
        raise RuntimeError(f"no consumer: {made}")
    found, rest = 0, b""
    while True:
        # A line that is not whole yet is looked at with the rest of it.
        cut = rest.rfind(b"\n") + 1
        lines, rest = rest[:cut], rest[cut:]
        found += lines.count(b"MSG trade-data.")
        for answer in re.findall(rb"HMSG _INBOX\.bench\.d 2 (\$JS\.FC\.\S+) ", lines):
            nats.send(b"PUB %s 0\r\n\r\n" % answer)
        if found >= messages:
            took = time.monotonic() - begin
            # The next one begins at the first message, too.
            deleted = Nats(port).request("$JS.API.CONSUMER.DELETE.MARKET_DATA.bench", None)
            if "error" in deleted:
                raise RuntimeError(f"the consumer stays: {deleted}")
            return found / took
        rest += nats.receive(1 << 18)


def direct_pull(port, messages):
    """The same of a consumer that is asked for messages, so that no more is on its way than was asked for."""
    nats, others = Nats(port), Nats(port)
    config = {
        "name": "bench-pull",
        "deliver_policy": "all",
        "ack_policy": "none",
        "filter_subject": "trade-data.>",
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": 60_000_000_000,
    }
    made = others.request("$JS.API.CONSUMER.CREATE.MARKET_DATA.bench-pull", {"stream_name": "MARKET_DATA", "config": config})
    if "error" in made:
        raise RuntimeError(f"no consumer: {made}")
    asked = json.dumps({"batch": 4000, "expires": 30_000_000_000, "idle_heartbeat": 5_000_000_000}).encode()
    ask = b"PUB $JS.API.CONSUMER.MSG.NEXT.MARKET_DATA.bench-pull _INBOX.bench.p %d\r\n%s\r\n" % (len(asked), asked)
    nats.send(b"SUB _INBOX.bench.p 3\r\n" + 2 * ask)
    found, answered, rest = 0, 8000, b""
    begin = time.monotonic()
    while found < messages:
        rest += nats.receive(1 << 18)
        # A line that is not whole yet is looked at with the rest of it.
        cut = rest.rfind(b"\n") + 1
        found += rest.count(b"MSG trade-data.", 0, cut)
        rest = rest[cut:]
        if answered - found <= 4000:
            nats.send(ask)
            answered += 4000
    took = time.monotonic() - begin
    deleted = others.request("$JS.API.CONSUMER.DELETE.MARKET_DATA.bench-pull", None)
    if "error" in deleted:
        raise RuntimeError(f"the consumer stays: {deleted}")
    return found / took


def http_replay(port, messages):
    """The same over HTTP."""
    http = socket.create_connection(("127.0.0.1", port), timeout=60)
    begin = time.monotonic()
    http.sendall(b"GET /api/v1/broker/replay?subject=trade-data.%3E&from=1&speed=max HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    found, last, whole = 0, b"", b""
    while piece := http.recv(1 << 18):
        found += (last + piece).count(b'"sequence":')
        last = piece[-10:]
        whole = (whole + piece)[-400:]
    if b'"complete":true' not in whole:
        raise RuntimeError(f"the replay is not whole: {whole!r}")
    if found < messages:
        raise RuntimeError(f"{found} of {messages} messages came")
    return found / (time.monotonic() - begin)


def follow(port, readers):
    """So many connections that follow one subject."""
    sockets = []
    for _ in range(readers):
        reader = socket.create_connection(("127.0.0.1", port), timeout=60)
        reader.sendall(b"GET /api/v1/broker/tail?subject=trade-data.%3E HTTP/1.1\r\nHost: x\r\n\r\n")
        sockets.append(reader)
    for reader in sockets:
        reader.recv(64)
    return sockets


REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def old_broker(nats_port, port):
    """The broker that this replaces, as a process: aiohttp and nats-py. None where those are not there."""
    python = os.path.join(REPOSITORY, ".cache", "bench", "bin", "python")
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "old_broker.py")
    if not os.path.exists(python):
        return None
    return subprocess.Popen([python, script, str(nats_port), str(port)])
