"""What helps a small model to attend: holes in the history, foretold phones, texts beside their speech."""

from __future__ import annotations

import pytest
import torch

from uniaudio2.config import load_config, preset_path
from uniaudio2.data.collate import LMBatch, Segment, collate
from uniaudio2.lm import LMConfig
from uniaudio2.sequence import SequenceBuilder
from uniaudio2.tasks import get_form
from uniaudio2.train.auxiliary import FRAMES_AHEAD, PHONE_IDS, PhoneHeads, blank_history, phones_of, spoken_texts

CONFIG = load_config(LMConfig, preset_path("lm", "tiny"))
WORDS, PHONES = [0, 31, 32, 33, 1], (5, 6, 7)


def batch(*tasks: str) -> LMBatch:
    builder = SequenceBuilder(None, CONFIG.audio, text=CONFIG.text)
    rows = []
    for number, task in enumerate(tasks):
        codes = (torch.full((8, 4 + number), 3), torch.full((8, 9 + number), 4))
        values = {"audio": codes, "transcription": WORDS}
        rows.append([Segment(builder.example(task, values, prompt=[0, 30, 1]), get_form(task), {"audio": PHONES})])
    return collate(builder, rows)


def test_only_codes_that_are_predicted_get_holes() -> None:
    data = batch("tts", "asr", "tts")
    torch.manual_seed(0)
    shown, hidden = blank_history(data, CONFIG.audio, 1.0)
    assert hidden.any() and not hidden[1].any()
    assert (hidden <= data.loss_mask[..., 0]).all()
    assert torch.equal(shown[~hidden], data.tokens[~hidden])
    holes = {CONFIG.audio.streams[0].pad, CONFIG.audio.fine_shift + CONFIG.audio.fine.pad}
    assert set(shown[hidden][:, :-1].unique().tolist()) == holes
    was = data.tokens[hidden][:, 0]
    assert set(was.tolist()) == {3, CONFIG.audio.fine_shift + 4}  # begin and end frames are never hidden
    same, none = blank_history(data, CONFIG.audio, 0.0)
    assert torch.equal(same, data.tokens) and not none.any()


def test_spoken_texts_are_found_beside_the_phones_of_their_speech() -> None:
    data = batch("tts", "asr", "tts")
    spans, said_by = spoken_texts(data)
    assert spans[:, 0].tolist() == [0, 2] and said_by.tolist() == [0, 2]
    for row, first, last in spans.tolist():
        assert data.tokens[row, first:last, -1].tolist() == WORDS[1:-1]
    phones, counts = phones_of(data, said_by)
    assert phones.tolist() == [*PHONES, *PHONES] and counts.tolist() == [3, 3]
    none, _ = spoken_texts(batch("asr"))
    assert none.shape == (0, 3)


@torch.no_grad()
def test_foresight_costs_the_teachers_entropy_once_the_phones_are_known() -> None:
    torch.manual_seed(0)
    heads, subframes = PhoneHeads(16, 2), 2
    heard = torch.randn(1, 1, 16).repeat(1, 12, 1) * 3
    spans, seen = torch.tensor([[0, 4, 9]]), torch.zeros(1, 12, dtype=torch.bool)
    said = heads.hearing.log_probs(heard, spans)[0]
    entropy = float(-(said.exp() * said).sum(-1).mean())
    ignorant = float(heads.foresight_loss(heard, heard, spans, seen))
    heads.foretelling.weight.copy_(heads.hearing.linear.weight.repeat(FRAMES_AHEAD, 1))
    heads.foretelling.bias.copy_(heads.hearing.linear.bias.repeat(FRAMES_AHEAD))
    assert heads.foretelling.out_features == FRAMES_AHEAD * subframes * PHONE_IDS
    known = float(heads.foresight_loss(heard, heard, spans, seen))
    assert known == pytest.approx(entropy, rel=1e-4) and known < ignorant - 0.5
    deaf = heard.clone()
    deaf[0, 6] = -deaf[0, 6]
    seen[0, 6] = True  # its frame was hidden, so what the teacher says of it counts nothing
    assert float(heads.foresight_loss(heard, deaf, spans, seen)) == pytest.approx(entropy, rel=1e-4)


def test_foresight_looks_at_positions_before_the_frame() -> None:
    torch.manual_seed(0)
    heads = PhoneHeads(16, 2)
    heard, hidden = torch.randn(1, 12, 16), torch.randn(1, 12, 16, requires_grad=True)
    heads.foresight_loss(hidden, heard, torch.tensor([[0, 4, 9]]), torch.zeros(1, 12, dtype=torch.bool)).backward()
    assert hidden.grad is not None
    assert hidden.grad[0].abs().sum(-1).nonzero().flatten().tolist() == [3, 4, 5, 6, 7]
