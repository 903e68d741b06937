#!/bin/sh
# Starts nginx with gateway.conf. Environment: SERVING, the instances of the service (host:port, spaces between);
# LISTEN, address and port; SCRATCH, a folder to write in. With /certificates/tls.crt and tls.key it speaks HTTPS.
set -eu
scratch=${SCRATCH:-/tmp}/gateway
mkdir -p "$scratch"
cp "$(dirname "$0")/gateway.conf" "$scratch"
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
