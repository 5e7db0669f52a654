"""Writes stubs of Apple's libraries for the linker, made of `macos-12.txt`: stubs.py FOLDER

FOLDER can then be used as SDKROOT. It has usr/lib/libNAME.tbd and
System/Library/Frameworks/NAME.framework/NAME.tbd. A stub (text, "tapi-tbd" version 4) has the
library's name and exports. The linker needs no more. libSystem is left out, because zig brings its
own.
"""

import pathlib
import sys

import symbols

STUB = """\
--- !tapi-tbd
tbd-version: 4
targets: [ x86_64-macos, arm64-macos ]
install-name: '{name}'
current-version: 1
exports:
  - targets: [ x86_64-macos, arm64-macos ]
    symbols: [ {exports} ]
...
"""


def place(name):
    """The path in the SDK where the linker looks for this library; None for libSystem."""
    path = pathlib.PurePosixPath(name)
    if path.name.startswith("libSystem."):
        return None
    if path.suffix == ".dylib":
        return f"usr/lib/{path.name.partition('.')[0]}.tbd"
    return f"System/Library/Frameworks/{path.name}.framework/{path.name}.tbd"


def write(folder):
    """Writes all stubs. A file that would stay the same is not written, so its time stays."""
    for name, exports in symbols.read().items():
        if where := place(name):
            path = pathlib.Path(folder) / where
            path.parent.mkdir(parents=True, exist_ok=True)
            text = STUB.format(name=name, exports=", ".join(exports))
            if not path.exists() or path.read_text() != text:
                path.write_text(text)


if __name__ == "__main__":
    write(*sys.argv[1:])
