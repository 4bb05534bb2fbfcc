#!/bin/sh
# Makes the keys and CAs in this folder with the openssl command line; see README.md.
set -eu
cd "$(dirname "$0")"
days=36500

# Private keys in every encoding that is accepted, and some that are refused.
openssl ecparam -name prime256v1 -genkey -out ec-p256.sec1.key
openssl pkcs8 -topk8 -nocrypt -in ec-p256.sec1.key -out ec-p256.pkcs8.key
openssl ecparam -name prime256v1 -genkey -noout -param_enc explicit -out ec-explicit.sec1.key
openssl ecparam -name secp384r1 -genkey -noout -out ec-p384.sec1.key
openssl pkcs8 -topk8 -nocrypt -in ec-p384.sec1.key -out ec-p384.pkcs8.key
openssl ecparam -name secp521r1 -genkey -noout -out ec-p521.sec1.key
openssl pkcs8 -topk8 -nocrypt -in ec-p521.sec1.key -out ec-p521.pkcs8.key
openssl ecparam -name secp256k1 -genkey -noout -out ec-secp256k1.sec1.key
openssl genrsa -traditional -out rsa-2048.pkcs1.key 2048
openssl pkcs8 -topk8 -nocrypt -in rsa-2048.pkcs1.key -out rsa-2048.pkcs8.key
openssl genrsa -traditional -out rsa-1024.pkcs1.key 1024
openssl genpkey -algorithm ed25519 -out ed25519.pkcs8.key
openssl genpkey -algorithm ed448 -out ed448.pkcs8.key
openssl pkcs8 -topk8 -v2 aes-128-cbc -passout pass:test -in ec-p256.sec1.key -out ec-p256.encrypted.key
openssl rsa -traditional -aes128 -passout pass:test -in rsa-2048.pkcs1.key -out rsa-2048.encrypted.key

ca() { # name, key, subject, further arguments
  name=$1 key=$2 subject=$3
  shift 3
  openssl req -x509 -new -sha256 -days "$days" -key "$key" -subj "$subject" -out "$name.crt" \
    -addext keyUsage=critical,keyCertSign "$@"
}

# CAs whose subject is easily re-encoded wrongly.
ca two-ou ec-p256.sec1.key "/O=Example/OU=First/OU=Second/CN=Two units"
ca domain-components ec-p384.sec1.key "/DC=org/DC=example/CN=Domain components"
ca multi-valued-rdn rsa-2048.pkcs1.key "/C=CH/O=Example+OU=Unit/CN=Signing+serialNumber=7" -multivalue-rdn
ca ed25519 ed25519.pkcs8.key "/CN=Ed25519 CA"
# A CA that may sign nothing but the IDs of example.org.
ca constrained ec-p256.sec1.key "/CN=Constrained CA" -addext "subjectAltName=URI:spiffe://example.org" \
  -addext "nameConstraints=critical,permitted;URI:example.org"
