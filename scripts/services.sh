# Starting and stopping the two daemons: systemd units where systemd runs, plain processes elsewhere.
# shellcheck shell=bash

# service_start NAME COMMAND...: does nothing when NAME runs already.
service_start() {
    local name=$1
    shift
    service_running "$name" && return 0
    say "starting $name"
    if has_systemd; then
        # KillMode=process: instances outlive the agent.
        cat >"/etc/systemd/system/$name.service" <<UNIT
[Unit]
Description=Hearth: $name
After=network.target

[Service]
ExecStart=$*
Restart=always
RestartSec=1
KillMode=process

[Install]
WantedBy=multi-user.target
UNIT
        systemctl daemon-reload
        systemctl enable --quiet --now "$name"
    else
        mkdir -p "$HEARTH_RUN" "$HEARTH_DATA/log"
        setsid "$@" </dev/null >>"$HEARTH_DATA/log/$name.log" 2>&1 &
        echo "$! $(service_birth "$!")" >"$HEARTH_RUN/$name.pid"
    fi
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
