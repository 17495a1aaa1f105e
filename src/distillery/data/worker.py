"""A process that makes views: `python -m distillery.data.worker`, started by `workers.py` and by nobody else.

It reads slot numbers and rows of numbers from a socket, puts the views into memory that it shares with its parent, and
says when they are there. It ends when the other end of the socket is closed, which the system does when the parent
ends, however it ends.
"""

from __future__ import annotations

import mmap
import os
import sys
from contextlib import suppress
from multiprocessing.connection import Connection

PATIENCE = 5.0  # seconds between two looks whether the parent is still there, should another process hold its socket


def main(argv: list[str]) -> None:
    """Serve until the parent is gone.

    Args:
        argv: the descriptors of socket and shared memory, the parent's pid; images a slot, height, width; the blob.
    """
    socket, memory, parent, images, height, width = map(int, argv[:6])
    connection = Connection(socket)
    from distillery.data.cutting import silenced

    with suppress(EOFError, ConnectionError), silenced():
        serve(connection, memory, parent, (images, 3, height, width), argv[6])


def serve(connection: Connection, memory: int, parent: int, shape: tuple[int, ...], path: str) -> None:
    """Answer (slot, (n, 13) rows) by (slot, None), or (slot, (offset, why)) for an image that cannot be decoded."""
    import numpy as np
    import torch

    from distillery.data.blob import Blob
    from distillery.data.cutting import Undecodable, cut
    from distillery.errors import DistilleryError

    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    slots = np.frombuffer(mmap.mmap(memory, 0), dtype=np.uint8).reshape(-1, *shape)
    blob = None
    while True:
        while not connection.poll(PATIENCE):
            if os.getppid() != parent:
                return
        slot, rows = connection.recv()
        said = None
        try:
            blob = blob or Blob(path)  # type: ignore[arg-type]
            for row, into in zip(rows, slots[slot], strict=False):  # the last views of an epoch may leave some unused
                cut(blob, row, into, shorten=True)
        except Undecodable as error:
            said = (error.offset, error.why)
        except DistilleryError as error:
            said = (-1, str(error))
        connection.send((slot, said))


if __name__ == "__main__":
    main(sys.argv[1:])
