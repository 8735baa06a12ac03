# shellcheck shell=bash
# What the recipes share: a cache of finished things, each named by the hash of
# the recipe that made it. An entry either exists whole or does not exist.

# shellcheck disable=SC2034 # the recipes read it
cache_root=${XDG_CACHE_HOME:-$HOME/.cache}/hearth

# Progress goes to stderr: stdout belongs to the path that a recipe prints last.
note() { printf '%s\n' "$*" >&2; }
die() { note "$0: $*"; exit 1; }

# recipe_hash WORD... -- FILE...: a short hash of the words and of the files' names and contents.
# Give relative names, so that the hash does not depend on where the checkout is.
recipe_hash() {
    local words=()
    while [[ $1 != -- ]]; do words+=("$1"); shift; done
    shift
    { printf '%s\n' "${words[@]}"; sha256sum -- "$@"; } | sha256sum | cut -c1-16
}

# debian_sources RELEASE: apt's lines for this release of Debian and its updates, from the mirrors that this machine's apt
# takes its own release from.
debian_sources() {
    local here
    here=$(. /etc/os-release && echo "$VERSION_CODENAME")
    # shellcheck disable=SC2016 # apt expands it
    apt-get indextargets --format '$(CODENAME) deb $(REPO_URI) $(CODENAME) $(COMPONENT)' \
        'Created-By: Packages' 'Origin: Debian' 'Component: main' |
        sed -nE "s/^$here(-updates|-security)? (.*) $here/\2 $1/p" | sort --unique
}

# cached ENTRY COMMAND...: unless the directory ENTRY exists, run COMMAND with an empty directory
# as its last argument and rename that to ENTRY when it succeeds. Two runs never collide.
cached() {
    local entry=$1 partial=$1.partial lock
    shift
    [[ ! -d $entry ]] || return 0
    mkdir -p "${entry%/*}"
    # The command's children inherit the lock: what a killed run left running is waited for.
    exec {lock}>"${entry%/*}/.lock"
    flock --nonblock "$lock" || { note "waiting for another run of $0"; flock "$lock"; }
    if [[ ! -d $entry ]]; then
        # Under the lock, any of them is what a killed run left.
        rm -rf "${entry%/*}"/*.partial
        mkdir "$partial"
        "$@" "$partial"
        sync --file-system "$partial"
        mv --no-target-directory "$partial" "$entry"
    fi
    exec {lock}>&-
}
