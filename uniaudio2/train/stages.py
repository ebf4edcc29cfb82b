"""All training stages by name, and how their results become one model folder. Knows no loss and no data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from uniaudio2.checkpoint import load_lm, save_parts
from uniaudio2.codec.codec import CodecConfig, ReasoningCodec
from uniaudio2.codec.text_decoder import TextDecoder, TextDecoderConfig
from uniaudio2.config import list_presets, load_config, preset_path, read_yaml
from uniaudio2.errors import UserError
from uniaudio2.lm import AudioLM
from uniaudio2.storage.folder import open_folder, write_folder_config
from uniaudio2.tensors import load_tensors
from uniaudio2.train import codec, lm, post
from uniaudio2.train.config import TrainingError, TrainResult
from uniaudio2.train.state import mean_state
from uniaudio2.train.trainer import Trainer

LM_STAGES = ("lm_1", "lm_2", "lm_3", "lm_4", "lm_post")
STAGES = (*codec.CODEC_STAGES, *LM_STAGES)
"""Stages in the order in which a model is made; each names its preset under configs/train/."""

StageConfig = codec.CodecStageConfig | lm.LMTrainConfig
"""The config of a stage; which class it is, and so which fields there are, the stage's name decides."""


def stage_config(stage: str, source: str | None = None, overrides: Sequence[str] = ()) -> StageConfig:
    """Read and check a stage's config.

    Args:
        stage: One of `STAGES`, or ``lm`` with a config file of one's own.
        source: YAML file or preset name; the stage's own preset when None.
        overrides: ``key=value`` changes.

    Returns:
        The config of a codec or language model stage.

    Raises:
        TrainingError: If the stage is unknown.
        ConfigError: If the file or a change is wrong, or names a field that the stage does not have.
    """
    if stage not in (*STAGES, "lm"):
        raise TrainingError(f"unknown stage '{stage}': choose one of {', '.join(STAGES)}")
    if stage == "lm" and source is None:
        raise TrainingError("stage 'lm' needs --config; the presets are " + ", ".join(LM_STAGES))
    languages = post.PostTrainConfig if stage == "lm_post" else lm.LMTrainConfig
    kind = codec.CODEC_STAGES[stage][0] if stage in codec.CODEC_STAGES else languages
    return load_config(kind, preset_path("train", source or stage), overrides)


def run_stage(config: StageConfig, *, log: Callable[[str], None] | None = None) -> TrainResult:
    """Run a stage to its end, or go on where it stopped.

    Args:
        config: From `stage_config`.
        log: Receives progress lines; standard error when None.

    Returns:
        How it ended and where its export lies.
    """
    if isinstance(config, post.PostTrainConfig):
        return Trainer(config.train, post.PostStage(config), log=log).run()
    stage = lm.LMStage(config) if isinstance(config, lm.LMTrainConfig) else codec.build_stage(config)
    return Trainer(config.train, stage, log=log).run()


def without_training_parts(model: ReasoningCodec) -> ReasoningCodec:
    """The same codec without the semantic decoders, which only the training loss uses."""
    config = model.config
    slim = ReasoningCodec(replace(config, reconstruction=replace(config.reconstruction, semantic_decoders=False)))
    wanted = slim.state_dict().keys()
    slim.load_state_dict({name: value for name, value in model.state_dict().items() if name in wanted})
    return slim.eval()


def round_codebooks(model: ReasoningCodec) -> None:
    """Round every codebook to half precision, once and for all: from here on these are the codes."""
    for name, buffer in model.named_buffers():
        if name.endswith(".codebook"):
            buffer.copy_(buffer.half())


def average(models: Sequence[AudioLM]) -> AudioLM:
    """The mean of the weights of runs of one stage, in the first model. See `mean_state`.

    Raises:
        ValueError: If the models are not of one config.
    """
    if any(model.config != models[0].config for model in models):
        raise UserError("language models of different presets cannot be averaged: give runs of one stage")
    models[0].load_state_dict(mean_state([model.state_dict() for model in models]))
    return models[0]


def assemble(
    folder: Path | str,
    *,
    preset: str = "nano",
    parts: Sequence[Path | str] = (),
    text_decoder: Path | str | None = None,
    language_models: Sequence[Path | str] = (),
    generation: str | None = None,
    tokenizer: Path | str | None = None,
    card: str | None = None,
    dtype: Literal["float32", "bf16", "int8"] = "int8",
) -> Path:
    """Join what the stages exported into a model folder.

    Args:
        folder: Model folder; made or extended.
        preset: Codec preset that the parts were trained with.
        parts: Exported codec parts; together they must be the whole codec.
        text_decoder: Export folder of the reasoning stage, which holds the text decoder.
        language_models: Export folders of the last language model stage; of several runs the weights are averaged.
        generation: Preset of how the language model generates, or a YAML file; None: the one called as ``preset``.
        tokenizer: ``tokenizer.json``.
        card: Text of the model card.
        dtype: How weights are stored.

    Returns:
        The folder.

    Raises:
        ValueError: If a part is missing, or the language models are not of one config.
    """
    made = save_parts(
        folder,
        codec=_whole_codec(preset, parts, rounded=dtype == "int8") if parts else None,
        lm=average([load_lm(one) for one in language_models]) if language_models else None,
        text_decoder=None if text_decoder is None else _exported_text_decoder(Path(text_decoder)),
        tokenizer=tokenizer,
        card=card,
        dtype=dtype,
    )
    sections: dict[str, Any] = {}
    tuned = preset if generation is None and preset in list_presets("generation") else generation
    if language_models and tuned is not None:
        sections["generation"] = read_yaml(preset_path("generation", tuned))
    trained = open_folder(language_models[0]).config.get("trained_tasks") if language_models else None
    if trained is not None:
        sections["trained_tasks"] = trained
    if sections:
        write_folder_config(made, sections)
    return made


def _whole_codec(preset: str, parts: Sequence[Path | str], *, rounded: bool) -> ReasoningCodec:
    """A codec of the parts that its stages exported."""
    model = ReasoningCodec(load_config(CodecConfig, preset_path("codec", preset)))
    loaded = codec.load_finished(model, codec.load_parts(model, parts))
    model = without_training_parts(model)
    missing = set(model.state_dict()) - loaded
    if missing:
        raise UserError(f"no part holds {sorted(missing)[0]} and {len(missing) - 1} more: give every stage's export")
    if rounded:
        round_codebooks(model)
    return model


def _exported_text_decoder(folder: Path) -> TextDecoder:
    """The text decoder that the reasoning stage exported, without the head that only training needs."""
    config = load_config(TextDecoderConfig, folder / "text_decoder.yaml")
    text = TextDecoder(replace(config, sub_frames=0))
    tensors = load_tensors(folder / "text_decoder.safetensors")
    text.load_state_dict({name: value for name, value in tensors.items() if not name.startswith("ctc_head.")})
    return text
