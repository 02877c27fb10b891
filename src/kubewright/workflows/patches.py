"""Reading a directory of patches, on the computer on which the command was typed."""

from __future__ import annotations

from pathlib import Path

from kubewright.errors import ConfigError
from kubewright.model.patches import Patch, parse_file

_HINT = "a directory of files named target[suffix][+patchtype].extension, such as kube-apiserver0+merge.yaml"


def read_patches(directory: str | Path) -> tuple[Patch, ...]:
    """All patches below a directory, in the order of their files' paths; none where no directory is named.

    Raises `ConfigError` for what is no directory, cannot be read, or is no patch by its content.
    """
    if not str(directory):
        return ()
    folder = Path(directory).expanduser()
    if not folder.is_dir():
        raise ConfigError(f"patches: {folder} is not a directory", hint=_HINT)
    patches: list[Patch] = []
    try:
        for path in sorted(file for file in folder.rglob("*") if file.is_file()):
            patches += parse_file(path.name, path.read_text())
    except OSError as error:
        raise ConfigError(f"patches: {error.filename}: {error.strerror}", hint=_HINT) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"patches: {path} is not text", hint=_HINT) from error
    return tuple(patches)
