"""The program that the servers are compared with: reads a line, writes a line."""

import sys

for line in sys.stdin:
    sys.stdout.write(line)
    sys.stdout.flush()
