"""A plugin of pytest: nbval runs notebooks as the commands do, in one kernel (`-p tests.local_kernels`)."""

from queue import Empty

import nbval.kernel
import nbval.plugin

from llmva.commands.kernels import FORGET, LocalSockets

# Seconds in which a kernel that is not busy forgets everything.
PATIENCE = 30


class LocalKernel(LocalSockets):
    """The kernel of the commands, for a caller that waits: nbval awaits nothing."""

    def shutdown_kernel(self, now: bool = False, restart: bool = False) -> None:
        """Ask the kernel to end; see `AsyncLocalKernel`."""
        if self.has_kernel:
            self.request_shutdown(restart=restart)
            self.finish_shutdown(restart=restart)
        super().shutdown_kernel(now=now, restart=restart)


class SharedKernel(nbval.kernel.RunningKernel):
    """The kernel of all notebooks of a folder: emptied after each, and ended with the tests, or when it hangs."""

    shared: "SharedKernel | None" = None

    def __init__(self, kernel_name, cwd=None, startup_timeout=60) -> None:
        self.place, known = (kernel_name, cwd), SharedKernel.shared
        if known is not None and known.is_alive() and known.place == self.place:
            self.km, self.kc = known.km, known.kc
            return
        end_shared_kernel()
        super().__init__(kernel_name, cwd, startup_timeout)
        SharedKernel.shared = self

    def stop(self) -> None:
        """Empty the kernel for the next notebook."""
        try:
            self.await_reply(self.execute_cell_input(FORGET), timeout=PATIENCE)
        except Empty:
            end_shared_kernel()


def end_shared_kernel() -> None:
    """End the kernel, if there is one."""
    known, SharedKernel.shared = SharedKernel.shared, None
    if known is not None and known.is_alive():
        super(SharedKernel, known).stop()


def pytest_unconfigure() -> None:
    """End the kernel with the tests."""
    end_shared_kernel()


nbval.kernel.KernelManager = LocalKernel
nbval.plugin.RunningKernel = SharedKernel
