#!/bin/sh
# Make the example's files in a directory, with the Python that will run the models; nothing where they are there.
#   models/       the model repository with trained weights
#   python/       a virtual environment with what the models import; Triton finds it where its bin is first in PATH
#   patients.csv  the rows to score
#   usage: docker/train.sh DIRECTORY
set -eu
cd "$(dirname "$0")/.."

[ ! -e "$1/complete" ] || exit 0
rm -rf "$1/models" "$1/python"
# Without pip, so that no package for it is needed; ours puts the packages there. All but Triton itself, which is here.
python3 -m venv --without-pip "$1/python"
packages=$("$1/python/bin/python3" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
grep -v '^nvidia-pytriton' dev/requirements-triton.txt > "$1/python/requirements.txt"
python3 -m pip install --no-deps --target "$packages" --requirement "$1/python/requirements.txt"
cp -R examples/models "$1/models"
export PYTHONDONTWRITEBYTECODE=1
"$1/python/bin/python3" examples/train.py "$1/models"
"$1/python/bin/python3" examples/data.py "$1/patients.csv"
touch "$1/complete"
