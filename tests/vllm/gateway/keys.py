"""Keys of a scheduler that knows identities."""

from __future__ import annotations

import hashlib
from pathlib import Path

KEYS = {name: f"key-of-{name}-0123456789abcdef" for name in ("chat", "watcher", "executor")}

_GRANTS = {
    "chat": 'role = "application"\ntenant = "chat-team"',
    "watcher": 'role = "observer"',
    "executor": 'role = "executor"\ninstances = ["*"]',
}


def write_keys(directory: Path) -> Path:
    """Write the keys file."""
    file = directory / "keys.toml"
    entries = [
        f'[[key]]\nname = "{name}"\nsha256 = "{hashlib.sha256(key.encode()).hexdigest()}"\n{_GRANTS[name]}\n'
        for name, key in KEYS.items()
    ]
    file.write_text("\n".join(entries))
    file.chmod(0o600)
    return file


def write_token(directory: Path, name: str) -> Path:
    """Write the key of an identity to a file of its own."""
    file = directory / f"{name}.token"
    file.write_text(KEYS[name])
    file.chmod(0o600)
    return file
