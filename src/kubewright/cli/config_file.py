"""Reading the file of --config, which stands on this computer or comes by standard input."""

from __future__ import annotations

import sys
from pathlib import Path

from kubewright.errors import ConfigError
from kubewright.model.config.documents import Documents, read_documents


def read_config(path: Path) -> Documents:
    """kubeadm's kinds in a file; `-` is standard input. Raises `ConfigError` with every mistake in it."""
    text, source = read_text(path)
    return read_documents(text, source=source)


def read_text(path: Path) -> tuple[str, str]:
    """The text of a file and its name for messages. Raises `ConfigError` where it cannot be read."""
    if str(path) == "-":
        return sys.stdin.read(), "standard input"
    try:
        return path.read_text(encoding="utf-8"), str(path)
    except OSError as error:
        raise ConfigError(f"--config: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"--config: {path} is not text in UTF-8") from None
