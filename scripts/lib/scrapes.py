"""Scrapes a broker of its own, and says what that costs. For scripts/scrapes.sh."""

import argparse
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

# One subject of each family.
SUBJECTS = [
    "orderbook-data.binance_spot.spot.BTCUSDT",
    "trade-data.okx_derivatives.perpetual.BTC-USDT-SWAP",
    "funding-rate-data.binance_derivatives.perpetual.ETHUSDT",
    "open-interest-data.okx_derivatives.perpetual.BTC-USDT",
    "lsr-top-position-data.binance_derivatives.perpetual.BTCUSDT",
    "lsr-all-account-data.okx_derivatives.perpetual.BTC-USDT",
    "volatility_index-data.deribit_derivatives.options.BTC",
    "liquidation-data.binance_derivatives.perpetual.ETHUSDT",
]
SCRAPERS = 4
PATIENCE = 60
# KiB that a thousand scrapes may leave behind.
MOST_LEFT = 32
# What is collected serves scrapes for half a second.
FRESH = 0.55


def free_ports(count):
    """Held at the same time, so that they differ."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class Nats:
    """Enough of the protocol to publish and to ask."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.lines = self.socket.makefile("rb")
        self.lines.readline()
        self.asked = 0
        self.socket.sendall(b'CONNECT {"verbose":false,"pedantic":false}\r\nSUB _INBOX.scrapes 1\r\n')

    def publish(self, subject, payload, reply=""):
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self.socket.sendall(f"PUB {subject} {reply} {len(body)}\r\n".encode() + body + b"\r\n")

    def answers(self, count):
        for _ in range(count):
            while not (line := self.lines.readline()).startswith(b"MSG"):
                if line.startswith(b"PING"):
                    self.socket.sendall(b"PONG\r\n")
                elif not line or line.startswith(b"-ERR"):
                    raise RuntimeError(f"nats-server says {line!r}")
            answer = self.lines.read(int(line.split()[-1]) + 2)
            if b'"error"' in answer:
                raise RuntimeError(answer.decode())

    def ask_all(self, requests):
        """Several at a time, which is much faster than one after the other."""
        requests = list(requests)
        for begin in range(0, len(requests), 200):
            some = requests[begin : begin + 200]
            for subject, payload in some:
                self.publish(subject, payload, "_INBOX.scrapes")
            self.answers(len(some))


class Broker:
    def __init__(self, options, directory, **settings):
        self.nats, self.monitor, self.api = free_ports(3)
        self.directory = directory
        environment = {
            "NATS_SERVER_BIN": os.path.abspath(options.nats_server),
            "JETSTREAM_STORE_DIR": os.path.join(directory, "store"),
            "NATS_CONFIG_FILE": os.path.join(directory, "run", "nats.conf"),
            "NATS_HOST": "127.0.0.1",
            "API_HOST": "127.0.0.1",
            "NATS_PORT": str(self.nats),
            "NATS_HTTP_PORT": str(self.monitor),
            "API_PORT": str(self.api),
            **settings,
        }
        self.log = open(os.path.join(directory, "log"), "wb")
        self.process = subprocess.Popen(
            [options.binary, "run"], env=environment, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL
        )

    def __enter__(self):
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError):
                if Scraper(self.api).get("/readyz")[0] == 200:
                    return self
            time.sleep(0.02)
        self.__exit__()
        raise RuntimeError("the broker does not get ready")

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()

    def anonymous(self):
        """KiB of memory that is the supervisor's alone."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as file:
            return int(re.search(r"^RssAnon:\s+(\d+)", file.read(), re.MULTILINE)[1])

    def cpu_seconds(self):
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Scraper:
    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)

    def get(self, path):
        self.connection.request("GET", path)
        answer = self.connection.getresponse()
        return answer.status, answer.read()

    def scrape(self):
        status, text = self.get("/metrics")
        if status != 200 or b"\nunified_nats_up " not in text:
            raise RuntimeError(f"a scrape was answered {status}: {text[:300]!r}")
        return text


def slope(points):
    """Of the straight line that fits best."""
    xs, ys = zip(*points, strict=True)
    return statistics.linear_regression(xs, ys).slope


def soak(options):
    with tempfile.TemporaryDirectory(prefix="unified-nats-scrapes-") as directory, Broker(options, directory) as broker:
        ended, done, failures = threading.Event(), [0] * SCRAPERS, []

        def scrape(at):
            try:
                scraper = Scraper(broker.api)
                while not ended.is_set():
                    scraper.scrape()
                    done[at] += 1
            except Exception as error:  # pylint: disable=broad-except
                failures.append(error)
                ended.set()

        threads = [threading.Thread(target=scrape, args=(at,)) for at in range(SCRAPERS)]
        nats, begin, points = Nats(broker.nats), time.monotonic(), []
        for thread in threads:
            thread.start()
        while not ended.wait(0.25):
            nats.ask_all((subject, {"price": 1}) for subject in SUBJECTS)
            points.append((sum(done) / 1000, broker.anonymous()))
            if sum(done) >= options.scrapes or time.monotonic() - begin >= options.seconds:
                ended.set()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]
    # The first half fills what is kept: connections, buffers, what is known of subjects.
    settled = points[len(points) // 2 :]
    left = slope(settled)
    print(f"{sum(done)} scrapes in {time.monotonic() - begin:.0f} s")
    print("RssAnon in KiB: " + ", ".join(f"{kib} after {1000 * at:.0f}" for at, kib in points[:: max(1, len(points) // 8)]))
    print(f"RssAnon grows by {left:.1f} KiB with a thousand scrapes over the second half; {MOST_LEFT} is the most")
    if len(settled) < 8:
        raise RuntimeError("too few scrapes to tell")
    return left <= MOST_LEFT


def timed(broker, rounds):
    """What scrapes take that have everything asked anew, in ms, and how long the answer is."""
    scraper, times = Scraper(broker.api), []
    text, before = scraper.scrape(), broker.cpu_seconds()
    for _ in range(rounds):
        time.sleep(FRESH)
        begin = time.monotonic()
        text = scraper.scrape()
        times.append(1000 * (time.monotonic() - begin))
    used = 1000 * (broker.cpu_seconds() - before) / rounds
    # Nobody has to have asked the server for that.
    begin = time.monotonic()
    scraper.scrape()
    again = 1000 * (time.monotonic() - begin)
    times.sort()
    median, worst = statistics.median(times), times[-1]
    lines = text.count(b"\n")
    omitted = {of.decode(): int(count) for of, count in re.findall(rb'unified_nats_series_omitted{of="(\w+)"} (\d+)', text)}
    return (
        f"{median:.1f} ms in the middle, {worst:.1f} ms at most, {again:.1f} ms when asked again at once; "
        f"{used:.0f} ms of a processor each; "
        f"{len(text) / 1e6:.2f} MB, {lines} lines, without series: {omitted}"
    )


def streams(count):
    for at in range(count):
        config = {"name": f"S{at}", "subjects": [f"s{at}.>"], "storage": "memory", "max_msgs": 1000}
        yield f"$JS.API.STREAM.CREATE.S{at}", config


def consumers(count, each):
    for at in range(count):
        for reader in range(each):
            config = {"durable_name": f"C{reader}", "ack_policy": "explicit", "mem_storage": True}
            request = {"stream_name": f"S{at}", "config": config}
            yield f"$JS.API.CONSUMER.DURABLE.CREATE.S{at}.C{reader}", request


def figures(options):
    def broker(directory, **settings):
        return Broker(options, directory, HEALTH_CHECK_ENABLED="false", STREAMS_RECONCILE_INTERVAL="0", **settings)

    with tempfile.TemporaryDirectory(prefix="unified-nats-scrapes-") as directory:
        with Broker(options, directory) as idle:
            time.sleep(12)
            before, cpu, begin = idle.anonymous(), idle.cpu_seconds(), time.monotonic()
            time.sleep(20)
            used = 100 * (idle.cpu_seconds() - cpu) / (time.monotonic() - begin)
            print(f"idle, nobody scrapes: {before / 1024:.1f} MiB RssAnon, {used:.2f} % of a core")
            nats, scraper = Nats(idle.nats), Scraper(idle.api)
            nats.ask_all((subject, {"price": 1}) for subject in SUBJECTS)
            cpu, begin = idle.cpu_seconds(), time.monotonic()
            for _ in range(4):
                scraper.scrape()
                time.sleep(5)
            used = 100 * (idle.cpu_seconds() - cpu) / (time.monotonic() - begin)
            more = (idle.anonymous() - before) / 1024
            print(f"scraped every 5 s: {more:+.1f} MiB RssAnon, {used:.2f} % of a core")
            print(f"eight families: {timed(idle, 20)}")
    for count, each in [(1000, 0), (1000, 2), (5000, 10)]:
        with tempfile.TemporaryDirectory(prefix="unified-nats-scrapes-") as directory, broker(directory) as many:
            nats = Nats(many.nats)
            nats.ask_all(streams(count))
            nats.ask_all(consumers(count, each))
            before = many.anonymous()
            result = timed(many, 10)
            more = (many.anonymous() - before) / 1024
            print(f"{count} streams of {each} consumers: {result}; {more:+.1f} MiB RssAnon")
    return True


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--nats-server", required=True)
    parser.add_argument("--figures", action="store_true")
    parser.add_argument("--scrapes", type=int, default=20_000)
    parser.add_argument("--seconds", type=int, default=40)
    options = parser.parse_args()
    # Whatever ends this script ends the broker.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(143))
    sys.exit(0 if (figures if options.figures else soak)(options) else 1)


if __name__ == "__main__":
    main()
