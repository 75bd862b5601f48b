"""AlphaSteer+: AlphaSteer that spares what the model handles rightly, instead of benign data in general."""

import numpy

from llmva.steering.base import TrainingData
from llmva.steering.baselines.alpha_steer import AlphaSteer

MIN_JAILBROKEN = 32


class AlphaSteerPlus(AlphaSteer):
    """AlphaSteer with its null space from correctly answered samples (LLM-VA paper, baselines).

    The paper names no more than that. Here the gate opens for toxic prompts that were answered, or for all
    toxic ones where fewer than 32 were. "Correct" can be read in two ways, and both are tried: variant `benign`
    spares answered benign prompts; variant `benign and refused toxic` also spares refused toxic ones, which
    pins what resembles them too. Neutral prompts are not used.
    """

    name = "AlphaSteer+"
    reads = "the same, of prompts handled rightly"
    acts = "block inputs at the prompt, through a gate"
    spares_neutral = False
    variants = ("benign", "benign and refused toxic")

    def samples(self, training: TrainingData) -> dict[str, tuple[numpy.ndarray, numpy.ndarray]]:
        """Return by variant which training rows are spared and which open the gate, two masks (n,)."""
        toxic = training.benign == -1
        jailbroken = toxic & (training.answered == 1)
        harmful = jailbroken if jailbroken.sum() >= MIN_JAILBROKEN else toxic
        spared = training.right & ~toxic, training.right
        return {variant: (rows, harmful) for variant, rows in zip(self.variants, spared, strict=True)}
