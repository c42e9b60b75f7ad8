"""The layout of the package: imports go one way, and what is VGG's stays in fmi/networks."""

import ast
import re
from pathlib import Path

import pytest

import fmi

ROOT = Path(fmi.__file__).parent
MODULES = {
    ".".join(("fmi", *path.relative_to(ROOT).with_suffix("").parts)).replace(".__init__", ""): path
    for path in sorted(ROOT.rglob("*.py"))
}
# Rooms from the lowest to the highest; a module may import from its own room and from lower ones.
ROOMS = (
    ("errors", "checks", "device", "files", "notebook"),
    ("sources", "settings", "pictures"),
    ("codes", "losses"),
    ("networks",),
    (
        *("descent", "evidence", "inversion", "memory", "optimisers", "records"),
        *("regularisers", "whitening"),
    ),
    ("snapshots",),
    ("call", "request"),
    ("signatures", "keywords"),
    ("invert", "repetition"),
    ("sheets", "runs", "doctor"),
    ("atlas",),
    ("cli",),
    ("__main__",),
)


def imports(tree):
    """Modules of fmi that a module imports, with those that it needs for types alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "fmi":
            for name in node.names:
                full = f"{node.module}.{name.name}"
                yield full if full in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (n.name for n in node.names if n.name.split(".")[0] == "fmi")


def graph():
    found = {}
    for name, path in MODULES.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        # `from fmi.x import y` runs packages on the way too, which hold nothing but a docstring.
        found[name] = set(imports(tree)) - {"fmi"}
    return found


def room(module):
    parts = module.split(".")
    return next(i for i, names in enumerate(ROOMS) if len(parts) > 1 and parts[1] in names)


def test_every_module_says_in_its_first_line_what_lives_there():
    for name, path in MODULES.items():
        first = path.read_text(encoding="utf-8").splitlines()[0]
        assert re.fullmatch(r'""".{10,}(\.|:|"""|,)', first) or first.startswith('"""'), name
        assert len(first) > 20, name


def test_imports_go_to_lower_rooms():
    for module, others in graph().items():
        if module == "fmi":
            continue
        for other in others:
            assert room(other) <= room(module), f"{module} imports {other}"


def test_there_is_no_cycle():
    edges = graph()
    edges["fmi.invert"].discard("fmi.keywords")  # for type checkers alone
    done, path = set(), []

    def visit(module):
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module in done:
            return
        path.append(module)
        for other in edges.get(module, ()):
            visit(other)
        done.add(path.pop())

    for module in edges:
        visit(module)


@pytest.mark.parametrize("module", [m for m in MODULES if ".networks" not in m])
def test_no_function_outside_networks_names_what_is_vggs(module):
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    functions = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.Lambda))]
    for function in functions:
        for node in ast.walk(function):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not re.fullmatch(r"(relu|conv|pool)\d(_\d)?", node.value), ast.dump(node)
            if isinstance(node, ast.Constant) and isinstance(node.value, float):
                assert node.value not in (123.68, 116.779, 103.939), module
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                assert "topology" not in ast.dump(node), module
    heads = [ast.dump(n) for n in tree.body if isinstance(n, (ast.Import, ast.ImportFrom))]
    assert not any("topology" in head for head in heads)


@pytest.mark.parametrize("module", [m for m in MODULES if MODULES[m].name[:2] != "__"])
def test_all_names_what_is_public(module):
    """Every public function and class, and nothing that is not there."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    assigned = [n for n in tree.body if isinstance(n, ast.Assign)]
    (names,) = [n.value for n in assigned if getattr(n.targets[0], "id", "") == "__all__"]
    listed = set(ast.literal_eval(names))
    defined = {n.name for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    assert {name for name in defined if not name.startswith("_")} <= listed
    assert not any(name.startswith("_") for name in listed)
    source = ast.dump(tree)
    assert all(f"'{name}'" in source for name in listed)
