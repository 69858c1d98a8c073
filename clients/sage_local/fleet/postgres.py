"""Runs PostgreSQL for a local fleet: ``python -m sage_local.fleet.postgres DIR``.

The cluster is made in DIR at the first start.  The server listens on a Unix socket in DIR alone, which is its owner's:
whoever may read the folder may use the database.
"""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

DEBIAN_BINARIES = "/usr/lib/postgresql/*/bin"
USER = "sage"
DATABASE = "postgres"

SOCKET_PATH_BYTES = 90
"""Longest path of DIR: the kernel takes 107 bytes with the socket's name."""


def binaries() -> Path | None:
    """Return the folder with ``initdb`` and ``postgres``; None where PostgreSQL is not installed."""
    if (found := shutil.which("initdb")) is not None:
        return Path(found).resolve().parent
    folders = sorted(glob.glob(DEBIAN_BINARIES), key=lambda each: int(each.split("/")[-2]))
    return Path(folders[-1]) if folders else None


def url(folder: Path) -> str:
    """Return the database URL of the server in a folder, as ``journal.url`` takes it."""
    return f"postgresql://{USER}@/{DATABASE}?host={quote(str(folder), safe='')}"


def why_not(folder: Path) -> str:
    """Return why no server can run in a folder; empty if one can."""
    if binaries() is None:
        return "PostgreSQL is not installed (Debian and Ubuntu: apt-get install postgresql)"
    if len(os.fsencode(folder)) > SOCKET_PATH_BYTES:
        return f"{folder}: the path is too long for a socket of PostgreSQL; set SAGE_HOME to a shorter one"
    return ""


def main() -> None:
    """Make the cluster if it is not there, and become the server."""
    folder = Path(sys.argv[1])
    found = binaries()
    if found is None:
        sys.exit(why_not(folder))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _become_postgres(folder)
    os.chdir(folder)
    if not (folder / "data" / "PG_VERSION").exists():
        initdb = [found / "initdb", "-D", folder / "data", "-U", USER, "-A", "trust", "-E", "UTF8"]
        made = subprocess.run([str(each) for each in initdb], stdout=subprocess.DEVNULL, check=False)
        if made.returncode:
            sys.exit(f"initdb ended with status {made.returncode}")
    (folder / "data" / "postmaster.pid").unlink(missing_ok=True)  # the supervisor runs one server at a time
    server = str(found / "postgres")
    socket_only = ["-h", "", "-k", str(folder), "-c", "unix_socket_permissions=0700"]
    os.execv(server, [server, "-D", str(folder / "data"), *socket_only])


def _become_postgres(folder: Path) -> None:
    """Give up root, which the server refuses to run as."""
    if os.geteuid() != 0:
        return
    user = pwd.getpwnam("postgres")
    os.chown(folder, user.pw_uid, user.pw_gid)
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)


if __name__ == "__main__":
    main()
