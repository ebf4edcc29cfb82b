"""What a preset chooses by name: codecs, encoders, autoencoders and decoders, each a class with a config dataclass.

A class enters by a decorator in its own file, so adding one changes no other file::

    @CODECS.register("my_codec", MyCodecConfig)
    class MyCodec(Codec): ...

Files of this package are imported when one of their names is asked for. A package of one's own names its files in the
entry points ``uniaudio2.codecs``, ``uniaudio2.encoders``, …, or imports them before loading a model.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from uniaudio2.config import ConfigError, load_config, to_plain

if TYPE_CHECKING:
    from uniaudio2.codec.autoencoder import Autoencoder
    from uniaudio2.codec.contract import Codec
    from uniaudio2.codec.decoder import LatentDecoder
    from uniaudio2.codec.encoder import AudioEncoder

T = TypeVar("T")
BaseT = TypeVar("BaseT")


@dataclass(frozen=True)
class RegisteredConfig:
    """A class chosen by its registered name, with the values of that class's own config."""

    name: str
    config: dict[str, Any] = field(default_factory=dict)


class Registry(Generic[BaseT]):
    """Classes of one kind by name.

    Args:
        kind: What they are, in a word, for messages.
        modules: Name -> module of this package that registers it.
    """

    def __init__(self, kind: str, modules: Mapping[str, str]) -> None:
        self.kind = kind
        self._modules = dict(modules)
        self._entries: dict[str, tuple[type[Any], type[Any]]] = {}

    def register(self, name: str, config_class: type[Any]) -> Callable[[type[T]], type[T]]:
        """Decorator that registers a class whose only positional argument is an instance of ``config_class``."""

        def enter(cls: type[T]) -> type[T]:
            """Note the class and leave it as it is."""
            self._entries[name] = (config_class, cls)
            return cls

        return enter

    def __iter__(self) -> Iterator[str]:
        installed = (point.name for point in entry_points(group=f"uniaudio2.{self.kind}s"))
        return iter(dict.fromkeys((*self._modules, *self._entries, *installed)))

    def classes(self, name: str) -> tuple[type[Any], type[Any]]:
        """The config class and the class of a name.

        Raises:
            ConfigError: If it is not registered.
        """
        if name not in self._entries:
            if name in self._modules:
                importlib.import_module(self._modules[name])
            for point in entry_points(group=f"uniaudio2.{self.kind}s", name=name):
                point.load()
        if name not in self._entries:
            raise ConfigError(f"unknown {self.kind} {name!r}: choose one of {', '.join(self)}")
        return self._entries[name]

    def build(self, name: str, values: Mapping[str, Any], **options: Any) -> BaseT:
        """A new instance, from plain values of its config that are checked strictly.

        Args:
            name: As registered.
            values: Values of its config.
            options: Go as they are to the class, or to its ``from_config`` where it has one.

        Raises:
            ConfigError: If the name is not registered or the values do not fit.
        """
        config_class, cls = self.classes(name)
        return getattr(cls, "from_config", cls)(load_config(config_class, dict(values)), **options)

    def name_of(self, thing: object) -> str | None:
        """The name under which the class of an instance is registered; None if it is not."""
        return next((name for name, (_, cls) in self._entries.items() if type(thing) is cls), None)


ENCODERS: Registry[AudioEncoder] = Registry(
    "encoder",
    {
        "whisper": "uniaudio2.codec.whisper",
        "wavlm": "uniaudio2.codec.features",
        "musicfm": "uniaudio2.codec.features",
        "speech_expert": "uniaudio2.codec.experts",
        "whisper_expert": "uniaudio2.codec.experts",
        "sound_expert": "uniaudio2.codec.experts",
    },
)
AUTOENCODERS: Registry[Autoencoder] = Registry(
    "autoencoder",
    {"sqcodec": "uniaudio2.codec.autoencoder", "convnext": "uniaudio2.codec.autoencoder_convnext"},
)
DECODERS: Registry[LatentDecoder] = Registry(
    "decoder", {"flow_matching": "uniaudio2.codec.flow_matching", "few_step": "uniaudio2.codec.few_step"}
)
REASONING_CODEC = "reasoning_codec"
CODECS: Registry[Codec] = Registry("codec", {REASONING_CODEC: "uniaudio2.codec.codec"})


def codec_section(codec: Any) -> dict[str, Any]:
    """The ``codec`` section that rebuilds a codec.

    Raises:
        ConfigError: If its class is not registered.
    """
    name = CODECS.name_of(codec)
    if name is None:
        raise ConfigError(f"{type(codec).__name__} is no registered codec; decorate it with @CODECS.register")
    values = to_plain(codec.config)
    return values if name == REASONING_CODEC else {"name": name, "config": values}
