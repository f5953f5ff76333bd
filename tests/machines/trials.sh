#!/usr/bin/env bash
# What the slow trials need of Debian: a browser, a bare system. Trials skip what is missing.
set -euo pipefail
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "trials: not root on Debian; what is not installed here is skipped" >&2
    exit 0
fi
missing=()
for package in chromium ffmpeg debootstrap; do
    dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
apt-get update -q >/dev/null
DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null ||
    echo "trials: ${missing[*]} cannot be installed; trials that need them are skipped" >&2
