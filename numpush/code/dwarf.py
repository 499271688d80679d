"""The debug information of ``clang -g`` -> C declarations.

LLVM's pointers and integers have lost their C types; its metadata still has them:

    !7 = distinct !DISubprogram(name: "norm", ..., type: !8, ...)
    !8 = !DISubroutineType(types: !9)
    !9 = !{!10, !11}                       the result, then the arguments; null is void
    !10 = !DIBasicType(name: "double", size: 64, encoding: DW_ATE_float)

Integers are declared by their size, typedefs are followed, what has no name in C is given one. A type
that cffi cannot have (``__int128``) costs only the functions that use it. Source: LLVM's language
reference, "Specialized Metadata Nodes"; DWARF 4, chapter 5.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

__all__ = ["Types", "has_debug_info"]

_NODE = re.compile(r"^(!\d+) = (?:distinct )?!(DI\w+)\((.*)\)$", re.M)
_LIST = re.compile(r"^(!\d+) = (?:distinct )?!\{(.*)\}$", re.M)
_FIELD = re.compile(r'(\w+): ("(?:[^"\\]|\\.)*"|[^,(]*(?:\([^)]*\))?)(?:, |$)')

_INTEGERS = {
    "DW_ATE_signed": "int",
    "DW_ATE_signed_char": "int",
    "DW_ATE_unsigned": "uint",
    "DW_ATE_unsigned_char": "uint",
    "DW_ATE_UTF": "uint",
}
_FLOATS = {"32": "float", "64": "double"}
_QUALIFIERS = {"DW_TAG_volatile_type", "DW_TAG_restrict_type", "DW_TAG_atomic_type"}
_POINTERS = {"DW_TAG_pointer_type", "DW_TAG_reference_type", "DW_TAG_rvalue_reference_type"}


class _Unknown(Exception):
    """A type that cannot be declared."""


class _Node(NamedTuple):
    kind: str
    fields: dict[str, str]

    @property
    def tag(self) -> str:
        return self.fields.get("tag", "")


def has_debug_info(text: str) -> bool:
    """Whether the text of a module has functions or variables with C types in it."""
    return "!DISubprogram(" in text or "!DIGlobalVariable(" in text


class Types:
    """The C types in the text of a module."""

    def __init__(self, text: str, opaque: Collection[str] = ()) -> None:
        self._opaque = opaque  #: "struct name" of those that are declared without members
        self._nodes = {
            m[1]: _Node(m[2], {f[1]: f[2].strip('"') for f in _FIELD.finditer(m[3])})
            for m in _NODE.finditer(text)
        }
        self._lists = {m[1]: [x.strip() for x in m[2].split(",")] for m in _LIST.finditer(text)}
        self._structs: dict[str, str] = {}  #: node -> "struct name"
        self._bodies: list[str] = []
        self.sizes: dict[str, int] = {}  #: "struct name" -> bytes
        self.declared: set[str] = set()

    def declare(self, names: set[str]) -> tuple[str, dict[str, str]]:
        """Declare the functions and variables *names*; return what cannot be, and why, too."""
        lines, missing = [], {}
        for node in list(self._nodes.values()):
            name = node.fields.get("linkageName") or node.fields.get("name", "")
            if name not in names or name in self.declared:
                continue
            try:
                if node.kind == "DISubprogram" and "DISPFlagDefinition" in node.fields.get(
                    "spFlags", ""
                ):
                    lines.append(self._function(node.fields["type"], name) + ";")
                elif node.kind == "DIGlobalVariable":
                    lines.append(f"extern {self._declare(node.fields['type'], name)};")
                else:
                    continue
            except _Unknown as error:
                missing[name] = str(error)
            self.declared.add(name)
        return "\n".join([*self._bodies, *lines]), missing

    def numbers(self, name: str) -> list[str] | None:
        """Return the dtypes of a function's arguments and of its result; None: it is not known, or they
        are no numbers."""
        for node in self._nodes.values():
            fields = node.fields
            if node.kind == "DISubprogram" and name in (
                fields.get("linkageName"),
                fields.get("name"),
            ):
                result, *args = self._types_of(fields["type"])
                dtypes = [self._number(ref) for ref in (*args, result)]
                return None if None in dtypes else [d for d in dtypes if d]
        return None

    # -- types

    def _node(self, ref: str) -> _Node:
        try:
            return self._nodes[ref]
        except KeyError:
            raise _Unknown(f"type {ref} is not in its debug information") from None

    def _types_of(self, ref: str) -> list[str]:
        return self._lists.get(self._node(ref).fields.get("types", ""), ["null"])

    def _function(self, ref: str, declarator: str) -> str:
        """Declare *declarator* as a function of type *ref*."""
        result, *args = self._types_of(ref)
        if args == ["null"]:  # f(), of which C says nothing
            args = []
        texts = [self._declare(arg, "") if arg != "null" else "..." for arg in args]
        return self._declare(result, f"{declarator}({', '.join(texts) or 'void'})")

    def _declare(self, ref: str | None, declarator: str) -> str:
        """Declare *declarator* as of type *ref*."""
        if ref is None or ref == "null":
            return f"void {declarator}".strip()
        node = self._node(ref)
        base = node.fields.get("baseType")
        if node.kind == "DIBasicType":
            return f"{_basic(node)} {declarator}".strip()
        if node.kind == "DISubroutineType":
            return self._function(ref, f"({declarator})")
        if node.tag == "DW_TAG_typedef":
            if base in self._nodes and "name" not in self._nodes[base].fields:
                self._nodes[base].fields["name"] = node.fields["name"]
            return self._declare(base, declarator)
        if node.tag in _QUALIFIERS:
            return self._declare(base, declarator)
        if node.tag == "DW_TAG_const_type":
            inner = self._declare(base, declarator)
            is_pointer = base in self._nodes and self._nodes[base].tag in _POINTERS
            return inner if is_pointer else f"const {inner}"  # of `T *const` nobody takes notice
        if node.tag in _POINTERS:
            return self._declare(base, f"*{declarator}")
        if node.tag == "DW_TAG_array_type":
            ranges = [self._node(r).fields for r in self._lists[node.fields["elements"]]]
            counts = [r.get("count", "") for r in ranges]
            sizes = "".join(f"[{count if count.isdigit() else ''}]" for count in counts)
            inner = f"({declarator})" if declarator.startswith("*") else declarator
            return self._declare(base, inner + sizes)
        if node.tag == "DW_TAG_enumeration_type":
            return self._declare(base, declarator) if base else f"uint32_t {declarator}".strip()
        if node.tag in ("DW_TAG_structure_type", "DW_TAG_class_type", "DW_TAG_union_type"):
            name = self._struct(ref, node)
            if name in self._opaque and not declarator.startswith("*"):
                raise _Unknown(f"cffi would lay out {name} otherwise")
            return f"{name} {declarator}".strip()
        raise _Unknown(f"{node.tag or node.kind} has no declaration in C")

    def _struct(self, ref: str, node: _Node) -> str:
        if ref in self._structs:
            return self._structs[ref]
        word = "union" if node.tag == "DW_TAG_union_type" else "struct"
        name = re.sub(r"\W", "_", node.fields.get("name", f"unnamed{ref[1:]}"))
        self._structs[ref] = f"{word} {name}"  # before its members: they may point to it
        is_known = "DIFlagFwdDecl" not in node.fields.get("flags", "")
        if is_known and self._structs[ref] not in self._opaque:
            members = self._members(node)
            self._bodies.append(f"{word} {name} {{\n{members}}};")
            self.sizes[f"{word} {name}"] = int(node.fields.get("size", 0)) // 8
        return self._structs[ref]

    def _members(self, node: _Node) -> str:
        text = ""
        for ref in self._lists.get(node.fields.get("elements", ""), []):
            member = self._nodes.get(ref)
            if member is None or member.tag == "DW_TAG_inheritance":
                raise _Unknown(f"struct {node.fields.get('name', '')} is no C")
            if member.tag != "DW_TAG_member" or "DIFlagStaticMember" in member.fields.get(
                "flags", ""
            ):
                continue
            base, fields = member.fields.get("baseType"), member.fields
            if "name" not in fields:  # its members are the outer struct's
                inner = self._node(base or "")
                word = "union" if inner.tag == "DW_TAG_union_type" else "struct"
                text += f"  {word} {{\n{self._members(inner)}  }};\n"
                continue
            bits = f" : {fields['size']}" if "DIFlagBitField" in fields.get("flags", "") else ""
            text += f"  {self._declare(base, fields['name'])}{bits};\n"
        return text

    def _number(self, ref: str) -> str | None:
        """Return the dtype of a number's type; None: it is none."""
        node = self._nodes.get(ref)
        while node and (
            node.tag == "DW_TAG_typedef" or node.tag.endswith(("const_type", *_QUALIFIERS))
        ):
            node = self._nodes.get(node.fields.get("baseType", ""))
        if node is None or node.kind != "DIBasicType":
            return None
        size = int(node.fields["size"]) // 8
        match node.fields.get("encoding"):
            case "DW_ATE_boolean":
                return "?"
            case "DW_ATE_float" if size in (4, 8):
                return f"f{size}"
            case str(encoding) if encoding in _INTEGERS and size <= 8:
                return f"{_INTEGERS[encoding][0]}{size}"
        return None


def _basic(node: _Node) -> str:
    size, encoding = node.fields.get("size", ""), node.fields.get("encoding", "")
    if encoding == "DW_ATE_boolean":
        return "_Bool"
    if encoding == "DW_ATE_float" and size in _FLOATS:
        return _FLOATS[size]
    if node.fields.get("name") == "char":
        return "char"
    if encoding in _INTEGERS and size in ("8", "16", "32", "64"):
        return f"{_INTEGERS[encoding]}{size}_t"
    raise _Unknown(f"cffi has no {node.fields.get('name', 'such type')}")
