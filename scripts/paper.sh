#!/usr/bin/env bash
# Every experiment of the paper at one scale, to its figure. Begun again, it trains what is missing.
#
#   scripts/paper.sh                          at scale=digits
#   scripts/paper.sh cifar10 data.path=FOLDER at another; what follows goes to every study
#
# At scale=imagenet the settings are published, so that nothing is tuned first.
set -euo pipefail
scale=${1:-digits}
shift || true
runs=${RUNS:-runs}
suffix=-$scale
if [ "$scale" = imagenet ]; then suffix=; fi

study() { python -m stability.run -m "sweeps=$1" "scale=$scale" "runs=$runs" "${@:2}"; }
# A figure or table, from the folders of some studies.
draw() {
  local name=$1 folders=()
  for one in "${@:2}"; do folders+=("$runs/$one$suffix"); done
  python -m analysis.figure "$name" "${folders[@]}"
}

if [ "$scale" != imagenet ]; then study tune "$@"; fi
for name in fig4 fig5 fig7 fig9 table3 fig3 fig2 fig8 table5; do
  study "$name" "$@"
  draw "$name" "$name"
done
draw fig10 table5
study fig6 "$@"
study fig6_cnns "$@"
draw fig6 fig6 fig6_cnns
draw table2 fig6 fig6_cnns
if [ "$scale" = digits ]; then
  python -m stability.evaluate "$runs/fig6$suffix" "$runs/fig6_cnns$suffix" data=digits_tilted
  draw fig11 fig6 fig6_cnns
fi
study imagenet21k "$@"
study imagenet21k_72gf "$@"
study imagenet21k_tune "$@"
draw imagenet21k imagenet21k_tune
