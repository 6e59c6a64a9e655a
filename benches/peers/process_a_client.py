"""A server that starts a program for each client and copies between the two with two threads, as
many a gateway does."""

import os
import socket
import subprocess
import sys
import threading


def copy(read, write, at_end):
    while chunk := read():
        write(chunk)
    at_end()


def serve(client, program):
    with client, subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        output = process.stdout.fileno()
        back = threading.Thread(
            target=copy,
            args=(
                lambda: os.read(output, 65536),
                client.sendall,
                lambda: client.shutdown(socket.SHUT_WR),
            ),
        )
        back.start()
        copy(lambda: client.recv(65536), process.stdin.write, process.stdin.close)
        back.join()


def main():
    port, *program = sys.argv[1:]
    with socket.create_server(("127.0.0.1", int(port)), backlog=1024) as server:
        while True:
            client, _ = server.accept()
            threading.Thread(target=serve, args=(client, program), daemon=True).start()


main()
