"""The contract with nnU-Net, batchgenerators and batchgeneratorsv2: all that this package takes from them is there.

A failure says what has changed there and which modules here it breaks. `CALLS`, `ATTRIBUTES`, `OVERRIDDEN` and `WORDS`
are the contract; a walk over the package's source sees to it that it uses nothing that they lack.
"""

from __future__ import annotations

import ast
import inspect
import re
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from nnunet_dml.cli import predict
from tests.upstream import test_behaviour, test_behaviour_on_files
from tests.upstream.contract import (
    ATTRIBUTES,
    CALLS,
    CLASSES,
    OTHER_MEANINGS,
    OVERRIDDEN,
    PACKAGE,
    PREDICT,
    TRAINER,
    WORDS,
)
from tests.upstream.reading import (
    attributes_of,
    calls_of,
    changed,
    heirs,
    is_upstream,
    locate,
    parameters_of,
    pinned_parameters,
    uses,
    words_of,
)


@pytest.mark.parametrize("name", sorted({*CALLS, *ATTRIBUTES}))
def test_it_is_where_we_import_it_from(name):
    assert locate(name) is not None


@pytest.mark.parametrize("name", CALLS)
def test_it_takes_the_parameters_that_we_give(name):
    parameters = parameters_of(name)
    there = [f"*{it.name}" if it.kind is it.VAR_POSITIONAL else it.name for it in parameters]
    any_name = any(it.kind is it.VAR_KEYWORD for it in parameters)
    places, names = pinned_parameters(name)
    if there[: len(places)] != places:
        what = f"{name} takes {', '.join(there)}, no longer {', '.join(places)} first"
        pytest.fail(changed(name, what, f"{uses().of(name)}, which give these by place"))
    for it in names:
        assert it in there or any_name, changed(
            name, f"{name} has no parameter {it} any more", f"{uses().of(name)}, which give it by name"
        )
    needed = [it.name for it in parameters if it.default is it.empty and it.kind < it.VAR_POSITIONAL]
    new = [it for it in needed if it not in (*places, *names)]
    # what is made by nnU-Net's own code may want more
    assert not new, changed(
        name, f"{name} now demands {', '.join(new)}", f"{uses().of(name)}, which give none"
    )


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_its_objects_have_the_attributes_that_we_use(name):
    for it in ATTRIBUTES[name].split():
        assert it in attributes_of(name), changed(name, f"{name} has no {it} any more", uses().of(f".{it}"))


@pytest.mark.parametrize(("name", "method"), [(name, it) for name, its in OVERRIDDEN.items() for it in its])
def test_what_we_override_is_called_as_we_expect(name, method):
    caller = OVERRIDDEN[name][method]
    caller = caller if is_upstream(caller) else f"{name}.{caller}"
    ours = [it for it in heirs(name) if method in vars(it)]
    where = ", ".join(sorted({it.__module__.replace(".", "/") + ".py" for it in ours}))
    assert ours, f"nothing overrides {name}.{method}: take it out of OVERRIDDEN"
    assert method in dir(locate(name)), changed(name, f"{name} has no {method} any more", where)
    calls = calls_of(method, caller)
    assert calls, changed(name, f"{caller} does not call {method} any more", where)
    for kind in ours:
        for call in calls:
            given = [it for it in call.args if not isinstance(it, ast.Starred)]
            named = {it.arg: None for it in call.keywords if it.arg}
            try:
                inspect.signature(getattr(kind, method)).bind(None, *given, **named)
            except TypeError as error:
                what = f"{caller} calls {method} with {ast.unparse(call)} ({error})"
                pytest.fail(changed(name, what, f"{kind.__module__}.{kind.__name__}"))


@pytest.mark.parametrize("module", WORDS)
def test_it_knows_the_words_that_we_rely_on(module):
    for word in WORDS[module].split():
        assert word in words_of(module), changed(
            module, f"{module} knows no {word!r} any more", f"{uses().of(word)}, which rely on it"
        )


@pytest.mark.parametrize("module", CLASSES)
def test_the_classes_that_files_name_are_there(module):
    for name in CLASSES[module].split():
        what = f"there is no {module}.{name} any more"
        assert hasattr(locate(module), name), changed(module, what, uses().of(name))


def test_the_commands_are_there():
    there = {it.name for it in metadata.distribution("nnunetv2").entry_points}
    for name in {it for it in uses().words if re.fullmatch(r"nnUNetv2_\w+", it)}:
        assert name in there, changed("nnunetv2", f"there is no command {name} any more", uses().of(name))


@pytest.mark.parametrize("flag", predict._DEFAULTS)
def test_the_defaults_of_nnunetv2_predict(flag):
    (call,) = [
        it
        for it in calls_of("add_argument", f"{PREDICT}.predict_entry_point")
        if flag in [arg.value for arg in it.args if isinstance(arg, ast.Constant)]
    ]
    default = next(it.value for it in call.keywords if it.arg == "default")
    value = default.args[-1] if isinstance(default, ast.Call) else default  # from a variable, or this
    what = f"the default of nnUNetv2_predict {flag} is {ast.unparse(default)}"
    assert str(value.value) == predict._DEFAULTS[flag], changed("nnunetv2", what, "nnunet_dml/cli/predict.py")


class TestTheContractIsComplete:
    """Of what our modules use, nothing is missing above."""

    def test_every_import(self):
        lacking = {it: uses().of(it) for it in uses().imports if it not in {*CALLS, *ATTRIBUTES}}
        assert not lacking, f"imported, but neither in CALLS nor in ATTRIBUTES: {lacking}"

    def test_every_attribute(self):
        pinned = {it for names in ATTRIBUTES.values() for it in names.split()}
        pinned |= {it for methods in OVERRIDDEN.values() for it in methods}
        pinned |= OTHER_MEANINGS
        for name in ATTRIBUTES:
            used = {it for it in attributes_of(name) if it in uses().attributes and not it.startswith("__")}
            lacking = {it: uses().of(f".{it}") for it in used - pinned}
            assert not lacking, (
                f"attributes of {name}, but not in ATTRIBUTES (or, where something else is meant, OTHER_MEANINGS): {lacking}"
            )

    def test_every_call(self):
        methods = [(name, it) for name, its in ATTRIBUTES.items() for it in its.split()]
        callable_ones = {
            f".{it}" for name, it in methods if inspect.isroutine(getattr(locate(name), it, None))
        }
        for module, called, call in uses().calls:
            pinned = [it for it in CALLS if it == called or (called[0] == "." and it.endswith(called))]
            where = f"{module}, line {call.lineno}: {ast.unparse(call)}"
            if pinned:
                assert any(self.fits(call, it) for it in pinned), f"{where} gives what CALLS lacks"
            elif is_upstream(called) or (called in callable_ones and (call.args or call.keywords)):
                pytest.fail(f"{where}: CALLS lacks it")

    @staticmethod
    def fits(call: ast.Call, name: str) -> bool:
        places, names = pinned_parameters(name)
        given = [it for it in call.args if not isinstance(it, ast.Starred)]
        named = {it.arg for it in call.keywords if it.arg}
        return (len(given) <= len(places) or "*args" in places) and named <= {*places, *names}

    def test_every_overridden_method(self):
        for name, methods in OVERRIDDEN.items():
            for kind in heirs(name):
                own = {it for it in vars(kind) if callable(vars(kind)[it]) and hasattr(locate(name), it)}
                lacking = {it for it in own if it == "__init__" or not it.startswith("__")} - {*methods}
                lacking -= {"__init__"} if name != TRAINER else set()
                assert not lacking, f"{kind} overrides {lacking}, which OVERRIDDEN lacks"

    def test_every_variable(self):
        pinned = {it for words in WORDS.values() for it in words.split()}
        lacking = {it for it in uses().words if re.fullmatch(r"nnUNet_\w+", it)} - pinned
        assert not lacking, f"variables that WORDS lacks: {lacking}"

    def test_every_key(self):
        pinned = {it for words in WORDS.values() for it in words.split()} | OTHER_MEANINGS
        pinned |= {*CALLS[TRAINER].split()}  # as which a checkpoint holds them
        theirs = {it for module in WORDS for it in words_of(module)}
        lacking = {it: where for it, where in uses().keys.items() if it in theirs - pinned}
        assert not lacking, (
            f"keys that nnU-Net knows, but WORDS lacks (or, where something else is meant, OTHER_MEANINGS): {lacking}"
        )


def test_the_oldest_environment_has_the_lower_bounds_of_the_package():
    """What pyproject.toml allows is what is tested."""
    root = PACKAGE.parent
    pinned_file = root / ".ci" / "oldest.txt"
    if not pinned_file.is_file():
        pytest.skip("a source archive has no .ci")
    pinned = dict(line.split("==") for line in pinned_file.read_text().split())
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    sections = re.findall(
        r"^(?:dependencies|slurm|networks|test) = \[(.*?)\](?:\n|  #)", text, re.DOTALL | re.MULTILINE
    )
    requirements = [Requirement(it) for section in sections for it in re.findall(r'"([^"]+)"', section)]
    lowest = {
        it.name.lower(): Version(bound.version)
        for it in requirements
        for bound in it.specifier
        if bound.operator == ">="
    }
    assert {name: Version(Version(it).base_version) for name, it in pinned.items()} == lowest


def test_nnunet_is_allowed_as_far_as_it_was_tested():
    text = (PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8")
    (allowed,) = re.findall(r'"nnunetv2([^"]+)"', text)
    (upper,) = [it.version for it in SpecifierSet(allowed) if it.operator == "<"]
    major, minor = Version(metadata.version("nnunetv2")).release[:2]
    assert upper == f"{major}.{minor + 1}", (
        f"nnU-Net {major}.{minor} is what runs here, below {upper} is allowed"
    )


@pytest.mark.parametrize("module", [test_behaviour, test_behaviour_on_files], ids=lambda it: it.__name__)
def test_behaviour_names_the_modules_that_lean_on_it(module):
    for test in (it for name, it in vars(module).items() if name.startswith("test_")):
        named = re.split(r", |:|\.$", test.__doc__)[0].removesuffix(".")
        assert (PACKAGE / named).exists(), f"{test.__name__}: {named}"
