#!/usr/bin/env bash
# N processes of one run on this machine, over the loopback address: to try what a cluster does, or a process per GPU.
#
#   launch/local.sh 2 experiments/lenet_digits.py --workdir runs/two [flags of jaxcnn.launch]
#
# On a machine with GPUs each process gets GPUs/N of them; elsewhere each is one CPU device (XLA_FLAGS can give it more:
# XLA_FLAGS=--xla_force_host_platform_device_count=4). Ctrl-C and SIGTERM reach all processes: they save at one step and
# the exit code is 75; the same command, with any N, goes on. Otherwise it is the exit code of the first that failed.
# PORT sets the coordinator's port (default: a free one), PYTHON the interpreter.
set -uo pipefail

usage() { echo "usage: launch/local.sh N EXPERIMENT.py [flags]" >&2; exit 2; }
[ $# -ge 2 ] || usage
n=$1
shift
case $n in '' | *[!0-9]* | 0) usage ;; esac
python=${PYTHON:-python}
port=${PORT:-$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')}

gpus=0
if command -v nvidia-smi >/dev/null; then gpus=$(nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU' || true); fi
share=$((gpus / n))

pids=()
# shellcheck disable=SC2317 # called by the traps
forward() { kill -s "$1" "${pids[@]}" 2>/dev/null; }
for signal in TERM USR1; do
    # shellcheck disable=SC2064 # the signal of this turn
    trap "forward $signal" "$signal"
done
trap : INT # a terminal's Ctrl-C reaches the processes by itself

for ((i = 0; i < n; i++)); do
    if [ "$share" -gt 0 ]; then
        JAX_LOCAL_DEVICE_IDS=$(seq -s, $((i * share)) $(((i + 1) * share - 1)))
        export JAX_LOCAL_DEVICE_IDS
    fi
    if [ "$n" = 1 ]; then
        "$python" -m jaxcnn.launch "$@" --processes 1 &
    else
        "$python" -m jaxcnn.launch "$@" --coordinator "127.0.0.1:$port" --processes "$n" --process "$i" &
    fi
    pids+=($!)
done

# The first code that is not 0; 69, another process was lost, only where none says more.
code=0
for pid in "${pids[@]}"; do
    wait "$pid"
    this=$?
    # A trapped signal ends `wait` early: wait again while the process is there.
    while [ "$this" -gt 128 ] && kill -0 "$pid" 2>/dev/null; do
        wait "$pid"
        this=$?
    done
    if [ "$this" != 0 ] && { [ "$code" = 0 ] || [ "$code" = 69 ]; }; then code=$this; fi
done
exit "$code"
