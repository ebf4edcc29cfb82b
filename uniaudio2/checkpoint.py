"""Model folders: weights beside the config that rebuilds their model.

A folder holds ``config.yaml`` (format, version, and one section per part), ``codec.safetensors``, ``lm.safetensors``,
``text_decoder.safetensors``, ``tokenizer.json`` and ``MODEL_CARD.md``; any part but the config may be absent. Loading
is strict: every key and shape must be explained. Weights are mapped from the file, so loading needs little memory.
"""

from __future__ import annotations

import importlib
import math
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from uniaudio2.config import ConfigError, dump_config, load_config, read_yaml, to_plain
from uniaudio2.errors import CheckpointError, UserError
from uniaudio2.files import replacing, write_text
from uniaudio2.tensors import LazyTensor, TensorFileError, open_tensors, save_tensors, summarise

if TYPE_CHECKING:
    from uniaudio2.codec.codec import ReasoningCodec
    from uniaudio2.codec.text_decoder import TextDecoder
    from uniaudio2.lm.model import AudioLM

FORMAT = "uniaudio2"
VERSION = 1
CONFIG_FILE = "config.yaml"
TOKENIZER_FILE = "tokenizer.json"
CARD_FILE = "MODEL_CARD.md"
DEFAULT_FOLDER = Path(__file__).parent / "weights" / "nano"
SCALE_SUFFIX = ".scale"
MIN_ROW_VALUES = 16  # shorter rows are not worth a scale of their own
MODEL_ERRORS = (ValueError, KeyError, TypeError, RuntimeError, ArithmeticError, AssertionError, MemoryError)
"""What constructors raise when values do not make a model, PyTorch's own included."""

SaveDtype = Literal["float32", "bf16", "int8"]
Part = Literal["codec", "lm", "text_decoder"]


@dataclass(frozen=True)
class PartSpec:
    """Where one part of a model lives: its classes in the package and its file in a folder."""

    module: str
    config_class: str
    model_class: str

    def classes(self) -> tuple[type[Any], type[nn.Module]]:
        """The config class and the model class, imported now."""
        module = importlib.import_module(self.module)
        return getattr(module, self.config_class), getattr(module, self.model_class)


PARTS: dict[str, PartSpec] = {
    "codec": PartSpec("uniaudio2.codec.codec", "CodecConfig", "ReasoningCodec"),
    "lm": PartSpec("uniaudio2.lm.model", "LMConfig", "AudioLM"),
    "text_decoder": PartSpec("uniaudio2.codec.text_decoder", "TextDecoderConfig", "TextDecoder"),
}
LONE_PARTS = ("autoencoder", "encoder")  # a converted autoencoder or encoder without its codec, by registered name


@dataclass(frozen=True)
class ModelFolder:
    """A model folder whose config has been read and checked."""

    path: Path
    config: dict[str, Any] = field(repr=False)

    def has(self, part: str) -> bool:
        """Whether the folder's config describes this part."""
        return part in self.config

    def weights(self, part: str) -> Path:
        """The weight file of a part (its index lies beside it when the weights are in shards)."""
        return self.path / f"{part}.safetensors"

    @property
    def tokenizer(self) -> Path:
        """The text tokenizer's file.

        Raises:
            CheckpointError: If the folder has none.
        """
        path = self.path / TOKENIZER_FILE
        if not path.is_file():
            raise CheckpointError(f"{self.path}: has no {TOKENIZER_FILE}; copy the one that the model was trained with")
        return path


@dataclass(frozen=True)
class Pretrained:
    """Everything that a model folder holds, in evaluation mode."""

    folder: ModelFolder
    codec: ReasoningCodec
    lm: AudioLM
    text_decoder: TextDecoder | None
    tokenizer: Path  # tokenizer.json


def open_folder(source: Path | str | None = None, *, revision: str | None = None) -> ModelFolder:
    """Find a model folder and read its config.

    Args:
        source: A folder, a Hugging Face hub id (``owner/name``; needs the extra ``published``), or None for the model
            shipped with the package.
        revision: Branch, tag or commit for a hub id.

    Raises:
        CheckpointError: If there is no such folder or it is not a model folder.
    """
    path = DEFAULT_FOLDER if source is None else Path(source)
    if not path.exists() and isinstance(source, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        path = _download(source, revision)
    if not path.exists():
        hint = "this installation has no shipped model" if source is None else "no such folder"
        raise CheckpointError(f"{path}: {hint}; give a model folder, or leave --model out for the shipped one")
    if not path.is_dir():
        raise CheckpointError(f"{path}: is a file; give the folder that holds {CONFIG_FILE} and the weights")
    file = path / CONFIG_FILE
    if not file.is_file():
        raise CheckpointError(
            f"{path}: is not a model folder (no {CONFIG_FILE}); 'uniaudio2 convert' makes one from published weights"
        )
    try:
        config = to_plain(read_yaml(file))
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    if config.get("format") != FORMAT:
        raise CheckpointError(
            f"{file}: 'format' is {config.get('format')!r}, not {FORMAT!r}: not a uniaudio2 model folder"
        )
    version = config.get("version")
    if not isinstance(version, int) or not 1 <= version <= VERSION:
        raise CheckpointError(
            f"{file}: version {version!r} is not known; update uniaudio2 (this one reads 1 to {VERSION})"
        )
    return ModelFolder(path, config)


def _download(repo: str, revision: str | None) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise CheckpointError(
            f"{repo}: no such folder; to fetch it as a hub id, pip install 'uniaudio2[published]'"
        ) from None
    patterns = ["*.safetensors", "*.safetensors.index.json", CONFIG_FILE, TOKENIZER_FILE, CARD_FILE]
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except Exception as error:
        problem = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{repo}: no such folder, and not to be had from the hub ({problem})") from None


def load_codec(
    source: Path | str | ModelFolder | None = None,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> ReasoningCodec:
    """Load the codec of a model folder, ready for use.

    Args:
        source: See :func:`open_folder`.
        device: Where to put it.
        dtype: Type of the parameters; None keeps the file's (int8 becomes float32). Buffers such as codebooks keep
            the file's type in any case, because a rounded codebook gives other codes.
    """
    return cast("ReasoningCodec", _load_part(source, "codec", device, dtype))


def load_lm(
    source: Path | str | ModelFolder | None = None,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> AudioLM:
    """Load the language model of a model folder; arguments as for :func:`load_codec`."""
    return cast("AudioLM", _load_part(source, "lm", device, dtype))


def load_text_decoder(
    source: Path | str | ModelFolder | None = None,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> TextDecoder:
    """Load the codec's own text decoder of a model folder; arguments as for :func:`load_codec`."""
    return cast("TextDecoder", _load_part(source, "text_decoder", device, dtype))


def load_pretrained(
    source: Path | str | ModelFolder | None = None,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> Pretrained:
    """Load every part of a model folder; arguments as for :func:`load_codec`."""
    folder = source if isinstance(source, ModelFolder) else open_folder(source)
    return Pretrained(
        folder=folder,
        codec=load_codec(folder, device=device, dtype=dtype),
        lm=load_lm(folder, device=device, dtype=dtype),
        text_decoder=load_text_decoder(folder, device=device, dtype=dtype) if folder.has("text_decoder") else None,
        tokenizer=folder.tokenizer,
    )


def load_autoencoder(source: Path | str | ModelFolder, *, device: str | torch.device = "cpu") -> nn.Module:
    """Load an autoencoder that was converted without its codec (``sqcodec.pth``).

    Args:
        source: See :func:`open_folder`.
        device: Where to put it.
    """
    from uniaudio2.codec.autoencoder import build_autoencoder

    return _load_lone(source, "autoencoder", build_autoencoder, device)


def load_encoder(source: Path | str | ModelFolder, *, device: str | torch.device = "cpu") -> nn.Module:
    """Load an encoder that was converted without its codec (``music_ssl.pt``); arguments as above."""
    from uniaudio2.codec.features import build_encoder

    return _load_lone(source, "encoder", build_encoder, device)


def _load_lone(
    source: Path | str | ModelFolder, part: str, build: Callable[[str, Any], nn.Module], device: str | torch.device
) -> nn.Module:
    folder = source if isinstance(source, ModelFolder) else open_folder(source)
    if not folder.has(part):
        raise CheckpointError(f"{folder.path}: has no '{part}' section")
    section, name = _section(folder, part), f"{folder.path / CONFIG_FILE}: {part}"
    weights = folder.weights(part)
    model = build_empty(
        lambda: build(str(section.get("name")), section.get("config") or {}), name=name, weights=weights
    )
    load_weights(model, folder.weights(part))
    return model.to(device).eval()


def _load_part(
    source: Path | str | ModelFolder | None, part: Part, device: str | torch.device, dtype: torch.dtype | None
) -> nn.Module:
    folder = source if isinstance(source, ModelFolder) else open_folder(source)
    if not folder.has(part):
        parts = [name for name in PARTS if folder.has(name)]
        raise CheckpointError(f"{folder.path}: has no '{part}' section; it holds {', '.join(parts) or 'nothing'}")
    config_class, model_class = PARTS[part].classes()
    name = f"{folder.path / CONFIG_FILE}: {part}"
    try:
        config = load_config(config_class, _section(folder, part), name=name)
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    weights = folder.weights(part)
    model = build_empty(lambda: model_class(config), name=name, weights=weights)
    load_weights(model, weights, dtype=dtype)
    return model.to(device).eval()


def _section(folder: ModelFolder, part: str) -> dict[str, Any]:
    section = folder.config[part]
    if not isinstance(section, Mapping):
        raise CheckpointError(f"{folder.path / CONFIG_FILE}: '{part}' must be a mapping of keys to values")
    return dict(section)


class _NoInit(TorchFunctionMode):
    """Leaves out random initialisation: fresh tensors stay untouched, so they take no memory until they are replaced.

    Choice: the constructor runs on the CPU and not on the meta device, because tables that are not saved with the
    weights (rotary angles, mel filters) must come out with their values.
    """

    _NEW = frozenset({torch.randn, torch.rand})
    # By name, because transformers puts functions of its own in the place of those of torch.nn.init.
    _INIT = frozenset(
        {"normal_", "uniform_", "trunc_normal_", "orthogonal_"}
        | {f"{rule}_{kind}_" for rule in ("kaiming", "xavier") for kind in ("normal", "uniform")}
    )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in self._INIT:
            return args[0] if args else kwargs["tensor"]
        if func in self._NEW:
            kwargs.pop("generator", None)
            return torch.empty(*args, **kwargs)
        return func(*args, **kwargs)


@contextmanager
def _keep_random_state() -> Iterator[None]:
    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)


class SizeLimit(TorchFunctionMode):
    """Ends the construction of a model that asks for far more than its file holds, before memory or patience ends.

    Args:
        values: Most values in all.
        tensors: Most tensors.
    """

    _MAKE = frozenset({torch.empty, torch.zeros, torch.ones, torch.randn, torch.rand})

    def __init__(self, *, values: float = math.inf, tensors: float = math.inf) -> None:
        super().__init__()
        self._values, self._tensors = values, tensors

    @classmethod
    def of(cls, stored: Mapping[str, LazyTensor], *, values: bool = True) -> SizeLimit:
        """Generous limits for a model whose weights these are; without ``values`` only the tensors are counted."""
        most = 4 * sum(tensor.numel for tensor in stored.values()) + 10**8
        return cls(values=most if values else math.inf, tensors=4 * len(stored) + 10_000)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in self._MAKE:
            sizes = args or (kwargs.get("size", ()),)
            sizes = sizes[0] if isinstance(sizes[0], (tuple, list)) else sizes
            self._values -= math.prod(size for size in sizes if isinstance(size, int))
            self._tensors -= 1
            if self._values < 0 or self._tensors < 0:
                raise UserError("its sizes make a model far larger than its weights")
        return func(*args, **kwargs)


def build_empty(make: Callable[[], nn.Module], *, name: str = "model", weights: Path | str | None = None) -> nn.Module:
    """Run a model's constructor without filling its parameters; :func:`load_weights` must follow.

    Args:
        make: Builds the model.
        name: What error messages call it.
        weights: The file that will fill it, by which a config with absurd sizes is found out.

    Raises:
        CheckpointError: If the config's values do not make a model, or the file cannot be read.
    """
    try:
        limit = SizeLimit() if weights is None else SizeLimit.of(open_tensors(weights))
        with _keep_random_state(), limit, _NoInit():
            return make()
    except TensorFileError as error:
        raise CheckpointError(str(error)) from None
    except MODEL_ERRORS as error:
        raise CheckpointError(f"{name}: {no_model(error)}") from error


def no_model(error: Exception) -> str:
    """Why a config's values do not make a model, from what the constructor raised."""
    if isinstance(error, ValueError):
        return str(error)
    problem = (str(error).splitlines() or [type(error).__name__])[0][:120]
    return f"these values do not make a model ({problem})"


def load_weights(model: nn.Module, path: Path | str, *, dtype: torch.dtype | None = None) -> None:
    """Put a file's weights into a model, strictly, one tensor in memory at a time.

    Args:
        model: Parameters and buffers are replaced by the file's tensors, mapped where no conversion is needed.
        path: A safetensors file or its shards.
        dtype: Type of the parameters; None keeps the file's, where int8 becomes float32.

    Raises:
        CheckpointError: If a key is missing, unexpected or of the wrong shape, or a value is of another kind or not
            finite; nothing has been changed then.
    """
    try:
        stored = open_tensors(path)
    except TensorFileError as error:
        raise CheckpointError(str(error)) from None
    tensors = {name: tensor for name, tensor in stored.items() if not _is_scale(name, stored)}
    expected = model.state_dict(keep_vars=True)
    check_keys(
        {name: tuple(t.shape) for name, t in expected.items()},
        {name: t.shape for name, t in tensors.items()},
        name=str(path),
    )
    parameters = {name for name, t in expected.items() if isinstance(t, nn.Parameter)}
    state: dict[str, Tensor] = {}
    types = {tensor.dtype for name, tensor in tensors.items() if name in parameters}
    if dtype is None and (len(types) > 1 or types & {torch.int8, torch.float64}):
        dtype = torch.float32  # one type for all, as networks need it; of the vectors beside 8-bit matrices too
    for name in tensors:
        try:
            value = read_stored(name, stored)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from None
        check_value(value, expected[name], f"{path}: '{name}'")
        if name in parameters and dtype is not None:
            value = value.to(dtype)
        elif name not in parameters:
            value = value.to(expected[name].dtype)
        state[name] = value
    model.load_state_dict(state, strict=True, assign=True)


def check_value(value: Tensor, expected: Tensor, name: str) -> None:
    """Refuse a tensor that no trained model has, in constant memory.

    Args:
        value: As read from a file.
        expected: The model's tensor in its place; may be on the meta device.
        name: What the error message calls it.

    Raises:
        CheckpointError: If it holds another kind of number, or one that is NaN or infinite.
    """
    if value.is_floating_point() != expected.is_floating_point():
        raise CheckpointError(f"{name} holds {value.dtype}, which cannot be used as {expected.dtype}")
    ends = torch.aminmax(value) if value.is_floating_point() and value.numel() else ()
    if not all(math.isfinite(float(end)) for end in ends):
        raise CheckpointError(f"{name} holds NaN or infinite values: the file is damaged, or its training diverged")


def _is_scale(name: str, stored: Mapping[str, LazyTensor]) -> bool:
    owner = stored.get(name.removesuffix(SCALE_SUFFIX)) if name.endswith(SCALE_SUFFIX) else None
    return owner is not None and owner.dtype == torch.int8


def read_stored(name: str, stored: Mapping[str, LazyTensor]) -> Tensor:
    """One tensor of a file, int8 multiplied out to float32 by its scale.

    Args:
        name: The tensor.
        stored: What :func:`uniaudio2.tensors.open_tensors` returned.

    Raises:
        CheckpointError: If an int8 tensor has a scale that does not fit it.
    """
    tensor = stored[name]
    scale = stored.get(name + SCALE_SUFFIX)
    if tensor.dtype != torch.int8 or scale is None:
        return tensor.read()
    fits = len(scale.shape) == len(tensor.shape) and all(
        s in (1, n) for s, n in zip(scale.shape, tensor.shape, strict=True)
    )
    if not fits or not scale.dtype.is_floating_point:
        raise CheckpointError(f"'{name}' {tensor.shape} has a scale of shape {scale.shape}, which does not fit it")
    return tensor.read().float() * scale.read().float()


def check_keys(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], *, name: str) -> None:
    """Compare the keys and shapes that a model needs with those that a file has.

    Raises:
        CheckpointError: One line that names the first few keys that are missing, unexpected or of a wrong shape.
    """
    missing = [key for key in expected if key not in found]
    unexpected = [key for key in found if key not in expected]
    wrong = [
        f"{key} is {list(found[key])}, needs {list(shape)}"
        for key, shape in expected.items()
        if key in found and tuple(found[key]) != tuple(shape)
    ]
    problems = [
        f"{len(keys)} {what} ({summarise(keys)})"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("of a wrong shape", wrong))
        if keys
    ]
    if problems:
        raise CheckpointError(f"{name}: does not fit its config: keys {'; '.join(problems)}")


def save_pretrained(model: Any, folder: Path | str, *, dtype: SaveDtype = "float32") -> Path:
    """Write a model folder, or one part into it.

    Args:
        model: A :class:`uniaudio2.UniAudio2` (anything with ``codec``, ``lm`` and ``tokenizer``), or one part: a codec,
            a language model or a text decoder.
        folder: Created if absent; what it holds already of other parts stays.
        dtype: ``float32``, ``bf16``, or ``int8`` (matrices as 8-bit rows with a half-precision scale each).

    Returns:
        The folder.
    """
    part = part_of(model)
    if part is not None:
        return save_parts(folder, **{part: model}, dtype=dtype)
    codec, lm = getattr(model, "codec", None), getattr(model, "lm", None)
    if codec is None and lm is None:
        raise CheckpointError(f"cannot save a {type(model).__name__}: it is no part of a model and has no codec or lm")
    tokenizer = getattr(model, "tokenizer", None)
    text_decoder = getattr(model, "text_decoder", None)
    return save_parts(folder, codec=codec, lm=lm, text_decoder=text_decoder, tokenizer=tokenizer, dtype=dtype)


def part_of(model: Any) -> Part | None:
    """Which part of a model this is, by its class; None if it is none of them."""
    names = {spec.model_class: part for part, spec in PARTS.items()}
    for cls in type(model).__mro__:
        if cls.__name__ in names and cls.__module__ == PARTS[names[cls.__name__]].module:
            return cast(Part, names[cls.__name__])
    return None


def save_parts(
    folder: Path | str,
    *,
    codec: nn.Module | None = None,
    lm: nn.Module | None = None,
    text_decoder: nn.Module | None = None,
    tokenizer: Any = None,
    card: str | None = None,
    dtype: SaveDtype = "float32",
) -> Path:
    """Write the given parts into a model folder and leave the others as they are.

    Args:
        folder: Created if absent.
        codec: A ``ReasoningCodec``.
        lm: An ``AudioLM``.
        text_decoder: A ``TextDecoder``.
        tokenizer: The path of a ``tokenizer.json``, or an object with ``save(path)``.
        card: Text of ``MODEL_CARD.md``.
        dtype: See :func:`save_pretrained`.

    Returns:
        The folder.
    """
    folder = Path(folder)
    parts = {"codec": codec, "lm": lm, "text_decoder": text_decoder}
    sections = {part: to_plain(cast(Any, model).config) for part, model in parts.items() if model is not None}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be made ({error.strerror})") from None
    for part, model in parts.items():
        if model is not None:
            save_tensors(folder / f"{part}.safetensors", pack_weights(model, dtype), metadata={"format": "pt"})
    if tokenizer is not None:
        _save_tokenizer(tokenizer, folder / TOKENIZER_FILE)
    if card is not None:
        write_text(folder / CARD_FILE, card)
    write_folder_config(folder, sections)
    return folder


def write_folder_config(folder: Path | str, sections: Mapping[str, Any]) -> None:
    """Write or extend a model folder's ``config.yaml``.

    Args:
        folder: An existing folder.
        sections: Config values by part; parts that are not named keep their section.
    """
    folder = Path(folder)
    old = open_folder(folder).config if (folder / CONFIG_FILE).exists() else {}
    merged = {"format": FORMAT, "version": VERSION}
    for part in (*PARTS, *LONE_PARTS):
        if part in sections:
            merged[part] = to_plain(sections[part])
        elif part in old:
            merged[part] = old[part]
    dump_config(merged, folder / CONFIG_FILE)


def _save_tokenizer(tokenizer: Any, path: Path) -> None:
    if isinstance(tokenizer, (str, Path)):
        copy_file(Path(tokenizer), path)
    else:
        tokenizer.save(path)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file under a temporary name in the target's folder, then rename it into place."""
    if source.resolve() == target.resolve():
        return
    with source.open("rb") as given, replacing(target) as file:
        shutil.copyfileobj(given, file)


def pack_weights(model: nn.Module, dtype: SaveDtype = "float32") -> dict[str, LazyTensor]:
    """A model's tensors as they go into a file, converted one by one when they are written.

    Args:
        model: The model.
        dtype: See :func:`save_pretrained`.

    Raises:
        CheckpointError: If ``dtype`` is not one of the three.
    """
    tensors = {name: LazyTensor.of(tensor.detach()) for name, tensor in model.state_dict().items()}
    return pack_tensors(tensors, model, dtype)


def pack_tensors(
    tensors: Mapping[str, LazyTensor], model: nn.Module, dtype: SaveDtype | Literal["same"]
) -> dict[str, LazyTensor]:
    """Tensors in another type, converted one by one when they are read.

    Only parameters lose precision; buffers (codebooks, counters) keep their values exactly. With ``int8``, vectors are
    stored in half precision, and so are buffers that it can hold without change.

    Args:
        tensors: The values, by the names of ``model``.
        model: Says which names are parameters, and of what kind of layer; may be on the meta device.
        dtype: ``float32``, ``bf16``, ``int8``, or ``same`` to change nothing.

    Raises:
        CheckpointError: If ``dtype`` is another word.
    """
    if dtype not in ("same", "float32", "bf16", "int8"):
        raise CheckpointError(f"cannot save as {dtype!r}; allowed: float32, bf16, int8")
    axes = {name: _reduced_axes(module, key) for name, module, key in _parameters_with_owner(model)}
    packed: dict[str, LazyTensor] = {}
    for name, tensor in tensors.items():
        if dtype == "same" or not tensor.dtype.is_floating_point:
            packed[name] = tensor
        elif name not in axes:
            packed[name] = _pack_exactly(tensor) if dtype == "int8" else tensor
        elif dtype == "int8" and _worth_int8(tensor.shape):
            packed.update(_pack_int8(name, tensor, axes[name]))
        else:
            to = {"float32": torch.float32, "bf16": torch.bfloat16, "int8": torch.float16}[dtype]
            if to == torch.float16 and not _fits_half(tensor.read()):
                to = torch.float32
            packed[name] = LazyTensor(tensor.shape, to, lambda t=tensor, to=to: t.read().to("cpu", to))
    return packed


def _parameters_with_owner(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    for prefix, module in model.named_modules():
        for key, _ in module.named_parameters(recurse=False):
            yield (f"{prefix}.{key}" if prefix else key), module, key


def _reduced_axes(module: nn.Module, key: str) -> tuple[int, ...] | None:
    """Axes that share one scale: all but the first for a convolution; None leaves the choice to the values."""
    convolution = isinstance(module, (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d))
    return (1, 2, 3) if convolution and key == "weight" else None


def _fits_half(value: Tensor) -> bool:
    return bool((value.abs().max() < torch.finfo(torch.float16).max).item()) if value.numel() else True


def _pack_exactly(tensor: LazyTensor) -> LazyTensor:
    """A buffer in half precision where every value survives, else as it is."""
    value = tensor.read()
    if not torch.equal(value.half().to(value.dtype), value):
        return tensor
    return LazyTensor(tensor.shape, torch.float16, lambda: value.half())


def _worth_int8(shape: tuple[int, ...]) -> bool:
    return len(shape) > 1 and math.prod(shape) >= MIN_ROW_VALUES * max(shape[0], MIN_ROW_VALUES)


def _pack_int8(name: str, tensor: LazyTensor, axes: tuple[int, ...] | None) -> dict[str, LazyTensor]:
    rank = len(tensor.shape)
    if axes is not None:
        reduced = tuple(axis for axis in axes if axis < rank)
    elif rank == 2:
        reduced = (1,)
    else:  # a stack of matrices: the axis whose scales lose less
        value = tensor.read()
        reduced = min(((rank - 1,), (rank - 2,)), key=lambda axis: _int8_error(value, axis))
    scale_shape = tuple(1 if axis in reduced else size for axis, size in enumerate(tensor.shape))
    return {
        name: LazyTensor(tensor.shape, torch.int8, lambda: quantize_rows(tensor.read(), reduced)[0]),
        name + SCALE_SUFFIX: LazyTensor(scale_shape, torch.float16, lambda: quantize_rows(tensor.read(), reduced)[1]),
    }


def _int8_error(tensor: Tensor, axes: tuple[int, ...]) -> float:
    values, scale = quantize_rows(tensor, axes)
    return float((values.float() * scale.float() - tensor.float().cpu()).square().mean())


def quantize_rows(tensor: Tensor, axes: tuple[int, ...] = (1,)) -> tuple[Tensor, Tensor]:
    """Symmetric 8-bit rounding with one half-precision scale per row.

    Args:
        tensor: Any shape, floating point.
        axes: The axes that share a scale.

    Returns:
        ``int8`` values of the same shape, and the scale as float16 with size 1 along ``axes``; their product is at
        most half a scale step away from ``tensor``.
    """
    tensor = tensor.detach().float().cpu()
    peak = tensor.abs().amax(dim=axes, keepdim=True)
    if not bool(torch.isfinite(peak).all()) or float(peak.max()) / 127 > torch.finfo(torch.float16).max:
        raise CheckpointError("cannot save as int8: a weight is not finite or too large; save as float32")
    scale = (peak / 127).half()
    scale = torch.where(scale == 0, torch.full_like(scale, 2.0**-24), scale)
    too_small = scale.float() * 127 < peak * (1 - 2**-9)
    scale = torch.where(too_small, torch.nextafter(scale, torch.full_like(scale, math.inf)), scale)
    values = (tensor / scale.float()).round().clamp(-127, 127).to(torch.int8)
    return values, scale


def push_to_hub(folder: Path | str, repo: str, *, private: bool = True, token: str | None = None) -> str:
    """Upload a model folder to the Hugging Face hub (extra ``published``).

    Args:
        folder: A model folder.
        repo: ``owner/name``; created if absent.
        private: Whether a newly created repository is private.
        token: Access token; by default the one that ``hf auth login`` stored.

    Returns:
        Address of the commit.
    """
    folder = open_folder(folder).path
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise CheckpointError("uploading needs huggingface_hub: pip install 'uniaudio2[published]'") from None
    api = HfApi(token=token)
    api.create_repo(repo, private=private, exist_ok=True)
    return str(api.upload_folder(repo_id=repo, folder_path=folder, ignore_patterns=[".*", "*.tmp"]))
