#!/usr/bin/env bash
# A bare Debian with another Python, a clone of what is committed, and the README's two commands.
#
#   tests/machines/fresh.sh [SUITE] [TARGET ...]      trixie (Python 3.13); demo test
#
# Needs root, debootstrap, about 9 GB of disk and a network with Debian's and Python's packages.
# Exit status 77: it cannot run here, and the line before says why. Nothing is left behind.
set -euo pipefail
suite=${1:-trixie}
[ $# -gt 0 ] && shift
targets=${*:-demo test}
repository=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)

cannot() { echo "fresh: cannot run here: $1" >&2; exit 77; }
[ "$(id -u)" = 0 ] || cannot "it needs root, for chroot and mount"
command -v debootstrap >/dev/null || cannot "debootstrap is not installed (apt-get install debootstrap)"
free_gb=$(($(df --output=avail -k "${TMPDIR:-/var/tmp}" | tail -1) / 1000000))
[ "$free_gb" -ge 9 ] || cannot "${TMPDIR:-/var/tmp} has $free_gb GB free; expected 9"
mirror=$(apt-get indextargets --format '$(SITE)' 2>/dev/null | head -1)

root=$(mktemp -d "${TMPDIR:-/var/tmp}/fresh.XXXXXX")
leave() {
    for mounted in dev proc; do
        if mountpoint -q "$root/$mounted"; then umount -l "$root/$mounted"; fi
    done
    if mountpoint -q "$root/dev" || mountpoint -q "$root/proc"; then
        echo "fresh: $root is still mounted; unmount it, then remove it" >&2
    else
        rm -rf --one-file-system "$root"
    fi
}
trap leave EXIT

packages=python3,python3-venv,make,git,ca-certificates
debootstrap --variant=minbase --include="$packages" "$suite" "$root" ${mirror:+"$mirror"} \
    >"$root.log" 2>&1 || { tail -5 "$root.log" >&2; rm -f "$root.log"; cannot "debootstrap failed"; }
rm -f "$root.log"
cp /etc/hosts /etc/resolv.conf "$root/etc/"
# A machine behind a proxy that signs for others has its certificates in this one file.
[ ! -f /etc/ssl/certs/ca-certificates.crt ] ||
    cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
mount --bind /proc "$root/proc" && mount --bind /dev "$root/dev" || cannot "it may not mount"
git clone -q "$repository" "$root/root/lsmprobe"
bundle=/etc/ssl/certs/ca-certificates.crt
inside() {
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
        SSL_CERT_FILE=$bundle PIP_CERT=$bundle REQUESTS_CA_BUNDLE=$bundle PIP_DEFAULT_TIMEOUT=180 \
        chroot "$root" bash -euc "$1"
}
inside "python3 -m venv /tmp/index; /tmp/index/bin/pip download -q --no-deps -d /tmp/index tqdm" \
    >/dev/null 2>&1 || cannot "a bare system reaches no index of Python's packages"
inside "cd /root/lsmprobe; python3 --version
        for target in $targets; do make -s \$target; done
        du -sh .venv | sed 's/\t.*/ of installed packages/'"
