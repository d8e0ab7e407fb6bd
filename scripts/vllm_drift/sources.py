"""Python files of one vLLM: from a folder, a wheel, or an archive of a few of its files."""

from __future__ import annotations

import re
import tarfile
import zipfile
from pathlib import Path

VERSION_FILE = "_version.py"
FILE_BYTES_MAX = 4 << 20
FILES_MAX = 20_000


class SourcesError(Exception):
    """What was named holds no sources of vLLM."""


class Sources:
    """Files of vLLM's package by their path in it, as ``v1/engine/core.py``."""

    def __init__(self, place: str, files: dict[str, str]) -> None:
        """Keep ``files``; ``place`` is what they were read from, for messages.

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

    def read(self, path: str) -> str | None:
        """The text of one file; ``None`` if this vLLM has none there."""
        return self._files.get(path)


def open_sources(place: Path, wanted: frozenset[str]) -> Sources:
    """Read the ``wanted`` files of vLLM's package, and its version, from ``place``.

    Args:
        place: a wheel, a ``.tar.xz`` with ``vllm/``, or a folder that is or holds ``vllm/``.
        wanted: paths inside the package; others are not read.

    Raises:
        SourcesError: there is no such place, or no vLLM in it.
    """
    wanted = wanted | {VERSION_FILE}
    try:
        if place.is_dir():
            files = _from_folder(place, wanted)
        elif zipfile.is_zipfile(place):
            files = _from_wheel(place, wanted)
        else:
            files = _from_archive(place, wanted)
    except (OSError, tarfile.TarError, zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise SourcesError(
            f"expected a wheel, an archive or a folder of vLLM at {place}, "
            f"got {type(error).__name__}: {error}; name one, or a version"
        ) from error
    return Sources(str(place), files)


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


def _from_archive(place: Path, wanted: frozenset[str]) -> dict[str, str]:
    files = {}
    with tarfile.open(place, "r:*") as archive:
        for count, member in enumerate(archive):
            if count >= FILES_MAX:
                raise tarfile.ReadError(f"more than {FILES_MAX} files")
            path = member.name.removeprefix("./").removeprefix("vllm/")
            if path in wanted and member.isfile() and member.size <= FILE_BYTES_MAX:
                stream = archive.extractfile(member)
                assert stream is not None  # it is a file
                files[path] = _decoded(path, stream.read())
    return files


def _decoded(path: str, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SourcesError(f"expected {path} to be UTF-8 text, got other bytes") from error
