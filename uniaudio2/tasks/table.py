"""The task table: every task as one row. Data only.

A row added here is a task added: sequences, training, generation, evaluation and the command line read this table. A
row with ``training`` says beside its parts what a corpus needs for it, and a mixture can give it a weight. Source:
ARCHITECTURE section 2 for the published rows; prompts are our own wordings.
"""

from __future__ import annotations

from uniaudio2.tasks.row import Part, Task, audio_parts
from uniaudio2.tasks.training import Audio, HeldOut, Label, Sentence, Text, Training, Voice


def _text(value: str, tag: str | None = None) -> Part:
    return Part("text", value, tag)


_AUDIO = audio_parts("audio")
_TRANSCRIPTION = _text("transcription", "transcription")
_CAPTION = _text("caption", "caption")
_LYRIC = _text("lyric", "lyric")
_VOICE = Part("voice", "voice")
_OPTIONAL_VOICE = Part("voice", "voice", optional=True)

_LISTEN = (
    "Write down what is said in this recording.",
    "Turn the speech you hear into text.",
    "Please transcribe this audio.",
    "What are the spoken words in the clip?",
)
_SPEAK = (
    "Read this text aloud.",
    "Turn the following words into speech.",
    "Please say this sentence.",
    "Speak the text below.",
)

_TASKS = (
    Task(
        "asr",
        "asr",
        _LISTEN,
        _AUDIO,
        (_TRANSCRIPTION,),
        training=Training(
            score="wer",
            kinds=("speech",),
            values={"transcription": Text("text")},
            held_out=(
                HeldOut("asr_en", language="en", recorded=False),
                HeldOut("asr_en_recorded", language="en", recorded=True),
                HeldOut("asr_zh", language="zh"),
                HeldOut("asr_yue", language="yue"),
            ),
        ),
    ),
    Task(
        "yue_asr",
        "asr",
        (
            "Write down the Cantonese speech in this recording.",
            "Transcribe what is said in Cantonese.",
            "Turn this Cantonese speech into characters.",
        ),
        _AUDIO,
        (_TRANSCRIPTION,),
        language="yue",
    ),
    Task(
        "d_asr",
        "dysarthric asr",
        (
            "Write down what this speaker with dysarthria says.",
            "Transcribe this impaired speech.",
            "The speaker finds it hard to articulate; turn the words into text.",
        ),
        _AUDIO,
        (_TRANSCRIPTION,),
        training=Training(
            score="wer",
            kinds=("speech",),
            values={"audio": Audio("dysarthric", says="text"), "transcription": Text("text")},
        ),
    ),
    Task(
        "lyric_recognition",
        "lyrics",
        ("Write down the words of this song.", "What lyrics are sung here?", "Transcribe the singing."),
        _AUDIO,
        (_LYRIC,),
        training=Training(score="wer", kinds=("music",)),
    ),
    Task(
        "audio_caption",
        "caption",
        (
            "Describe the sound in this recording.",
            "What can be heard here?",
            "Give a short caption of this audio.",
            "Say in one sentence what makes this sound.",
        ),
        _AUDIO,
        (_CAPTION,),
        training=Training(score="class", kinds=("sound", "music"), held_out=(HeldOut("caption"),)),
    ),
    Task(
        "music_caption",
        "music caption",
        ("Describe this piece of music.", "What kind of music is this?", "Give a caption of the music."),
        _AUDIO,
        (_CAPTION,),
        training=Training(score="nats", kinds=("music",), values={"caption": Text("music_caption")}),
    ),
    Task(
        "audio_understanding",
        "answer",
        (
            "Listen to the audio and answer the question.",
            "Answer the question about this recording.",
            "Use what you hear to reply to the question.",
        ),
        (_text("question"), *_AUDIO),
        (_text("answer"),),
        training=Training(score="exact"),
    ),
    Task(
        "speech_s2t",
        "reply text",
        (
            "Listen to the speaker and reply in text.",
            "Answer the spoken request in writing.",
            "Write a reply to what is said.",
        ),
        _AUDIO,
        (_text("answer"),),
        training=Training(
            score="exact",
            kinds=("speech",),
            values={"audio": Audio("request", says="text"), "answer": Text("reply")},
        ),
    ),
    Task(
        "speech_s2s",
        "reply speech",
        ("Listen to the speaker and reply aloud.", "Answer the spoken request in speech.", "Speak a reply."),
        audio_parts("source"),
        audio_parts("target"),
        training=Training(
            score="nats",
            kinds=("speech",),
            values={"source": Audio("request", says="text"), "target": Audio("reply")},
        ),
    ),
    # Who speaks when: "1 0.0 1.4; 2 1.6 3.0" is speaker, start and end in seconds. The paper has no such row.
    Task(
        "diarization",
        "speakers",
        ("Who speaks when in this recording?", "Give the turns of each speaker with times.", "Find who talks when."),
        _AUDIO,
        (_text("turns"),),
        training=Training(score="nats", kinds=("speech",)),
    ),
    Task(
        "tts",
        "tts",
        _SPEAK,
        (_OPTIONAL_VOICE, _TRANSCRIPTION),
        _AUDIO,
        guidance=True,
        length="spoken",
        training=Training(
            score="wer",
            kinds=("speech",),
            values={"transcription": Text("text", respelled=True)},
            held_out=(
                HeldOut("tts_en", language="en"),
                HeldOut("tts_zh", language="zh"),
                HeldOut("tts_yue", language="yue"),
                HeldOut("tts_voice", optional=("voice",)),
            ),
        ),
    ),
    Task(
        "yue_tts",
        "tts",
        ("Read this text aloud in Cantonese.", "Say the following in Cantonese.", "Turn this into Cantonese speech."),
        (_OPTIONAL_VOICE, _TRANSCRIPTION),
        _AUDIO,
        guidance=True,
        language="yue",
        length="spoken",
    ),
    Task(
        "instruct_tts",
        "styled tts",
        (
            "Read the text in the style that is described.",
            "Speak the words as the description asks.",
            "Use the described voice for this text.",
        ),
        (_CAPTION, _TRANSCRIPTION),
        _AUDIO,
        guidance=True,
        length="spoken",
        training=Training(
            score="wer",
            kinds=("speech",),
            values={"transcription": Text("text", respelled=True), "audio": Audio("styled", says="text")},
        ),
    ),
    Task(
        "prompt_instruct_tts",
        "styled voice tts",
        (
            "Read the text with the voice you hear, in the style that is described.",
            "Keep this voice and speak as the description asks.",
            "Say the words in the given voice and style.",
        ),
        (_VOICE, _CAPTION, _TRANSCRIPTION),
        _AUDIO,
        length="spoken",
        training=Training(
            score="wer",
            kinds=("speech",),
            values={
                "voice": Voice("reference"),
                "caption": Text("style"),
                "transcription": Text("text", respelled=True),
                "audio": Audio("styled", says="text"),
            },
        ),
    ),
    Task(
        "tta",
        "sound",
        (
            "Make the sound that is described.",
            "Create audio for this description.",
            "Produce the following sound.",
            "Let me hear what the text describes.",
        ),
        (_CAPTION,),
        _AUDIO,
        guidance=True,
        kind="sound",
        length="sound",
        training=Training(score="class", kinds=("sound", "music")),
    ),
    Task(
        "ttm",
        "music",
        ("Play music as described.", "Create a piece of music for this description.", "Compose what the text asks."),
        (_CAPTION,),
        _AUDIO,
        guidance=True,
        kind="sound",
        length="sound",
        training=Training(score="nats", kinds=("music",), values={"caption": Text("music_caption")}),
    ),
    Task(
        "lts",
        "song",
        ("Sing these lyrics.", "Make a song from the words below.", "Turn the lyrics into a song."),
        (_LYRIC,),
        _AUDIO,
        guidance=True,
        training=Training(score="nats", kinds=("music",)),
    ),
    Task(
        "speech_edit",
        "edit",
        (
            "Change the recording as the text asks.",
            "Edit this speech by the instruction.",
            "Apply the requested change to the audio.",
        ),
        (_text("instruction"), *audio_parts("source")),
        audio_parts("target"),
        length="copied",
        training=Training(
            score="nats",
            kinds=("speech",),
            values={"source": Audio("plain", says="text"), "target": Audio("styled", says="text")},
        ),
    ),
    Task(
        "speech_denoise",
        "denoise",
        ("Remove the noise from this recording.", "Clean up the speech.", "Keep the voice and drop the noise."),
        audio_parts("source"),
        audio_parts("target"),
        training=Training(
            score="nats", kinds=("speech",), values={"source": Audio("noisy"), "target": Audio("clean", says="text")}
        ),
    ),
    Task(
        "speech_ss",
        "separate speech",
        (
            "Separate the two speakers.",
            "Split this mixture into its voices.",
            "Give each speaker a recording of their own.",
        ),
        audio_parts("mixture"),
        (*audio_parts("first"), *audio_parts("second")),
        training=Training(score="nats", kinds=("speech",)),  # first: who starts first
    ),
    Task(
        "music_ss",
        "separate music",
        (
            "Separate the music into two parts.",
            "Split the voice from the accompaniment.",
            "Take this music apart.",
        ),
        audio_parts("mixture"),
        (*audio_parts("first"), *audio_parts("second")),
        kind="sound",
        training=Training(
            score="nats",
            kinds=("music",),
            values={"mixture": Audio("audio"), "first": Audio("vocals"), "second": Audio("accompaniment")},
        ),
    ),
    Task(
        "reason_to_semantic",
        "details",
        ("Fill in the sound for these reasoning codes.", "Add the details.", "Continue from meaning to sound."),
        (Part("reasoning", "audio"),),
        (Part("reconstruction", "audio"),),
    ),
    Task(
        "semantic_to_reason",
        "meaning",
        ("Give the reasoning codes of this sound.", "Sum up the sound.", "Continue from sound to meaning."),
        (Part("reconstruction", "audio"),),
        (Part("reasoning", "audio"),),
    ),
    Task(
        "semantic_copy",
        "copy sound",
        ("Repeat the sound codes.", "Copy this recording.", "Say the same again."),
        _AUDIO,
        (Part("reconstruction", "copy"),),
    ),
    Task(
        "reason_copy",
        "copy meaning",
        ("Repeat the reasoning codes.", "Copy the meaning.", "Give the same reasoning again."),
        _AUDIO,
        (Part("reasoning", "copy"),),
    ),
    Task("audio_only", "", (), (), _AUDIO, training=Training(score="nats")),
    Task("text_only", "", (), (), (_text("text"),), training=Training(score="nats", values={"text": Sentence()})),
    # The rows below are named in the paper without a published format; these formats are ours.
    Task(
        "prompted_song",
        "song",
        ("Sing these lyrics with the voice you hear.", "Keep this voice and sing the words.", "Use this singer."),
        (_VOICE, _LYRIC),
        _AUDIO,
        guidance=True,
    ),
    Task(
        "speech_with_sound",
        "scene",
        (
            "Read the text with the described sound in the background.",
            "Make a scene: the sound that is named and the words that are said.",
            "Speak the words while the sound is heard.",
        ),
        (_CAPTION, _TRANSCRIPTION),
        _AUDIO,
        guidance=True,
        training=Training(
            score="wer",
            kinds=("speech",),
            values={"transcription": Text("text", respelled=True), "audio": Audio("scene", says="text")},
        ),
    ),
    Task(
        "voice_conversion",
        "convert",
        (
            "Say this recording again with the voice that comes first.",
            "Give the speech the voice of the first clip.",
            "Change who speaks; keep the words and their timing.",
        ),
        (_VOICE, *audio_parts("source")),
        audio_parts("target"),
        training=Training(
            score="nats",
            kinds=("speech",),
            values={
                "voice": Voice("reference"),
                "source": Audio("spoken", says="text"),
                "target": Audio("converted", says="text"),
            },
        ),
    ),
    # The paper's few-shot classification: `shots` of every class come first, and one recording to be named.
    Task(
        "classify",
        "classify",
        (
            "For each of the following input output pairs, output is one of the classes of the examples.",
            "Name the class of the last recording as the examples before it do.",
            "Which of the classes in the examples is the last recording?",
        ),
        _AUDIO,
        (_text("label"),),
        training=Training(score="exact", kinds=("sound", "music", "speech"), values={"label": Label()}),
    ),
)

TASKS: dict[str, Task] = {task.name: task for task in _TASKS}
