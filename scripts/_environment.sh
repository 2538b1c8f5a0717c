# Sourced by demo.sh and test.sh: makes .venv beside the repository's files and installs the package into it.
# Uses uv where it is there, plain venv and pip where it is not.

cd "$(dirname "${BASH_SOURCE[0]}")/.."

make_environment() { # make_environment [EXTRAS]
  local target=".${1:+[$1]}" python="${PYTHON:-python3}"
  if command -v uv >/dev/null 2>&1; then
    [ -x .venv/bin/python ] || uv venv --quiet --python "$python" .venv
    uv pip install --quiet --compile-bytecode --python .venv/bin/python -e "$target"
  else
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    .venv/bin/python -m pip install --quiet -e "$target"
  fi
  export PATH="$PWD/.venv/bin:$PATH"
}
