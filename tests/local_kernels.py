"""A plugin of pytest: nbval starts its kernels as the commands do (`-p tests.local_kernels`)."""

import nbval.kernel

from llmva.commands.kernels import LocalSockets


class LocalKernel(LocalSockets):
    """The kernel of the commands, for a caller that waits: nbval awaits nothing."""

    def shutdown_kernel(self, now: bool = False, restart: bool = False) -> None:
        """Ask the kernel to end; see `AsyncLocalKernel`."""
        if self.has_kernel:
            self.request_shutdown(restart=restart)
            self.finish_shutdown(restart=restart)
        super().shutdown_kernel(now=now, restart=restart)


nbval.kernel.KernelManager = LocalKernel
