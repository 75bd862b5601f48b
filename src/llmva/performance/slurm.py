"""What to ask a cluster for: the options of SLURM's `srun` that a plan needs."""

import math

from llmva.models.chat_model import SHARE_FOR_WEIGHTS
from llmva.performance.plan import APART, UNEDITED, Plan
from llmva.performance.runtime_plan import RuntimePlan

# A plan errs by half of itself now and then; a run that is cut off goes on where it was.
SPARE_TIME, SPARE_MEMORY = 2, 1.25
# Of Python and its packages, and of what the system keeps of files.
OVERHEAD = 4e9


def suggest_launch(plan: Plan | RuntimePlan) -> str:
    """Return `srun` with the cores, GPUs, memory and time that a study of one model needs.

    On GPUs the CPU's memory holds activations and the originals of edited weights; on a CPU also all else.
    """
    memory, machine = plan.memory(), plan.machine
    gpus = 0 if machine.threads else _count_gpus(memory, machine.memory)
    held = plan.host_memory() + OVERHEAD + (0 if gpus else sum(memory.values()))
    options = ["-n1", f"-c{max(1, plan.params.threads)}", f"--mem={math.ceil(SPARE_MEMORY * held / 1e9)}G"]
    options += [f"--gpus={gpus}"] if gpus else []
    stages = plan.stages()
    hours = stages.loc[~stages.index.str.startswith(APART), "hours"].sum()
    return " ".join(["srun", *options, f"--time={_clock(SPARE_TIME * hours)}"])


def _count_gpus(memory: dict[str, float], room: float) -> int:
    weights = memory["model"] + memory.get(UNEDITED, 0) + memory["judge"]
    return max(1, math.ceil(weights / (SHARE_FOR_WEIGHTS * room)))


def _clock(hours: float) -> str:
    minutes = max(10, math.ceil(60 * hours))
    return f"{minutes // 60:02d}:{minutes % 60:02d}:00"
