# Shared by the scripts beside it: places, messages, and what a fresh Debian 12 lacks.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
HEARTH_DATA=${HEARTH_DATA:-/var/lib/hearth}
HEARTH_RUN=${HEARTH_RUN:-/run/hearth}
# What runs as another user than root has to be where that user may read.
HEARTH_LIB=${HEARTH_LIB:-/usr/local/lib/hearth}
# Where the agent looks for it.
HEARTH_FIRMWARE_FILE=/usr/local/share/hearth/firmware.fd
export HEARTH_ENDPOINT=${HEARTH_ENDPOINT:-unix:/run/hearthd/api.sock}
HEARTH_SOCKET=${HEARTH_ENDPOINT#unix:}
# Where Hearth's programs are; who sets it has built them, and nothing is built.
bin=${HEARTH_BIN:-${CARGO_TARGET_DIR:-$root/target}/release}
export PATH="$HOME/.cargo/bin:$PATH:/usr/sbin:/sbin"

say() { printf '\033[1m==> %s\033[0m\n' "$*" >&2; }
die() {
    printf 'hearth: %s\n' "$*" >&2
    exit 1
}

# at_least WANT HAVE: whether the version HAVE is WANT or newer; no version is older than any.
at_least() { [ -n "$2" ] && [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n1)" = "$1" ]; }

# need_tool NAME VERSION: installs exactly this version of a cargo tool, with the dependencies that its authors locked,
# unless it is there in this version or a newer one.
need_tool() {
    local have
    have=$("$1" --version 2>/dev/null | grep -oE -m1 '[0-9]+\.[0-9]+\.[0-9]+' || true)
    at_least "$2" "$have" && return
    say "installing $1 $2"
    cargo install --quiet --locked "$1@$2"
}

# need_host: root and a usable KVM, or a sentence that says what to do.
need_host() {
    [ "$(id -u)" = 0 ] || die "this needs root (TAPs, namespaces, nftables): run it with sudo"
    [ -e /dev/kvm ] || die "/dev/kvm is missing: enable VT-x or AMD-V in the firmware (or nested virtualisation in the hypervisor above), then 'modprobe kvm_intel' or 'modprobe kvm_amd'"
    (: <>/dev/kvm) 2>/dev/null || die "/dev/kvm cannot be opened: check its permissions ('ls -l /dev/kvm'), in a container that the device is passed in, and that 'modprobe kvm_intel' or 'modprobe kvm_amd' works"
}

# has_systemd: whether systemd is the running service manager.
has_systemd() { [ -d /run/systemd/system ]; }

# environment FILE: the Python of an environment with the packages that a file names, made when the file is another one.
environment() {
    local venv
    venv=${XDG_CACHE_HOME:-$HOME/.cache}/hearth/python-$(sha256sum "$1" | cut -c1-16)
    if [ ! -d "$venv" ]; then
        python3 -m venv "$venv.partial" >&2
        "$venv.partial/bin/python" -m pip install --quiet --disable-pip-version-check -r "$1" >&2
        mv "$venv.partial" "$venv"
    fi
    printf '%s\n' "$venv/bin/python"
}

# source_distribution FILE: the directory of the source distribution that a file names with its hash, unpacked when the file is
# another one.
source_distribution() {
    local dir
    dir=${XDG_CACHE_HOME:-$HOME/.cache}/hearth/source-$(sha256sum "$1" | cut -c1-16)
    if [ ! -d "$dir" ]; then
        rm -rf "$dir.partial"
        mkdir -p "$dir.partial"
        python3 -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: --require-hashes \
            --dest "$dir.partial" -r "$1" >&2
        tar --extract --strip-components=1 --directory "$dir.partial" --file "$(echo "$dir.partial"/*.tar.gz)"
        rm "$dir.partial"/*.tar.gz
        mv "$dir.partial" "$dir"
    fi
    printf '%s\n' "$dir"
}

# debian_package FILE: the directory of the Debian package that a file names with its version and hash, unpacked when the file is
# another one.
debian_package() {
    local dir name version hash
    dir=${XDG_CACHE_HOME:-$HOME/.cache}/hearth/package-$(sha256sum "$1" | cut -c1-16)
    if [ ! -d "$dir" ]; then
        read -r name version hash < <(grep -v '^#' "$1")
        rm -rf "$dir.partial"
        mkdir -p "$dir.partial/unpacked"
        (cd "$dir.partial" && apt-get --quiet=2 -o "APT::Sandbox::User=$(id --user --name)" download "$name=$version" >&2)
        sha256sum --check --status <<<"$hash  $(echo "$dir.partial"/*.deb)" || die "$name $version is not what $1 says: its SHA-256 is not $hash"
        dpkg-deb --extract "$dir.partial"/*.deb "$dir.partial/unpacked"
        mv "$dir.partial/unpacked" "$dir"
        rm -r "$dir.partial"
    fi
    printf '%s\n' "$dir"
}
