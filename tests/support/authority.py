"""A certificate authority for tests, and the certificates that it signs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")


def openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=100)


class Authority:
    """Signs certificates; all keys lie in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.certificate, self._key = directory / "ca.pem", directory / "ca.key"
        directory.mkdir(exist_ok=True)
        openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", 2),
            *("-subj", "/CN=sage-test-authority", "-keyout", self._key, "-out", self.certificate),
        )

    def issue(self, name: str, *names: str, days: int = 2) -> tuple[Path, Path]:
        """A certificate with its key, for 127.0.0.1 and further alternative names, such as ``URI:spiffe://x``.

        ``days``: from now until it ends.
        """
        certificate, key = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        asked, extensions = self.directory / f"{name}.csr", self.directory / "extensions"
        extensions.write_text(f"subjectAltName={','.join(('IP:127.0.0.1', *names))}")
        openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", f"/CN={name}", "-keyout", key, "-out", asked),
        )
        openssl(
            *("x509", "-req", "-in", asked, "-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial"),
            *("-days", days, "-extfile", extensions, "-out", certificate),
        )
        return certificate, key
