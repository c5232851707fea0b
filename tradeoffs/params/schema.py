"""What params.yaml holds: every section and every block of a catalogue, as frozen dataclasses.

A field of type `X | None` may be left out; all others must be there.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from tradeoffs.methods.trl_stages import STAGES
from tradeoffs.params.fields import (
    Count,
    Dtype,
    Load,
    MergeOnto,
    NonNegative,
    Positive,
    PositiveFloat,
    Precisions,
    Quants,
    Range,
    Schedule,
)
from tradeoffs.plumbing.live import LOGGERS


@dataclass(frozen=True)
class Run:
    models: list[str]
    datasets: list[str]
    methods: list[str]
    precisions: Precisions
    quants: Quants
    seeds: list[Count]


@dataclass(frozen=True)
class Launch:
    train: str
    gpus: Positive
    report_to: list[Literal[tuple(LOGGERS)]]  # type: ignore[valid-type]


@dataclass(frozen=True)
class Tokenize:
    max_length: Positive
    window: Annotated[int, Range(2)]


@dataclass(frozen=True)
class Train:
    steps: Positive
    batch_size: Positive
    lr: PositiveFloat
    schedule: Schedule
    warmup_steps: Count
    weight_decay: NonNegative
    max_grad_norm: NonNegative
    batch_tokens: Positive | Literal["auto"]
    gradient_checkpointing: bool
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"]
    compile: bool
    log_every: Positive
    save_every: Positive


@dataclass(frozen=True)
class Merge:
    onto: MergeOnto


@dataclass(frozen=True)
class Splits:
    test: Positive
    seen: Positive
    general: Count


@dataclass(frozen=True)
class Mmlu:
    shots: Count
    questions: Positive


@dataclass(frozen=True)
class Cost:
    rounds: Annotated[int, Range(2)]
    latency_prompts: Positive
    prefill_tokens: Positive
    decode_tokens: Positive
    batch_sizes: list[Annotated[int, Range(2, 64)]]
    scored_sequences: Positive
    repetitions: Positive


@dataclass(frozen=True)
class Evaluate:
    splits: Splits
    max_new_tokens: Positive
    batch_tokens: Positive | Literal["auto"]
    kld_top_k: Positive
    kld_tail_samples: Annotated[int, Range(2)]
    reference_dtype: Dtype
    mmlu: Mmlu
    cost: Cost
    embedding: str
    copying: Count
    bootstrap: Annotated[int, Range(20)]


@dataclass(frozen=True)
class Decide:
    metric: str
    cost: Literal["size_mb", "decode_tokens_per_second", "model_memory_mb"]
    margins: dict[str, PositiveFloat]
    guards: dict[str, Literal["base", "best"]]


@dataclass(frozen=True)
class GeneratedModel:
    hidden_size: Positive
    intermediate_size: Positive
    layers: Positive
    heads: Positive
    kv_heads: Positive
    context: Positive
    vocabulary: Annotated[int, Range(300)]
    sentences: Positive
    batch_tokens: Positive
    lr: PositiveFloat


@dataclass(frozen=True)
class GeneralText:
    path: str
    column: str | None = None


@dataclass(frozen=True)
class Model:
    prompt: str
    generate: GeneratedModel | None = None
    path: str | None = None
    hub: str | None = None
    revision: str | None = None
    licence: str | None = None
    gated: bool | None = None
    general: GeneralText | None = None


@dataclass(frozen=True)
class GeneratedDataset:
    questions: Positive
    topics: Positive
    topic_questions: Positive


@dataclass(frozen=True)
class MmluSource:
    path: str | None = None
    hub: str | None = None
    revision: str | None = None
    subjects: list[str] | None = None


@dataclass(frozen=True)
class Columns:
    instruction: str | None = None
    input: str | None = None
    answer: str | None = None
    text: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    messages: str | None = None


@dataclass(frozen=True)
class HubSplits:
    train: str
    test: str | None = None


@dataclass(frozen=True)
class Dataset:
    kind: Literal["instruction", "chat", "preference", "text"]
    near_duplicate: Annotated[float, Range(0, 1, above=True)]
    seen: Positive
    valid: Positive
    test_share: Annotated[float, Range(0, 1, above=True)] | None = None
    generate: GeneratedDataset | None = None
    path: str | None = None
    test_path: str | None = None
    hub: str | None = None
    config: str | None = None
    revision: str | None = None
    splits: HubSplits | None = None
    licence: str | None = None
    rows: Positive | None = None
    max_characters: Positive | None = None
    columns: Columns | None = None
    answer_pattern: str | None = None
    mmlu: MmluSource | None = None
    prompts: list[str] | None = None


@dataclass(frozen=True)
class Preference:
    config: dict[str, Any]
    train: dict[str, Any] | None = None


@dataclass(frozen=True)
class Method:
    full: bool | None = None
    peft: str | None = None
    config: dict[str, Any] | None = None
    load: Load | None = None
    double_quant: bool | None = None
    compute_dtype: Literal["auto", "bfloat16", "float16", "float32"] | None = None
    loraplus_lr_ratio: Annotated[float, Range(1)] | None = None
    merge: MergeOnto | None = None
    train: dict[str, Any] | None = None
    stage: Literal[tuple(STAGES)] | None = None  # type: ignore[valid-type]
    preference: Preference | None = None

    def __post_init__(self) -> None:
        if self.load == "none":  # the same as no `load`
            object.__setattr__(self, "load", None)

    @property
    def trains(self) -> bool:
        return self.full is True or self.peft is not None


@dataclass(frozen=True)
class Params:
    run: Run
    seed: Count
    launch: Launch
    tokenize: Tokenize
    train: Train
    merge: Merge
    evaluate: Evaluate
    decide: Decide
    templates: dict[str, str]
    models: dict[str, Model]
    datasets: dict[str, Dataset]
    methods: dict[str, Method]
