"""Kernels that are spoken to through files, not over the network, and that end when they are asked to."""

import shutil
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jupyter_client import AsyncKernelManager, KernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient import NotebookClient
from nbclient.util import run_sync
from nbformat import v4

# Empties a kernel. A fresh one's main module has this attribute, which a process that it begins is told.
FORGET = "%reset -f\n__spec__ = None"
# The system allows the path of a socket some hundred characters.
MAX_TEMPORARY = 60


class LocalSockets(KernelManager):
    """Keeps the sockets of a kernel in a temporary folder of its own, and its noise away from the terminal.

    What cells write is sent. What the process itself writes is of sockets that close in an unlucky order at its end.
    The kernel is this process's own Python, whatever an installed kernel of the wanted name would run.
    """

    kernel_spec = KernelSpec(
        argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], name="python3", language="python"
    )

    def __init__(self, **options) -> None:
        short = len(tempfile.gettempdir()) <= MAX_TEMPORARY
        folder = tempfile.mkdtemp(prefix="llmva-", dir=None if short else "/tmp")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        super().__init__(transport="ipc", connection_file=str(Path(folder, "kernel.json")), **options)

    def start_kernel(self, **options):
        """Start the kernel; the caller of an asynchronous one awaits that."""
        return super().start_kernel(**{"stderr": subprocess.DEVNULL} | options)


class AsyncLocalKernel(LocalSockets, AsyncKernelManager):
    """A kernel that is asked to end, and whose caller awaits that; only one that does not answer is stopped."""

    async def shutdown_kernel(self, now: bool = False, restart: bool = False) -> None:
        """Ask the kernel to end, and wait.

        jupyter_client interrupts a kernel before it asks, or, with `now`, kills it: a busy kernel reports that.
        """
        if self.has_kernel:
            await self.request_shutdown(restart=restart)
            await self.finish_shutdown(restart=restart)
        await super().shutdown_kernel(now=now, restart=restart)


@contextmanager
def warm_kernel() -> Iterator[AsyncLocalKernel]:
    """Give several notebooks one kernel, which begins with the first and ends with the block.

    What they import is there already for the second one; `forget` takes away what they define.
    """
    kernel = AsyncLocalKernel(kernel_name="python3")
    try:
        yield kernel
    finally:
        if kernel.has_kernel:
            run_sync(kernel.shutdown_kernel)()


def forget(kernel: AsyncLocalKernel) -> None:
    """Empty a kernel of all names, outputs and history, as a fresh one is."""
    NotebookClient(v4.new_notebook(cells=[v4.new_code_cell(FORGET)]), km=kernel).execute()
