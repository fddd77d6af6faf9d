"""Arrays that grow on disk, in files without a name that go with them, and are then mapped into memory."""

import tempfile
from typing import Any

import numpy as np

from distill.utils.errors import UserError


class SpooledArray:
    """Takes parts of an array, which are never in memory together, and returns the whole.

    Args:
        dtype: of the array.
        shape: of one of its rows.
    """

    def __init__(self, dtype: Any, shape: tuple[int, ...] = ()) -> None:
        self.dtype, self.shape = np.dtype(dtype), shape
        self.file = tempfile.TemporaryFile()  # noqa: SIM115, it lives as long as the array does

    def append(self, part: np.ndarray) -> None:
        """Write a part behind those before it.

        Raises:
            UserError: there is no room on the disk.
        """
        try:
            self.file.write(np.ascontiguousarray(part, self.dtype).tobytes())
        except OSError as error:
            raise _no_room(error) from error

    def finish(self) -> np.ndarray:
        """Return all parts as one array, of which those pages are in memory that are read.

        Raises:
            UserError: there is no room on the disk.
        """
        try:
            self.file.flush()
        except OSError as error:
            raise _no_room(error) from error
        if self.file.tell() == 0:
            return np.zeros((0, *self.shape), self.dtype)
        return np.memmap(self.file, self.dtype, "r").view(np.ndarray).reshape(-1, *self.shape)


def _no_room(error: OSError) -> UserError:
    where = tempfile.gettempdir()
    return UserError(f"cannot write the tokens of a text to {where}: {error.strerror}; export TMPDIR=FOLDER with room")
