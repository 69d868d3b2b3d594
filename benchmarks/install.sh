#!/bin/sh
# What `make bench` needs besides the project: the peers' packages in a folder of their own, and three programs.
#     install.sh PYTHON FOLDER
# Whatever cannot be installed is named, and the rows that need it say "not measured".
set -u
python="$1" folder="$2"
peers="$(dirname "$0")/../requirements/bench.txt"

mkdir -p "$folder"
if ! cmp -s "$peers" "$folder/peers/installed.txt"; then
  rm -rf "$folder/peers"
  if "$python" -m venv "$folder/peers" &&
    "$folder/peers/bin/python" -m pip install --quiet --quiet --disable-pip-version-check --require-hashes --requirement "$peers"; then
    cp "$peers" "$folder/peers/installed.txt"
  else
    rm -rf "$folder/peers"
    echo "the peers' packages could not be installed: their rows will not be measured" >&2
  fi
fi

missing=""
for program in nginx wrk curl; do
  command -v "$program" > /dev/null || missing="$missing $program"
done
if test -n "$missing" && command -v apt-get > /dev/null && test "$(id -u)" = 0; then
  # Debian starts a server as soon as it is installed, on every interface; this file tells it not to.
  policy=/usr/sbin/policy-rc.d
  test -e "$policy" && policy=""
  test -n "$policy" && printf '#!/bin/sh\nexit 101\n' > "$policy" && chmod +x "$policy"
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends nginx-light wrk curl; } > /dev/null
  test -n "$policy" && rm -f "$policy"
fi
for program in nginx wrk curl; do
  command -v "$program" > /dev/null || echo "$program is missing: its rows will not be measured" >&2
done
exit 0
