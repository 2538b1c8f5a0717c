"""Reads off the sources: what this package uses, and what there is to be used."""

from __future__ import annotations

import ast
import inspect
import pydoc
import re
import textwrap
from collections import defaultdict
from collections.abc import Container
from functools import cache
from importlib import import_module, metadata
from typing import Any

from tests.upstream.contract import (
    ATTRIBUTES,
    BY_ATTRIBUTE,
    CALLS,
    PACKAGE,
    UPSTREAM,
)


class Uses:
    """All that the package's modules import, call, read and look up; every name with the modules that do."""

    def __init__(self) -> None:
        self.imports: dict[str, set[str]] = defaultdict(set)
        self.attributes: dict[str, set[str]] = defaultdict(set)
        self.texts: dict[str, set[str]] = defaultdict(set)
        self.words: dict[str, set[str]] = defaultdict(set)  # in the texts
        self.keys: dict[str, set[str]] = defaultdict(set)
        self.calls: list[tuple[str, str, ast.Call]] = []  # module, what is called (`.name` of an object), how
        for path in sorted(PACKAGE.rglob("*.py")):
            self._read(path.relative_to(PACKAGE.parent).as_posix(), ast.parse(path.read_text("utf-8")))

    def _read(self, module: str, tree: ast.Module) -> None:
        imported: dict[str, str] = {}
        own: set[str] = set()  # names of modules here, whose functions are not meant
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and is_upstream(node.module or ""):
                imported |= {it.asname or it.name: f"{node.module}.{it.name}" for it in node.names}
            elif isinstance(node, ast.Import):
                imported |= {it.asname or it.name: it.name for it in node.names if is_upstream(it.name)}
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nnunet_dml"):
                own |= {it.asname or it.name for it in node.names}
        for name in imported.values():
            self.imports[name].add(module)
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                self.texts[node.value].add(module)
                for word in re.findall(r"[\w.-]+", node.value):
                    self.words[word].add(module)
            for key in keys_in(node):
                self.keys[key].add(module)
            if not module.startswith("nnunet_dml/nnunet/"):
                continue  # the other rooms know no nnU-Net, as test_rooms.py sees to
            if isinstance(node, ast.Attribute) and not is_name_of(node.value, own):
                self.attributes[node.attr].add(module)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if not is_name_of(node.func.value, own):
                    self.calls.append((module, f".{node.func.attr}", node))
            elif isinstance(node, ast.Call) and is_name_of(node.func, imported):
                self.calls.append((module, imported[ast.unparse(node.func)], node))

    def of(self, name: str) -> str:
        """The modules that use a name, to be said."""
        last = name.rpartition(".")[2]
        last = BY_ATTRIBUTE.get(last, last)
        kinds = (
            self.imports.get(name),
            self.attributes.get(last),
            self.texts.get(name),
            self.words.get(name),
        )
        return ", ".join(sorted(next(filter(None, kinds), {"nothing here"})))


def is_upstream(module: str) -> bool:
    return module.split(".")[0] in UPSTREAM


def is_name_of(node: ast.expr, names: Container[str]) -> bool:
    return isinstance(node, ast.Name) and node.id in names


def keys_in(node: ast.AST) -> list[str]:
    """The texts by which a node looks something up: x["key"], x.get("key"), folder / "name"."""
    found: list[ast.expr] = []
    if isinstance(node, ast.Subscript):
        found = [node.slice]
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        found = [node.right]
    elif (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("get", "pop")
    ):
        found = node.args[:1]
    return [it.value for it in found if isinstance(it, ast.Constant) and isinstance(it.value, str)]


@cache
def uses() -> Uses:
    return Uses()


@cache
def locate(name: str) -> Any:
    """What stands under a dotted name."""
    found = pydoc.locate(name)
    assert found is not None, changed(name, f"there is no {name} any more", uses().of(name))
    return found


def theirs(last: str) -> Any:
    """What the contract has under the last part of a name."""
    (name,) = {it for it in (*CALLS, *ATTRIBUTES) if it.endswith(f".{last}")}
    return locate(name)


@cache
def words_of(module: str) -> set[str]:
    """The texts in a module's source, and the names under which it saves arrays."""
    nodes = list(ast.walk(ast.parse(inspect.getsource(locate(module)))))
    texts = {it.value for it in nodes if isinstance(it, ast.Constant) and isinstance(it.value, str)}
    saving = [it for it in nodes if isinstance(it, ast.Call) and "savez" in ast.unparse(it.func)]
    return texts | {it.arg for call in saving for it in call.keywords if it.arg}


@cache
def attributes_of(name: str) -> set[str]:
    """What the objects of a class have: its own and inherited names, and what its methods set."""
    kind = locate(name)
    found = set(dir(kind))
    for base in kind.__mro__:
        if is_upstream(base.__module__):
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
            stored = [
                it for it in ast.walk(tree) if isinstance(it, ast.Attribute) and isinstance(it.ctx, ast.Store)
            ]
            found |= {it.attr for it in stored if isinstance(it.value, ast.Name) and it.value.id == "self"}
    return found


def changed(name: str, what: str, breaks: str) -> str:
    """A failure's message."""
    package = name.split(".")[0]
    return f"{package} {metadata.version(package)}: {what}; this breaks {breaks}"


def parameters_of(name: str) -> list[inspect.Parameter]:
    """Those that a caller gives, without self."""
    parent = locate(name.rpartition(".")[0])
    found = list(inspect.signature(locate(name)).parameters.values())
    static = not inspect.isclass(parent) or isinstance(
        inspect.getattr_static(parent, name.rpartition(".")[2]), staticmethod
    )
    return found if static else found[1:]


def pinned_parameters(name: str) -> tuple[list[str], list[str]]:
    """Those that we give by place, and those that we give by name."""
    words = CALLS[name].split()
    return [it for it in words if "=" not in it], [it.rstrip("=") for it in words if "=" in it]


def heirs(name: str) -> list[type]:
    """Our classes that derive from one of theirs."""
    for module in ("trainers", "transforms", "views"):
        import_module(f"nnunet_dml.nnunet.{module}")
    found, todo = [], [locate(name)]
    while todo:
        children = todo.pop().__subclasses__()
        todo += children
        found += [it for it in children if it.__module__.startswith("nnunet_dml.")]
    return list(dict.fromkeys(found))


def calls_of(method: str, caller: str) -> list[ast.Call]:
    """The calls of a method in a function's source; of `__init__` those that make an object."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(locate(caller))))
    calls = [it for it in ast.walk(tree) if isinstance(it, ast.Call)]
    if method == "__init__":
        return [it for it in calls if isinstance(it.func, ast.Name) and it.func.id == "nnunet_trainer"]
    return [it for it in calls if isinstance(it.func, ast.Attribute) and it.func.attr == method]
