#!/usr/bin/env bash
# The shipped model from nothing: data, five codec stages, codes, three language model stages, one model folder.
#
#   bash recipes/nano.sh [WORK]                                everything; each stage resumes where it stopped
#   MINUTES_SCALE=0.1 bash recipes/nano.sh /tmp/rehearsal      a rehearsal of the whole chain
#
# The numbers behind the stages are minutes: of one core for the experts, the autoencoder, the flow decoder and each run
# of lm_3, which run side by side where they can, of two cores for the others. About fifteen hours in all, three
# quarters of an hour for the data and as much for the codes among them. The shipped weights came of these stages and
# settings in more runs, each going on from the one before: the experts, the autoencoder and the reconstruction branch in
# two to four runs each, the language model in eighteen, of which the last five, of 52, 13, 9, 85 and 80 minutes, saw these
# codes (docs/lab/diary.md has each run). The script has not been run as a whole yet. Needs:
# pip install -e '.[train,data,eval]', the synthesisers that `uniaudio2 doctor` and docs/train/data.md name, and the real
# recordings under $UNIAUDIO2_DATA (docs/train/data.md).
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

parts_of_corpus=(nano nano_more nano_voices nano_english_rest nano_chinese nano_chinese_more nano_chinese_wide
  nano_chinese_rest nano_mixtures nano_mixtures_more nano_mixtures_wide nano_mixtures_varied)
for part in "${parts_of_corpus[@]}"; do
  [ -e "$corpus/$part/manifest.jsonl" ] || uniaudio2 data synth "$corpus/$part" --preset "$part"
done

one=(clips.corpus="$corpus/nano,$corpus/nano_more" train.threads=1)
# Two processes of one thread each do nearly twice the work of one process with two threads.
two=("${one[@]}" train.accumulate=2)
pair="torchrun --standalone --nproc-per-node 2 -m uniaudio2"
voices="clips.shares={flite: 1.6, festival: 3.0, espeak-ng: 0.8, zh: 0.8, yue: 0.8, read_english: 3.0}"
languages="clips.shares={zh: 0.5, yue: 0.5, flite: 1.3, festival: 1.5, espeak-ng: 0.9, read_english: 3.0}"

background stage speech_expert 55 "${one[@]}" "$voices" train.lr=2e-3 train.warmup_steps=150 train.decay_fraction=0.5
stage autoencoder 52 "${one[@]}" train.decay_fraction=0.5 clips.augment_probability=0.1 clips.speed_probability=0
together
stage sound_expert 22 "${one[@]}" train.lr=1.2e-3 train.decay_fraction=0.5
experts=$(part speech_expert),$(part sound_expert)

# First without codebooks: what the queries gather is decided here. Then with them.
RUN=reasoning_continuous LAUNCH=$pair stage reasoning 22 "${two[@]}" "$languages" clips.sound_weight=4 \
  quantize_after=100000000 train.lr=2e-3 train.decay_fraction=0.15 "parts=[$experts]"
LAUNCH=$pair stage reasoning 20 "${two[@]}" "$languages" clips.sound_weight=4 quantize_after=0 train.lr=1.5e-3 \
  train.warmup_steps=50 train.decay_fraction=0.5 "parts=[$experts,$(part reasoning_continuous reasoning)]" \
  text_decoder="$(part reasoning_continuous text_decoder)"
LAUNCH=$pair stage reconstruction 29 "${two[@]}" clips.sound_weight=3 train.lr=1.2e-3 train.decay_fraction=0.45 \
  train.warmup_steps=80 "parts=[$experts,$(part autoencoder),$(part reasoning)]"
# The latents are fixed now; the decoder that turns them into sound learns on.
RUN=autoencoder_decoder LAUNCH=$pair stage autoencoder 5 "${two[@]}" freeze_encoder=true train.lr=6e-4 \
  train.decay_fraction=0.6 train.warmup_steps=30 clips.augment_probability=0.1 clips.speed_probability=0 \
  "parts=[$(part autoencoder)]"

# Five further recorded voices: the speech expert and what leads to the reasoning codes learn on, while codebooks,
# reconstruction codes and flow decoder go on to fit.
five="$corpus/nano,$corpus/nano_more,$corpus/nano_voices,$corpus/nano_chinese,$corpus/nano_chinese_more"
more=("${two[@]}" train.decay_fraction=0.6)
RUN=speech_expert_voices LAUNCH=$pair stage speech_expert 56 "${more[@]}" clips.corpus="$five" train.lr=1.5e-3 \
  train.warmup_steps=50 anchor=0.3 head_from="$work/speech_expert/export" "parts=[$(part speech_expert)]" \
  "clips.shares={rhvoice: 1.7, pico: 2.1, flite: 0.9, festival: 2.0, espeak-ng: 0.7, zh: 0.7, yue: 0.5,
                 read_english: 3.0, fsdd: 2.0, synth_words: 2.0}"
voices=$(part speech_expert_voices speech_expert)
RUN=reasoning_voices LAUNCH=$pair stage reasoning 26 "${more[@]}" clips.corpus="$five,$corpus/nano_mixtures_more" train.lr=1.2e-3 \
  train.warmup_steps=30 clips.sound_weight=2 quantize_after=0 freeze_codebooks=true \
  text_decoder="$(part reasoning text_decoder)" "parts=[$voices,$(part sound_expert),$(part reasoning)]" \
  "clips.shares={rhvoice: 1.5, pico: 1.5, festival: 1.5, espeak-ng: 0.8, zh: 0.4, yue: 0.4, read_english: 3.0}"

# The codes are fixed as well; the flow decoder learns on.
frozen=$voices,$(part sound_expert),$(part autoencoder_decoder autoencoder),$(part reasoning_voices reasoning)
RUN=flow_decoder stage reconstruction 17 clips.corpus="$corpus/nano,$corpus/nano_more,$corpus/nano_voices" \
  train.threads=1 freeze_codes=true train.lr=8e-4 train.decay_fraction=0.7 train.warmup_steps=30 \
  "parts=[$frozen,$(part reconstruction)]"

parts=("$voices" "$(part sound_expert)" "$(part autoencoder_decoder autoencoder)" "$(part reasoning_voices reasoning)"
  "$(part flow_decoder reconstruction)")
uniaudio2 assemble "$model" --text-decoder "$work/reasoning_voices/export" "${parts[@]/#/--part=}"

# Codes come from the stored int8 codec, so that the language model learns what users will encode.
# codes_of HALF: the codes of every second shard.
codes_of() {
  local part copies
  for part in "${parts_of_corpus[@]}"; do
    case $part in
      nano) copies=(--augmented-copies 2 --synthetic-copies 0.1 --voice-copies 0.1) ;;
      nano_more) copies=(--splits train --voice-copies 0.15) ;;
      nano_voices) copies=(--splits train --synthetic-copies 0.1 --voice-copies 0.5) ;;
      nano_mixtures | nano_mixtures_more) copies=(--splits train --augmented-copies 1 --synthetic-copies 0.2) ;;
      *) copies=(--splits train) ;;
    esac
    uniaudio2 prepare "$corpus/$part" --out "$codes/$part" --model "$model" "${copies[@]}" \
      --precision bf16 --part "$1" --parts 2
  done
}
background codes_of 0
background codes_of 1
together

texts="{$sentences/en_common_voice.txt: en, $sentences/en_ljspeech.txt: en,"
texts+=" $sentences/cmn_hans_common_voice.txt: zh, $sentences/yue_common_voice.txt: yue}"
prepared="$codes/nano,$codes/nano_more,$codes/nano_voices,$codes/nano_chinese,$codes/nano_chinese_more"
prepared+=",$codes/nano_mixtures,$codes/nano_mixtures_more"
lm=("data.codes=[$prepared]" "data.texts=$texts" train.threads=1)
LAUNCH=$pair stage lm_1 21 "${lm[@]}" embeddings_from="$model"
LAUNCH=$pair stage lm_2 33 "${lm[@]}" init_from="$work/lm_1/export"
# The last stage runs in five parts, four of them from two seeds side by side and each from the mean of what came
# before; the mean of the last two is the model. First by AdamW, then by AdamW with more Chinese and digits, then by
# Muon, a short run and two long ones, with more speech, and sentences and mixtures that were
# not used before. Stage 4 (lm_4, auditory sentences) follows where several tasks in a row are wanted; it changes none of
# this size's figures.
# two_seeds MINUTES SEED SEED [key=value ...]
two_seeds() {
  local budget=$1 seeds=("$2" "$3") seed
  shift 3
  for seed in "${seeds[@]}"; do
    RUN=lm_3_$seed background stage lm_3 "$budget" "${lm[@]}" "train.seed=$seed" "$@"
  done
  together
}
lm+=(train.accumulate=1)
adamw=(train.optimizer=adamw mixture.positions=2500)
two_seeds 160 0 1 "${adamw[@]}" train.lr=1.2e-3 train.warmup_steps=50 train.decay_fraction=0.65 \
  "mixture.weights={asr: 0.42, tts: 0.22, tts_voice: 0.13, audio_caption: 0.12, tta: 0.09, text_only: 0.02}" \
  "mixture.source_repeats={recorded: 1.3, fsdd: 1.5, esc10: 1, music: 1.5, zh: 0.9, yue: 0.9}" \
  init_from="$work/lm_2/export"
two_seeds 13 2 3 "${adamw[@]}" train.lr=7e-4 train.warmup_steps=30 train.decay_fraction=0.9 \
  "mixture.weights={asr: 0.45, tts: 0.2, tts_voice: 0.12, audio_caption: 0.12, tta: 0.09, text_only: 0.02}" \
  "mixture.source_repeats={recorded: 1.3, fsdd: 2.5, esc10: 1, music: 1.5, zh: 2.2, yue: 1.6}" \
  init_from="$work/lm_3_0/export,$work/lm_3_1/export"
RUN=lm_3_7 stage lm_3 9 "${lm[@]}" train.seed=7 train.muon_lr=1 mixture.positions=2500 \
  "mixture.source_repeats={recorded: 1.3, fsdd: 2, esc10: 1, music: 1.5, zh: 1.8, yue: 1.4}" \
  init_from="$work/lm_3_2/export,$work/lm_3_3/export"
# The widest Chinese corpus joined these two after a third of their steps.
prepared+=",$codes/nano_chinese_wide"
two_seeds 85 10 11 "data.codes=[$prepared]" init_from="$work/lm_3_7/export"
prepared+=",$codes/nano_chinese_rest,$codes/nano_english_rest,$codes/nano_mixtures_wide"
prepared+=",$codes/nano_mixtures_varied"
# The varied mixtures, and so many captions, joined these two after two thirds of their steps.
two_seeds 80 20 21 "data.codes=[$prepared]" \
  "mixture.weights={asr: 0.37, tts: 0.27, tts_voice: 0.06, audio_caption: 0.2, tta: 0.08, text_only: 0.02}" \
  "mixture.source_repeats={recorded: 1.3, fsdd: 2, esc10: 1, music: 1.5, zh: 0.95, yue: 1, synth_mixture: 1.5}" \
  init_from="$work/lm_3_10/export,$work/lm_3_11/export"
uniaudio2 assemble "$model" --language-model "$work/lm_3_20/export" --language-model "$work/lm_3_21/export"
echo "$model"
