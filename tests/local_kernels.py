"""A plugin of pytest: nbval starts its kernels as the commands do (`-p tests.local_kernels`)."""

import nbval.kernel

from llmva.commands.kernels import LocalKernel

nbval.kernel.KernelManager = LocalKernel
