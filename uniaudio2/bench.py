"""How fast the engine generates with one language model, and how near that is to what memory allows.

Weights may be random: times do not depend on them. Everything runs through :class:`Engine`, as in real use. What each
figure means is told in ``docs/use/speed.md``.
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.profiler import ProfilerActivity, profile

from uniaudio2.checkpoint import load_lm, open_folder
from uniaudio2.config import load_config, preset_path
from uniaudio2.engine import Engine, Generation, GenerationRequest, SamplingConfig
from uniaudio2.errors import UserError
from uniaudio2.lm import AudioLM, LMConfig
from uniaudio2.lm.quantize import GROUP_SIZES, QUANTIZED_TYPES, quantize_weights
from uniaudio2.sequence import Prompt, SequenceBuilder, TokenSequence
from uniaudio2.text import normalise_text

DTYPES = ("float32", "bfloat16", *QUANTIZED_TYPES)
PROFILED_FRAMES = 2  # times the frames between two looks at the device
WARM_FRAMES = 3  # frames before the timed run: compiling, first allocations


class BenchError(UserError):
    """Settings that cannot be measured."""


@dataclass(frozen=True)
class BenchConfig:
    """One measurement."""

    preset: str = "mid"
    model: Path | None = None  # a model folder in the preset's place
    dtype: str = "float32"  # of the weights, one of DTYPES
    batch: int = 1  # requests at once
    device: str = "cpu"
    prompt_rows: int = 200
    frames: int = 50  # audio frames, and text ids, that each request generates
    compile: bool = True
    cpu_clock: bool = False  # count CPU seconds of this process: fair on a busy machine, with a single thread only
    seed: int = 0

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise BenchError(f"unknown dtype {self.dtype!r}; use one of: {', '.join(DTYPES)}")
        for name, least in (("batch", 1), ("prompt_rows", 20), ("frames", 6)):
            if getattr(self, name) < least:
                raise BenchError(f"{name} must be at least {least}, got {getattr(self, name)}")

        if self.cpu_clock and (self.device != "cpu" or torch.get_num_threads() > 1):
            raise BenchError(
                "the CPU clock tells the time of one thread on a CPU: use it with --device cpu --threads 1"
            )

    @property
    def clock(self) -> Callable[[], float]:
        """Seconds since some moment."""
        return time.process_time if self.cpu_clock else time.perf_counter

    def lm_config(self) -> LMConfig:
        """Sizes of the model; raises ConfigError for an unknown preset."""
        return load_config(LMConfig, preset_path("lm", self.preset))


# -- arithmetic ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FramePlan:
    """Bytes of weights and caches that one step of a batch has to read, by part."""

    stacks: int  # understanding expert, backbone, generation expert: once
    depth: int  # blocks and projection of the local decoder: once per codebook
    heads: int  # audio heads
    cache: int  # keys and values of all positions of all rows
    text: int  # backbone and text head: what a step of a text part reads instead, its cache included

    @property
    def frame(self) -> int:
        """Bytes of an audio frame."""
        return self.stacks + self.depth + self.heads + self.cache


def plan_frame(
    config: LMConfig, dtype: str, *, batch: int = 1, positions: int = 0, drawable: float | None = None
) -> FramePlan:
    """Count what a step reads.

    The local decoder is read once per codebook, since it does not stay in any cache from one to the next. Rows of
    embeddings are left out: a few kilobytes.

    Args:
        config: Sizes.
        dtype: Of the weights.
        batch: Rows; each has its own keys and values.
        positions: Of the sequence so far.
        drawable: Ids per codebook whose logits are worked out, on average; None: all of them.
    """
    with torch.device("meta"):
        model = AudioLM(config)
    codebooks, size = config.audio.num_codebooks, config.audio.size

    def weights(module: torch.nn.Module) -> float:
        """Bytes of a module's parameters."""
        return sum(_stored_bytes(p, dtype) for p in module.parameters())

    backbone = weights(model.backbone)
    heads = _stored_bytes(model.depth.heads.flatten(0, 1), dtype)  # type: ignore[operator, union-attr]
    per_value = 2 if dtype == "bfloat16" else 4
    cache = {
        name: 2 * stack.num_layers * stack.num_kv_groups * stack.head_dim * per_value * positions * batch
        for name, stack in (("u", config.understanding), ("b", config.backbone), ("g", config.generation))
    }
    return FramePlan(
        stacks=round(weights(model.understanding) + backbone + weights(model.generation)),
        depth=round(codebooks * (weights(model.depth.transformer) + weights(model.depth.projection))),
        heads=round(heads * (1.0 if drawable is None else drawable / size)),
        cache=sum(cache.values()),
        text=round(backbone + weights(model.text_head)) + cache["b"],
    )


def _stored_bytes(parameter: Tensor, dtype: str) -> float:
    """Bytes of a matrix (or vector, which is never quantised) in a type, scales included."""
    if dtype == "float32" or (parameter.ndim < 2 and dtype in QUANTIZED_TYPES):
        return parameter.numel() * 4
    if dtype == "bfloat16":
        return parameter.numel() * 2
    if dtype == "int8":
        return parameter.numel() + 2 * parameter.shape[0]
    return parameter.numel() * (0.5 + 4 / GROUP_SIZES[0])


def measure_bandwidth(
    device: torch.device, repeats: int = 9, *, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Bytes per second of a float32 matrix-vector product, the median of some; on a GPU the better of it and a copy."""
    width = 8192 if device.type == "cpu" else 16384
    matrix, vector = torch.ones(width, width, device=device), torch.ones(width, device=device)
    size = matrix.numel() * matrix.element_size()
    rate = size / statistics.median(_times(lambda: torch.mv(matrix, vector), device, repeats, clock))
    if device.type != "cpu":
        target = torch.empty_like(matrix)
        rate = max(rate, 2 * size / statistics.median(_times(lambda: target.copy_(matrix), device, repeats, clock)))
    return rate


def _times(action: Callable[[], object], device: torch.device, repeats: int, clock: Callable[[], float]) -> list[float]:
    action()
    times = []
    for _ in range(repeats):
        _wait(device)
        start = clock()
        action()
        _wait(device)
        times.append(clock() - start)
    return times


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# -- model and requests --------------------------------------------------------------------------------------------


def build_model(config: BenchConfig) -> AudioLM:
    """The model folder's language model, or one with random weights; float, on the device, not yet quantised."""
    dtype = torch.bfloat16 if config.dtype == "bfloat16" else torch.float32
    if config.dtype in QUANTIZED_TYPES and config.device != "cpu":
        dtype = torch.bfloat16
    if config.model is not None:
        return load_lm(config.model, device=config.device, dtype=dtype).eval()
    with torch.device("meta"):
        model = AudioLM(config.lm_config())
    model = model.to(dtype).to_empty(device=config.device)
    return model.initialise(torch.Generator(config.device).manual_seed(config.seed)).eval()


def make_prompt(lm: LMConfig, rows: int, *, text: bool, seed: int = 0) -> Prompt:
    """A prompt of exactly so many rows: text to be spoken, or audio (``text``) to be written down."""
    builder = SequenceBuilder(None, lm.audio, text=lm.text)
    generator = torch.Generator().manual_seed(seed)
    first_free = max(lm.text.ids()) + 1
    if first_free + 2 >= lm.text_vocab_size:
        first_free = 0  # special ids come last: those below are ordinary

    def ids(count: int) -> list[int]:
        """Ordinary text ids."""
        top = lm.text_vocab_size if first_free else min(lm.text.ids())
        return torch.randint(first_free, top, (count,), generator=generator).tolist()

    def codes(high: int, count: int) -> Tensor:
        """Codes below ``high``, (K, count)."""
        return torch.randint(0, high, (lm.audio.num_codebooks, count), generator=generator)

    def build(count: int) -> Prompt:
        """A prompt with ``count`` text ids or audio frames in its input."""
        instruction = [lm.text.bos, *ids(1), lm.text.eos]
        if not text:
            value: dict[str, Any] = {"transcription": [lm.text.bos, *ids(count), lm.text.eos]}
            return builder.prompt("tts", value, prompt=instruction)
        reasoning = max(1, count * 2 // 7)
        streams = (
            codes(lm.audio.streams[0].codebook_size, reasoning),
            codes(lm.audio.fine.codebook_size, count - reasoning),
        )
        return builder.prompt("asr", {"audio": streams}, prompt=instruction)

    least = 2
    count = rows - (len(build(least)) - least)
    if count < least:
        raise BenchError(f"a prompt has at least {rows - count + least} rows, got {rows}")
    return build(count)


def make_request(config: BenchConfig, lm: LMConfig, *, text: bool) -> GenerationRequest:
    """A greedy request that makes exactly ``config.frames`` text ids, or frames: 2 reasoning for 5 reconstruction."""
    reasoning = max(1, config.frames * 2 // 7)
    limits = {"reasoning": reasoning, "reconstruction": config.frames - reasoning, "text": config.frames}
    return GenerationRequest(
        make_prompt(lm, config.prompt_rows, text=text, seed=config.seed),
        sampling=SamplingConfig(temperature=0.0),
        limits={kind: (count, count) for kind, count in limits.items()},
        match_lengths=False,
        loop_guard=False,
    )


# -- measurement ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measurement:
    """What one setting came to."""

    model: str
    dtype: str
    batch: int
    device: str
    threads: int
    compiled: bool
    cpu_clock: bool
    prompt_rows: int
    frames: int
    frame_ms: float  # median time of a step of the whole batch
    frames_per_s: float  # of all requests together, at that median
    text_tokens_per_s: float  # the same of a text part
    first_frame_ms: float  # from handing in the batch to its first frame, prefill included
    peak_memory_bytes: int
    kernels: float  # per frame: operators that compute something, or compiled loops; on a GPU kernels
    host_syncs: float  # per frame: times the host asks for a value that the device has
    frame_bytes: int  # that a frame reads at the least
    bandwidth: float  # bytes/s measured just before and after
    quality: Quality | None  # None: this is float32

    @property
    def limit_ms(self) -> float:
        """Time to read the bytes of a frame."""
        return 1e3 * self.frame_bytes / self.bandwidth

    @property
    def share_of_limit(self) -> float:
        """How much of the measured bandwidth a frame uses; above 1 only if something stays in a cache."""
        return self.limit_ms / self.frame_ms

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "limit_ms": self.limit_ms, "share_of_limit": self.share_of_limit}


def bench(config: BenchConfig, *, trace: Path | None = None) -> Measurement:
    """Measure one setting.

    Args:
        config: The setting.
        trace: Write a trace of some frames there, for chrome://tracing or Perfetto.

    Raises:
        BenchError: If the setting makes no sense; ConfigError, GenerationError and so on from what it uses.
    """
    if config.compile:
        torch._dynamo.reset()  # code for the setting before is of no use any more
    device = torch.device(config.device)
    model = build_model(config)
    lm = model.config
    quality = None if config.dtype == "float32" else measure_quality(model, config)
    if config.dtype in QUANTIZED_TYPES:
        quantize_weights(model, config.dtype)
    builder = SequenceBuilder(None, lm.audio, text=lm.text)
    engine = Engine(model, builder, max_batch=config.batch, compile=config.compile)
    speak, write = (make_request(config, lm, text=text) for text in (False, True))
    for request in (speak, write):
        _run(engine, request, config, stop_after=WARM_FRAMES)
    before = measure_bandwidth(device, clock=config.clock)
    with peak_memory(device) as peak:
        first, steps = _run(engine, speak, config)
    bandwidth = (before + measure_bandwidth(device, clock=config.clock)) / 2
    frame_s = statistics.median(steps)
    _, text_steps = _run(engine, write, config)
    plain = engine if not config.compile else Engine(model, builder, max_batch=config.batch)
    kernels, syncs = _count(engine, plain, speak, config.batch, trace)
    return Measurement(
        model=str(config.model) if config.model is not None else config.preset,
        dtype=config.dtype,
        batch=config.batch,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        threads=torch.get_num_threads(),
        compiled=config.compile,
        cpu_clock=config.cpu_clock,
        prompt_rows=config.prompt_rows,
        frames=config.frames,
        frame_ms=1e3 * frame_s,
        frames_per_s=config.batch / frame_s,
        text_tokens_per_s=config.batch / statistics.median(text_steps),
        first_frame_ms=1e3 * first,
        peak_memory_bytes=peak[0],
        kernels=kernels,
        host_syncs=syncs,
        frame_bytes=_bytes_read(config, engine, speak),
        bandwidth=bandwidth,
        quality=quality,
    )


def _bytes_read(config: BenchConfig, engine: Engine, request: GenerationRequest) -> int:
    """Bytes of an average frame of a request: the engine leaves out the heads of ids that cannot come."""
    phases = request.prompt.phases
    sizes = [engine.window(phase) for phase in phases]
    counts = [request.limit(phase.kind)[1] for phase in phases]
    drawable = sum((stop - start) * count for (start, stop), count in zip(sizes, counts, strict=True)) / sum(counts)
    middle = config.prompt_rows + config.frames // 2
    lm = engine.model.config
    return plan_frame(lm, config.dtype, batch=config.batch, positions=middle, drawable=drawable).frame


def _start(engine: Engine, request: GenerationRequest, batch: int) -> Generation:
    session = engine.session(streaming=False)
    for _ in range(batch):
        session.add(request)
    return session


def _run(
    engine: Engine, request: GenerationRequest, config: BenchConfig, *, stop_after: int | None = None
) -> tuple[float, list[float]]:
    """Seconds to the first frame and of each frame after it.

    The host looks at the device every ``sync_every`` steps only: times are those of such rounds, divided.
    """
    device, round_size, clock = engine.model.device, engine.sync_every, config.clock
    _wait(device)
    start = clock()
    session = _start(engine, request, config.batch)
    session.step()
    _wait(device)
    first, times = clock() - start, []
    while session.active and (stop_after is None or len(times) * round_size < stop_after):
        start, done = clock(), 0
        while session.active and done < round_size:
            session.step()
            done += 1
        _wait(device)
        times.append((clock() - start) / done)
    return first, times


@contextmanager
def peak_memory(device: torch.device) -> Iterator[list[int]]:
    """Yield a list whose only entry is, at the end, the most memory that was in use meanwhile, bytes.

    On a GPU its own; else that of the whole process, since it started where the system cannot reset the mark.
    """
    peak = [0]
    marks = Path("/proc/self/clear_refs")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif marks.exists():
        with suppress(OSError):
            marks.write_text("5")
    yield peak
    if device.type == "cuda":
        peak[0] = torch.cuda.max_memory_allocated(device)
        return
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        peak[0] = int(line.split()[1]) * 1024
    else:
        import resource
        import sys

        unit = 1 if sys.platform == "darwin" else 1024
        peak[0] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


# -- counting ------------------------------------------------------------------------------------------------------

# Operators that only describe or reserve memory, by their names without "aten::".
_FREE_OPERATORS = re.compile(
    r"(_unsafe_)?view|_?reshape(_alias)?|as_strided|alias|detach|t|transpose|permute|expand(_as)?|select|slice|narrow"
    r"|(un)?squeeze|split(_with_sizes)?|chunk|unbind|(un)?flatten|lift_fresh|to|contiguous|empty(_like|_strided)?"
    r"|resolve_(conj|neg)|result_type|item|is_nonzero|movedim"
)
_ASKING = re.compile(r"item|tolist|cpu|numpy|nonzero|argwhere|masked_select|unique|__(bool|int|float|index|array)__")


class SyncCounter(TorchFunctionMode):
    """Counts the places where the host asks for a value that a device would hold.

    Works on any device, without compiled code (which has no such places).
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Count a call and make it."""
        name = getattr(func, "__name__", "")
        by_mask = name == "__getitem__" and _has_mask(args[1])
        self.count += by_mask or _ASKING.fullmatch(name) is not None
        return func(*args, **(kwargs or {}))


def _has_mask(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, Tensor) and part.dtype == torch.bool for part in parts)


def _count(
    engine: Engine, plain: Engine, request: GenerationRequest, batch: int, trace: Path | None
) -> tuple[float, float]:
    """Kernels and host syncs of an average frame in the middle of a request."""
    on_gpu = engine.model.device.type == "cuda"
    frames = PROFILED_FRAMES * engine.sync_every
    session = _start(engine, request, batch)
    for _ in range(2 + engine.sync_every):
        session.step()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as recorded:
        steps = _steps(session, frames)
        _wait(engine.model.device)
    if trace is not None:
        recorded.export_chrome_trace(str(trace))
    events = recorded.events() or []
    if on_gpu:
        device_events = [event for event in events if event.device_type != torch.autograd.DeviceType.CPU]
        return len(device_events) / steps, sum("Synchronize" in event.name for event in events) / steps
    session = _start(plain, request, batch)
    for _ in range(2):
        session.step()
    with SyncCounter() as syncs:
        counted = _steps(session, frames)
    return sum(map(_computes, events)) / steps, syncs.count / counted


def _steps(session: Generation, most: int) -> int:
    """Run up to so many steps and return how many there were."""
    done = 0
    while session.active and done < most:
        session.step()
        done += 1
    return done


def _computes(event: Any) -> bool:
    """Whether an event of the profiler is a compiled loop, or an operator that is no view and calls no others."""
    if "_cpp_fused" in event.name:
        return True
    if not event.name.startswith("aten::") or _FREE_OPERATORS.fullmatch(event.name[6:]):
        return False
    return not any(_computes(child) for child in event.cpu_children)


# -- quality -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Quality:
    """What other weights change, against the same model in float32 that reads the same sequences."""

    token_agreement: float  # share of audio positions, all codebooks, whose likeliest id is the same
    logit_error: float  # root mean square difference of audio logits, in standard deviations of float32's
    text_agreement: float | None  # the same for text; None: random weights
    text_error: float | None


@torch.inference_mode()
def measure_quality(model: AudioLM, config: BenchConfig) -> Quality:
    """Compare weights of ``config.dtype`` with float32.

    Both read the same sequences, so one early difference does not spoil what follows: for a model folder with a codec
    the package's recordings, understood and made (asr, tts, audio_caption, tta), else random codes.

    Args:
        model: Not yet quantised; stays as it is.
        config: The setting.
    """
    lm = model.config
    sequences = _random_sequences(config, lm) if config.model is None else _recorded_sequences(config, lm)

    def logits(which: AudioLM) -> tuple[Tensor, Tensor]:
        """Of all drawn frames and of all drawn text ids."""
        audio, text = [], []
        for each in sequences:
            frames, words = (rows.to(model.device) for rows in _drawn(lm, each))
            output = which(
                each.tokens[None].to(model.device),
                each.mask[None].to(model.device),
                audio_targets=frames,
                text_targets=words if len(words) else frames[:1],
            )
            audio.append(output.audio_logits.float())
            text.append(output.text_logits.float()[: len(words)])
        return torch.cat(audio), torch.cat(text)

    reference = AudioLM(lm)
    reference.load_state_dict(model.state_dict())
    exact = logits(reference.to(model.device).float().eval())
    other = reference.to(model.dtype)
    if config.dtype in QUANTIZED_TYPES:
        quantize_weights(other, config.dtype)
    (audio, text), (audio_exact, text_exact) = logits(other), exact
    heard = _compare(text, text_exact) if len(text) else (None, None)
    return Quality(*_compare(audio, audio_exact), *heard)


def _compare(found: Tensor, exact: Tensor) -> tuple[float, float]:
    """Share of equal likeliest ids, and root mean square difference in standard deviations of ``exact``."""
    agreement = (found.argmax(-1) == exact.argmax(-1)).float().mean()
    return float(agreement), float((found - exact).square().mean().sqrt() / exact.std())


def _random_sequences(config: BenchConfig, lm: LMConfig) -> list[TokenSequence]:
    """Random codes after a prompt."""
    builder = SequenceBuilder(None, lm.audio, text=lm.text)
    generator = torch.Generator().manual_seed(config.seed + 1)
    prompt = make_prompt(lm, config.prompt_rows, text=False, seed=config.seed)
    shape = (config.frames, lm.audio.num_codebooks)
    tokens, mask = builder.audio_rows(torch.randint(0, lm.audio.streams[0].codebook_size, shape, generator=generator))
    loss_mask = torch.cat((torch.zeros_like(prompt.mask), mask))
    return [TokenSequence(torch.cat((prompt.tokens, tokens)), torch.cat((prompt.mask, mask)), loss_mask, ())]


def _recorded_sequences(config: BenchConfig, lm: LMConfig) -> list[TokenSequence]:
    """The package's recordings with their texts, as training would show them; random codes without a codec."""
    from uniaudio2.api.model import UniAudio2
    from uniaudio2.demo import load_recordings

    if not open_folder(config.model).has("codec"):
        return _random_sequences(config, lm)
    model = UniAudio2.from_pretrained(config.model, device="cpu")
    table, found = load_recordings(), []
    tasks = {"transcribe": ("transcription", "asr", "tts"), "caption": ("caption", "audio_caption", "tta")}
    for section, (value, *names) in tasks.items():
        for entry in table[section]:
            words = normalise_text(entry["expected"], "en") if lm.prompt_style == "short" else entry["expected"]
            values = {"audio": model.encode(entry["path"]), value: words}
            found += [model.sequences.example(name, values, language="en") for name in names]
    return found


def _drawn(lm: LMConfig, sequence: TokenSequence) -> tuple[Tensor, Tensor]:
    """Positions whose next row is a predicted frame of codes, and those whose next is a predicted word's id."""
    labels, predicted = sequence.tokens[1:], sequence.loss_mask[1:]
    first = labels[:, 0]
    codes = lm.audio.is_code("reasoning", first) | lm.audio.is_code("reconstruction", first)
    special = torch.isin(labels[:, -1], torch.tensor(sorted(lm.text.ids())))
    return (predicted[:, 0] & codes).nonzero()[:, 0], (predicted[:, -1] & ~special).nonzero()[:, 0]


# -- showing -------------------------------------------------------------------------------------------------------


def settings(config: BenchConfig, dtypes: list[str], batches: list[int]) -> list[BenchConfig]:
    """Every type with every batch size."""
    return [replace(config, dtype=dtype, batch=batch) for dtype in dtypes for batch in batches]


def measurement_rows(found: Measurement) -> list[tuple[str, str]]:
    """Names and values of a measurement, as a user reads them."""
    told = asdict(found.quality) if found.quality is not None else {}
    names = ("tokens as in float32", "logit error", "text tokens as in float32", "text logit error")
    quality = [
        (name, f"{100 * share:.1f} %") for name, share in zip(names, told.values(), strict=False) if share is not None
    ]
    return [
        ("weights", found.dtype),
        ("batch", str(found.batch)),
        ("code", "compiled" if found.compiled else "plain"),
        ("frames/s", f"{found.frames_per_s:.1f}"),
        ("ms per frame, median", f"{found.frame_ms:.2f}"),
        ("text tokens/s", f"{found.text_tokens_per_s:.1f}"),
        ("first frame, ms", f"{found.first_frame_ms:.0f}"),
        ("peak memory, MB", f"{found.peak_memory_bytes / 1e6:.0f}"),
        ("kernels per frame", f"{found.kernels:.0f}"),
        ("host syncs per frame", f"{found.host_syncs:.2f}"),
        ("read per frame, MB", f"{found.frame_bytes / 1e6:.1f}"),
        ("bandwidth measured, GB/s", f"{found.bandwidth / 1e9:.1f}"),
        ("limit, ms per frame", f"{found.limit_ms:.2f}"),
        ("share of the limit", f"{100 * found.share_of_limit:.0f} %"),
        *quality,
    ]


def plan_rows(plan: FramePlan, bandwidth: float) -> list[tuple[str, str]]:
    """Names and values of a plan at a bandwidth, bytes/s."""
    return [
        ("experts and backbone, MB", f"{plan.stacks / 1e6:.1f}"),
        ("local decoder, once per codebook, MB", f"{plan.depth / 1e6:.1f}"),
        ("audio heads, MB", f"{plan.heads / 1e6:.1f}"),
        ("keys and values, MB", f"{plan.cache / 1e6:.1f}"),
        ("audio frame, MB", f"{plan.frame / 1e6:.1f}"),
        ("audio frame, ms", f"{1e3 * plan.frame / bandwidth:.2f}"),
        ("text token, MB", f"{plan.text / 1e6:.1f}"),
        ("text token, ms", f"{1e3 * plan.text / bandwidth:.2f}"),
    ]
