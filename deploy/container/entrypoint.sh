#!/bin/sh
# Starts the daemon as the user lanrage, with those of a relay's capabilities that this container has been given. A container that
# runs as another user already gets what its runtime gives (podman: --user with --cap-add makes them ambient).
set -eu

if [ "$(id -u)" != 0 ]; then
    exec lanrage-daemon "$@"
fi

has() { # bit: whether the bounding set has this capability
    bounding=$(sed -n 's/^CapBnd:[[:space:]]*//p' /proc/self/status)
    [ $((0x$bounding >> $1 & 1)) = 1 ]
}

caps=
for cap in net_bind_service:10 net_admin:12 perfmon:38 bpf:39; do
    if has "${cap#*:}"; then caps="$caps,+${cap%:*}"; fi
done

exec setpriv --reuid lanrage --regid lanrage --clear-groups --no-new-privs \
    --bounding-set "-all$caps" --inh-caps "-all$caps" --ambient-caps "-all$caps" -- lanrage-daemon "$@"
