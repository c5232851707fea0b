"""What params.yaml holds: every section and every block of a catalogue, as frozen dataclasses.

A field of type `X | None` may be left out; all others must be there.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from tradeoffs.methods.trl_stages import STAGES
from tradeoffs.params.fields import (
    MACHINE,
    Count,
    Devices,
    Dtype,
    Examples,
    Load,
    MergeOnto,
    NonNegative,
    Positive,
    PositiveFloat,
    Precisions,
    Quants,
    Range,
    Ratio,
    Runtime,
    Schedule,
    Seed,
    Size,
    Steps,
    Tokens,
)
from tradeoffs.plumbing.loggers import LOGGERS


@dataclass(frozen=True)
class Run:
    models: list[str]
    datasets: list[str]
    methods: list[str]
    precisions: Precisions
    quants: Quants
    seeds: list[Seed]
    devices: Devices


@dataclass(frozen=True)
class Launch:
    train: str
    gpus: Annotated[int, Range(1, 1024, why=MACHINE)]
    report_to: list[Literal[tuple(LOGGERS)]]  # type: ignore[valid-type]


@dataclass(frozen=True)
class Tokenize:
    max_length: Tokens
    window: Annotated[int, Range(2, 2**24, why=MACHINE)]


@dataclass(frozen=True)
class Train:
    steps: Steps
    batch_size: Examples
    lr: PositiveFloat
    schedule: Schedule
    warmup_steps: Count
    weight_decay: NonNegative
    max_grad_norm: NonNegative
    batch_tokens: Tokens | Literal["auto"]
    gradient_checkpointing: bool
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"]
    compile: bool
    log_every: Positive
    save_every: Positive
    valid_every: Count
    keep: Literal["last", "best"]
    patience: Count
    epochs: PositiveFloat | None = None


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
    shots: Annotated[int, Range(0, 1000, why=MACHINE)]
    questions: Positive


@dataclass(frozen=True)
class Cost:
    rounds: Annotated[int, Range(2, 1000, why=MACHINE)]
    latency_prompts: Positive
    prefill_tokens: Tokens
    decode_tokens: Tokens
    batch_sizes: list[Annotated[int, Range(2, 64)]]
    scored_sequences: Positive
    repetitions: Annotated[int, Range(1, 1000, why=MACHINE)]


@dataclass(frozen=True)
class Harness:
    """How tasks of lm-evaluation-harness are asked."""

    folder: str
    limit: Count
    shots: Annotated[int, Range(0, 1000, why=MACHINE)] | Literal["task"]
    chat_template: bool
    unsafe_code: bool


@dataclass(frozen=True)
class Evaluate:
    splits: Splits
    max_new_tokens: Tokens
    batch_tokens: Tokens | Literal["auto"]
    kld_top_k: Size
    kld_tail_samples: Annotated[int, Range(2, 2**20, why=MACHINE)]
    reference_dtype: Dtype
    mmlu: Mmlu
    tasks: list[str]
    harness: Harness
    cost: Cost
    embedding: str
    copying: Count
    bootstrap: Annotated[int, Range(20, 10**6, why=MACHINE)]


@dataclass(frozen=True)
class Limits:
    """What a variant must keep to be chosen; what is left out is no limit."""

    max_size_mb: PositiveFloat | None = None
    max_memory_mb: PositiveFloat | None = None
    min_tokens_per_second: PositiveFloat | None = None
    max_loss_of: dict[str, PositiveFloat] | None = None
    runtime: Runtime | None = None


@dataclass(frozen=True)
class Decide:
    metric: str
    cost: Literal["size_mb", "decode_tokens_per_second", "model_memory_mb"]
    margins: dict[str, PositiveFloat]
    guards: dict[str, Literal["base", "best"]]
    limits: Limits


@dataclass(frozen=True)
class GeneratedModel:
    hidden_size: Size
    intermediate_size: Size
    layers: Annotated[int, Range(1, 1000, why=MACHINE)]
    heads: Size
    kv_heads: Size
    context: Tokens
    vocabulary: Annotated[int, Range(300, 2**20, why=MACHINE)]
    sentences: Positive
    batch_tokens: Tokens
    lr: PositiveFloat


@dataclass(frozen=True)
class GeneralText:
    path: str
    column: str | None = None


@dataclass(frozen=True)
class ModelMethod:
    """What a method is for one model: values over those of its own block."""

    train: dict[str, Any] | None = None
    config: dict[str, Any] | None = None


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
    train: dict[str, Any] | None = None
    tokenize: dict[str, Any] | None = None
    methods: dict[str, ModelMethod] | None = None
    notes: str | None = None


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
    kind: Literal["instruction", "chat", "preference", "text", "questions"]
    # Needed of every kind but `questions`, which has no examples.
    near_duplicate: Annotated[float, Range(0, 1, above=True)] | None = None
    seen: Positive | None = None
    valid: Positive | None = None
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
    train: dict[str, Any] | None = None
    notes: str | None = None


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
    loraplus_lr_ratio: Ratio | None = None
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
    seed: Seed
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
