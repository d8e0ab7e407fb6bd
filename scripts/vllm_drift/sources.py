"""Python files of one vLLM: from a folder, a wheel, or an archive of a few of its files."""

from __future__ import annotations

import ast
import io
import lzma
import re
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from .code import LEFT_OUT, Function, flattened, instance_attributes, is_text, names_bound

VERSION_FILE = "_version.py"
FILE_BYTES_MAX = 4 << 20
FILES_MAX = 20_000


class SourcesError(Exception):
    """What was named holds no sources of vLLM."""


class Sources:
    """Files of vLLM's package by their path in it, as ``v1/engine/core.py``."""

    def __init__(self, place: str, files: dict[str, str]) -> None:
        """Keep ``files``; ``place`` is where they are from, for messages.

        Raises:
            SourcesError: there is no ``_version.py`` with a version among them.
        """
        self.place = place
        self._files = files
        found = re.search(r"^__version__.*= *['\"]([^'\"]+)", files.get(VERSION_FILE, ""), re.M)
        if found is None:
            raise SourcesError(
                f"expected vLLM's sources with vllm/{VERSION_FILE} in {place}, found none; "
                "name a version, a wheel, or the folder that holds vllm/"
            )
        self.version = found.group(1)

    def texts(self) -> dict[str, str]:
        """All files read, by their path."""
        return dict(self._files)

    def read(self, path: str) -> str | None:
        """One file's text; ``None`` if this vLLM has none there."""
        return self._files.get(path)


def open_sources(place: Path, wanted: frozenset[str]) -> Sources:
    """Read the ``wanted`` files of vLLM's package, and its version, from ``place``.

    Args:
        place: a wheel, or a folder that is or holds ``vllm/``.
        wanted: paths inside the package; others are not read.

    Raises:
        SourcesError: no such place, or no vLLM in it.
    """
    wanted = wanted | {VERSION_FILE}
    try:
        files = _from_folder(place, wanted) if place.is_dir() else _from_wheel(place, wanted)
    except (OSError, zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise SourcesError(
            f"expected a wheel or a folder of vLLM at {place}, got "
            f"{type(error).__name__}: {error}; name one, or a version"
        ) from error
    return Sources(str(place), files)


def read_archive(place: Path, wanted: frozenset[str]) -> list[Sources]:
    """All versions in an archive of ``write_archive``, in the order of their names.

    Raises:
        SourcesError: it can't be read.
    """
    kept: dict[str, dict[str, str]] = {}
    try:
        with tarfile.open(place, "r:xz") as archive:
            for count, member in enumerate(archive):
                version, _, path = member.name.partition("/vllm/")
                if count >= FILES_MAX or member.size > FILE_BYTES_MAX:
                    raise tarfile.ReadError(f"it is larger than {FILES_MAX} files of 4 MiB")
                stream = archive.extractfile(member)
                if stream is not None and path in wanted | {VERSION_FILE}:
                    kept.setdefault(version, {})[path] = _decoded(path, stream.read())
    except (OSError, tarfile.TarError, lzma.LZMAError) as error:
        raise SourcesError(
            f"expected an archive of vLLM's files at {place}, got {type(error).__name__}: "
            f"{error}; write it again with --archive"
        ) from error
    return [Sources(f"{place}, {version}", files) for version, files in sorted(kept.items())]


def write_archive(
    place: Path,
    versions: Iterable[Sources],
    bodies: Mapping[str, frozenset[str]],
    named: Mapping[str, frozenset[str]],
) -> None:
    """Write all of ``versions`` to a ``.tar.xz`` that is the same bytes at every writing.

    Versions of one file lie side by side, so that the compressor sees how alike they are: four
    versions take little more than one. What no syntax tree has, or nobody looks at, is left out.

    Args:
        place: the file.
        versions: of which every file is written.
        bodies: by file the dotted names of what is looked into.
        named: by file the parts of all names that are looked for.

    Raises:
        SourcesError: a file is no Python; nothing was written.
    """
    own = frozenset({"__version__"})
    texts = sorted(
        (path, v.version, _bare(v, path, bodies.get(path, own), named.get(path, own)))
        for v in versions
        for path in v.texts()
    )
    with tarfile.open(place, "w:xz", preset=9 | lzma.PRESET_EXTREME) as archive:
        for path, version, text in texts:
            data = text.encode("utf-8")
            member = tarfile.TarInfo(f"{version}/vllm/{path}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def _bare(version: Sources, path: str, looked_into: frozenset[str], named: frozenset[str]) -> str:
    """The same code without what no hook sees, but for the licence in its first lines.

    That is comments, docstrings (of fields too), what has another name than those looked for, and
    annotations, values, and what functions do that nobody looks into: of these stays what they are
    called with, which attributes they set, and the mark that the rest is left out.
    """
    text = version.texts()[path]
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise SourcesError(
            f"expected Python in vllm/{path} of {version.place}, got {error.msg} in line "
            f"{error.lineno}; name a released version"
        ) from error
    tree.body = _emptied(tree.body, "", looked_into, named)
    for node in ast.walk(tree):
        if isinstance(node, Function | ast.ClassDef | ast.If | ast.Module):
            rest = [each for each in node.body if not is_text(each) or is_text(each, LEFT_OUT)]
            node.body = rest if rest or isinstance(node, ast.Module) else [ast.Pass()]
    lines = text.splitlines()
    licence = [line for line in lines[:10] if line.startswith("# SPDX-")]
    return "\n".join([*licence, ast.unparse(tree)]) + "\n"


def _emptied(
    statements: list[ast.stmt], owner: str, looked_into: frozenset[str], named: frozenset[str]
) -> list[ast.stmt]:
    """Those with a name that is looked for, or that set such an attribute; and all classes."""
    kept: list[ast.stmt] = []
    for statement in flattened(statements):
        names = names_bound(statement)
        if any(f"{owner}{name}" in looked_into for name in names):
            kept.append(statement)
        elif isinstance(statement, ast.ClassDef):
            inside = f"{owner}{statement.name}."
            statement.body = _emptied(statement.body, inside, looked_into, named) or [ast.Pass()]
            kept.append(statement)
        elif isinstance(statement, Function):
            attributes = sorted(instance_attributes(statement) & named)
            sets = [f"self.{attribute} = ..." for attribute in attributes]
            statement.body = ast.parse("\n".join([f'"""{LEFT_OUT}"""', *sets])).body
            statement.returns = None
            for argument in ast.walk(statement.args):
                if isinstance(argument, ast.arg):
                    argument.annotation = None
            if sets or names & named:
                kept.append(statement)
        elif names & named:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                statement.names = [n for n in statement.names if (n.asname or n.name) in named]
            elif isinstance(statement, ast.Assign | ast.AnnAssign):
                if statement.value is not None:
                    statement.value = ast.Constant(...)
                if isinstance(statement, ast.AnnAssign):
                    statement.annotation = ast.Constant(...)
            kept.append(statement)
    return kept


def _from_folder(place: Path, wanted: frozenset[str]) -> dict[str, str]:
    package = place / "vllm" if (place / "vllm").is_dir() else place
    return {
        path: (package / path).read_text(encoding="utf-8")
        for path in wanted
        if (package / path).is_file()
    }


def _from_wheel(place: Path, wanted: frozenset[str]) -> dict[str, str]:
    with zipfile.ZipFile(place) as wheel:
        names = set(wheel.namelist())
        return {
            path: _decoded(path, wheel.read(f"vllm/{path}"))
            for path in wanted
            if f"vllm/{path}" in names
        }


def _decoded(path: str, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SourcesError(f"expected {path} to be UTF-8 text, got other bytes") from error
