#!/usr/bin/env bash
# Every experiment of the paper at one scale, to its figure. Begun again, it trains what is missing.
#
#   scripts/paper.sh                                                  at scale=digits
#   scripts/paper.sh cifar10 data.path=CIFAR10 -- data.path=CIFAR100   at another
#
# What follows the scale goes to every study, but for those of pre-training, which have a data set of their own: they get
# what follows `--`. Without it, at scales other than digits, pre-training and fine-tuning are left out.
# At scale=imagenet the settings are published, so that nothing is tuned first.
set -euo pipefail
scale=${1:-digits}
shift || true
given=() pretraining=() trains_first=$([ "$scale" = digits ] && echo yes || echo no)
while [ $# -gt 0 ]; do
  if [ "$1" = -- ]; then
    shift
    pretraining=("$@") trains_first=yes
    break
  fi
  given+=("$1")
  shift
done
runs=${RUNS:-runs}
suffix=-$scale
if [ "$scale" = imagenet ]; then suffix=; fi

# A study, by its file in sweeps/; and some of its own overrides.
study() { python -m stability.run -m "sweeps=$1" "scale=$scale" "runs=$runs" "${@:2}"; }
# A figure or table, from the folders of some studies.
draw() {
  local name=$1 folders=()
  for one in "${@:2}"; do folders+=("$runs/$one$suffix"); done
  python -m analysis.figure "$name" "${folders[@]}"
}

if [ "$scale" != imagenet ]; then study tune "${given[@]}"; fi
for name in fig4 fig5 fig7 table3 fig2 fig3 fig8 table5; do
  study "$name" "${given[@]}"
  draw "$name" "$name"
done
draw fig10 table5
# Times compare where nothing trains beside.
study fig9 pool.size=1 "${given[@]}"
draw fig9 fig9
study fig6 "${given[@]}"
study fig6_cnns "${given[@]}"
if [ "$scale" = digits ]; then
  python -m stability.evaluate "$runs/fig6$suffix" "$runs/fig6_cnns$suffix" data=digits_tilted
  draw fig11 fig6 fig6_cnns
fi
tuned=()
if [ "$trains_first" = yes ]; then
  study imagenet21k "${pretraining[@]}"
  study imagenet21k_72gf "${pretraining[@]}"
  study imagenet21k_tune "${given[@]}"
  study imagenet21k_cnns "${pretraining[@]}"
  study imagenet21k_cnns_tune "${given[@]}"
  tuned=(imagenet21k_tune imagenet21k_cnns_tune)
  draw imagenet21k "${tuned[@]}"
else
  echo "pre-training is left out: scripts/paper.sh $scale ... -- data.path=FOLDER trains it"
fi
draw fig6 fig6 fig6_cnns "${tuned[@]}"
draw table2 fig6 fig6_cnns "${tuned[@]}"
