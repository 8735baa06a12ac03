"""The functions that a monitor runs while it starts and boots a guest, for crates/vmm/start.functions: build.rs has
the linker put them side by side, so that the pages of the others are never read. A stale list costs memory, nothing
else. What one run shows is added to what the file has.

usage: SECONDS=20 gdb -q -batch -x scripts/start-functions.py --args target/release/hearth-vmm run --kernel ...
"""

import os
import re
import signal
import subprocess
import threading

LIST = "crates/vmm/start.functions"


def pattern(symbol):
    """What stays of a name when the compiler, the path or the function's text is another."""
    symbol = re.sub(r"\.llvm\.\d+$", "", symbol)
    symbol = re.sub(r"17h[0-9a-f]{16}E$", "17h*", symbol)
    return re.sub(r"Cs[0-9A-Za-z]+_", "Cs*_", symbol)


def symbols(*arguments):
    """Place and name of each function that `nm` knows of."""
    output = subprocess.run(["nm", *arguments], capture_output=True, text=True, check=True).stdout
    for line in output.splitlines():
        place, _, rest = line.rpartition(" ")[0].rpartition(" ")
        if rest and rest in "tTiW":
            yield place, line.rpartition(" ")[2]


def functions(binary):
    """Names by address: identical functions share one."""
    names = {}
    for address, name in symbols(binary):
        names.setdefault(int(address, 16), set()).add(name)
    return names


def members():
    """Who in the C library has a function: its functions have no sections of their own."""
    archive = subprocess.run(["cc", "-print-file-name=libc.a"], capture_output=True, text=True, check=True).stdout
    having = {}
    for place, name in symbols("-A", archive.strip()):
        having.setdefault(name, set()).add(place.split(":")[1])
    return {name: f"libc.a:{having[name].pop()}" for name in having if len(having[name]) == 1}


def main():
    binary = gdb.current_progspace().filename
    names = functions(binary)
    for setting in ["pagination off", "print thread-events off", "print inferior-events off", "breakpoint always-inserted on"]:
        gdb.execute(f"set {setting}")
    gdb.execute("starti", to_string=True)
    mappings = gdb.execute("info proc mappings", to_string=True).splitlines()
    base = next(int(line.split()[0], 16) for line in mappings if line.endswith(binary))
    for address in names:
        gdb.Breakpoint(f"*{base + address:#x}", temporary=True, internal=True)
    found = set()

    def stopped(event):
        address = int(gdb.selected_frame().pc()) - base
        found.update(names.get(address, ()))

    gdb.events.stop.connect(stopped)
    gdb.execute("handle all nostop noprint pass", to_string=True)
    gdb.execute("handle SIGTRAP stop nopass", to_string=True)
    timer = threading.Timer(int(os.environ["SECONDS"]), os.kill, (gdb.selected_inferior().pid, signal.SIGKILL))
    timer.start()
    try:
        while gdb.selected_inferior().pid:
            gdb.execute("continue", to_string=True)
    except (gdb.error, KeyboardInterrupt):
        pass  # It has ended.
    timer.cancel()
    known = set(open(LIST).read().split()) if os.path.exists(LIST) else set()
    library = members()
    found = {library.get(name) or pattern(name) for name in found if name in library or name[:2] in ("_Z", "_R")}
    both = known | found
    with open(LIST, "w") as file:
        file.writelines(f"{name}\n" for name in sorted(both))
    print(f"{len(both) - len(known)} more than {len(known)} before")


main()
