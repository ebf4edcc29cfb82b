#!/usr/bin/env bash
# The shipped model from nothing: data, five codec stages, codes, four language model stages, one model folder.
#
#   bash recipes/nano.sh [WORK]                                everything; each stage resumes where it stopped
#   MINUTES_SCALE=0.1 bash recipes/nano.sh /tmp/rehearsal      a rehearsal of the whole chain
#
# The numbers behind the stages are minutes: of one core for the sound expert, the autoencoder, the flow decoder and each
# run of lm_3, which run side by side where they can, of two cores for the others. About ten hours in all, two of
# them for the data and the codes. The shipped weights came of these stages in more runs, each going on from the one
# before, and from an earlier nano whose phoneme expert was trained from nothing (docs/lab/diary.md has each run). The
# script has not been run as a whole yet. Needs: pip install -e '.[train,data,eval]', the synthesisers that
# `uniaudio2 doctor` and docs/train/data.md name, Kokoro's and Whisper's files ($UNIAUDIO2_KOKORO, $UNIAUDIO2_WHISPER),
# and the real recordings under $UNIAUDIO2_DATA (docs/train/data.md).
set -euo pipefail
work=${1:-runs/nano}
scale=${MINUTES_SCALE:-1}
corpus=$work/corpus
codes=$work/codes
model=$work/model
sentences=${UNIAUDIO2_DATA:?set it to the folder of the real recordings}/text

# background COMMAND …: start it beside what follows. together: wait until all of them are done; the first that fails
# ends the recipe, and what still runs with it.
set -m  # each of them, with what it starts, is a process group
started=()
background() { "$@" & started+=($!); }
together() {
  local process
  for process in "${started[@]}"; do wait "$process"; done
  started=()
}
trap '[ ${#started[@]} -eq 0 ] || kill -- "${started[@]/#/-}" 2>/dev/null || true' EXIT

minutes() { python3 -c "print($1 * $scale)"; }

# stage NAME MINUTES [key=value ...]: run a training stage once; RUN names its folder where it is not the stage's own,
# LAUNCH what starts it.
stage() {
  local name=$1 budget=$2 out
  shift 2
  out=$work/${RUN:-$name}
  [ -e "$out/export/done" ] && return
  ${LAUNCH:-uniaudio2} train "$name" "train.out_dir=$out" train.steps=100000 \
    "train.budget_minutes=$(minutes "$budget")" "$@"
  touch "$out/export/done"
}

# part RUN [STAGE]: what a stage exported.
part() { echo "$work/$1/export/${2:-$1}.safetensors"; }

parts_of_corpus=(nano nano_mandarin nano_natural nano_heard nano_mixtures nano_speech_tasks nano_scene_tasks)
for part in "${parts_of_corpus[@]}"; do
  [ -e "$corpus/$part/manifest.jsonl" ] || uniaudio2 data synth "$corpus/$part" --preset "$part"
done

speech=$corpus/nano,$corpus/nano_natural,$corpus/nano_heard
one=(clips.corpus="$speech" train.threads=1)
# Two processes of one thread each do nearly twice the work of one process with two threads.
two=("${one[@]}" train.accumulate=2)
pair="torchrun --standalone --nproc-per-node 2 -m uniaudio2"
shares="clips.shares={hibari: 0.7, espeak-ng: 0.9, festival: 1.5, librispeech_text: 2.0, speechocean: 0.5, keywords: 0.4, "
shares+="speech_commands: 1.2, vctk_p239: 0.7, zh: 1.2, read_english: 1.5}"
# Whisper base's encoder below the phoneme expert is finished; its weights are the package's.
LAUNCH=$pair stage speech_expert 13 "${two[@]}" "$shares" train.lr=2e-3 train.warmup_steps=80 train.decay_fraction=0.5
background stage sound_expert 22 "${one[@]}" train.decay_fraction=0.5
stage autoencoder 52 "${one[@]}" train.decay_fraction=0.5 clips.augment_probability=0.1 clips.speed_probability=0
together
experts=$(part speech_expert),$(part sound_expert)

# First without codebooks: what the queries gather is decided here. Then with them.
RUN=reasoning_continuous LAUNCH=$pair stage reasoning 22 "${two[@]}" "$shares" clips.sound_weight=4 \
  quantize_after=100000000 train.lr=2e-3 train.decay_fraction=0.15 "parts=[$experts]"
LAUNCH=$pair stage reasoning 32 "${two[@]}" "$shares" clips.sound_weight=4 quantize_after=0 train.lr=1.5e-3 \
  train.warmup_steps=50 train.decay_fraction=0.5 "parts=[$experts,$(part reasoning_continuous reasoning)]" \
  text_decoder="$(part reasoning_continuous text_decoder)"
LAUNCH=$pair stage reconstruction 40 "${two[@]}" clips.sound_weight=3 train.lr=1.2e-3 train.decay_fraction=0.45 \
  train.warmup_steps=80 "parts=[$experts,$(part autoencoder),$(part reasoning)]"
# The latents are fixed now; the decoder that turns them into sound learns on. So does the flow decoder on fixed codes.
RUN=autoencoder_decoder background stage autoencoder 10 "${one[@]}" freeze_encoder=true train.lr=6e-4 \
  train.decay_fraction=0.6 train.warmup_steps=30 clips.augment_probability=0.1 clips.speed_probability=0 \
  "parts=[$(part autoencoder)]"
RUN=flow_decoder stage reconstruction 17 "${one[@]}" freeze_codes=true train.lr=8e-4 train.decay_fraction=0.7 \
  train.warmup_steps=30 "parts=[$experts,$(part autoencoder),$(part reasoning),$(part reconstruction)]"
together

parts=("$(part speech_expert)" "$(part sound_expert)" "$(part autoencoder_decoder autoencoder)"
  "$(part reasoning)" "$(part flow_decoder reconstruction)")
uniaudio2 assemble "$model" --text-decoder "$work/reasoning/export" "${parts[@]/#/--part=}"

# Codes come from the stored int8 codec, so that the language model learns what users will encode.
# codes_of HALF: the codes of every second shard.
codes_of() {
  local part copies
  for part in "${parts_of_corpus[@]}"; do
    copies=(--splits train)
    [ "$part" != nano ] || copies=(--augmented-copies 1 --voice-copies 0.05)
    uniaudio2 prepare "$corpus/$part" --out "$codes/$part" --model "$model" "${copies[@]}" \
      --precision bf16 --part "$1" --parts 2
  done
}
background codes_of 0
background codes_of 1
together

texts="{$sentences/en_common_voice.txt: en, $sentences/en_ljspeech.txt: en,"
texts+=" $sentences/cmn_hans_common_voice.txt: zh, $sentences/yue_common_voice.txt: yue}"
prepared=$(printf ",$codes/%s" "${parts_of_corpus[@]}")
lm=("data.codes=[${prepared:1}]" "data.texts=$texts" train.threads=1)
LAUNCH=$pair stage lm_1 21 "${lm[@]}" embeddings_from="$model"
LAUNCH=$pair stage lm_2 33 "${lm[@]}" init_from="$work/lm_1/export"
# The last stage runs from two seeds side by side; the mean of both is the model. Stage 4 (lm_4, auditory sentences)
# follows where several tasks in a row are wanted; it changes none of this size's figures.
for seed in 0 1; do
  RUN=lm_3_$seed background stage lm_3 180 "${lm[@]}" train.accumulate=1 train.seed=$seed \
    "mixture.weights={asr: 0.42, tts: 0.27, tts_voice: 0.06, audio_caption: 0.15, tta: 0.08, text_only: 0.02}" \
    "mixture.source_repeats={recorded: 2.0, esc10: 1, music: 1.5, zh: 1.1, yue: 0.7, kokoro: 2.2, speechocean: 0.6,
      keywords: 0.5, librispeech_voices: 1.5, librispeech_text: 2}" \
    init_from="$work/lm_2/export"
done
together
before=(--language-model "$work/lm_3_0/export" --language-model "$work/lm_3_1/export")
uniaudio2 assemble "$model" "${before[@]}"

# More rows of the task table, beside the old ones, from that mean. What they took from the old ones comes back where three
# parts of these weights and one of those before are taken: six to two.
LAUNCH=$pair RUN=lm_rows stage lm_3 68 "${lm[@]}" train.accumulate=4 train.lr=8e-4 train.warmup_steps=30 \
  train.ema_decay=0.985 train.min_lr_ratio=0.02 mixture.positions=2200 data.joined=0.15 \
  losses.ctc=0.2 losses.reading=0.15 losses.foresight=0.5 \
  "mixture.weights={asr: 0.24, tts: 0.33, tts_voice: 0.03, audio_caption: 0.05, tta: 0.05, text_only: 0.015,
    audio_understanding: 0.05, speech_s2t: 0.06, speech_s2s: 0.025, d_asr: 0.02, speech_with_sound: 0.015,
    music_caption: 0.02, diarization: 0.025, instruct_tts: 0.03, speech_edit: 0.015, ttm: 0.02, lyric_recognition: 0.01}" \
  "mixture.source_repeats={recorded: 2.0, esc10: 1, music: 1.5, kokoro: 4, speechocean: 0.6, keywords: 0.5,
    librispeech_text: 2, synth_scene: 2}" \
  init_from="$model"
rows=()
for _ in 1 2 3 4 5 6; do rows+=(--language-model "$work/lm_rows/export"); done
uniaudio2 assemble "$model" "${rows[@]}" "${before[@]}"
echo "$model"
