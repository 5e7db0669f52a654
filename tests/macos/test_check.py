"""Shows with small programs, which zig links, what check.py finds wrong.

tests/run-all macos runs it. HESPER_ZIG is the path of zig.
"""

import os
import pathlib
import subprocess
import tempfile
import unittest

import check
import macho
import stubs

PROGRAM = "int {calls}(); int main(void) {{ return {calls}(); }}"


class Programs(unittest.TestCase):
    """Each case links one program and looks at what the check reports."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def link(self, calls, target="aarch64-macos.12.0", library=None):
        """Links a program that calls one function.

        The function is in `library` if that is given. Otherwise it is in libSystem, or missing.
        """
        source, program, stub = (self.folder / name for name in ("program.c", "program", "stub.tbd"))
        source.write_text(PROGRAM.format(calls=calls))
        more = ["-Wl,-undefined,dynamic_lookup"]
        if library:
            stub.write_text(stubs.STUB.format(name=library, exports="_" + calls))
            more = [stub]
        # -nostdlib keeps zig from building its own run-time library, which takes seconds. -lSystem
        # is the system's library.
        command = [os.environ["HESPER_ZIG"], "cc", "-w", "-O1", "-target", target, "-nostdlib", "-lSystem"]
        cache = {f"ZIG_{kind}_CACHE_DIR": self.folder / "cache" for kind in ("GLOBAL", "LOCAL")}
        subprocess.run([*command, source, *more, "-o", program], env={**os.environ, **cache}, check=True)
        return program

    def faults(self, program, architecture="arm64"):
        """All that the check reports, as one text."""
        return "\n".join(check.faults(macho.MachO(program), architecture))

    def test_a_program_that_macos_12_can_load_passes(self):
        self.assertEqual(self.faults(self.link("poll")), "")
        self.assertEqual(self.faults(self.link("poll", "x86_64-macos.12.0"), "x86_64"), "")

    def test_an_import_of_linux_alone_is_named_with_what_to_use_instead(self):
        found = self.faults(self.link("eventfd"))
        self.assertIn("imports _eventfd, which is Linux's: on macOS use a pipe", found)
        self.assertEqual(len(found.splitlines()), 1, found)

    def test_an_import_that_came_after_macos_12_is_named(self):
        # macOS 14.4 brought it. zig's libSystem has it, macos-12.txt does not.
        found = self.faults(self.link("os_sync_wait_on_address"))
        self.assertIn("imports _os_sync_wait_on_address from /usr/lib/libSystem.B.dylib: if macOS 12 has it, add it", found)

    def test_a_library_that_no_macos_has_is_named(self):
        library = "/opt/homebrew/lib/libpoll.dylib"
        found = self.faults(self.link("its_own", library=library))
        self.assertIn(f"it needs {library}", found)

    def test_an_import_from_the_wrong_library_is_named(self):
        library = "/usr/lib/libobjc.A.dylib"
        found = self.faults(self.link("CFRunLoopWakeUp", library=library))
        self.assertIn(f"imports _CFRunLoopWakeUp from {library}, which is in /System/Library/Frameworks/CoreFoundation", found)

    def test_another_architecture_or_a_newer_macos_is_refused(self):
        self.assertIn("it is for x86_64, not for arm64", self.faults(self.link("poll", "x86_64-macos.12.0")))
        self.assertIn("from version 13.0: set MACOSX_DEPLOYMENT_TARGET", self.faults(self.link("poll", "aarch64-macos.13.0")))

    def test_a_change_after_signing_is_found(self):
        program = self.link("poll")
        data = bytearray(program.read_bytes())
        data[macho.MachO(program).entry] ^= 1
        program.write_bytes(data)
        self.assertIn("its signature does not fit pages [0]", self.faults(program))

    def test_what_is_no_mach_o_file_is_refused(self):
        program = self.folder / "script"
        for content in (b"", b"#!/bin/sh\necho this is a script, and long enough for a header\n"):
            program.write_bytes(content)
            with self.assertRaises(macho.Malformed):
                macho.MachO(program)
        whole = self.link("poll").read_bytes()
        program.write_bytes(whole[: len(whole) // 2])
        with self.assertRaises(macho.Malformed):
            macho.MachO(program)


if __name__ == "__main__":
    unittest.main()
