"""Speaks to a running monitor over its control socket (crates/vmm/src/control).

attach.py SOCKET disk ID FILE         attaches a file as a disk
attach.py SOCKET nic ID MAC TAP       attaches the queue of a TAP, which it makes
attach.py SOCKET detach ID            detaches, and waits until the guest has let the device go

Without json, which a minimal Python lacks.
"""

import array
import fcntl
import os
import socket
import struct
import sys

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
PATIENCE = 300  # seconds


def lines(control):
    received = b""
    while True:
        while b"\n" not in received:
            piece = control.recv(1 << 16)
            if not piece:
                sys.exit("the monitor has ended")
            received += piece
        line, received = received.split(b"\n", 1)
        yield line.decode()


def ask(control, answers, request, descriptors=()):
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    control.sendmsg([request.encode() + b"\n"], rights)
    for line in answers:
        if line.startswith('{"reply"'):
            if line != '{"reply":"ok"}':
                sys.exit(line)
            return


def tap(name):
    queue = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(queue, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    return queue


def main(path, verb, device, *rest):
    control = socket.socket(socket.AF_UNIX)
    control.settimeout(PATIENCE)
    # The path may be longer than a socket's address can be.
    os.chdir(os.path.dirname(path))
    control.connect(os.path.basename(path))
    answers = lines(control)
    if verb == "disk":
        serial = device.replace("-", "", 1)
        spec = f'"id":"{device}","serial":"{serial}","read_only":false,"backing":{{"raw":{{"fd":0}}}}'
        ask(control, answers, f'{{"attach_disk":{{{spec}}}}}', [os.open(rest[0], os.O_RDWR)])
    elif verb == "nic":
        spec = f'"id":"{device}","mac":"{rest[0]}","tap_fds":[0],"mtu":1500'
        ask(control, answers, f'{{"attach_nic":{{{spec}}}}}', [tap(rest[1])])
    else:
        ask(control, answers, f'{{"detach":{{"device":"{device}"}}}}')
        gone = f'{{"event":{{"device_detached":{{"device":"{device}"}}}}}}'
        if not any(line == gone for line in answers):
            sys.exit("the device stays")


main(*sys.argv[1:])
