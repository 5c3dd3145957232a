#!/usr/bin/env bash
# Run the fast tests against other versions of the dependencies than the installed ones. By hand, before a release.
#
#   tests/versions.sh lowest               the lowest versions that pyproject.toml declares
#   tests/versions.sh newest               the newest within its bounds, pre-releases included
#   tests/versions.sh lowest tests/data    of these tests alone; further arguments go to pytest
#
# The dependencies are installed in a virtual environment of their own, in VERSIONS_DIR or a temporary folder; what they
# need besides comes from the environment of `python`. So do torch, torchvision and timm, gigabytes that rarely matter
# here: TORCH=1 installs them too.
set -euo pipefail
cd "$(dirname "$0")/.."
which=${1:?lowest or newest}
shift
python=$(python -c 'import sys; print(sys.executable)')
folder=${VERSIONS_DIR:-$(mktemp -d)}/$which

# Requirements of the dependencies and of every extra, at the versions asked for.
requirements=$("$python" - "$which" "${TORCH:-}" <<'PYTHON'
import re
import sys
import tomllib

project = tomllib.load(open("pyproject.toml", "rb"))["project"]
extras = project["optional-dependencies"]
lines = [*project["dependencies"], *(line for name, extra in extras.items() if name != "test" for line in extra)]
heavy = () if sys.argv[2] else ("torch", "torchvision", "timm", "hydra-ray-launcher")
for name, low, rest in sorted({match.groups() for line in lines if (match := re.match(r"([\w-]+)>=([^,]+)(.*)", line))}):
    if name not in heavy:
        print(f"{name}=={low}.*" if sys.argv[1] == "lowest" else f"{name}>={low}{rest}")
PYTHON
)

# The other packages, by links: not the plugins of Hydra that print warnings of their own under other versions.
"$python" -m venv --without-pip "$folder"
site=$("$folder/bin/python" -c 'import site; print(site.getsitepackages()[0])')
shared=$("$python" -c 'import site; print(site.getsitepackages()[0])')
mkdir -p "$folder/shared/hydra_plugins"
for path in "$shared"/*; do
  case $(basename "$path") in
    hydra_plugins | *.pth | stability-*) ;;
    *) ln -sfn "$path" "$folder/shared/" ;;
  esac
done
for path in "$shared"/hydra_plugins/hydra_{joblib,submitit}_launcher; do
  if [ -e "$path" ]; then ln -sfn "$path" "$folder/shared/hydra_plugins/"; fi
done
echo "$folder/shared" > "$site/shared.pth"

pip() { "$python" -m pip --python "$folder/bin/python" --disable-pip-version-check --quiet "$@"; }
mapfile -t wanted <<< "$requirements"
pre=()
if [ "$which" = newest ]; then pre=(--pre); fi
# pandas 2 needs it, pandas 3 does not.
if [ "$which" = lowest ]; then wanted+=(pytz); fi
pip install --upgrade --no-deps --ignore-installed "${pre[@]}" "${wanted[@]}"
# What an older wandb needs besides, the newest does not.
pip install "${pre[@]}" "$(printf '%s\n' "${wanted[@]}" | grep '^wandb==')"
# The project's entry points and its folder, as `pip install -e .` would leave them.
wheel=$(mktemp -d)
pip wheel --no-deps --no-build-isolation --wheel-dir "$wheel" .
pip install --no-deps --no-index "$wheel"/*.whl
for name in stability hydra_plugins/stability_plugins conf sweeps analysis; do rm -rf "${site:?}/$name"; done
echo "$PWD" > "$site/stability.pth"

printf '%s\n' "${wanted[@]}"
PYTHONPATH=$PWD "$folder/bin/python" -m pytest -q -m "not slow" "$@"
