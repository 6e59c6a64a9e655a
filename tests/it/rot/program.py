"""Answers each line with the same. `die` ends it, `say` is said to standard error as well, and
`hang` is never answered."""

import sys

for line in sys.stdin:
    if line == "die\n":
        sys.exit(1)
    if line == "say\n":
        print("said", file=sys.stderr)
    if line == "hang\n":
        sys.stdin.read()
    print(line, end="", flush=True)
