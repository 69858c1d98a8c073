"""What a service does about signals before it can handle them."""

from __future__ import annotations

import signal
import threading


def ignore_hangups() -> None:
    """Ignore SIGHUP until the service handles it: it asks for files to be read, which are about to be read anyway."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
