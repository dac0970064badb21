"""Asks slowly: dribble.py PORT CONNECTIONS SECONDS PATH

Each connection sends a POST byte by byte, one a second: half of them their head, half of them the body behind a
whole head. One that is closed is opened again at once. Ends by itself.
"""

import resource
import select
import socket
import sys
import time

# Between two bytes of a connection. Not all of them send at once.
TURNS = 250
PAUSE = 1 / TURNS


class Dribble:
    def __init__(self, port, count, path):
        self.port = port
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n"
        self.heads = [(head + "X: " + "y" * 4000).encode(), (head + "\r\n").encode()]
        # For each the socket and what it has still to send.
        self.connections = [self.open(number) for number in range(count)]

    def open(self, number):
        connection = socket.socket()
        connection.setblocking(False)
        connection.connect_ex(("127.0.0.1", self.port))
        head = self.heads[number % 2]
        # What has a whole head has it at once.
        return connection, head + b" " * 5000, len(head) if number % 2 else 1

    def send(self, number):
        connection, left, count = self.connections[number]
        try:
            sent = connection.send(left[:count])
            readable, _, _ = select.select([connection], [], [], 0) if connection.fileno() < 1024 else ([], [], [])
            if not left or readable:
                raise ConnectionResetError
            self.connections[number] = (connection, left[sent:], 1)
        except BlockingIOError:
            pass
        except OSError:
            connection.close()
            self.connections[number] = self.open(number)

    def run(self, until):
        turn = 0
        while (begin := time.monotonic()) < until:
            turn += 1
            for number in range(turn % TURNS, len(self.connections), TURNS):
                self.send(number)
            time.sleep(max(0, PAUSE - (time.monotonic() - begin)))


def main():
    port, count, seconds = (int(word) for word in sys.argv[1:4])
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    Dribble(port, count, sys.argv[4]).run(time.monotonic() + seconds)


main()
