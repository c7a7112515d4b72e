"""Files that appear complete or not at all: JSON, tensors (safetensors), checksums."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

ROOT: Path = Path(__file__).resolve().parent.parent

_REMEDIES = {
    **dict.fromkeys(("EROFS", "EACCES", "EPERM"), "make its folder writable or choose another one"),
    **dict.fromkeys(("ENOSPC", "EFBIG", "EDQUOT"), "free some space"),
    **dict.fromkeys(("EISDIR", "ENOTDIR", "EEXIST", "ENOTEMPTY", "ENAMETOOLONG"), "choose another path"),
}
_ABANDONED_SECONDS = 3600.0


@contextlib.contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes the name `path` when the block ends without error.

    The caller writes a file, or makes a folder, at the yielded path. Missing parent folders are made.
    After an error (an interrupt included) the temporary is removed and an older `path` is untouched.
    Raises OSError naming `path` where the disk is full, the folder cannot be written or the path cannot be taken;
    ValueError where `path` is a device or a pipe, which a rename would destroy.
    """
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError(f"{path} is a device or a pipe: give the path of an ordinary file")
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        _remove(temporary)
        if remedy := _REMEDIES.get(errno.errorcode.get(error.errno or 0, "")):
            raise OSError(error.errno, f"cannot write {path} ({error}): {remedy}") from error
        raise
    except BaseException:
        _remove(temporary)
        raise


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _remove_abandoned(path: Path) -> None:
    # A killed process cannot clean up after itself; its temporary goes with the next write of the same
    # file, unless it is young enough to belong to another process that is writing right now.
    prefix = f".{path.name}."
    with os.scandir(path.parent) as entries:
        old = [entry for entry in entries if entry.name.startswith(prefix) and entry.name.endswith(".tmp")]
    for entry in old:
        with contextlib.suppress(OSError):
            if time.time() - entry.stat(follow_symlinks=False).st_mtime > _ABANDONED_SECONDS:
                _remove(Path(entry.path))


def _plain(value: Any) -> Any:
    # Arrays, tensors, NumPy's numbers and msgspec's structs, without waiting for the import of what they are from.
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "__struct_fields__"):
        return {name: getattr(value, name) for name in value.__struct_fields__}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    kind = type(value).__name__
    raise TypeError(f"{kind} {value!r} cannot be written as JSON: pass numbers, text, lists or dicts")


def save_json(path: str | os.PathLike[str], obj: Any) -> None:
    """Write `obj` as indented UTF-8 JSON, atomically.

    NumPy and torch values become plain numbers and lists, structs dicts, paths text; TypeError for anything else.
    """
    text = json.dumps(obj, indent=2, ensure_ascii=False, default=_plain)
    with atomic(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def load_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file. Raises FileNotFoundError where it is missing, ValueError where it is not JSON."""
    path = _file(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error!s:.300}): delete it and write it again") from error


def save_tensors(path: str | os.PathLike[str], tensors: dict[str, torch.Tensor], metadata: dict[str, Any]) -> None:
    """Write named tensors and a JSON-serializable dict to one safetensors file, atomically.

    Tensors of any device, layout and sharing are stored contiguous; the dict is kept as one JSON string
    under the metadata key "json".
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    stored, seen = {}, set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        stored[name] = tensor.clone() if storage in seen else tensor
        seen.add(storage)
    text = json.dumps(metadata, default=_plain)
    with atomic(path) as temporary:
        try:
            # safetensors makes a file that only its owner can read: give it the mode of any new file.
            temporary.touch()
            mode = temporary.stat().st_mode
            save_file(stored, temporary, metadata={"json": text})
            temporary.chmod(mode)
        except SafetensorError as error:
            raise OSError(errno.EIO, f"cannot write {path} ({error}): check the disk's free space") from error


def load_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read (tensors by name, metadata dict) from a safetensors file; nothing in it is ever executed.

    Raises FileNotFoundError where it is missing, ValueError where it is truncated, corrupt or of another
    format.
    """
    from safetensors import SafetensorError, safe_open

    path = _file(path)
    try:
        # Cloned, because a mapped file cannot be replaced on every system.
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
            metadata = json.loads((file.metadata() or {}).get("json", "{}"))
        if not isinstance(metadata, dict):
            raise ValueError(f"its metadata is a {type(metadata).__name__}, not a dict")
    except (SafetensorError, ValueError, RecursionError, RuntimeError) as error:
        raise ValueError(
            f"{path} is truncated, corrupt or not a safetensors file ({error!s:.300}): "
            "delete it and make it again with the step that wrote it"
        ) from error
    return tensors, metadata


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes as 64 hexadecimal digits. Raises FileNotFoundError where it is missing."""
    with _file(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cpu_info() -> list[str]:
    """The lines in which Linux describes its processors; none on other systems."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def _file(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder where a file is expected: check the path")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: check the path or run the step that writes it")
    return path
