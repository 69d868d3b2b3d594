#!/bin/sh
# curl -T: ready files go up to presigned URLs from several processes.
#     curl_put.sh LIST CONCURRENCY
# LIST has a URL and a file a line. A curl takes 16 of them, so that its connection is kept.
set -eu
xargs -P "$2" -n 32 sh -c '
  while test $# -gt 0; do
    printf "next\nurl = \"%s\"\nupload-file = \"%s\"\noutput = /dev/null\n" "$1" "$2"
    shift 2
  done | curl --silent --fail --config -' sh < "$1"
