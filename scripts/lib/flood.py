"""Floods an HTTP port of this machine: flood.py PORT BUSY IDLE SECONDS PATH[,PATH...]

BUSY connections ask for the paths again and again, IDLE ones send nothing or half a request; one that is
closed is opened again at once. Prints the requests that were answered, and ends by itself.
"""

import itertools
import resource
import select
import socket
import sys
import time

HALVES = itertools.cycle([b"", b"GET ", b"GET /readyz HTTP/1.1\r\nHost: x\r\n", b"GET /x HTTP/1.1\r\nHost: x\r\nA: "])


class Flood:
    def __init__(self, port, busy, idle, paths):
        self.port = port
        self.poll = select.epoll()
        # By descriptor: the socket, what it sends (None for half a request), and whether it has.
        self.connections = {}
        self.answered = 0
        requests = [f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for path in paths]
        for request in itertools.islice(itertools.cycle(requests), busy):
            self.open(request)
        for _ in range(idle):
            self.open(None)

    def open(self, request):
        connection = socket.socket()
        connection.setblocking(False)
        try:
            connection.connect(("127.0.0.1", self.port))
        except BlockingIOError:
            pass
        self.connections[connection.fileno()] = [connection, request, False]
        self.poll.register(connection.fileno(), select.EPOLLOUT | select.EPOLLIN)

    def run(self, until):
        while time.monotonic() < until:
            for descriptor, _ in self.poll.poll(0.1):
                connection, request, _ = self.connections[descriptor]
                try:
                    lives = self.go_on(descriptor)
                except BlockingIOError:
                    lives = True
                except OSError:
                    lives = False
                if not lives:
                    self.poll.unregister(descriptor)
                    del self.connections[descriptor]
                    connection.close()
                    self.open(request)

    def go_on(self, descriptor):
        """False where the connection is closed."""
        connection, request, has_sent = self.connections[descriptor]
        if not has_sent:
            connection.send(request or next(HALVES))
            self.connections[descriptor][2] = True
            self.poll.modify(descriptor, select.EPOLLIN)
            return True
        if not connection.recv(65536):
            return False
        if request:
            self.answered += 1
            connection.send(request)
        return True


def main():
    port, busy, idle, seconds = (int(word) for word in sys.argv[1:5])
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    flood = Flood(port, busy, idle, sys.argv[5].split(","))
    flood.run(time.monotonic() + seconds)
    print(flood.answered)


main()
