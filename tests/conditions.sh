#!/bin/bash
# Runs tests under the conditions in which a newcomer may start them: `make conditions`, or
#
#     tests/conditions.sh [CONDITION ...]     PYTHON=.venv/bin/python TESTS="tests/library tests/cli" tests/conditions.sh umask locale
#
# Without TESTS it takes those that have most to do with files, signals and folders. It ends with status 1 where a condition fails, and
# says which. "unprivileged" is another user than root: nobody where that user may run PYTHON, otherwise root without its privileges.
set -u
cd "$(dirname "$0")/.." || exit 2
PYTHON=${PYTHON:-.venv/bin/python}
TESTS=${TESTS:-tests/library/test_files.py tests/library/test_interrupt.py tests/loops/test_disk_cache.py}
ALL="sigint unprivileged tmpdir no-home read-only-home locale umask random one-core"
WITHOUT=$([ "$(id -u)" = 0 ] && echo setpriv --bounding-set -all --inh-caps -all) # root may write to what is read-only
place=$(mktemp -d) || exit 2
trap 'chmod -R u+rwx "$place"; rm -rf "$place"' EXIT
chmod 755 "$place"

tests() { "$@" "$PYTHON" -m pytest -q ${ORDER--p no:randomly} -p no:cacheprovider -m "not slow" $TESTS; }

unprivileged() {
    if [ "$(id -u)" != 0 ]; then
        tests env
    elif setpriv --reuid=65534 --regid=65534 --clear-groups env "$PYTHON" -c 'import pytest' 2>"$place/why"; then
        mkdir -m 777 "$place/nobody"
        tests setpriv --reuid=65534 --regid=65534 --clear-groups env HOME="$place/nobody" TMPDIR="$place/nobody"
    else
        echo "nobody may not run $PYTHON: root without privileges"
        tests $WITHOUT
    fi
}

under() {
    case $1 in
        sigint) (trap '' INT; tests env) ;; # as nohup and a shell's & leave it to what they start
        unprivileged) unprivileged ;;
        tmpdir) mkdir -p "$place/with a space"; TMPDIR="$place/with a space" tests env ;;
        no-home) tests env -u HOME ;;
        read-only-home) mkdir -p "$place/home"; chmod 500 "$place/home"; tests $WITHOUT env HOME="$place/home" ;;
        locale) tests env -u LC_ALL LANG=C ;;
        umask) (umask 077; tests env) ;;
        random) if "$PYTHON" -c 'import pytest_randomly' 2>"$place/why"; then ORDER= tests env; else echo "skipped: pip install pytest-randomly"; fi ;;
        one-core) tests taskset -c 0 ;;
        *) echo "no condition $1: there are $ALL"; return 2 ;;
    esac
}

failed=
for condition in ${*:-$ALL}; do
    echo "── $condition"
    under "$condition" || failed="$failed $condition"
done
[ -z "$failed" ] || { echo "failed under:$failed"; exit 1; }
echo "passed under all of: ${*:-$ALL}"
