"""Every public set that the paper names: its home on the hub, its files, its licence, and how one row is read."""

from dataclasses import dataclass, replace

from llmva.core.vocabulary import SAFETY_SETS, TRANSFER_SETS
from llmva.prompts.public import rows

GATED_FIX = "it is gated: log in with `hf auth login`, accept its terms at {page}, or put its file at {file}"
HUB_PAGES = "https://huggingface.co/datasets/"
OR_BENCH_REVISION = "e36d8b80e81837c8a8f264bbb2a49f1b32c7e272"


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
        What makes a prompt of one raw row; see `rows.Parser`.
    files : tuple of str
        Patterns of its files below LLMVA_DATA; the first that is there is read. The first is a plain name, for people.
    licence, home : str
        The licence as its authors give it, and where to get the files.
    hub : Hub or None
        None where the set is not on the hub.
    neutral, neutral_files
        Of a task: the rows whose replies are held still, never measured.
    columns : tuple of str or None
        Names of the columns of a table without a header.
    """

    part: str
    parse: rows.Parser
    files: tuple[str, ...]
    licence: str
    home: str
    hub: Hub | None = None
    neutral: Hub | None = None
    neutral_files: tuple[str, ...] = ()
    columns: tuple[str, ...] | None = None


def _prompts(
    name: str, *files: str, licence: str, home: str = "", hub: Hub | None = None, read=rows.labelled
) -> DataSet:
    part, label = ("safety", SAFETY_SETS[name]) if name in SAFETY_SETS else ("transfer", TRANSFER_SETS[name])
    return DataSet(part, read(label), files, licence, home or HUB_PAGES + hub.id, hub)


def _seval(name: str, kind: str) -> DataSet:
    files = (f"S-Eval_{kind}_en_small.jsonl.zip", f"**/*{kind}_en_small*", f"**/*{kind}_set_en_small*")
    licence = "CC BY-NC-SA 4.0, not to be redistributed without the authors' permission"
    hub = Hub("IS2Lab/S-Eval", f"{kind}_set_en_small")
    return _prompts(name, *(f"s_eval/{file}" for file in files), licence=licence, hub=hub)


def _or_bench(name: str, config: str) -> DataSet:
    hub = Hub("bench-llm/or-bench", config, revision=OR_BENCH_REVISION)
    return _prompts(name, f"or_bench/{config}.csv", f"or_bench/{config}*", licence="CC BY 4.0", hub=hub)


def _xstest(name: str) -> DataSet:
    files = ("xstest/xstest_prompts.csv", "xstest/xstest*.csv", "xstest/*.parquet")
    home = "https://github.com/paul-rottger/xstest"
    return _prompts(name, *files, licence="CC BY 4.0", home=home, hub=Hub("Paul/XSTest"), read=rows.xstest)


def _task(parse: rows.Parser, hub: Hub, files: tuple[str, ...], neutral_files: tuple[str, ...], **more) -> DataSet:
    neutral = replace(hub, split="train")
    home = HUB_PAGES + hub.id
    return DataSet("utility", parse, files, home=home, hub=hub, neutral=neutral, neutral_files=neutral_files, **more)


def _glue(task: str, validation: str = "validation", **more) -> DataSet:
    def files(*splits: str) -> tuple[str, ...]:
        # As their home on the hub has them, and as others do.
        home = f"glue/{task}/{splits[0]}-00000-of-00001.parquet"
        return (home, *(f"glue/{task}/{split}.*" for split in splits))

    hub = Hub("nyu-mll/glue", task, validation)
    return _task(
        rows.glue(task), hub, files(validation, validation.replace("validation", "dev")), files("train"), **more
    )


PUBLIC_SETS = {
    "seval_attack": _seval("seval_attack", "attack"),
    "seval_risk": _seval("seval_risk", "base_risk"),
    "orfuzzset": _prompts(
        "orfuzzset",
        # Not *.csv: another file of its home has AdvBench's toxic prompts in templates.
        "orfuzz/ORFuzz.csv",
        licence="none stated (500 of its rows are MIT, with the LLM-VA repository)",
        home="https://github.com/HotBento/ORFuzz, ORFuzz_dataset/ORFuzz.csv",
    ),
    "nq": _prompts(
        "nq",
        *("nq_open/NQ-open.dev.jsonl", "nq_open/*dev*.jsonl", "nq/*"),
        licence="CC BY-SA 3.0",
        hub=Hub("google-research-datasets/nq_open", "nq_open", "validation"),
    ),
    "advbench": _prompts(
        "advbench",
        *("advbench/harmful_behaviors.csv", "advbench/train*.parquet"),
        licence="MIT",
        home="https://github.com/llm-attacks/llm-attacks, data/advbench/harmful_behaviors.csv",
        hub=Hub("walledai/AdvBench", gated=True),
    ),
    "orbench_toxic": _or_bench("orbench_toxic", "or-bench-toxic"),
    "orbench": _or_bench("orbench", "or-bench-hard-1k"),
    "xstest_toxic": _xstest("xstest_toxic"),
    "xstest": _xstest("xstest"),
    "cola": _glue("cola", licence="none stated", columns=("source", "label", "mark", "sentence")),
    "mnli": _glue("mnli", "validation_matched", licence="OANC, CC BY 3.0, CC BY-SA 3.0, by genre"),
    "rte": _glue("rte", licence="none stated"),
    "mrpc": _glue("mrpc", licence="MSR-SSLA, non-commercial"),
    "sst": _glue("sst2", licence="none stated"),
    "gsm": _task(
        rows.gsm,
        Hub("openai/gsm8k", "main", "test"),
        files=("gsm8k/test.jsonl", "gsm8k/main/test*"),
        neutral_files=("gsm8k/train.jsonl", "gsm8k/train*.jsonl", "gsm8k/main/train*"),
        licence="MIT",
    ),
}
