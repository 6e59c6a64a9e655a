"""Python's poplib reads and deletes the one mail of the mailbox.

Usage: poplib_mailbox.py PORT. Prints what it was told, a line each.
"""

import email
import email.policy
import poplib
import sys


def main(port):
    box = poplib.POP3("127.0.0.1", port, timeout=15)
    print("welcome", box.getwelcome().decode())
    print("can", sorted(box.capa()))
    box.user("you")
    try:
        box.pass_("guess")
    except poplib.error_proto as refused:
        print("guessed", refused)
    print("in", box.pass_("secret").decode())

    count, octets = box.stat()
    print("stat", count)
    print("list", box.list()[1] == [f"1 {octets}".encode()], box.uidl()[1])
    lines = box.retr(1)[1]
    # The size is that of the mail as it travels, without the dots that the protocol adds.
    print("size", octets == sum(len(line) + 2 for line in lines))
    mail = email.message_from_bytes(b"\r\n".join(lines), policy=email.policy.default)
    print("mail", mail["From"], "|", mail["Subject"])
    print(mail.get_content().rstrip().replace("\r\n", "\n"))
    head = box.top(1, 0)[1]
    print("head", head == lines[: len(head)])

    print("gone", box.dele(1).decode())
    print("stat", *box.stat(), box.list()[1])
    try:
        box.retr(1)
    except poplib.error_proto as refused:
        print("gone", refused)
    print("back", box.rset().decode(), box.stat()[0])
    box.dele(1)
    print("bye", box.quit().decode())

    # Nothing is kept from one client to the next.
    box = poplib.POP3("127.0.0.1", port, timeout=15)
    box.user("you")
    box.pass_("secret")
    print("again", box.stat()[0])
    box.quit()


main(int(sys.argv[1]))
