#!/bin/sh
# Installs the system packages that setup and tests need on Debian and Ubuntu.
set -eu
sudo=""
[ "$(id -u)" = 0 ] || sudo="sudo"
$sudo apt-get update -q
$sudo apt-get install -q -y --no-install-recommends git make python3 python3-venv nodejs npm
