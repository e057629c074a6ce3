"""`make bench-structure`: measures the structure of the code and writes the table in docs/architecture.md.

    python -m benchmarks.structure [--test-seconds S] [--check | --list]

docs/architecture.md defines each row. The table keeps its first column, which an earlier version of this script
measured on an earlier revision, and the seconds of `make test` until `--test-seconds` gives them.
"""

import argparse
import ast
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import networkx

from benchmarks.markers import markdown, read_table, replace_tables

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
PACKAGES = ("core", "data", "model", "monitoring", "serving", "components", "pipelines")
Function = (ast.FunctionDef, ast.AsyncFunctionDef)

GOALS = {
    "data/: modules, layers, imports, upward": "20, 7, 60, 0",
    "private helpers called once": "12 %",
    'docstrings that begin "Of" or "What"': "0",
    "class names defined more than once": "6",
    "product files to touch: quality filter, optimizer, gate metric, traffic field, file setting": "2, 2, 1, 3, 1",
    "files of one decoder pass": "6",
    "settings machinery, lines": "300",
    "benchmarks/, lines": "4,500",
    "`make test`, two idle cores": "9 min",
}
"""The rows, and the most that each may be."""

EXTENSIONS = {
    "quality filter": ("data/quality/gopher.py", "data/config.py"),
    "optimizer": ("model/parallelism/optimizers.py", "model/training/optimization/optimizers/lion.py"),
    "gate metric": ("model/evaluation/metrics/golden_pass_rate.py",),
    "traffic field": ("monitoring/traffic/record.py", "serving/engine/request.py", "serving/engine/sequence.py"),
    "file setting": ("data/config.py",),
}
"""Product files that an extension of each kind changes or adds, as docs/contributing.md describes it."""

SETTINGS_MACHINERY = (
    "components/params.py",
    "core/settings/errors.py",
    "core/settings/files.py",
    "pipelines/compose.py",
    "components/file_hashes.py",
    "pipelines/overrides.py",
)
"""Composition of settings: conf/ and key=value, spelling, paths and hashes of the files that settings name."""

NOT_OF_THE_PASS = ("config.py", "inputs.py", "shapes.py")
"""Files that check settings and arguments, which nobody has to read to follow the arithmetic."""


@dataclass(frozen=True)
class Tree:
    root: Path
    modules: Mapping[Path, ast.Module]

    @classmethod
    def read(cls, root: Path) -> "Tree":
        paths = [path for name in PACKAGES for path in sorted((root / name).rglob("*.py"))]
        return cls(root, {path: ast.parse(path.read_text(encoding="utf-8")) for path in paths})

    def nodes(self) -> Iterator[tuple[Path, ast.AST]]:
        return ((path, node) for path, module in self.modules.items() for node in ast.walk(module))


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the structure of the code.")
    parser.add_argument(
        "--test-seconds", type=float, metavar="S", help="seconds that `make test` took on two idle cores"
    )
    parser.add_argument("--check", action="store_true", help="print the table only; fail where a goal is missed")
    parser.add_argument("--list", action="store_true", help="print what the rows count; writes nothing")
    arguments = parser.parse_args()
    if arguments.list:
        tree = Tree.read(ROOT)
        print(*helpers_called_once(tree)[0], *fragments(tree), *repeated_classes(tree), *decoder_pass(ROOT), sep="\n")
        return
    kept = [[cell.strip() for cell in line.split("|")[1:-1]] for line in read_table(PAGE, "structure").splitlines()[2:]]
    before, now = ({row[0]: row[column] for row in kept} for column in (1, 3))
    now |= measure(ROOT)
    if arguments.test_seconds:
        now["`make test`, two idle cores"] = f"{arguments.test_seconds / 60:.1f} min"
    rows = [(name, before.get(name, ""), goal, now.get(name, "")) for name, goal in GOALS.items()]
    table = markdown(" | >before | >goal | >now", rows)
    print(table)
    if not arguments.check:
        replace_tables(PAGE, {"structure": table})
    elif found := missed(now):
        raise SystemExit("\n".join(f"not met: {line}" for line in found))


def missed(now: Mapping[str, str]) -> list[str]:
    """Rows that have no figure, or a figure above its goal."""
    found = []
    for name, goal in GOALS.items():
        figures, goals = numbers(now.get(name, "")), numbers(goal)
        if len(figures) != len(goals) or any(figure > most for figure, most in zip(figures, goals, strict=True)):
            found.append(f"{name}: {now.get(name) or 'not measured'}, at most {goal}")
    return found


def numbers(cell: str) -> list[float]:
    """Figures of a cell, without those in parentheses; the upper end of a range."""
    words = [word.rstrip(",") for word in cell.partition("(")[0].split()]
    return [float(word.rpartition("-")[2].replace(",", "")) for word in words if word[0].isdigit()]


def missing_files(root: Path) -> list[str]:
    """Files that the lists of this module name and `root` does not have."""
    listed = [*SETTINGS_MACHINERY, *(path for paths in EXTENSIONS.values() for path in paths)]
    return [path for path in listed if not (root / path).is_file()]


def measure(root: Path) -> dict[str, str]:
    """Every row but the seconds of the tests. SystemExit where a listed file has moved."""
    if missing := missing_files(root):
        raise SystemExit(f"{', '.join(missing)} does not exist: name its new path in benchmarks/structure.py")
    tree, files = Tree.read(root), decoder_pass(root)
    once, functions = helpers_called_once(tree)
    counts = (
        ", ".join(map(str, import_graph(tree))),
        f"{100 * len(once) / functions:.0f} % ({len(once):,} of {functions:,})",
        str(len(fragments(tree))),
        str(len(repeated_classes(tree))),
        ", ".join(str(len(paths)) for paths in EXTENSIONS.values()),
        f"{len(files)} ({lines(root, files):,} lines)",
        f"{lines(root, SETTINGS_MACHINERY):,}",
        f"{lines(root, (str(path) for path in sorted((root / 'benchmarks').rglob('*.py')))):,}",
    )
    return dict(zip(GOALS, counts, strict=False))


def lines(root: Path, paths: Iterable[str]) -> int:
    return sum(len((root / path).read_text(encoding="utf-8").splitlines()) for path in paths)


def import_graph(tree: Tree) -> tuple[int, int, int, int]:
    """Modules, layers, imports and upward imports of the direct children of data/, a package being one module."""
    graph = networkx.DiGraph()
    folder = tree.root / "data"
    for path, module in tree.modules.items():
        if not path.is_relative_to(folder) or path == folder / "__init__.py":
            continue
        importer = path.relative_to(folder).parts[0].removesuffix(".py")
        for node in ast.walk(module):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            for package, _, rest in (name.removeprefix("sluice.").partition(".") for name in names):
                if package == "data" and (imported := rest.split(".")[0]) not in ("", importer):
                    graph.add_edge(importer, imported)
    modules, imports, upward = graph.number_of_nodes(), graph.number_of_edges(), 0
    condensed = networkx.condensation(graph)
    depth: dict[int, int] = {}
    for cycle in networkx.topological_sort(condensed):
        above = (depth[each] for each in condensed.predecessors(cycle))
        depth[cycle] = max(above, default=0) + len(condensed.nodes[cycle]["members"])
    while cycles := [each for each in networkx.strongly_connected_components(graph) if len(each) > 1]:
        # Drop the import whose absence leaves the fewest in cycles, until there is none.
        edges = [edge for cycle in cycles for edge in graph.subgraph(cycle).edges]
        graph.remove_edge(*min(edges, key=lambda edge: _in_cycles(graph, edge)))
        upward += 1
    return modules, max(depth.values()), imports, upward


def _in_cycles(graph: networkx.DiGraph, without: tuple[str, str]) -> int:
    rest = networkx.restricted_view(graph, [], [without])
    return sum(rest.subgraph(scc).number_of_edges() for scc in networkx.strongly_connected_components(rest))


def helpers_called_once(tree: Tree) -> tuple[list[str], int]:
    """Functions named _name that their file refers to once besides the definition; and the number of all functions."""
    once, functions = [], 0
    for path, module in tree.modules.items():
        nodes = list(ast.walk(module))
        uses = Counter(node.id for node in nodes if isinstance(node, ast.Name))
        uses.update(node.attr for node in nodes if isinstance(node, ast.Attribute))
        for node in (node for node in nodes if isinstance(node, Function)):
            functions += 1
            if node.name.startswith("_") and not node.name.startswith("__") and uses[node.name] == 1:
                once.append(f"{path.relative_to(tree.root)}:{node.lineno}: {node.name} is called once")
    return once, functions


def fragments(tree: Tree) -> list[str]:
    """Docstrings, those of fields included, that begin with "Of" or "What"."""
    return [
        f'{path.relative_to(tree.root)}:{node.lineno}: """{value.value.splitlines()[0]}'
        for path, node in tree.nodes()
        if isinstance(node, ast.Expr)
        if isinstance(value := node.value, ast.Constant) and isinstance(value.value, str)
        if value.value.startswith(("Of ", "What "))
    ]


def repeated_classes(tree: Tree) -> list[str]:
    places: dict[str, list[str]] = {}
    for path, node in tree.nodes():
        if isinstance(node, ast.ClassDef):
            places.setdefault(node.name, []).append(f"{path.relative_to(tree.root)}:{node.lineno}")
    return [f"class {name}: {', '.join(found)}" for name, found in sorted(places.items()) if len(found) > 1]


def decoder_pass(root: Path) -> list[str]:
    """Files of the code that a forward pass of the default decoder executes, in a process of its own."""
    command = [sys.executable, "-P", "-c", _TRACE, str(root)]
    found = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    return [path for path in json.loads(found.stdout) if Path(path).name not in NOT_OF_THE_PASS]


_TRACE = """
import json, os, sys
root = os.path.realpath(sys.argv[1]) + os.sep
sys.path.insert(0, root)
import torch
from sluice.model.architecture.config import TransformerConfig
from sluice.model.architecture.transformer import Transformer
model = Transformer(TransformerConfig(vocab_size=64, hidden_size=32, layers=1, heads=2, context=16)).eval()
found = set()
def called(frame, event, argument):
    if event == "call":
        found.add(os.path.realpath(frame.f_code.co_filename))
with torch.no_grad():
    sys.setprofile(called)
    model(torch.zeros(1, 8, dtype=torch.long))
    sys.setprofile(None)
print(json.dumps(sorted(path.removeprefix(root) for path in found if path.startswith(root + "model" + os.sep))))
"""


if __name__ == "__main__":
    main()
