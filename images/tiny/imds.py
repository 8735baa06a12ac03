#!/usr/bin/env python3
"""One connection of a small IMDSv2, for ./test: QEMU starts it with the socket as stdin and stdout.

Usage: imds.py DIR, where DIR/latest/<path> are the answers.
"""
import pathlib
import sys

TOKEN = "test-token"


def answer(method: str, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
    if (method, path) == ("PUT", "/latest/api/token"):
        ok = headers.get("x-aws-ec2-metadata-token-ttl-seconds", "").isdigit()
        return (200, TOKEN.encode()) if ok else (400, b"")
    if headers.get("x-aws-ec2-metadata-token") != TOKEN:
        return 401, b""
    file = pathlib.Path(sys.argv[1] + path)
    return (200, file.read_bytes()) if file.is_file() else (404, b"")


def main() -> None:
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    while request := stdin.readline():
        method, path, _ = request.decode("ascii").split()
        headers = {}
        while line := stdin.readline().strip():
            name, _, value = line.decode("ascii").partition(":")
            headers[name.lower()] = value.strip()
        status, body = answer(method, path, headers)
        stdout.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)
        stdout.flush()


main()
