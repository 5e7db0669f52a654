"""Reads `macos-12.txt`, the symbols of macOS 12 that Hesper may import."""

import pathlib

LIST = pathlib.Path(__file__).with_name("macos-12.txt")


def read(path=LIST):
    """{library's install name: [symbols]}, in the order of the file."""
    libraries, current = {}, None
    for number, line in enumerate(path.read_text().splitlines(), 1):
        words = line.partition("#")[0].split()
        if words[:1] == ["library"]:
            _, name = words
            current = libraries.setdefault(name, [])
        elif words and current is None:
            raise ValueError(f"{path}:{number}: a symbol stands before the first library")
        elif words:
            current.extend(words)
    return libraries
