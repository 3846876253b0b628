"""What is held at the peak as a tree of modules, each node with its bytes, its share and its roles.

A module's path is split at its dots; below the last part stand the lines of the ledger, an op or a holder each. At
every node the bytes are the sum of what stands below it, to the byte, and at the root they are the peak.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dbbench.errors import BadInput
from dbbench.report import text
from dbbench.report.page.timelines import Chosen
from dbbench.report.palette import ROLE_NAMES
from dbbench.report.run import Configuration, Run
from dbbench.results.holdings import held_at_peak
from dbbench.results.record import Held
from dbbench.results.roles import ROLES

NO_MODULE = "(no module)"
#: The page lists so many nodes at most over all its trees, and so many below one node.
NODES, CHILDREN = 4000, 60


@dataclass
class Node:
    """A part of a module's path, or a line of the ledger (``leaf``). ``roles`` are bytes by role, ROLES' order."""

    name: str
    bytes: int = 0
    storages: int = 0
    roles: dict[str, int] = field(default_factory=dict)
    children: list[Node] = field(default_factory=list)
    leaf: bool = False

    @property
    def size(self) -> int:
        """How many nodes the tree below and with this one has."""
        return 1 + sum(child.size for child in self.children)

    def add(self, held: Held) -> None:
        self.bytes += held.bytes
        self.storages += held.storages
        self.roles[held.role] = self.roles.get(held.role, 0) + held.bytes


@dataclass(frozen=True)
class Tree:
    """A configuration's peak: its name on the page, when it was, and the root of what was held then."""

    name: str
    when: str
    source: str
    root: Node


@dataclass
class Trees:
    trees: list[Tree] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def trees(runs: Sequence[Run], names: Sequence[str], chosen: Sequence[Chosen], room: int = NODES) -> Trees:
    """Return the trees of the configurations with a timeline, then of the others, until ``room`` nodes are spent.

    They are built from the trace where the page read one that rises to the record's peak, else from the record.
    """
    found = Trees()
    traced = {(id(one.run), one.configuration.label): one for one in chosen}
    others = [
        (run, name, configuration)
        for run, name in zip(runs, names, strict=True)
        for configuration in run.configurations
        if configuration.costliest is not None
    ]
    for run, name, configuration in sorted(others, key=lambda other: (id(other[0]), other[2].label) not in traced):
        label = text.printable(f"{name}: {configuration.label}" if name else configuration.label)
        tree = _tree(label, configuration, traced.get((id(run), configuration.label))) if room > 0 else None
        size = tree.root.size if tree else 0
        if tree is None or size > room:
            found.left_out.append(label)
            room = 0 if size > room else room  # the rest is not built for the gaps that are left
            continue
        room -= size
        found.trees.append(tree)
    return found


def _tree(label: str, configuration: Configuration, traced: Chosen | None) -> Tree | None:
    record = configuration.costliest
    assert record is not None
    row = record.row
    held, source = record.held_at_peak, "the cell's record, where the smaller lines may be summed"
    if traced is not None:
        try:
            at_peak = held_at_peak(traced.trace)
        except BadInput:
            at_peak = None
        if at_peak is not None and row.peak_bytes in (None, at_peak.total_bytes):
            held, source = at_peak.held, "the trace"
    if not held:
        return None
    when = [f"step {row.peak_step}" if row.peak_step is not None else "", row.peak_phase or ""]
    when += [f"block {row.peak_block}" if (row.blocks or 1) > 1 and row.peak_block is not None else ""]
    return Tree(label, ", ".join(filter(None, when)), source, tree_of(held))


def tree_of(held: Iterable[Held]) -> Node:
    """Return the root of the tree of ``held``; the largest stands first, and no byte is lost by what is folded."""
    root = Node("")
    by_path: dict[tuple[str, ...], Node] = {(): root}
    for line in held:
        path: tuple[str, ...] = ()
        root.add(line)
        for part in line.module.split(".") if line.module else [NO_MODULE]:
            parent, path = by_path[path], (*path, part)
            if path not in by_path:
                by_path[path] = Node(part)
                parent.children.append(by_path[path])
            by_path[path].add(line)
        leaf = Node(_line_name(line), leaf=True)
        leaf.add(line)
        by_path[path].children.append(leaf)
    for node in by_path.values():
        node.children.sort(key=lambda child: (-child.bytes, child.name, child.leaf))
        _fold(node)
        node.roles = {role: node.roles[role] for role in ROLES if role in node.roles}
    return root


def _line_name(line: Held) -> str:
    said = f"{line.op} · {line.holder}" if line.holder and line.op else line.holder or line.op or "(op unknown)"
    return f"{said} — {ROLE_NAMES.get(line.role, line.role)}"


def _fold(node: Node) -> None:
    """Sum the smallest children into one line where a node has too many of them."""
    if len(node.children) <= CHILDREN:
        return
    rest = node.children[CHILDREN - 1 :]
    folded = Node(f"({len(rest):,} smaller ones)", leaf=True)
    for child in rest:
        folded.bytes += child.bytes
        folded.storages += child.storages
        for role, size in child.roles.items():
            folded.roles[role] = folded.roles.get(role, 0) + size
    node.children = [*node.children[: CHILDREN - 1], folded]
