"""Reading the file of --config, which stands on this computer or comes by standard input."""

from __future__ import annotations

import sys
from pathlib import Path

from kubewright.errors import ConfigError
from kubewright.model.config.documents import DEFAULT_VERSION, Documents, read_documents
from kubewright.model.config.yamltext import MOST_BYTES, decode


def read_config(
    path: Path, *, kubernetes_version: str = DEFAULT_VERSION, option: str = "--config"
) -> Documents:
    """kubeadm's kinds in a file; `-` is standard input. Raises `ConfigError` with every mistake in it."""
    text, source = read_text(path, option)
    return read_documents(text, source=source, kubernetes_version=kubernetes_version)


def read_text(path: Path, option: str = "--config") -> tuple[str, str]:
    """The text of a file and its name for messages. Raises `ConfigError` where it cannot be read."""
    if str(path) == "-":
        return decode(sys.stdin.buffer.read(MOST_BYTES + 1), "standard input"), "standard input"
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{option}: {path} cannot be read: {error.strerror}") from None
    return decode(data, str(path)), str(path)
