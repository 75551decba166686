#!/usr/bin/env bash
# One run on all workers of a Cloud TPU slice, over gcloud. Each worker finds out which it is from the TPU's metadata.
#
#   launch/tpu_pod.sh my-tpu us-central2-b experiments/vgg_imagenet.py --workdir gs-mount/runs/vgg [flags]
#
# On every worker the project must lie in the folder DIRECTORY (default: jaxcnn) of the home directory, with '.[tpu]'
# installed for PYTHON (default: python3), and the run directory on storage that all workers share. A spot TPU that is
# preempted is deleted: the script creates nothing, so put it into the queued resource's start-up script, or run it again
# when the TPU is back; the same command goes on. It starts a run anew by itself after exit code 75 (SIGTERM reached the
# workers) and 69 (a worker was lost), at most MAX_RESTARTS times (default 20) while the TPU is READY.
set -uo pipefail

if [ $# -lt 3 ]; then
    echo "usage: launch/tpu_pod.sh TPU ZONE EXPERIMENT.py [flags]" >&2
    exit 2
fi
tpu=$1 zone=$2
shift 2

words=$(printf '%q ' "$@")
command="cd ${DIRECTORY:-jaxcnn} && exec ${PYTHON:-python3} -m jaxcnn.launch $words"
restarts=0
while true; do
    gcloud compute tpus tpu-vm ssh "$tpu" --zone="$zone" --worker=all --command="$command"
    code=$?
    case $code in
    0 | 1 | 2) exit $code ;; # done; failed or diverged; wrong file or flags
    esac
    state=$(gcloud compute tpus tpu-vm describe "$tpu" --zone="$zone" --format='value(state)' 2>/dev/null)
    if [ "$state" != READY ] || [ "$restarts" -ge "${MAX_RESTARTS:-20}" ]; then
        echo "exit code $code; the TPU is ${state:-not there}; the same command goes on when it is READY" >&2
        exit $code
    fi
    restarts=$((restarts + 1))
    echo "exit code $code; start $((restarts + 1))"
done
