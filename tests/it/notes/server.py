"""The server of the notes: one blocking socket, and one receive is one message.

Usage: server.py [HOST [PORT]]. Prints the port it listens on, then what it received, a line each.
"""

import socket
import sys

host = sys.argv[1] if len(sys.argv) > 1 else "0.0.0.0"
port = int(sys.argv[2]) if len(sys.argv) > 2 else 8889

sv_socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
sv_socket.bind((host, port))
sv_socket.listen(5)
print(sv_socket.getsockname()[1], flush=True)

server_socket, addr = sv_socket.accept()
while True:
    client_data = server_socket.recv(1024).decode("utf-8")
    print(client_data, flush=True)
    if (client_data == "exit") or (not client_data):
        break
    server_data = client_data
    server_socket.send(server_data.encode("utf-8"))
server_socket.close()
sv_socket.close()
