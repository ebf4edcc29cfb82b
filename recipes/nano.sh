#!/usr/bin/env bash
# The shipped model from nothing: data, five codec stages, codes, four language model stages, one model folder.
#
#   bash recipes/nano.sh [WORK]          everything (two cores: see the minutes below; each stage resumes where it stopped)
#   MINUTES_SCALE=0.1 bash recipes/nano.sh /tmp/rehearsal     a rehearsal of the whole chain
#
# Needs: pip install -e '.[train,data,eval]', the synthesisers named by `uniaudio2 doctor`, and the real recordings
# under $UNIAUDIO2_DATA (see docs/data.md).
set -euo pipefail
work=${1:-runs/nano}
scale=${MINUTES_SCALE:-1}
corpus=$work/corpus
codes=$work/codes
minutes() { python3 -c "print($1 * $scale)"; }
# stage NAME MINUTES [key=value ...]: a stage that has exported is not run again
stage() {
  local name=$1 budget=$2
  shift 2
  local out=$work/${RUN:-$name}
  [ -e "$out/export/done" ] && return
  uniaudio2 train "$name" "train.out_dir=$out" "train.budget_minutes=$(minutes "$budget")" train.steps=100000 "$@"
  touch "$out/export/done"
}
part() { echo "$work/$1/export/${2:-$1}.safetensors"; }

uniaudio2 data synth "$corpus" --preset nano

stage speech_expert 23 clips.corpus="$corpus" train.lr=2e-3 train.warmup_steps=150
stage sound_expert 12 clips.corpus="$corpus"
stage autoencoder 25 clips.corpus="$corpus"
experts="$(part speech_expert),$(part sound_expert)"
stage reasoning 22 clips.corpus="$corpus" "parts=[$experts]"
RUN=reconstruction_warm stage reconstruction 20 clips.corpus="$corpus" warm_up=true train.decay_fraction=0.1 \
  "parts=[$experts,$(part autoencoder)]"
stage reconstruction 15 clips.corpus="$corpus" \
  "parts=[$experts,$(part autoencoder),$(part reasoning),$(part reconstruction_warm reconstruction)]"
