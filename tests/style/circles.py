"""Finds circles of modules that import one another, from the sources alone.

It reads paths that begin with `crate`, `self`, `super` or the name of a child module, in `use` lines
and elsewhere, and follows re-exports to the module that has the item. Macros that expand to paths are
not seen, and neither are methods: who only calls a method of a type needs no import.
"""
import collections
import pathlib
import re

USE = re.compile(r"(?m)^\s*(pub(?:\([^)]*\))?\s+)?use\s+([^;\"]+);")
PATH = re.compile(r"(?<![\w:])([a-z_]\w*(?:::\w+)+)")


def circles(root):
    """Circles of the modules below `root`, largest first: each as {module: [modules it imports]}."""
    crate = Crate(pathlib.Path(root))
    imports = {module: crate.imports(module) for module in crate.sources}
    found = [
        {"::".join(m): sorted("::".join(t) for t in imports[m] if t in circle) for m in sorted(circle)}
        for circle in strongly_connected(imports)
    ]
    return sorted(found, key=len, reverse=True)


class Crate:
    """The modules of a crate by their path, such as ("command", "blob")."""

    def __init__(self, root):
        self.sources = {}
        for file in root.rglob("*.rs"):
            module = file.relative_to(root).with_suffix("").parts
            if module[-1] in ("mod", "lib", "main"):
                module = module[:-1]
            if not any("test" in part for part in module):
                self.sources[module] = code(file.read_text())
        self.uses = {module: list(paths(source)) for module, source in self.sources.items()}
        self.exports = {
            module: {path[-1]: self.absolute(module, path) for public, path in uses if public}
            for module, uses in self.uses.items()
        }

    def imports(self, module):
        """The other modules that `module` names. The crate's root is none: it only lists the others."""
        if not module:
            return set()
        named = (self.absolute(module, path) for public, path in self.uses[module] if not public)
        found = {self.home(path) for path in named if path is not None}
        return found - {module, (), None}

    def absolute(self, module, path):
        """A path as seen from the crate's root; None when it leads out of the crate."""
        first, rest = path[0], path[1:]
        if first == "crate":
            return rest
        if first == "self":
            return module + rest
        if first == "super":
            return self.absolute(module[:-1], ("self",) + rest if rest[:1] != ("super",) else rest)
        return module + path if module + (first,) in self.sources else None

    def home(self, path, seen=frozenset()):
        """The module in which the item of an absolute path stands."""
        for length in range(len(path), -1, -1):
            module, rest = path[:length], path[length:]
            if module not in self.sources:
                continue
            export = self.exports[module].get(rest[0]) if rest else None
            if export and (module, rest[0]) not in seen:
                return self.home(export + rest[1:], seen | {(module, rest[0])})
            return module
        return None


def code(source):
    """A source without comments and without the tests at its end."""
    source = re.sub(r"//[^\n]*", "", source)
    return re.sub(r"#\[cfg\(test\)\]\s*(?:#\[[^\]]*\]\s*)*mod \w+ \{.*", "", source, flags=re.S)


def paths(source):
    """All paths of a source: whether it is exported, and its parts."""
    for public, tree in USE.findall(source):
        for path in leaves((), tree):
            yield bool(public), path
    for path in PATH.findall(USE.sub("", source)):
        yield False, tuple(path.split("::"))


def leaves(prefix, tree):
    """The single paths of a tree such as `a::{b, c::d}`."""
    head, brace, body = tree.strip().partition("{")
    parts = tuple(part.strip() for part in re.split(r"\bas\b", head)[0].split("::") if part.strip())
    if not brace:
        if prefix + parts:
            yield prefix + parts
        return
    depth, item = 0, ""
    for char in body[: body.rindex("}")] + ",":
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            if item.strip():
                yield from leaves(prefix + parts, item)
            item = ""
        else:
            item += char


def strongly_connected(graph):
    """The sets of more than one node that can all reach one another (Tarjan's algorithm)."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in index:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == index[node]:
            members = set(stack[stack.index(node):])
            del stack[stack.index(node):]
            if len(members) > 1:
                found.append(members)

    for node in graph:
        if node not in index:
            visit(node)
    return found
