#!/usr/bin/env bash
# The step of action.yml that checks: inputs from the environment to the command line, a summary for the job's page,
# annotations into the log, the exit status as the step's.
set -euo pipefail

arguments=()

# option TEXT: the option once for each line of the text that is not blank
each_line() {
    local line
    while IFS= read -r line; do
        line=${line#"${line%%[![:space:]]*}"}
        line=${line%"${line##*[![:space:]]}"}
        [[ -z $line ]] || arguments+=("$1=$line")
    done <<<"$2"
}
each_line --modules "${INPUT_MODULES:-}"
each_line --layout "${INPUT_LAYOUT:-}"

given() {
    [[ -z $2 ]] || arguments+=("$1=$2")
}
given --config "${INPUT_CONFIG:-}"
given --baseline "${INPUT_BASELINE:-}"
given --fail-on "${INPUT_FAIL_ON:-}"
given --debug "${INPUT_DEBUG:-}"
given --db "${INPUT_DB:-}"
given --sarif "${INPUT_SARIF:-}"

summary=$(mktemp)
trap 'rm -f "$summary"' EXIT
status=0
arguments+=(--annotations github --markdown "$summary" --)  # what follows is no option, whatever its name
[[ -z ${INPUT_IMAGE:-} ]] || arguments+=("$INPUT_IMAGE")
stackfit check "${arguments[@]}" || status=$?

[[ -z ${GITHUB_STEP_SUMMARY:-} ]] || cat "$summary" >>"$GITHUB_STEP_SUMMARY"
[[ -z ${GITHUB_OUTPUT:-} ]] || echo "status=$status" >>"$GITHUB_OUTPUT"
exit "$status"
