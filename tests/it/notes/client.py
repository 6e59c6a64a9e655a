"""The client of the notes: sends a message without a newline, receives, prints; `exit` ends it.

Usage: client.py [HOST [PORT]]. Each line of standard input is a message. Prints each reply, a line
each; at the end, whatever ended it, the server has to close without another word.
"""

import socket
import sys

host = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1"
port = int(sys.argv[2]) if len(sys.argv) > 2 else 8889
ip_port = (host, port)

client_socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
client_socket.connect(ip_port)
for line in sys.stdin:
    client_data = line.rstrip("\n")
    if not client_data:
        continue
    client_socket.send(client_data.encode("utf-8"))
    if client_data == "exit":
        break
    server_data = client_socket.recv(1024).decode("utf-8")
    if not server_data:
        break
    print(server_data, flush=True)
else:
    client_socket.shutdown(socket.SHUT_WR)
if client_socket.recv(1024):
    sys.exit("the server went on after the end")
client_socket.close()
