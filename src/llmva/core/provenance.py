"""Where a result comes from: digests, seeds, versions."""

import hashlib
import json
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import numpy

from llmva.core.paths import ROOT

RECORDED_PACKAGES = ("llmva", "torch", "transformers", "tokenizers", "numpy", "scipy", "scikit-learn", "pandas")


def digest(value: object) -> str:
    """Return the SHA-256 of a JSON-like value, independent of the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def code_digest() -> str:
    """Return the digest of the package's own source: what a measured time depends on, beside the machine."""
    folder = Path(__file__).parents[1]
    return digest({str(path.relative_to(folder)): file_digest(path) for path in folder.rglob("*.py")})


def seed_for(seed: int, *purpose: object) -> int:
    """Derive a 63-bit seed from a study's seed and what the draw is for.

    Draws for different purposes are independent, and none depends on the order of calls.
    """
    name = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def random_generator(seed: int, *purpose: object) -> numpy.random.Generator:
    """Return NumPy's generator seeded by `seed_for`."""
    return numpy.random.default_rng(seed_for(seed, *purpose))


def environment() -> dict[str, str]:
    """Return the versions a manifest records: packages, Python, machine, commit."""
    return {
        **{name: package_version(name) for name in RECORDED_PACKAGES},
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "commit": _commit(),
    }


def processor() -> str:
    """Return what floating-point results depend on beside the code: the processor's model and its vector units.

    The units are those that torch uses, which the environment may restrict.
    """
    import torch  # Slow, and needed here alone.

    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.is_file() else []
    facts = dict(reversed([[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line]))
    names = [facts[name] for name in ("vendor_id", "cpu family", "model") if name in facts]
    return " ".join([*(names or [platform.processor() or platform.machine()]), torch.backends.cpu.get_cpu_capability()])


def multiplies_bfloat16() -> bool:
    """Tell whether the processor multiplies bfloat16 matrices in hardware; elsewhere float32 is faster."""
    import torch  # As above.

    units = getattr(torch.cpu, "get_capabilities", dict)()
    return any(units.get(name, False) for name in ("amx_bf16", "avx512_bf16", "bf16"))


def package_version(package: str) -> str:
    """Return an installed package's version, or `absent`."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown"
    return answer.stdout.strip() or "unknown"
