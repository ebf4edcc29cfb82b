#!/usr/bin/env bash
# What each idea buys: parts of the codec and stages of the language model left out in turn, each retrained from nothing
# for the same time. Figures are for comparison within one run of this script; they are far from a full training's.
#
#   bash recipes/ablations.sh codec WORK OUT     FiLM off; no reasoning branch; one expert for all
#   bash recipes/ablations.sh lm WORK OUT        stages 1 to 4 skipped in turn; without CTC and phones
#
# WORK is the folder of recipes/nano.sh after its codec stages and codes; OUT takes runs and figures. MINUTES (default 6
# for the codec, 10 for a language model) is of one core for each variant; the variants of a half run one after another.
# ONLY="film_off full" picks some. The language models hear speech of up to 1.6 s, since long clips need hours; they
# start from the export of stage 1 (STAGE_1=FOLDER, default WORK/lm_1), which alone takes twenty minutes, except skip_1.
set -euo pipefail
half=${1:?codec or lm} work=${2:?the folder of recipes/nano.sh} out=${3:?folder for runs and figures}
recipes=$(cd "$(dirname "$0")" && pwd)
corpus=${CORPUS:-$work/corpus/nano}
codes=${CODES:-$work/codes/nano}
mkdir -p "$out"
if [ "$half" = lm ] && [ ! -e "$out/codes" ]; then python3 "$recipes/ablations/short_clips.py" "$codes" "$out/codes"; fi

part() { echo "$work/$1/export/${2:-$1}.safetensors"; }
figures() { echo "$1 $(grep -h '"eval/' "$out/$1/metrics.jsonl" | tail -n 1)" | tee "$out/$1.figures"; }
of() { python3 -c "print($MINUTES * $1)"; }

# lm NAME STAGE SHARE [key=value ...]: SHARE of the minutes of one stage of one variant.
lm() {
  local name=$1 stage=$2 share=$3
  shift 3
  uniaudio2 train "$stage" "train.out_dir=$out/$name" train.steps=100000 "train.budget_minutes=$(of "$share")" \
    train.threads=1 train.accumulate=1 train.eval_every=100000 train.warmup_steps=20 data.dev_clips=24 \
    mixture.positions=2500 mixture.max_duration_s=5.1 mixture.curriculum_start_s=0 "$@"
}

codec_variant() {
  local name=$1 preset=$2 warm_up=$3 frozen
  frozen=("$(part speech_expert)" "$(part sound_expert)" "$(part autoencoder_decoder autoencoder)" "$(part reasoning)")
  uniaudio2 train reconstruction "train.out_dir=$out/$name" train.steps=100000 "train.budget_minutes=$MINUTES" \
    train.threads=1 train.eval_every=100000 train.warmup_steps=50 clips.corpus="$corpus" codec="$preset" \
    warm_up="$warm_up" "parts=[$(IFS=,; echo "${frozen[*]}")]"
  figures "$name"
  uniaudio2 assemble "$out/$name/model" --preset "$preset" "${frozen[@]/#/--part=}" \
    --part "$out/$name/export/reconstruction.safetensors"
  uniaudio2 prepare "${LM_CORPUS:-$corpus}" --out "$out/$name/codes" --model "$out/$name/model" --precision bf16
  if [ "$name" = no_reasoning ]; then  # the language model must do without it as well
    python3 "$recipes/ablations/blank_reasoning.py" "$out/$name/codes"
  fi
  lm "${name}_lm" lm_3 0.6 "data.codes=[$out/$name/codes]" embeddings_from="$out/$name/model" init_from=null \
    train.decay_fraction=0.3 losses.ctc=0 losses.reading=0 losses.foresight=0
  figures "${name}_lm"
}

wanted() { [[ " ${ONLY:-$1} " == *" $1 "* ]]; }

if [ "$half" = codec ]; then
  MINUTES=${MINUTES:-6}
  wanted full && codec_variant full nano false
  wanted film_off && codec_variant film_off "$recipes/ablations/film_off.yaml" false
  wanted no_reasoning && codec_variant no_reasoning "$recipes/ablations/film_off.yaml" true
  wanted one_expert && codec_variant one_expert "$recipes/ablations/one_expert.yaml" false
else
  MINUTES=${MINUTES:-10}
  # chain NAME FROM [key=value ...] -- STAGE SHARE ...: the stages of one variant, each from the one before.
  chain() {
    local name=$1 from=$2 extra=("data.codes=[$out/codes]")
    shift 2
    while [ "$1" != -- ]; do extra+=("$1"); shift; done
    shift
    while [ $# -gt 0 ]; do
      local start=("init_from=$from")
      [ "$from" = null ] && start+=("embeddings_from=${MODEL:-$work/model}")
      lm "${name}_$1" "$1" "$2" "${extra[@]}" "${start[@]}"
      from=$out/${name}_$1/export
      figures "${name}_$1"
      shift 2
    done
  }
  heard=${STAGE_1:-$work/lm_1/export}
  wanted full && chain full "$heard" -- lm_2 .45 lm_3 .45 lm_4 .1
  wanted skip_1 && chain skip_1 null -- lm_2 .45 lm_3 .45 lm_4 .1
  wanted skip_2 && chain skip_2 "$heard" -- lm_3 .9 lm_4 .1
  wanted skip_3 && chain skip_3 "$heard" -- lm_2 .9 lm_4 .1
  wanted skip_4 && chain skip_4 "$heard" -- lm_2 .5 lm_3 .5
  wanted no_ctc && chain no_ctc "$heard" losses.ctc=0 losses.reading=0 losses.foresight=0 -- lm_2 .45 lm_3 .45 lm_4 .1
fi
exit 0
