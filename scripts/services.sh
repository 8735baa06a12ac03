# Starting and stopping the two daemons: the units of packaging/systemd where systemd runs, plain processes elsewhere.
# shellcheck shell=bash

# service_start NAME USER ARGUMENTS...: runs a daemon of $HEARTH_LIB as root or as the user hearth; does nothing when NAME
# runs already. The arguments are those of a plain process; a unit has its own places, and its settings in /etc/hearth.
service_start() {
    local name=$1 user=$2 log unit
    shift 2
    service_running "$name" && return 0
    say "starting $name"
    if has_systemd; then
        [ "$HEARTH_DATA:$HEARTH_SOCKET" = /var/lib/hearth:/run/hearthd/api.sock ] ||
            die "the systemd units work in /var/lib/hearth and /run/hearthd: unset HEARTH_DATA and HEARTH_ENDPOINT"
        for unit in $(service_units "$name"); do
            sed "s|/usr/bin/hearth|$HEARTH_LIB/hearth|" "$root/packaging/systemd/$unit.service" >"/etc/systemd/system/$unit.service"
        done
        systemctl daemon-reload
        systemctl enable --quiet --now "$name"
    else
        log=$HEARTH_DATA/log/$name.log
        mkdir -p "$HEARTH_RUN"
        install -d -m 0750 "$HEARTH_DATA/log"
        touch "$log"
        chmod 0640 "$log"
        set -- "$HEARTH_LIB/$name" "$@"
        if [ "$user" != root ]; then
            install -d -m 0755 -o "$user" -g "$user" "$(dirname "$HEARTH_SOCKET")"
            set -- setpriv --reuid="$user" --regid="$user" --clear-groups --no-new-privs --inh-caps=-all \
                --bounding-set=-all "$@"
        fi
        setsid "$@" </dev/null >>"$log" 2>&1 &
        echo "$! $(service_birth "$!")" >"$HEARTH_RUN/$name.pid"
    fi
}

# service_database URL: the database that hearthd uses from its next start on; empty: the one that it used before. A URL may
# have a password, so that only root reads the file.
service_database() {
    local file=$HEARTH_DATA/hearthd.env drop_in=/etc/systemd/system/hearthd.service.d
    if [ -n "$1" ]; then
        if [ "$(cat "$file" 2>/dev/null)" != "HEARTH_DATABASE=$1" ]; then
            # Instances go on meanwhile.
            service_stop hearthd
        fi
        (umask 077 && printf 'HEARTH_DATABASE=%s\n' "$1" >"$file")
    fi
    [ -f "$file" ] || return 0
    if has_systemd; then
        install -d "$drop_in"
        # A per cent sign in a path is a specifier to systemd.
        printf '[Service]\nEnvironmentFile=%s\n' "${file//%/%%}" >"$drop_in/database.conf"
    else
        HEARTH_DATABASE=$(sed 's/^HEARTH_DATABASE=//' "$file")
        export HEARTH_DATABASE
    fi
}

# service_refuse_packages: what a Debian package runs, scripts/up and scripts/down leave alone.
service_refuse_packages() {
    local unit
    for unit in hearthd hearth-agent; do
        [ ! -e "/usr/lib/systemd/system/$unit.service" ] ||
            die "a Debian package of Hearth runs $unit here: use it as docs/homelab.md says, or purge the packages first ('apt purge hearth hearth-agent')"
    done
}

# service_units NAME: the units of a daemon, in the order in which they are stopped.
service_units() {
    case $1 in
        hearth-agent) echo hearth-agent hearth-guests ;;
        *) echo "$1" ;;
    esac
}

# service_user DIRECTORY: the system user and group `hearth`, and a directory that is theirs alone, with what is in it.
service_user() {
    if ! getent passwd hearth >/dev/null; then
        say "making the system user 'hearth'"
        useradd --system --user-group --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin \
            --comment "Hearth's control plane" hearth
        touch "$HEARTH_DATA/made-user"
    fi
    [ "$(id -u hearth)" -lt 1000 ] || die "the user 'hearth' is a person's account here, and hearthd needs one of its own by that name: rename that account"
    if [ -d "$1" ] && [ "$(stat -c %U "$1")" != hearth ]; then
        # A hearthd that still runs as root would go on making files of root's.
        service_stop hearthd
        say "giving $1 to the user 'hearth'"
        chown -R --no-dereference hearth:hearth "$1"
    fi
    install -d -m 0700 -o hearth -g hearth "$1"
}

# service_user_remove: takes back what service_user has made.
service_user_remove() {
    [ -f "$HEARTH_DATA/made-user" ] || return 0
    userdel hearth
    if getent group hearth >/dev/null; then groupdel hearth; fi
    rm -f "$HEARTH_DATA/made-user"
}

# service_birth PID: the start time of a process, so that a reused pid is not taken for ours; nothing for one that has
# ended and that its parent has not yet asked about.
service_birth() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '$1 !~ /[ZX]/ { print $20 }'; }

service_running() {
    local pid birth
    if has_systemd; then
        systemctl is-active --quiet "$1"
    else
        [ -f "$HEARTH_RUN/$1.pid" ] || return 1
        read -r pid birth <"$HEARTH_RUN/$1.pid"
        [ -n "$birth" ] && [ "$(service_birth "$pid")" = "$birth" ]
    fi
}

service_stop() {
    local name=$1 pid unit
    if has_systemd; then
        [ -f "/etc/systemd/system/$name.service" ] || return 0
        say "stopping $name"
        systemctl disable --quiet "$name" || true
        for unit in $(service_units "$name"); do
            systemctl stop "$unit" || true
            rm -f "/etc/systemd/system/$unit.service"
        done
        systemctl daemon-reload
    else
        if service_running "$name"; then
            say "stopping $name"
            read -r pid _ <"$HEARTH_RUN/$name.pid"
            kill "$pid"
            timeout 20 tail --pid="$pid" -f /dev/null || kill -9 "$pid"
        fi
        rm -f "$HEARTH_RUN/$name.pid"
    fi
}

# service_last_words NAME: the last line that it has logged, and where the others are.
service_last_words() {
    if has_systemd; then
        echo "$(journalctl --unit "$1" --identifier "$1" --lines 1 --output cat) (journalctl -u $1)"
    else
        echo "$(tail -n 1 "$HEARTH_DATA/log/$1.log") ($HEARTH_DATA/log/$1.log)"
    fi
}
