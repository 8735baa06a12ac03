# Starting and stopping the two daemons: systemd units where systemd runs, plain processes elsewhere.
# shellcheck shell=bash

# service_start NAME USER COMMAND...: runs a daemon as root or as the user hearth; does nothing when NAME runs already.
service_start() {
    local name=$1 user=$2 log
    shift 2
    service_running "$name" && return 0
    say "starting $name"
    if has_systemd; then
        [[ $HEARTH_SOCKET = /run/* ]] || die "HEARTH_ENDPOINT=$HEARTH_ENDPOINT: name a socket below /run"
        service_unit "$name" "$user" "$*" >"/etc/systemd/system/$name.service"
        systemctl daemon-reload
        systemctl enable --quiet --now "$name"
    else
        log=$HEARTH_DATA/log/$name.log
        mkdir -p "$HEARTH_RUN"
        install -d -m 0750 "$HEARTH_DATA/log"
        touch "$log"
        chmod 0640 "$log"
        if [ "$user" != root ]; then
            install -d -m 0755 -o "$user" -g "$user" "$(dirname "$HEARTH_SOCKET")"
            set -- setpriv --reuid="$user" --regid="$user" --clear-groups --no-new-privs --inh-caps=-all \
                --bounding-set=-all "$@"
        fi
        setsid "$@" </dev/null >>"$log" 2>&1 &
        echo "$! $(service_birth "$!")" >"$HEARTH_RUN/$name.pid"
    fi
}

# service_unit NAME USER COMMAND: the systemd unit. hearthd sees its own directory and no more of the machine than it
# needs; it can still make user namespaces, in which it inspects disk images.
service_unit() {
    cat <<UNIT
[Unit]
Description=Hearth: $1
After=network.target

[Service]
ExecStart=$3
Restart=always
RestartSec=1
UNIT
    if [ "$2" = root ]; then
        # Instances outlive the agent.
        echo "KillMode=process"
    else
        cat <<UNIT
User=$2
Group=$2
UMask=0077
LimitNOFILE=65536
RuntimeDirectory=$(realpath -m --relative-to=/run "$(dirname "$HEARTH_SOCKET")")
RuntimeDirectoryMode=0755
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectSystem=strict
ReadWritePaths=$HEARTH_DATA/controller
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
UNIT
    fi
    printf '\n[Install]\nWantedBy=multi-user.target\n'
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
    local name=$1 pid
    if has_systemd; then
        [ -f "/etc/systemd/system/$name.service" ] || return 0
        say "stopping $name"
        systemctl disable --quiet --now "$name" || true
        rm -f "/etc/systemd/system/$name.service"
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

# service_log NAME: where a person finds what it said.
service_log() {
    if has_systemd; then echo "journalctl -u $1"; else echo "$HEARTH_DATA/log/$1.log"; fi
}
