"""Python's smtplib delivers mails to the sink.

Usage: smtplib_sink.py PORT. Prints what it was told, a line each.
"""

import smtplib
import sys

SENDER = "ada@example.org"
YOU = "you@example.org"
NOBODY = "nobody@example.org"

PLAIN = "Subject: one\r\n\r\nhello\r\n"
# What could be taken for a command, an end or an exit word, and bytes of another encoding.
HOSTILE = b"Subject: two\r\n\r\nexit\r\nQUIT\r\n.\r\n..\r\nDATA\r\n\r\ncaf\xe9\r\n"
LONG = "Subject: three\r\n\r\n" + "".join(f"line {number}\r\n" for number in range(5000))


def main(port):
    sink = smtplib.SMTP("127.0.0.1", port, local_hostname="tester.example", timeout=15)
    print("hello", *sink.ehlo())
    print("size", sink.esmtp_features["size"])
    print("plain", sink.sendmail(SENDER, [YOU, "them@example.org"], PLAIN))
    print("hostile", sink.sendmail(SENDER, YOU, HOSTILE))
    print("long", sink.sendmail(SENDER, YOU, LONG))
    print("one refused", sorted(sink.sendmail(SENDER, [YOU, NOBODY], PLAIN)))
    try:
        sink.sendmail(SENDER, NOBODY, PLAIN)
    except smtplib.SMTPRecipientsRefused as refused:
        print("all refused", refused.recipients[NOBODY])
    print("out of turn", *sink.docmd("RCPT", "TO:<you@example.org>"))
    print("unknown", *sink.docmd("MAKE", "COFFEE"))
    print("verify", *sink.verify(YOU))
    print("bye", *sink.quit())

    # One that only knows the old greeting.
    with smtplib.SMTP("127.0.0.1", port, local_hostname="old.example", timeout=15) as sink:
        print("old hello", *sink.helo())
        print("plain", sink.sendmail(SENDER, YOU, PLAIN))


main(int(sys.argv[1]))
