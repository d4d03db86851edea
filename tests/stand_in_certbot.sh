#!/bin/bash
# Stands in for certbot where no certificate authority can be reached: it proves the name as HTTP-01
# does, by a file of the webroot that is fetched from port 80, and signs with an authority of its own.
set -eu
authority=/root/authority
while [ $# -gt 0 ]; do
  case $1 in
    certonly | --webroot) shift ;;
    -w) webroot=$2; shift 2 ;;
    -d) host=$2; shift 2 ;;
    --deploy-hook) hook=$2; shift 2 ;;
    *) echo "unknown: $1" >&2; exit 2 ;;
  esac
done

token=$(openssl rand -hex 16)
mkdir -p "$webroot/.well-known/acme-challenge"
echo "$token.proof" >"$webroot/.well-known/acme-challenge/$token"
[ "$(curl -sS "http://$host/.well-known/acme-challenge/$token")" = "$token.proof" ]
rm "$webroot/.well-known/acme-challenge/$token"

if [ ! -d $authority ]; then
  mkdir $authority
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
    -subj "/CN=A local authority" -keyout $authority/key.pem -out $authority/certificate.pem
  cp $authority/certificate.pem /usr/local/share/ca-certificates/local.crt
  update-ca-certificates
fi 2>/dev/null
live=/etc/letsencrypt/live/$host
is_renewal=$([ -d "$live" ] && echo yes || true)
mkdir -p "$live"
chmod 700 /etc/letsencrypt/live
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$host" \
  -addext "subjectAltName=DNS:$host" -keyout "$live/privkey.pem" -out /tmp/request.pem 2>/dev/null
openssl x509 -req -in /tmp/request.pem -days 2 -copy_extensions copy -CA $authority/certificate.pem \
  -CAkey $authority/key.pem -CAcreateserial -out "$live/cert.pem" 2>/dev/null
cat "$live/cert.pem" $authority/certificate.pem >"$live/fullchain.pem"
if [ -n "$is_renewal" ]; then eval "$hook"; fi
