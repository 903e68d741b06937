#!/bin/sh
# Starts nginx with gateway.conf. Environment: SERVING, the instances of the service (host:port, spaces between);
# LISTEN, address and port; SCRATCH, a folder to write in. With /certificates/tls.crt and tls.key it speaks HTTPS.
# CONVOY_REAL_IP_FROM: addresses or networks of proxies (spaces between) whose X-Forwarded-For names the sender, by whom
# the limits then count; without it they count by connection.
set -eu
scratch=${SCRATCH:-/tmp}/gateway
mkdir -p "$scratch"
cp "$(dirname "$0")/gateway.conf" "$scratch"

# Network prefixes of length 0 are refused too: they would let everybody choose the address that is counted.
address='(([0-9]{1,3}\.){3}[0-9]{1,3}(/[1-9][0-9]?)?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(/[1-9][0-9]{0,2})?)'
set -f # no file names for a *
for proxy in ${CONVOY_REAL_IP_FROM:-}; do
    if ! echo "$proxy" | grep -qxE "$address"; then
        echo "CONVOY_REAL_IP_FROM: '$proxy' is no address and no network; expected is e.g. '10.0.0.7 192.168.0.0/24'" >&2
        exit 1
    fi
    echo "set_real_ip_from $proxy;"
done >"$scratch/real_ip.conf"
if [ -s "$scratch/real_ip.conf" ]; then
    echo "real_ip_header X-Forwarded-For; real_ip_recursive on;" >>"$scratch/real_ip.conf"
fi

if [ -f /certificates/tls.crt ]; then
    echo "listen ${LISTEN:-8080} ssl; ssl_certificate /certificates/tls.crt; ssl_certificate_key /certificates/tls.key;" \
        "ssl_protocols TLSv1.2 TLSv1.3;" >"$scratch/listen.conf"
else
    echo "listen ${LISTEN:-8080};" >"$scratch/listen.conf"
fi
for instance in ${SERVING:-serving:3000}; do
    echo "server $instance max_fails=3 fail_timeout=1s;"
done >"$scratch/instances.conf"
exec nginx -p "$scratch" -c "$scratch/gateway.conf" -e stderr
