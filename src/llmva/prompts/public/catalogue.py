"""Every public set that the paper names: its home on the hub, its files, its licence, and how one row is read."""

from collections.abc import Callable
from dataclasses import dataclass

from llmva.prompts.public import rows

BENIGN, TOXIC = "benign", "toxic"
GATED = (
    "it is gated: log in with `hf auth login`, accept its terms at https://huggingface.co/datasets/{id}, "
    "or put its file at {file}"
)


@dataclass(frozen=True)
class Hub:
    """A set on the hub: its id, configuration, split and revision (a commit; empty where none is known)."""

    id: str
    config: str | None = None
    split: str = "train"
    revision: str = ""
    gated: bool = False


@dataclass(frozen=True)
class DataSet:
    """A public set of prompts, or of tasks.

    Attributes
    ----------
    part : str
        `safety`, `transfer` or `utility`: the folder that its rows go to.
    parse : callable
        One raw row to `rows.Prompt`, `rows.Task`, or None where the row belongs to another set.
    hub : Hub or None
        None where the set is not on the hub.
    files : tuple of str
        Patterns of its files below LLMVA_DATA; the first that is there is read. The first is a plain name, for people.
    licence : str
        As its authors give it.
    home : str
        Where to get the files.
    neutral : Hub or None
        Of a task: the rows whose replies are held still, never measured.
    neutral_files, columns
        Likewise; and the names of columns in a table without a header.
    """

    part: str
    parse: Callable[[dict], rows.Prompt | rows.Task | None]
    files: tuple[str, ...]
    licence: str
    home: str
    hub: Hub | None = None
    neutral: Hub | None = None
    neutral_files: tuple[str, ...] = ()
    columns: tuple[str, ...] | None = None


SEVAL = {
    "licence": "CC BY-NC-SA 4.0, not to be redistributed without the authors' permission",
    "home": "https://huggingface.co/datasets/IS2Lab/S-Eval",
}
OR_BENCH = {"licence": "CC BY 4.0", "home": "https://huggingface.co/datasets/bench-llm/or-bench"}
OR_REVISION = "e36d8b80e81837c8a8f264bbb2a49f1b32c7e272"
XSTEST = {
    "files": ("xstest/xstest_prompts.csv", "xstest/xstest*.csv", "xstest/*.parquet"),
    "licence": "CC BY 4.0",
    "home": "https://github.com/paul-rottger/xstest",
    "hub": Hub("Paul/XSTest"),
}


def _glue(task: str, licence: str, parse: Callable, validation: str = "validation", columns=None) -> DataSet:
    def files(*splits: str) -> tuple[str, ...]:
        # As their home on the hub has them, and as others do.
        home = f"glue/{task}/{splits[0]}-00000-of-00001.parquet"
        return (home, *(f"glue/{task}/{split}.*" for split in splits))

    return DataSet(
        "utility",
        parse,
        files=files(validation, validation.replace("validation", "dev")),
        neutral_files=files("train"),
        licence=licence,
        home="https://huggingface.co/datasets/nyu-mll/glue",
        hub=Hub("nyu-mll/glue", task, validation),
        neutral=Hub("nyu-mll/glue", task, "train"),
        columns=columns,
    )


SETS = {
    "seval_attack": DataSet(
        "safety",
        rows.labelled(TOXIC),
        files=(
            "s_eval/S-Eval_attack_en_small.jsonl.zip",
            "s_eval/**/*attack_en_small*",
            "s_eval/**/*attack_set_en_small*",
        ),
        hub=Hub("IS2Lab/S-Eval", "attack_set_en_small"),
        **SEVAL,
    ),
    "seval_risk": DataSet(
        "safety",
        rows.labelled(TOXIC),
        files=(
            "s_eval/S-Eval_base_risk_en_small.jsonl.zip",
            "s_eval/**/*base_risk_en_small*",
            "s_eval/**/*base_risk_set_en_small*",
        ),
        hub=Hub("IS2Lab/S-Eval", "base_risk_set_en_small"),
        **SEVAL,
    ),
    "orfuzzset": DataSet(
        "safety",
        rows.labelled(BENIGN),
        # Not *.csv: another file of its home has AdvBench's toxic prompts in templates.
        files=("orfuzz/ORFuzz.csv",),
        licence="none stated (500 of its rows are MIT, with the LLM-VA repository)",
        home="https://github.com/HotBento/ORFuzz, ORFuzz_dataset/ORFuzz.csv",
    ),
    "nq": DataSet(
        "safety",
        rows.labelled(BENIGN),
        files=("nq_open/NQ-open.dev.jsonl", "nq_open/*dev*.jsonl", "nq/*"),
        licence="CC BY-SA 3.0",
        home="https://huggingface.co/datasets/google-research-datasets/nq_open",
        hub=Hub("google-research-datasets/nq_open", "nq_open", "validation"),
    ),
    "advbench": DataSet(
        "transfer",
        rows.labelled(TOXIC),
        files=("advbench/harmful_behaviors.csv", "advbench/train*.parquet"),
        licence="MIT",
        home="https://github.com/llm-attacks/llm-attacks, data/advbench/harmful_behaviors.csv",
        hub=Hub("walledai/AdvBench", gated=True),
    ),
    "orbench_toxic": DataSet(
        "transfer",
        rows.labelled(TOXIC),
        files=("or_bench/or-bench-toxic.csv", "or_bench/or-bench-toxic*"),
        hub=Hub("bench-llm/or-bench", "or-bench-toxic", revision=OR_REVISION),
        **OR_BENCH,
    ),
    "orbench": DataSet(
        "transfer",
        rows.labelled(BENIGN),
        files=("or_bench/or-bench-hard-1k.csv", "or_bench/or-bench-hard-1k*"),
        hub=Hub("bench-llm/or-bench", "or-bench-hard-1k", revision=OR_REVISION),
        **OR_BENCH,
    ),
    "xstest_toxic": DataSet("transfer", rows.xstest(TOXIC), **XSTEST),
    "xstest": DataSet("transfer", rows.xstest(BENIGN), **XSTEST),
    "cola": _glue("cola", "none stated", rows.cola, columns=("source", "label", "mark", "sentence")),
    "mnli": _glue("mnli", "OANC, CC BY 3.0, CC BY-SA 3.0, by genre", rows.mnli, "validation_matched"),
    "rte": _glue("rte", "none stated", rows.rte),
    "mrpc": _glue("mrpc", "MSR-SSLA, non-commercial", rows.mrpc),
    "sst": _glue("sst2", "none stated", rows.sst),
    "gsm": DataSet(
        "utility",
        rows.gsm,
        files=("gsm8k/test.jsonl", "gsm8k/main/test*"),
        neutral_files=("gsm8k/train.jsonl", "gsm8k/train*.jsonl", "gsm8k/main/train*"),
        licence="MIT",
        home="https://huggingface.co/datasets/openai/gsm8k",
        hub=Hub("openai/gsm8k", "main", "test"),
        neutral=Hub("openai/gsm8k", "main", "train"),
    ),
}
