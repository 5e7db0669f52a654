"""Checks a binary for macOS, on any system: check.py BINARY [ARCHITECTURE]

Exits with 0 if macOS 12 could load BINARY. BINARY must be an executable for ARCHITECTURE (arm64 or
x86_64; default: arm64), position independent and for macOS 12.0 and newer. It may import only what
`macos-12.txt` lists. Its ad-hoc signature must have the right hashes (Intel Macs need none).
Otherwise the script prints all that is wrong and exits with 1.
"""

import sys

import macho
import symbols

OLDEST = (12, 0)
# Functions that Linux has and macOS does not, with what to use instead. They only make the message
# better: the check would refuse them anyway, because they are not in the list.
LINUX = {
    "_accept4": "accept, then fcntl for FD_CLOEXEC and O_NONBLOCK",
    "_dup3": "dup2, then fcntl",
    "_pipe2": "pipe, then fcntl",
    "_ppoll": "poll",
    "_eventfd": "a pipe",
    "_eventfd_read": "a pipe",
    "_eventfd_write": "a pipe",
    "_memfd_create": "shm_open",
    "_epoll_create": "poll or kqueue",
    "_epoll_create1": "poll or kqueue",
    "_epoll_ctl": "poll or kqueue",
    "_epoll_pwait": "poll or kqueue",
    "_epoll_wait": "poll or kqueue",
    "_timerfd_create": "a timeout of poll",
    "_signalfd": "a signal handler that writes to a pipe",
    "_fallocate": "ftruncate",
    "_prctl": "nothing: leave it out",
}


def faults(binary, architecture="arm64", known=None):
    """Yields what is wrong with the binary, a line each."""
    known = {name: set(exports) for name, exports in (known or symbols.read()).items()}
    if binary.file_type != "executable" or binary.entry is None:
        yield f"it is no program: {binary.file_type}, entry point {binary.entry}"
    if binary.architecture != architecture:
        yield f"it is for {binary.architecture}, not for {architecture}"
    if not binary.flags & macho.FLAG_PIE:
        yield "it is not position independent (PIE): arm64 Macs do not start it"
    if not binary.flags & macho.FLAG_TWO_LEVEL:
        yield "its imports do not name their libraries (no two-level namespace)"
    if binary.platform != macho.PLATFORM_MACOS or binary.minimum_version != OLDEST:
        version = binary.minimum_version and ".".join(map(str, binary.minimum_version))
        yield f"it is for platform {binary.platform} from version {version}: set MACOSX_DEPLOYMENT_TARGET=12.0"
    if architecture == "arm64" or binary.signature:
        yield from signature_faults(binary.signature)
    for library in binary.libraries:
        if library not in known:
            yield f"it needs {library}, which is not in {symbols.LIST.name}"
    if not binary.imports:
        yield "it imports nothing; every program for macOS imports something"
    for library, symbol in sorted(binary.imports):
        if symbol in known.get(library, ()):
            continue
        others = [name for name, exports in known.items() if symbol in exports]
        if symbol in LINUX:
            yield f"it imports {symbol}, which is Linux's: on macOS use {LINUX[symbol]}"
        elif others:
            yield f"it imports {symbol} from {library}, which is in {', '.join(others)}"
        else:
            yield f"it imports {symbol} from {library}: if macOS 12 has it, add it to {symbols.LIST.name} (which says how); else do without"


def signature_faults(signature):
    """Yields what is wrong with the signature.

    An arm64 Mac kills a program without a valid signature. An ad-hoc one suffices.
    """
    if signature is None:
        yield "it is not signed: arm64 Macs kill it"
    elif not signature.adhoc:
        yield "its signature is not an ad-hoc one"
    elif signature.wrong_pages:
        yield f"its signature does not fit pages {signature.wrong_pages[:5]} of the file: something changed it afterwards"


def main(path, architecture="arm64"):
    """Checks one file and returns the exit status."""
    try:
        binary = macho.MachO(path)
    except macho.Malformed as error:
        print(f"{path}: {error}", file=sys.stderr)
        return 1
    found = list(faults(binary, architecture))
    for fault in found:
        print(f"{path}: {fault}", file=sys.stderr)
    if not found:
        libraries = len(binary.libraries)
        print(f"{path}: {architecture}, macOS 12.0, {len(binary.imports)} imports of {libraries} libraries: fine", file=sys.stderr)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
