# Sourced by quickstart.sh and run_tests.sh: makes a virtual environment with everything installed, or finds it made, and enters it.
# SFKD_ENV names its folder (default: .venv in the checkout); SFKD_PYTHON its Python (default: the first of
# 3.11, 3.12, 3.10 on this machine).
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
env=${SFKD_ENV:-$top/.venv}

find_python() {
  local candidate
  for candidate in ${SFKD_PYTHON:-python3.11 python3.12 python3.10 python3 python}; do
    if "$candidate" -c 'import sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "no Python 3.10 to 3.12 with the venv module was found: install one (Debian: apt-get install python3.11-venv)" >&2
  return 1
}

wanted=$(cat "$top"/requirements/*.txt "$top/setup.py" | cksum)" $top"
if [[ ! -f $env/sfkd-installed || $(< "$env/sfkd-installed") != "$wanted" ]]; then
  python=$(find_python)
  echo "installing into $env (about 3 minutes, several GB; log: $env/install.log) ..."
  "$python" -m venv "$env"
  if ! "$env/bin/python" -m pip install --progress-bar off -r "$top/requirements/tests.txt" -e "$top" > "$env/install.log" 2>&1; then
    tail -n 15 "$env/install.log" >&2
    echo "the install failed; the whole log is $env/install.log. Run the same command again to go on" >&2
    exit 1
  fi
  echo "$wanted" > "$env/sfkd-installed"
fi
export PATH="$env/bin:$PATH"
cd "$top"
