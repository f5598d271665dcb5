"""Identity of the code behind a cell: our modules that compute it, and versions of libraries."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline.trackers.spec import DETECTOR, FAST, STUDENT, TrackerSpec

ENTRY = "pipeline.benchmark.unit"
"""The module that computes cells; they depend on all that it imports, at any depth."""
_ROOT = Path(__file__).resolve().parents[2]
_OURS = ("model", "pipeline")
_ALWAYS = ("motmetrics", "trackeval", "pycocotools", "numpy", "scipy", "av", "pillow")


@lru_cache(maxsize=2)
def code_sha256(root: Path = _ROOT, entry: str = ENTRY) -> str:
    """A hash of all code below `root` that a module imports, at any depth.

    Comments, docstrings and layout do not count.
    """
    digest = hashlib.sha256()
    for name, tree in sorted(imported_modules(entry, root).items()):
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list):
                node.body = [line for line in body if not _is_text(line)]  # type: ignore[attr-defined]
        digest.update(f"{name}\n{ast.dump(tree)}\n".encode())
    return digest.hexdigest()


def imported_modules(entry: str, root: Path = _ROOT) -> dict[str, ast.Module]:
    """Our modules that `entry` imports, itself among them, also where a function imports them.

    Raises:
        ModuleNotFoundError: There is no such entry.
    """
    found: dict[str, ast.Module] = {}
    waiting = [entry]
    while waiting:
        name = waiting.pop()
        path = _file(name, root)
        if name in found or path is None:
            continue
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for other in _imports(found[name], package):
            parts = other.split(".")
            if parts[0] in _OURS:  # with the packages that it lies in
                waiting += [".".join(parts[: i + 1]) for i in range(len(parts))]
    if entry not in found:
        raise ModuleNotFoundError(f"{entry}: no such module below {root}")
    return found


def library_versions(tracker: TrackerSpec) -> dict[str, str | None]:
    """Versions of the libraries that a tracker's cells depend on; None for a missing one."""
    names = [*_ALWAYS]
    if tracker.kind == STUDENT:
        names += ["torch", "torchvision", "timm"]
        names += ["openvino"] if tracker.variant == FAST else []
    if tracker.kind == DETECTOR:
        runtime = "openvino" if tracker.path.endswith(".xml") else "onnxruntime"
        names += ["torch", "torchvision", runtime]  # torchvision does non-maximum suppression
    if tracker.peer:
        names += ["trackers", "supervision"]
    return {name: _version(name) for name in names}


@lru_cache
def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _file(module: str, root: Path) -> Path | None:
    path = root.joinpath(*module.split("."))
    files = (path.with_name(f"{path.name}.py"), path / "__init__.py")
    return next((file for file in files if file.is_file()), None)


def _imports(tree: ast.Module, package: str) -> Iterator[str]:
    """Names of modules that a module imports; names out of modules among them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            given = "." * node.level + (node.module or "")
            source = importlib.util.resolve_name(given, package) if node.level else given
            yield source
            yield from (f"{source}.{alias.name}" for alias in node.names)


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
