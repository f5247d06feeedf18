#!/usr/bin/env bash
# Does a stock i386 kernel fit the 8 KiB and the 4 KiB stacks of Linux 2.6? And the running kernel its own?
# Needs `stackfit` on PATH. Nothing is installed; the kernel package (52 MB) is fetched once into the cache.
set -euo pipefail
cd "$(dirname "$0")/.."

stackfit --help >/dev/null  # a broken installation exits 1 too: find out here

# `check` exits 1 when a layout is exceeded or may be: for a demo that is an answer, not a failure.
check() {
    printf '\n$ stackfit check'
    printf ' %q' "$@"
    printf '\n'
    local status=0
    stackfit check "$@" || status=$?
    case $status in
        0) ;;
        1) printf '(exit status 1: a stack is exceeded or may be; this is what fails a CI job)\n' ;;
        *) exit "$status" ;;
    esac
}

layouts=(--layout linux-2.6-8k --layout linux-2.6-4k)

if fetched=$("${PYTHON:-python3}" scripts/fetch_kernel.py --arch i386); then
    mapfile -t kernel < <("${PYTHON:-python3}" -c '
import json, sys
kernel = json.loads(sys.argv[1])
print("{package} {version}".format_map(kernel), kernel["vmlinuz"], kernel["modules"], sep="\n")' "$fetched")
    printf 'Input: Debian package %s (i386), the image and its modules as shipped.\n' "${kernel[0]}"
    check "${kernel[1]}" --modules "${kernel[2]}" "${layouts[@]}"
else
    printf 'Input: the sample bundled in fixtures/sample, NOT a real kernel: none could be fetched (see above).\n'
    check fixtures/sample/bin/i386/vmlinux --modules fixtures/sample/bin/i386/vendor_blob.ko "${layouts[@]}"
fi

release=$(uname -r)
unread=
for image in "/boot/vmlinuz-$release" "/lib/modules/$release/vmlinuz"; do
    if [[ -r $image ]]; then
        printf '\nInput: the running kernel, %s.\n' "$release"
        check
        exit 0
    elif [[ -e $image ]]; then
        unread="$image is not readable by $(id -un)"
    fi
done
printf '\nThe running kernel (%s) is not checked: %s.\n' "$release" \
    "${unread:-there is no image of it in /boot or /lib/modules}"
