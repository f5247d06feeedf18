#!/usr/bin/env bash
# Does a stock i386 kernel fit the 8 KiB and the 4 KiB stacks of Linux 2.6? The running kernel its own? And what
# do smaller stacks buy: the decision table of the article.
# Needs `stackfit` on PATH. Nothing is installed; the kernel package (52 MB) is fetched once into the cache.
set -euo pipefail
cd "$(dirname "$0")/.."

stackfit --help >/dev/null  # a broken installation exits 1 too: find out here

show() {
    printf '\n$ stackfit'
    printf ' %q' "$@"
    printf '\n'
}

# `check` exits 1 when a layout is exceeded or may be: for a demo that is an answer, not a failure.
check() {
    show check "$@"
    local status=0
    stackfit check "$@" || status=$?
    case $status in
        0) ;;
        1) printf '(exit status 1: a stack is exceeded or may be; this is what fails a CI job)\n' ;;
        *) exit "$status" ;;
    esac
}

if fetched=$("${PYTHON:-python3}" scripts/fetch_kernel.py --arch i386); then
    mapfile -t kernel < <("${PYTHON:-python3}" -c '
import json, sys
kernel = json.loads(sys.argv[1])
print("{package} {version}".format_map(kernel), kernel["vmlinuz"], kernel["modules"], sep="\n")' "$fetched")
    printf 'Input: Debian package %s (i386), the image and its modules as shipped.\n' "${kernel[0]}"
    article=("${kernel[1]}" --modules "${kernel[2]}")
else
    printf 'Input: the sample bundled in fixtures/sample, NOT a real kernel: none could be fetched (see above).\n'
    article=(fixtures/sample/bin/i386/vmlinux --modules fixtures/sample/bin/i386/vendor_blob.ko)
fi
article+=(--layout linux-2.6-8k --layout linux-2.6-4k)
check "${article[@]}"

release=$(uname -r)
running=
unread="there is no image of it in /boot or /lib/modules"
for image in "/boot/vmlinuz-$release" "/lib/modules/$release/vmlinuz"; do
    if [[ -r $image ]]; then
        running=$image
        break
    elif [[ -e $image ]]; then
        unread="$image is not readable by $(id -un)"
    fi
done
if [[ $running ]]; then
    printf '\nInput: the running kernel, %s.\n' "$release"
    check
else
    printf '\nThe running kernel (%s) is not checked: %s.\n' "$release" "$unread"
fi

show compare "${article[@]}"
stackfit compare "${article[@]}"
