# shellcheck shell=bash
# What the scripts of this folder share: where things are cached, how progress and failure are told, how an artefact is made
# once and for all. Sourced, never run.

env_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# Used by the scripts that source this file.
# shellcheck disable=SC2034
repo_dir=$(cd "$env_dir/../.." && pwd)
# shellcheck disable=SC2034
cache=${HESPER_CACHE:-${XDG_CACHE_HOME:-${HOME:?HOME is not set; set it or HESPER_CACHE}/.cache}/hesper}
[[ $cache == /* ]] || cache=$PWD/$cache

# The suites a guest can be made of, and the Mesa each brought when this was written: trixie 25.0, forky 26.1, sid 26.2.
suites=(forky trixie sid)

# Guests of arm64, always emulated: with the suite's usual kernel, and with the one whose pages have 16 KiB.
arm64_guests=(forky-arm64 forky-arm64-16k sid-arm64 sid-arm64-16k)

# A command that fails where no one handles it is named; die and exit come with their own words.
set -E
trap 'printf "%s: line %s: failed (%s): %s\n" "${0##*/}" "$LINENO" "$?" "$BASH_COMMAND" >&2' ERR

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

# die MESSAGE REMEDY: every failure names what is wrong and what to do about it.
die() {
    printf '%s: %s\n    remedy: %s\n' "${0##*/}" "$1" "$2" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

check_suite() {
    local known
    for known in "${suites[@]}"; do
        [[ $1 == "$known" ]] && return
    done
    say "suite '$1' is not known; allowed: ${suites[*]}"
    exit 2
}

check_guest() {
    local known
    for known in "${suites[@]}" "${arm64_guests[@]}"; do
        [[ $1 == "$known" ]] && return
    done
    say "guest '$1' is not known; allowed: ${suites[*]} ${arm64_guests[*]}"
    exit 2
}

# architecture_of GUEST: Debian's name of its architecture.
architecture_of() { if [[ $1 == *-arm64* ]]; then echo arm64; else echo amd64; fi; }

# disk_of GUEST: the name of its Mesa disk, which does not depend on the kernel.
disk_of() { echo "mesa-${1%-16k}"; }

# as_root COMMAND…: as it is for root, through sudo for others.
as_root() {
    if ((EUID == 0)); then
        "$@"
    elif have sudo; then
        sudo -- "$@"
    else
        die "'$1' needs root, and there is no sudo" "run this script as root, or install sudo"
    fi
}

# ensure_tools COMMAND=PACKAGE…: installs the packages of the commands that are missing.
ensure_tools() {
    local pair missing=()
    for pair in "$@"; do
        have "${pair%%=*}" || [[ -e ${pair%%=*} ]] || missing+=("${pair#*=}")
    done
    ((${#missing[@]})) || return 0
    have apt-get || die "missing: ${missing[*]}" "install these (Debian's names); only Debian and Ubuntu are prepared automatically"
    say "installing ${missing[*]} …"
    as_root apt-get install -y -q --no-install-recommends "${missing[@]}" >&2 || {
        as_root apt-get update -q >&2
        as_root apt-get install -y -q --no-install-recommends "${missing[@]}" >&2
    } || die "apt-get could not install ${missing[*]}" "install them by hand (on Ubuntu the component 'universe' has them)"
}

# version_at_least HAVE WANT
version_at_least() { [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n1) == "$2" ]]; }
