"""Reads the header, load commands, imports and code signature of a Mach-O file.

    binary = MachO(path)
    binary.imports      # {(library, symbol)}: what the dynamic linker binds

The imports come from the bindings, not from the symbol table, because the table also has symbols
that only removed code used. The file must be thin (one architecture), 64-bit and little-endian.
The layouts are those of <mach-o/loader.h> and <kern/cs_blobs.h> in Apple's published xnu sources.
What cannot be read raises `Malformed`. Nothing is guessed.
"""

import hashlib
import struct
from dataclasses import dataclass, field

MAGIC_64 = 0xFEEDFACF
ARCHITECTURES = {0x0100000C: "arm64", 0x01000007: "x86_64"}
FILE_TYPES = {2: "executable", 6: "dynamic library"}
FLAG_PIE = 0x200000
FLAG_TWO_LEVEL = 0x80

LC_CODE_SIGNATURE, LC_BUILD_VERSION, LC_MAIN = 0x1D, 0x32, 0x80000028
LC_DYLD_INFO, LC_DYLD_INFO_ONLY = 0x22, 0x80000022
LC_DYLD_CHAINED_FIXUPS = 0x80000034
# Plain, weak, re-exported, lazy, upward: the dynamic linker loads all of them.
LIBRARY_COMMANDS = (0xC, 0x80000018, 0x8000001F, 0x20, 0x80000023)
PLATFORM_MACOS = 1

# Library ordinals with a special meaning.
SPECIAL_LIBRARIES = {0: "(itself)", -1: "(main executable)", -2: "(any library)", -3: "(weak, any library)"}

CS_EMBEDDED_SIGNATURE, CS_CODE_DIRECTORY = 0xFADE0CC0, 0xFADE0C02
CS_ADHOC = 0x2
CS_SHA256 = 2


class Malformed(Exception):
    """The file is not what its headers say."""


@dataclass
class Signature:
    """What the code directory says, and the pages of the file whose hash is another one."""

    adhoc: bool
    identifier: str
    wrong_pages: list[int] = field(default_factory=list)


class MachO:
    """One file. Attributes are None or empty where the file has no such load command."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.data = file.read()
        magic, cpu, _, kind, commands, _, self.flags, _ = self._unpack("<8I", 0)
        if magic != MAGIC_64:
            raise Malformed(f"{path} begins with {magic:#x}: it is no thin 64-bit Mach-O file")
        self.architecture = ARCHITECTURES.get(cpu, f"processor {cpu:#x}")
        self.file_type = FILE_TYPES.get(kind, f"file type {kind}")
        self.platform = self.minimum_version = self.entry = self.signature = None
        self.libraries = []
        self.imports = set()
        self._read_commands(commands)

    def _unpack(self, layout, offset):
        try:
            return struct.unpack_from(layout, self.data, offset)
        except struct.error as error:
            raise Malformed(f"at offset {offset}: {error}") from None

    def _string(self, offset):
        end = self.data.find(b"\0", offset)
        if not 0 <= offset < end:
            raise Malformed(f"no text ends behind offset {offset}")
        return self.data[offset:end].decode()

    def _library(self, ordinal):
        if 0 < ordinal <= len(self.libraries):
            return self.libraries[ordinal - 1]
        return SPECIAL_LIBRARIES.get(ordinal, f"(library {ordinal} of {len(self.libraries)})")

    def _read_commands(self, count):
        offset, later = 32, []
        for _ in range(count):
            command, size = self._unpack("<2I", offset)
            if size < 8:
                raise Malformed(f"the load command at offset {offset} is {size} bytes long")
            if command in LIBRARY_COMMANDS:
                self.libraries.append(self._string(offset + self._unpack("<I", offset + 8)[0]))
            elif command == LC_BUILD_VERSION:
                self.platform, version = self._unpack("<2I", offset + 8)
                self.minimum_version = (version >> 16, version >> 8 & 0xFF)
            elif command == LC_MAIN:
                (self.entry,) = self._unpack("<Q", offset + 8)
            elif command in (LC_DYLD_INFO, LC_DYLD_INFO_ONLY, LC_CODE_SIGNATURE):
                later.append((command, offset))
            elif command == LC_DYLD_CHAINED_FIXUPS:
                raise Malformed("it has chained fixups, which are not read here: link without them (-no_fixup_chains)")
            offset += size
        # These name libraries by number, so all libraries must have been read before.
        for command, offset in later:
            if command == LC_CODE_SIGNATURE:
                self._read_signature(*self._unpack("<2I", offset + 8))
            else:
                numbers = self._unpack("<10I", offset + 8)
                for start, size in zip(numbers[2:8:2], numbers[3:8:2]):
                    self._read_bindings(start, size)

    def _number(self, offset):
        """An unsigned LEB128 number and the offset after it. (A signed one has the same length.)"""
        value = shift = 0
        while True:
            (byte,) = self._unpack("<B", offset)
            value |= (byte & 0x7F) << shift
            offset, shift = offset + 1, shift + 7
            if not byte & 0x80:
                return value, offset

    def _read_bindings(self, start, size):
        """Reads the opcodes of dyld's "bind", "weak bind" or "lazy bind"."""
        offset, end = start, start + size
        library, symbol = 0, None

        def bind():
            if symbol is None:
                raise Malformed(f"the binding at offset {offset} has no symbol")
            self.imports.add((self._library(library), symbol))

        while offset < end:
            (byte,) = self._unpack("<B", offset)
            opcode, low = byte & 0xF0, byte & 0x0F
            offset += 1
            if opcode in (0x00, 0x50):  # done (between lazy ones), set type
                pass
            elif opcode == 0x10:
                library = low
            elif opcode == 0x20:
                library, offset = self._number(offset)
            elif opcode == 0x30:
                library = low - 16 if low else 0
            elif opcode == 0x40:
                symbol = self._string(offset)
                offset += len(symbol.encode()) + 1
            elif opcode in (0x60, 0x70, 0x80):  # addend; segment and offset; add to the address
                _, offset = self._number(offset)
            elif opcode in (0x90, 0xB0):  # bind; and add a scaled number
                bind()
            elif opcode == 0xA0:  # bind and add a number
                bind()
                _, offset = self._number(offset)
            elif opcode == 0xC0:  # bind many, skipping
                bind()
                _, offset = self._number(offset)
                _, offset = self._number(offset)
            else:
                raise Malformed(f"binding opcode {byte:#x} at offset {offset - 1} is not known")

    def _read_signature(self, start, _):
        """Reads the first code directory of the embedded signature, which is big-endian."""
        magic, _, count = self._unpack(">3I", start)
        if magic != CS_EMBEDDED_SIGNATURE:
            raise Malformed(f"the signature begins with {magic:#x}")
        for index in range(count):
            _, offset = self._unpack(">2I", start + 12 + 8 * index)
            if self._unpack(">I", start + offset)[0] == CS_CODE_DIRECTORY:
                self.signature = self._code_directory(start + offset)
                return

    def _code_directory(self, start):
        numbers = self._unpack(">3I6I", start)
        _, _, _, flags, hashes, identifier, _, pages, limit = numbers
        length, kind, _, page_bits = self._unpack(">4B", start + 36)
        signature = Signature(bool(flags & CS_ADHOC), self._string(start + identifier))
        if kind != CS_SHA256:
            raise Malformed(f"the signature's hashes are of type {kind}, not SHA-256")
        page = 1 << page_bits
        if pages != -(-limit // page):
            raise Malformed(f"the signature has {pages} pages for {limit} bytes")
        for index in range(pages):
            content = self.data[index * page : min((index + 1) * page, limit)]
            slot = start + hashes + index * length
            if hashlib.sha256(content).digest()[:length] != self.data[slot : slot + length]:
                signature.wrong_pages.append(index)
        return signature
