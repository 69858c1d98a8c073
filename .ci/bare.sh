#!/bin/sh
# Tries the README's two commands on a bare Debian 12, as a stranger would: the packages that the README names are
# installed, nothing else, and what is committed here is run.  Needs root, mmdebstrap and the network; takes minutes.
#
#   sh .ci/bare.sh DIR demo             make demo, with the packages of the README's first line
#   sh .ci/bare.sh DIR test             make test, with the same: it has to say what it leaves out
#   CI=true sh .ci/bare.sh DIR test     make test, with all packages: it leaves nothing out
#
# DIR is made anew and holds the root.  CARRY="FILE:PLACE ..." copies files of this machine into it (PLACE is FILE where
# it is left out): what apt and pip need where they go through a mirror.  Variables PIP_* are passed on.
set -eu

[ $# = 2 ] && [ ! -e "$1" ] || { echo "usage: bare.sh NEW_DIR demo|test" >&2; exit 2; }
here=$(cd "$(dirname "$0")/.." && pwd)
command=$2

mmdebstrap --quiet --variant=minbase bookworm "$1"
root=$(cd "$1" && pwd)

for each in /etc/resolv.conf ${CARRY:-}; do
    place=$root${each#*:}
    mkdir -p "$(dirname "$place")"
    cp --recursive --dereference "${each%%:*}" "$place"
done
echo 'APT::Get::Assume-Yes "true";' >"$root/etc/apt/apt.conf.d/yes"

mkdir "$root/sage"
git -C "$here" archive HEAD | tar --extract --directory "$root/sage"

# The README's own lines.
# shellcheck disable=SC2016
sed -n '/^```sh/,/^```/ s/^apt-get/&/p' "$here/README.md" >"$root/packages.sh"
[ "${CI:-}" = true ] || sed -i 1q "$root/packages.sh"
cat "$root/packages.sh"

pip=$(env | sed -n 's/^\(PIP_[A-Z_]*=[^ ]*\)$/\1/p')
# shellcheck disable=SC2016,SC2086  # each shell expands its own; the words of $pip are variables
exec unshare --mount --pid --fork --kill-child sh -eu -c '
    root=$1; shift
    mount --rbind /dev "$root/dev"
    mount --rbind /sys "$root/sys"
    mount -t proc proc "$root/proc"
    exec chroot "$root" /usr/bin/env -i "$@"
' sh "$root" PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
    DEBIAN_FRONTEND=noninteractive CI="${CI:-}" $pip \
    sh -eu -c '. /packages.sh; cd /sage; exec make "$1"' sh "$command"
