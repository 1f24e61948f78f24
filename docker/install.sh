#!/bin/sh
# Install model_fdw into a PostgreSQL, with a Python environment of its own, from the checkout that this file is in.
# Needs a C compiler, make, the headers of PostgreSQL and of the system's Python; the same on every distribution.
#   usage: docker/install.sh PG_CONFIG
set -eu
cd "$(dirname "$0")/.."

python3 -m venv /opt/model_fdw
make install PG_CONFIG="$1" PYTHON=/opt/model_fdw/bin/python
# What installed the packages is not needed to use them.
/opt/model_fdw/bin/python -m pip uninstall --yes pip
