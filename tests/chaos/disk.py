"""The disk of a home: a small tmpfs where mounting is permitted, which can be filled to its last byte and emptied again."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

_CHUNK = b"\0" * (1 << 20)


class Disk:
    """A folder that is a file system of its own; where none may be mounted, an ordinary one, and ``why_not`` says why."""

    def __init__(self, folder: Path, size_mb: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m,mode=700", "tmpfs", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            self.why_not = done.stderr.strip() if done.returncode else ""
        except OSError as error:
            self.why_not = f"mount: {error.strerror}"
        self._ballast = folder / "ballast"

    def fill(self) -> int:
        """Leave no byte free; returns how many were."""
        assert not self.why_not
        free = shutil.disk_usage(self.folder).free
        with self._ballast.open("wb", buffering=0) as out, contextlib.suppress(OSError):
            os.posix_fallocate(out.fileno(), 0, max(1, free - len(_CHUNK)))
            out.seek(0, os.SEEK_END)
            # Others write meanwhile: what is left is taken page by page.
            while True:
                out.write(_CHUNK)
        return free

    def empty(self) -> None:
        """Give the room back."""
        self._ballast.unlink(missing_ok=True)

    def unmount(self) -> None:
        """Give the memory back; whatever lay there is gone. Processes that are ending may hold it for a moment longer."""
        if not self.why_not and os.path.ismount(self.folder):
            subprocess.run(["umount", "--lazy", str(self.folder)], check=False)
