"""Where the guided heads look, one column per trained stage: what is predicted (down) against what it should attend.

python attention.py OUT.png EXPORT [EXPORT ...]: exports of language model stages; the clips are the same for all.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from uniaudio2.config import load_config
from uniaudio2.lm.transformer import AttentionProbe
from uniaudio2.train.lm import LMStage, LMTrainConfig, lm_losses

ROWS = (("asr", "transcript over sounds"), ("tts", "speech codes over text"))


def name_of(export: Path) -> str:
    """The run's folder, which names the variant."""
    return export.parent.name if export.name == "export" else export.name


def maps(export: Path) -> list[torch.Tensor]:
    """One attention map (predicted, attended) per row of the picture."""
    config = load_config(LMTrainConfig, export / "train.yaml")
    stage = LMStage(replace(config, init_from=str(export), data=replace(config.data, dev_clips=8)))
    stage.model.eval()
    probe = AttentionProbe(config.losses.guided_layer, config.losses.guided_heads)
    found = []
    for entry, _ in ROWS:
        task, items = stage.groups[f"{entry}_en"]
        batch = stage.dev.held_out(task, items[-1:], shuffled=False)
        with torch.no_grad():
            losses = lm_losses(stage.model.lm, batch.tokens, batch.mask, batch.loss_mask, config.losses, probe=probe)
        assert losses.output.probed is not None
        row, first, end, seen, last, head = batch.aligned[0].tolist()
        found.append(losses.output.probed.attention[row, head, first - 1 : end - 1, seen:last])
    return found


def main(out: str, *exports: str) -> None:
    """Draw the picture."""
    figure = Figure(figsize=(2.4 * len(exports), 2.6 * len(ROWS)), layout="constrained")
    FigureCanvasAgg(figure)
    for column, export in enumerate(map(Path, exports)):
        for row, ((_, title), attention) in enumerate(zip(ROWS, maps(export), strict=True)):
            axes = figure.add_subplot(len(ROWS), len(exports), row * len(exports) + column + 1)
            axes.imshow(attention, aspect="auto", vmin=0, interpolation="nearest")
            axes.set_title(f"{name_of(export)}: {title}" if not column else name_of(export), fontsize=7)
            axes.tick_params(labelsize=5)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:])
