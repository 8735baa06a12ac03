#!/usr/bin/env python3
"""One connection of a small IMDSv2, for ./test: QEMU starts it with the socket as stdin and stdout.

Usage: imds.py DIR, where DIR/latest/<path> are the answers.
"""
import pathlib
import sys

TOKEN = "test-token"


def main() -> None:
    stdin = sys.stdin.buffer
    method, path, _ = stdin.readline().decode("ascii").split()
    headers = {}
    while (line := stdin.readline().strip()):
        name, _, value = line.decode("ascii").partition(":")
        headers[name.lower()] = value.strip()

    file = pathlib.Path(sys.argv[1] + path)
    if (method, path) == ("PUT", "/latest/api/token"):
        ok = headers.get("x-aws-ec2-metadata-token-ttl-seconds", "").isdigit()
        status, body = (200, TOKEN.encode()) if ok else (400, b"")
    elif headers.get("x-aws-ec2-metadata-token") != TOKEN:
        status, body = 401, b""
    elif file.is_file():
        status, body = 200, file.read_bytes()
    else:
        status, body = 404, b""
    sys.stdout.buffer.write(b"HTTP/1.0 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)


main()
