#!/usr/bin/env bash
# The shipped model from nothing: data, five codec stages, codes, four language model stages, one model folder.
#
#   bash recipes/nano.sh [WORK]                                everything; each stage resumes where it stopped
#   MINUTES_SCALE=0.1 bash recipes/nano.sh /tmp/rehearsal      a rehearsal of the whole chain
#
# The numbers behind the stages are minutes of one core; two stages that do not need each other can run side by side
# (speech_expert with autoencoder, reasoning with reconstruction_warm). All in all about 200 minutes of core time, 20 for
# the data and 20 for the codes. The shipped weights came of these stages with four differences: the speech expert had
# seen the first 11 hours of the corpus only; the first 9 minutes of lm_1 ran without embeddings_from and with one
# process; codes were made of clips up to 8 seconds with a text or a caption; the last
# autoencoder stage was two runs of 5 and 13 minutes. The script has not been run as a whole yet. Needs: pip install -e '.[train,data,eval]', the synthesisers that `uniaudio2 doctor` names, and the
# real recordings under $UNIAUDIO2_DATA (docs/data.md).
set -euo pipefail
work=${1:-runs/nano}
scale=${MINUTES_SCALE:-1}
corpus=$work/corpus
codes=$work/codes
model=$work/model
sentences=${UNIAUDIO2_DATA:?set it to the folder of the real recordings}/text

minutes() { python3 -c "print($1 * $scale)"; }

# stage NAME MINUTES [key=value ...]: run a training stage once; RUN names its folder where it is not the stage's own.
stage() {
  local name=$1 budget=$2 out
  shift 2
  out=$work/${RUN:-$name}
  [ -e "$out/export/done" ] && return
  uniaudio2 train "$name" "train.out_dir=$out" "train.budget_minutes=$(minutes "$budget")" train.steps=100000 "$@"
  touch "$out/export/done"
}

# part RUN [STAGE]: what a stage exported.
part() { echo "$work/$1/export/${2:-$1}.safetensors"; }

[ -e "$corpus/manifest.jsonl" ] || uniaudio2 data synth "$corpus" --preset nano

one=(clips.corpus="$corpus" train.threads=1)
stage speech_expert 29 "${one[@]}" train.lr=2e-3 train.warmup_steps=150
stage sound_expert 12 "${one[@]}"
stage autoencoder 25 "${one[@]}" train.decay_fraction=0.25 clips.augment_probability=0 clips.speed_probability=0
experts=$(part speech_expert),$(part sound_expert)

stage reasoning 22 "${one[@]}" "parts=[$experts]"
RUN=reconstruction_warm stage reconstruction 17 "${one[@]}" warm_up=true train.decay_fraction=0.05 \
  train.warmup_steps=150 "parts=[$experts,$(part autoencoder)]"
before=$experts,$(part autoencoder),$(part reasoning)
stage reconstruction 11 "${one[@]}" train.decay_fraction=0.4 train.warmup_steps=50 \
  "parts=[$before,$(part reconstruction_warm reconstruction)]"
# The latents are fixed now; the decoder that turns them into sound learns on.
RUN=autoencoder_decoder stage autoencoder 18 "${one[@]}" freeze_encoder=true train.decay_fraction=0.5 \
  train.warmup_steps=100 "parts=[$(part autoencoder)]"

parts=("$(part speech_expert)" "$(part sound_expert)" "$(part autoencoder_decoder autoencoder)" "$(part reasoning)"
  "$(part reconstruction)")
uniaudio2 assemble "$model" --text-decoder "$work/reasoning/export" "${parts[@]/#/--part=}"

# Codes come from the stored int8 codec, so that the language model learns what users will encode.
for i in 0 1; do
  uniaudio2 prepare "$corpus" --out "$codes" --model "$model" --augmented-copies 2 --part $i --parts 2 &
done
wait

texts="{$sentences/en_common_voice.txt: en, $sentences/en_ljspeech.txt: en,"
texts+=" $sentences/cmn_hans_common_voice.txt: zh, $sentences/yue_common_voice.txt: yue}"
# Two replicas of one thread each: nearly twice the positions a second of one process with two threads.
lm=("data.codes=[$codes]" "data.texts=$texts" train.threads=1 train.accumulate=2 train.replicas=1 mixture.positions=2500)
both=(losses.text=1.0 losses.ctc=0.5 "mixture.weights={tts: 0.38, tts_voice: 0.08, tta: 0.06, asr: 0.38, audio_caption: 0.1}")
all=(losses.ctc=0.5 "mixture.weights={asr: 0.38, tts: 0.34, tts_voice: 0.08, audio_caption: 0.08, tta: 0.06, text_only: 0.06}")
stage lm_1 11 "${lm[@]}" embeddings_from="$model" train.lr=2e-3 train.warmup_steps=50 train.decay_fraction=0.05 \
  mixture.curriculum_batches=600 losses.guided_steps=3000
stage lm_2 7 "${lm[@]}" "${both[@]}" init_from="$work/lm_1/export" train.lr=2e-3 train.warmup_steps=30 \
  train.decay_fraction=0.05 mixture.curriculum_batches=500
stage lm_3 13.5 "${lm[@]}" "${all[@]}" init_from="$work/lm_2/export" train.lr=1.6e-3 train.warmup_steps=30 \
  train.decay_fraction=0.4
stage lm_4 1.5 "${lm[@]}" "${all[@]}" init_from="$work/lm_3/export" train.lr=2e-4 train.warmup_steps=5

uniaudio2 assemble "$model" --language-model "$work/lm_4/export"
echo "$model"
