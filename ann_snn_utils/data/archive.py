"""Archives of image folders, zip or tar, unpacked once; they are as untrusted as images."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Self

from ..files import atomic
from .folder import cache_folder, digest_of

_MAX_BYTES, _MAX_FILES, _MAX_HEADER_BYTES = 4 << 30, 1_000_000, 1 << 20


def unpack(archive: str | os.PathLike[str]) -> Path:
    """Unpack a zip or tar archive (any compression) once into `cache_folder()`; return its folder of images.

    Raises ValueError where it is damaged, encrypted, holds anything but plain files and folders below its top, or
    would fill more than 4 GiB or a million files.
    """
    archive = Path(archive).resolve()
    target = cache_folder() / f"{archive.name.split('.')[0]}-{digest_of(archive)[:16]}"
    if not target.is_dir():
        try:
            with atomic(target) as temporary:
                temporary.mkdir()
                _extract(archive, temporary)
        except Exception as error:
            # Another process may have put the same folder there first, which serves as well.
            if not target.is_dir():
                if isinstance(error, OSError) and error.errno not in _UNUSABLE_NAMES:
                    raise
                # As with images: damaged bytes make tarfile and zipfile fail in many ways.
                said = " ".join(str(error).split())
                raise ValueError(
                    f"archive {archive} cannot be unpacked safely ({said:.300}): fetch it again"
                ) from error
    inside = [path for path in target.iterdir() if not path.name.startswith(".") and path.name != "__MACOSX"]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else target


# Of files that cannot be made, or read, because of what an archive says of them.
_UNUSABLE_NAMES = {None, errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EINVAL}


class _Member(tarfile.TarInfo):
    # tarfile reads a member's extended header into memory whole, whatever size it announces.
    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.type not in tarfile.REGULAR_TYPES and header.size > _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {header.size} bytes")
        return header


def _extract(archive: Path, folder: Path) -> None:
    from tqdm.auto import tqdm

    with archive.open("rb") as file:
        members = _zipped if file.read(2) == b"PK" else _tarred
    total = 0
    progress = tqdm(members(archive), desc=f"unpacking {archive.name}", unit=" files")
    for count, (name, size, content) in enumerate(progress):
        total += size
        if total > _MAX_BYTES or count >= _MAX_FILES:
            raise ValueError(f"it unpacks to more than {_MAX_BYTES >> 30} GiB or {_MAX_FILES} files")
        target = folder / name
        if not Path(os.path.abspath(target)).is_relative_to(folder):
            raise ValueError(f"its entry {name!r} lies outside the destination")
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as out:
            shutil.copyfileobj(content, out)


def _tarred(archive: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Name, size and content of every file of a tar archive."""
    with tarfile.open(archive, tarinfo=_Member) as opened:
        for member in opened:
            content = opened.extractfile(member) if member.isfile() else None
            if content is not None:
                yield member.name, member.size, content
            elif not member.isdir():
                raise ValueError(f"its entry {member.name!r} is a link or a device")


def _zipped(archive: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Name, size and content of every file of a zip archive."""
    try:
        # A Mac writes UTF-8 without saying so, for which the format says cp437.
        opened = zipfile.ZipFile(archive, metadata_encoding="utf-8")
    except UnicodeDecodeError:
        opened = zipfile.ZipFile(archive)
    with opened:
        for member in opened.infolist():
            if stat.S_ISLNK(member.external_attr >> 16):
                raise ValueError(f"its entry {member.filename!r} is a link or a device")
            # Some programs of Windows write its own separator, which the format does not know.
            name = member.filename if member.create_system else member.filename.replace("\\", "/")
            if not name.endswith("/"):
                with opened.open(member) as content:
                    yield name, member.file_size, content
