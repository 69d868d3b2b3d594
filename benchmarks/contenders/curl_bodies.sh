#!/bin/sh
# split, xargs and curl: a file of records is cut into bodies of 1,000, which go up from several processes.
#     curl_bodies.sh URL SOURCE CONCURRENCY
# A curl takes 16 bodies, so that its connection is kept. Nothing is parsed; a body that is refused ends the run.
set -eu
mkdir parts
split -l 1000 -a 6 --filter='sed "1s/^/{\"tasks\":[/;\$!s/\$/,/;\$s/\$/]}/" > parts/$FILE' "$2" ''
export url="$1"
find parts -type f | sort | xargs -P "$3" -n 16 sh -c '
  for part; do
    printf "next\nurl = \"%s\"\ndata-binary = \"@%s\"\nheader = \"Content-Type: application/json\"\noutput = /dev/null\n" "$url" "$part"
  done | curl --silent --fail --config -' sh
