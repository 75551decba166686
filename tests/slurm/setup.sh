#!/usr/bin/env bash
# A real Slurm on this one machine, for tests: munged, slurmctld and two slurmd, n1 and n2, with made-up GPUs (four device
# files that nobody opens). Usage: tests/slurm/setup.sh start DIR | stop DIR. Needs root, and Debian's or Ubuntu's
# packages: apt-get install slurm-wlm munge. Commands then find it through SLURM_CONF=DIR/slurm.conf.
# Exit codes: 0 it runs, 3 it cannot run here (the reason is the last line), anything else an error.
set -euo pipefail

say_no() { echo "no Slurm here: $1" >&2; exit 3; }

start() {
    [ "$(id -u)" = 0 ] || say_no "it needs root"
    for program in slurmctld slurmd munged sbatch; do
        command -v "$program" >/dev/null || say_no "$program is not installed (apt-get install slurm-wlm munge)"
    done
    mkdir -p "$dir"/{state,spool1,spool2,log,munge,gpu}
    # The nodes' names must not resolve to a loopback address: the pre-flight refuses that, rightly.
    address=$(hostname -I | tr ' ' '\n' | grep -m1 -E '^[0-9]+\.' || true)
    if [ -z "$address" ]; then
        address=192.0.2.10
        ip address add "$address/32" dev lo || say_no "the machine has no address, and none can be added"
    fi
    # Not sed -i: /etc/hosts may be a mount, which cannot be replaced.
    lines=$(grep -v ' n1 n2$' /etc/hosts || true)
    printf '%s\n%s n1 n2\n' "$lines" "$address" >/etc/hosts || say_no "/etc/hosts cannot be written"

    if [ ! -s "$dir/munge/key" ]; then
        dd if=/dev/urandom of="$dir/munge/key" bs=1024 count=1 status=none
        chmod 600 "$dir/munge/key"
    fi
    chmod 755 "$dir" "$dir/munge"
    munged --force --key-file="$dir/munge/key" --socket="$dir/munge/socket" --pid-file="$dir/munge/pid" \
        --log-file="$dir/log/munged" --seed-file="$dir/munge/seed"
    for i in 0 1 2 3; do [ -e "$dir/gpu/$i" ] || mknod "$dir/gpu/$i" c 1 3; done

    cpus=$(nproc)
    memory=$(($(awk '/MemTotal/ {print $2}' /proc/meminfo) / 1024 - 100))
    cat >"$dir/slurm.conf" <<END
ClusterName=test
SlurmctldHost=$(hostname -s)($address)
SlurmctldPort=16817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/%n.pid
SlurmctldLogFile=$dir/log/slurmctld
SlurmdLogFile=$dir/log/%n
SlurmctldParameters=enable_configless
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
ReturnToService=2
InactiveLimit=0
KillWait=15
MinJobAge=600
SlurmdTimeout=60
JobRequeue=1
SwitchType=switch/none
MailProg=/bin/true
NodeName=n[1-2] NodeHostname=$(hostname -s) NodeAddr=$address Port=[16821-16822] CPUs=$((cpus * 4)) RealMemory=$memory Gres=gpu:4
PartitionName=test Nodes=n[1-2] Default=YES MaxTime=INFINITE OverTimeLimit=0 State=UP
END
    sed -i "s/spool%n/spool_%n/" "$dir/slurm.conf"
    mkdir -p "$dir"/spool_n{1,2}
    echo "NodeName=n[1-2] Name=gpu File=$dir/gpu/[0-3]" >"$dir/gres.conf"
    sed -i "/SlurmctldParameters/a SlurmdParameters=config_overrides" "$dir/slurm.conf"
    export SLURM_CONF="$dir/slurm.conf"
    slurmctld -f "$SLURM_CONF"
    for node in n1 n2; do slurmd -f "$SLURM_CONF" -N "$node"; done
    for _ in $(seq 60); do
        if [ "$(sinfo -h -N -o '%T' 2>/dev/null | grep -c idle)" = 2 ]; then
            echo "Slurm $(sinfo --version | cut -d' ' -f2) runs; export SLURM_CONF=$SLURM_CONF"
            return
        fi
        sleep 0.5
    done
    sinfo -N -l >&2 || true
    tail -n 20 "$dir"/log/* >&2
    say_no "the nodes did not come up within 30 s"
}

stop() {
    for file in n1.pid n2.pid slurmctld.pid munge/pid; do
        if [ -s "$dir/$file" ]; then kill "$(cat "$dir/$file")" 2>/dev/null || true; fi
    done
}

dir=$(realpath -m "${2:?usage: setup.sh start|stop DIR}")
case "$1" in
start) start ;;
stop) stop ;;
*) echo "usage: setup.sh start|stop DIR" >&2; exit 2 ;;
esac
