import pytest
import torch

from tests.tiny_model import make_tiny_model
from uniaudio2.checkpoint import save_parts
from uniaudio2.codec.text_decoder import TextDecoder, TextDecoderConfig
from uniaudio2.eval import Effort, EvaluationError, evaluate
from uniaudio2.eval.subject import HasAutoencoder, HasStreams, HasTextDecoder, PipelineSubject, Subject
from uniaudio2.tokenizer import TextTokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def subject(folder):
    loaded = PipelineSubject.load(folder)
    width = loaded.model.codec.reasoning.config.dim
    vocabulary = TextTokenizer.load(folder / "tokenizer.json").vocab_size
    config = TextDecoderConfig(vocabulary, bos_id=0, eos_id=1, condition_dim=width, width=32, max_tokens=5)
    save_parts(folder, text_decoder=TextDecoder(config))
    return PipelineSubject.load(folder)


def test_the_pipeline_is_a_subject(subject):
    assert isinstance(subject, Subject) and isinstance(subject, HasAutoencoder)
    assert isinstance(subject, HasStreams) and isinstance(subject, HasTextDecoder)


def test_every_method_gives_what_it_promises(subject, tone):
    clip = tone(0.7, 300)
    codes = subject.encode([clip, tone(0.5)])
    assert [one.num_samples for one in codes] == [16800, 12000]
    assert subject.decode(codes[0], seed=0).shape == clip.shape
    assert subject.autoencode(clip).shape == clip.shape
    assert isinstance(subject.read_reasoning(codes[0]), str)
    assert all(isinstance(text, str) for text in subject.transcribe([clip], language="en", seed=0))
    assert all(int(codes[0][stream.name].max()) < stream.codebook_size for stream in subject.streams)


def test_a_loaded_model_and_its_folder_score_alike(subject, folder, data_root):
    by_folder = evaluate("asr", data="keywords", model=folder, data_root=data_root)
    by_object = evaluate("asr", data="keywords", model=subject.model, data_root=data_root)
    assert [row["found"] for row in by_folder.items] == [row["found"] for row in by_object.items]
    assert by_folder.model == folder.name


def test_effort_reaches_the_model_and_the_report(subject, data_root, monkeypatch):
    asked = []

    def transcribe(clips, *, beams, shifts, **_):
        asked.append((beams, shifts))
        return ["alexa"] * len(clips)

    monkeypatch.setattr(subject.model, "transcribe", transcribe)
    report = evaluate("asr", data="keywords", model=subject.model, data_root=data_root, effort=Effort(beams=3))
    assert set(asked) == {(3, None)} and "--beams 3" in report.command
    with pytest.raises(EvaluationError, match="best_of changes nothing in asr"):
        evaluate("asr", data="keywords", model=subject.model, data_root=data_root, effort=Effort(best_of=3))
    with pytest.raises(EvaluationError, match=r"effort=Effort\(beams=...\)"):
        evaluate("asr", data="keywords", model=subject.model, data_root=data_root, beams=3)
    with pytest.raises(EvaluationError, match="shifts must be at least 1"):
        evaluate("asr", data="keywords", model=subject.model, data_root=data_root, effort=Effort(shifts=0))


def test_what_cannot_be_evaluated(data_root):
    with pytest.raises(EvaluationError, match="cannot evaluate a Tensor"):
        evaluate("asr", data="fsdd", model=torch.zeros(1), data_root=data_root)
