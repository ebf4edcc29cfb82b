"""Models filled from files: built without initialisation, then filled strictly, one tensor in memory at a time.

Every key and shape must be explained. Tensors are mapped from the file where their type does not change, so that
loading needs little memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from uniaudio2.config import ConfigError, load_config
from uniaudio2.errors import CheckpointError, UserError
from uniaudio2.storage.folder import CONFIG_FILE, ModelFolder, open_folder
from uniaudio2.tensors import LazyTensor, TensorFileError, open_tensors, summarise

ConfigT = TypeVar("ConfigT")
ModelT = TypeVar("ModelT", bound=nn.Module)

SCALE_SUFFIX = ".scale"
MODEL_ERRORS = (ValueError, KeyError, TypeError, RuntimeError, ArithmeticError, AssertionError, MemoryError)
"""What constructors raise when values do not make a model, PyTorch's own included."""


class LoadOptions(TypedDict, total=False):
    """How a part is loaded.

    ``device`` says where to put it. ``dtype`` is the type of the parameters; None keeps the file's (int8 becomes
    float32). Buffers such as codebooks keep the file's type in any case, because a rounded codebook gives other codes.
    """

    device: str | torch.device
    dtype: torch.dtype | None


def load_part(
    source: Path | str | ModelFolder | None,
    part: str,
    config_class: type[ConfigT],
    make: Callable[[ConfigT], ModelT],
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> ModelT:
    """One part of a model folder, in evaluation mode.

    Args:
        source: See :func:`uniaudio2.storage.folder.open_folder`.
        part: The section of ``config.yaml`` and the name of the weight file.
        config_class: What the section is.
        make: Builds the part from its config.
        device: See :class:`LoadOptions`.
        dtype: See :class:`LoadOptions`.

    Raises:
        CheckpointError: If the folder has no such part, or config and weights do not fit each other.
    """
    folder = source if isinstance(source, ModelFolder) else open_folder(source)
    name = f"{folder.path / CONFIG_FILE}: {part}"
    try:
        config = load_config(config_class, folder.section(part), name=name)
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    weights = folder.weights(part)
    model = build_empty(lambda: make(config), name=name, weights=weights)
    load_weights(model, weights, dtype=dtype, device=device)
    return model.to(device).eval()  # tables that are not in the file


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


def build_empty(make: Callable[[], ModelT], *, name: str = "model", weights: Path | str | None = None) -> ModelT:
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
        with torch.device("cpu"), _keep_random_state(), limit, _NoInit():
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


def load_weights(
    model: nn.Module, path: Path | str, *, dtype: torch.dtype | None = None, device: str | torch.device = "cpu"
) -> None:
    """Put a file's weights into a model, strictly, one tensor in memory at a time.

    Args:
        model: Parameters and buffers are replaced by the file's tensors, mapped where nothing about them changes.
        path: A safetensors file or its shards.
        dtype: Type of the parameters; None keeps the file's, where int8 becomes float32.
        device: Where the tensors go.

    Raises:
        CheckpointError: If a key is missing, unexpected or of the wrong shape, or a value is of another kind or not
            finite; nothing has been changed then.
    """
    try:
        stored, passing = open_tensors(path), open_tensors(path, keep=False)
    except TensorFileError as error:
        raise CheckpointError(str(error)) from None
    tensors = {name: tensor for name, tensor in stored.items() if not is_scale(name, stored)}
    expected = model.state_dict(keep_vars=True)
    check_keys(
        {name: tuple(t.shape) for name, t in expected.items()},
        {name: t.shape for name, t in tensors.items()},
        name=str(path),
    )
    parameters = {name for name, t in expected.items() if isinstance(t, nn.Parameter)}
    types = {tensor.dtype for name, tensor in tensors.items() if name in parameters}
    if dtype is None and (len(types) > 1 or types & {torch.int8, torch.float64}):
        dtype = torch.float32  # one type for all, as networks need it; of the vectors beside 8-bit matrices too
    state: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        to = (dtype or tensor.dtype) if name in parameters else expected[name].dtype
        stays = tensor.dtype == to and torch.device(device).type == "cpu"
        try:
            value = read_stored(name, stored if stays else passing)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from None
        check_value(value, expected[name], f"{path}: '{name}'")
        state[name] = value.to(device, to)
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


def is_scale(name: str, stored: Mapping[str, LazyTensor]) -> bool:
    """Whether a tensor of a file only scales the int8 tensor of its name."""
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
    return tensor.read().float().mul_(scale.read().float())


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
