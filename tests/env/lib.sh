# shellcheck shell=bash
# Functions that the scripts of tests/ source: the path of the cache, messages, tools that are
# installed when they are missing, and tests/env/prepare in the background.

env_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# Used by the scripts that source this file.
# shellcheck disable=SC2034
repo_dir=$(cd "$env_dir/../.." && pwd)
# shellcheck disable=SC2034
cache=${HESPER_CACHE:-${XDG_CACHE_HOME:-${HOME:?HOME is not set; set it or HESPER_CACHE}/.cache}/hesper}
[[ $cache == /* ]] || cache=$PWD/$cache

# The Debian suites that a guest can be made of. When this was written, their Mesa was: trixie 25.0,
# forky 26.1, sid 26.2.
suites=(forky trixie sid)

# arm64 guests, which QEMU always emulates: with the suite's usual kernel, and with the kernel whose
# pages have 16 KiB.
arm64_guests=(forky-arm64 forky-arm64-16k sid-arm64 sid-arm64-16k)

# Names each command that fails without being handled. die and exit have their own messages.
set -E
trap 'printf "%s: line %s: failed (%s): %s\n" "${0##*/}" "$LINENO" "$?" "$BASH_COMMAND" >&2' ERR

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

# die MESSAGE REMEDY: says what is wrong and what to do about it, and ends the script.
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

# architecture_of GUEST: prints Debian's name of its architecture.
architecture_of() { if [[ $1 == *-arm64* ]]; then echo arm64; else echo amd64; fi; }

# disk_of GUEST: prints the name of its Mesa disk, which does not depend on the kernel.
disk_of() { echo "mesa-${1%-16k}"; }

# as_root COMMAND…: runs a command as root, with sudo if the user is not root.
as_root() {
    if ((EUID == 0)); then
        "$@"
    elif have sudo; then
        sudo -- "$@"
    else
        die "'$1' needs root, and there is no sudo" "run this script as root, or install sudo"
    fi
}

# How long another program may hold apt's or dpkg's lock before it counts as stuck, in seconds.
lock_patience=${HESPER_LOCK_PATIENCE:-900}

# apt_get ARGUMENT…: runs apt-get as root, without questions. It waits for locks that other programs
# hold, because a fresh machine often updates itself at that moment. apt's own option for that
# (DPkg::Lock::Timeout) does not wait for the lock on the package lists.
apt_get() {
    local log status line told=-60 begin=$SECONDS
    log=$(mktemp)
    while :; do
        status=0
        as_root env LC_ALL=C DEBIAN_FRONTEND=noninteractive apt-get -y -q -o DPkg::Lock::Timeout=0 "$@" 2>&1 | tee "$log" |
            sed -u '/Could not get lock\|removing the lock file is not a solution\|Unable to acquire the dpkg\|Unable to lock/d' >&2 || status=$?
        line=$(grep -m1 -E 'Could not get lock|frontend lock was locked by another process' "$log") || line=
        if ((status == 0)) || [[ -z $line ]]; then
            rm -f "$log"
            return "$status"
        fi
        if ((SECONDS - begin >= lock_patience)); then
            rm -f "$log"
            die "another program holds apt's lock for $lock_patience s: ${line#E: }" "wait for it to end, or end it, and run this again"
        fi
        if ((SECONDS - told >= 30)); then
            say "waiting for another program that installs packages, up to $((lock_patience - SECONDS + begin)) s: ${line#E: }"
            told=$SECONDS
        fi
        sleep 2
    done
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
    apt_get install --no-install-recommends "${missing[@]}" || {
        say "updating the package lists …"
        apt_get update
        apt_get install --no-install-recommends "${missing[@]}"
    } || die "apt-get could not install ${missing[*]}" "install them by hand (on Ubuntu the component 'universe' has them)"
}

# ensure_cargo: ends the script unless cargo is as new as Cargo.toml wants.
ensure_cargo() {
    local wanted version remedy="install Rust with rustup (Debian: apt-get install rustup; then: rustup default stable)"
    wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$repo_dir/Cargo.toml")
    have cargo || die "there is no cargo, and Hesper wants version $wanted or newer" "$remedy"
    version=$(cd "$repo_dir" && cargo --version 2>/dev/null) || die "'cargo --version' failed: no version of Rust is chosen" "rustup default stable"
    version=${version#cargo }
    version=${version%% *}
    version_at_least "${version%%-*}" "$wanted" && return
    have rustup && remedy="rustup update stable && rustup default stable"
    die "cargo is version $version ($(command -v cargo)), and Hesper wants $wanted or newer" "$remedy"
}

# say_needs WHAT MINUTES DOWNLOAD CACHE BUILD: says what a first run of WHAT needs (sizes in GB),
# and nothing once all is there. tests/env/README.md says where the numbers come from.
say_needs() {
    local what=$1 minutes=$2 download=$3 cache_size=$4 build_size=$5 target=${CARGO_TARGET_DIR:-$repo_dir/target}
    local missing=() at wanted free
    [[ -f $cache/host/stamp && -f $cache/mesa-forky/stamp ]] || missing+=("$cache $cache_size")
    [[ -d $target ]] || missing+=("$target $build_size")
    ((${#missing[@]})) || return 0
    say "the first time, $what takes $minutes minutes (two processors) and downloads $download GB"
    say "disk it needs: $cache_size GB in $cache, $build_size GB in $target"
    for at in "${missing[@]}"; do
        wanted=${at##* } at=${at% *}
        until [[ -d $at ]]; do at=$(dirname "$at"); done
        free=$(df --output=avail -B1M "$at" | tail -n1)
        awk -v free="$free" -v wanted="$wanted" 'BEGIN { exit !(free < wanted * 1000) }' || continue
        say "WARNING: only $((free / 1000)) GB are free in $at; remedy: set HESPER_CACHE or CARGO_TARGET_DIR to a folder on a larger disk"
    done
}

# start_preparation LOG PART…: starts tests/env/prepare in the background. Its own messages are
# shown; LOG has all that its commands print, too.
start_preparation() {
    preparation_log=$1
    shift
    : >"$preparation_log"
    "$env_dir/prepare" "$@" > >(tee -a "$preparation_log" | sed -u -n '/^prepare: /p; /^    remedy: /p' >&2) 2>&1 &
    preparation=$!
}

# await_preparation: waits until it has ended, and says every half minute what it is doing.
await_preparation() {
    [[ ${preparation:-} ]] || return 0
    local result=0 begin=$SECONDS told=$SECONDS
    while kill -0 "$preparation" 2>/dev/null; do
        sleep 0.2
        ((SECONDS - told >= 30)) || continue
        told=$SECONDS
        say "waiting for tests/env/prepare ($((told - begin)) s): $(tail -n1 "$preparation_log" | cut -c1-100)"
    done
    wait "$preparation" || result=$?
    preparation=
    if ((result != 0)); then
        tail -n 40 "$preparation_log" >&2
        die "the environment could not be made (see the last lines of $env_dir/prepare above)" "correct what they name"
    fi
}

# version_at_least HAVE WANT: succeeds if version HAVE is WANT or newer.
version_at_least() { [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n1) == "$2" ]]; }
